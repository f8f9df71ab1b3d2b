"""evaluation.protocols: no-ops, sticky actions and whole games take effect on real Atari."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import environments
from conftest import ROOT
from envs import atari
from evaluation import protocols
from runtime.process import BadInput

pytestmark = pytest.mark.slow  # Whole games of Atari.

PONG = 'PongNoFrameskip-v4'
NUM_ENVS = 16


def batch(protocol, level_name=PONG):
  spec = environments.environment_spec(level_name)
  overrides = protocols.atari_overrides(protocol, level_name)
  return atari.AtariBatch(spec, NUM_ENVS, seed=1, **overrides)


def different_courses(games, num_steps):
  """Of games that begin alike and are given the same actions; the last observations tell."""
  games.reset()
  actions = np.random.default_rng(3).integers(0, 6, size=num_steps)
  for action in actions:
    output = games.step(np.full(NUM_ENVS, action, np.int32))
  return len({frames.tobytes() for frames in output.observation})


def test_paper_begins_with_up_to_30_no_ops_and_machado_with_none():
  paper, machado = batch('paper'), batch('machado')
  paper.reset()
  machado.reset()
  frames = paper._frames - machado._frames
  assert 0 <= frames.min() and 10 < frames.max() <= 30
  assert len(set(frames)) > 5
  assert set(machado._frames) == {machado._frames[0]}


def test_machado_has_sticky_actions():
  # Some paddles come to the same place.
  assert different_courses(batch('machado'), 40) > NUM_ENVS // 3


def test_without_sticky_actions_the_same_actions_are_the_same_game():
  # What shows that it is the stickiness that tells the courses of machado apart.
  games = atari.AtariBatch(
    environments.environment_spec(PONG),
    NUM_ENVS,
    seed=1,
    **protocols.PROTOCOLS['machado'] | dict(repeat_action_probability=0.0),
  )
  assert different_courses(games, 40) == 1


def test_paper_has_no_sticky_actions_also_where_training_had():
  games = atari.AtariBatch(
    environments.environment_spec('ALE/Pong-v5'),
    NUM_ENVS,
    seed=1,
    **protocols.atari_overrides('paper', 'ALE/Pong-v5') | dict(noop_max=0),
  )
  assert different_courses(games, 40) == 1


@pytest.mark.parametrize('protocol, at_lives', [('training', True), ('paper', False)])
def test_a_lost_life_ends_nothing(protocol, at_lives):
  games = batch(protocol, 'BreakoutNoFrameskip-v4')
  games.reset()
  rng = np.random.default_rng(0)
  done, over = 0, 0
  for _ in range(300):
    output = games.step(rng.integers(0, 4, size=NUM_ENVS, dtype=np.int32))
    done, over = done + output.done.sum(), over + output.info.game_over.sum()
  assert over > 0
  assert (done > over) == at_lives


def test_games_end_after_108000_frames():
  for protocol in ('paper', 'machado'):
    overrides = protocols.atari_overrides(protocol, 'ALE/Pong-v5')
    assert overrides['max_num_frames_per_episode'] == 108_000


def test_training_is_as_trained_and_for_every_environment():
  assert protocols.atari_overrides('training', 'impala/Catch-v0') == {}
  assert protocols.described('training', 3) == {'protocol': 'training'}


@pytest.mark.parametrize('num_actions, full', [(6, False), (18, True)])
def test_the_record_says_with_which_actions_the_agent_plays(num_actions, full):
  record = json.loads(json.dumps(protocols.described('machado', num_actions)))
  assert (record['num_actions'], record['full_action_set']) == (num_actions, full)
  assert record['protocol'] == 'machado'
  assert record['atari']['repeat_action_probability'] == 0.25


@pytest.mark.parametrize('protocol', ['paper', 'machado'])
def test_an_environment_that_is_no_atari_game_is_refused(protocol):
  with pytest.raises(BadInput, match=f'eval_protocol={protocol} .*impala/Catch-v0'):
    protocols.atari_overrides(protocol, 'impala/Catch-v0')


def test_the_program_refuses_it_in_a_sentence(tmp_path):
  (tmp_path / 'tensorflow.py').write_text('raise SystemExit("TensorFlow was imported")\n')
  flags = ['--mode=test', '--level_name=impala/Catch-v0', '--eval_protocol=machado']
  result = subprocess.run(
    [sys.executable, 'experiment.py', *flags, f'--logdir={tmp_path / "run"}'],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert (result.returncode, result.stdout) == (2, '')
  (line,) = result.stderr.splitlines()
  assert '--eval_protocol=machado' in line and 'impala/Catch-v0' in line
  assert not (tmp_path / 'run').exists()
