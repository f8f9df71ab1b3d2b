"""A run of several levels with PopArt, from its start to evaluation, film and export."""

import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT, whole_rows
from environment_player import counting
from roles import settings as settings_lib
from runtime.checkpoints import Checkpoints, find

pytestmark = pytest.mark.slow

LIMIT_SECS = 240.0
TESTS = {'PYTHONPATH': os.path.join(ROOT, 'tests')}
# Each game of the first has rewards 1 to 3, of the second 1 to 5.
NAMES = [counting('ShortDeepImage'), counting('Image')]


def test_a_run_of_two_levels_is_recorded_evaluated_and_exported_by_level(tmp_path, processes):
  folder = tmp_path / 'run'
  flags = [f'--level_name={",".join(NAMES)}', f'--logdir={folder}']
  run = processes.start(
    'experiment.py', *flags, '--num_actors=2', '--envs_per_actor=2', '--batch_size=2',
    '--unroll_length=5', '--agent_name=SimpleConvNetAgent', '--return_normalisation=popart',
    '--reward_clipping=none', '--total_environment_frames=400', '--metrics_secs=1',
    '--eval_every_frames=400', '--test_num_episodes=3', env=TESTS,
  )  # fmt: skip
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  games = whole_rows(folder / 'episodes.csv')
  assert {game['level_name'] for game in games} == set(NAMES)
  assert float(whole_rows(folder / 'metrics.csv')[-1]['mean_return_100']) == 10.5
  checkpoint = find(str(folder), 'last', '')
  assert checkpoint
  assert Checkpoints.value(checkpoint, 'agent/value_statistics/scale').shape == (2, 2)
  assert Checkpoints.value(checkpoint, 'agent/baseline/b').shape == (2,)
  (evaluation,) = json.loads((folder / 'evaluation.json').read_text())
  assert evaluation['returns'] == 3 * [6.0] + 3 * [15.0] and evaluation['mean'] == 10.5
  levels = [(level['level_name'], level['mean']) for level in evaluation['levels']]
  assert levels == list(zip(NAMES, [6.0, 15.0], strict=True))
  (row,) = whole_rows(folder / 'evaluations.csv')
  assert (float(row['mean_return']), row['num_episodes'], row['mean_score']) == (10.5, '3', '')
  exported = processes.start('experiment.py', '--mode=export', *flags, env=TESTS)
  assert exported.exit_code(LIMIT_SECS) == 0, exported.output()
  policy = json.loads((folder / 'export' / 'policy.json').read_text())
  assert [level['level_name'] for level in policy['levels']] == NAMES
  played = subprocess.run(
    [sys.executable, 'play_exported.py', f'--level_name={NAMES[1]}'], cwd=folder / 'export',
    env={**os.environ, **TESTS}, capture_output=True, text=True,
    timeout=LIMIT_SECS,
  )  # fmt: skip
  assert played.stdout == 'return 15.0\n', played.stderr


def test_weights_with_popart_are_taken_only_from_as_many_levels():
  one = dict(return_normalisation='popart', level_name='A-v0')
  two, other = dict(one, level_name='A-v0,B-v0'), dict(one, level_name='C-v0,B-v0')
  names = ('return_normalisation',)
  assert settings_lib._other_network(one, two, names) == ['return_normalisation']
  assert settings_lib._other_network(two, other, names) == []
  assert settings_lib._text(two, 'return_normalisation') == 'popart of 2 levels'
