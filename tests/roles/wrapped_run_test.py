"""Keywords, wrappers and an import of an environment in every mode: a game's return shows them."""

import csv
import json
import os
import re

import pytest

import experiment
from cluster_fixtures import LIMIT_SECS, all_zero, new_cluster  # noqa: F401
from conftest import ROOT

ENV = {'PYTHONPATH': os.path.join(ROOT, 'tests')}
OWN_CODE = (
    '--env_wrappers=wrapped_env.Sum:{"numbers": [4, 6]},wrapped_env.Double',
    '--import=wrapped_env:register',
)  # fmt: skip
RETURN = 3 * (1 + 4 + 6) * 2  # Of `game_steps` steps, whatever is done.


def returns(folder, name):
  with open(os.path.join(folder, name), encoding='utf-8') as file:
    return {float(row['episode_return']) for row in csv.DictReader(file)}


@pytest.mark.timeout(580)  # A cluster, and three more processes.
def test_keywords_and_wrappers_in_every_mode(new_cluster, processes, tmp_path, capsys):  # noqa: F811
  # A cluster, of which the chief alone is told; its evaluations play the same.
  cluster = new_cluster(env=ENV)
  cluster.start_all(learner=(
    '--level_name=Steps-v0', '--env_kwargs={"game_steps": 3}', *OWN_CODE, '--batch_size=4',
    '--total_environment_frames=15000', '--eval_every_frames=15000', '--test_num_episodes=2',
  ))  # fmt: skip
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  folder = cluster.logdir
  assert returns(folder, 'episodes.csv') == {RETURN}
  (evaluation_of_the_run,) = json.loads(read(folder, 'evaluation.json'))
  assert set(evaluation_of_the_run['returns']) == {RETURN}
  # The keywords come from the record; modules have to be named.
  run = [f'--logdir={folder}', *OWN_CODE]

  def finished(program, *flags, **kwargs):
    process = processes.start(program, *flags, env=ENV, **kwargs)
    assert process.exit_code(LIMIT_SECS) == 0, process.output()
    return process.output()

  finished('experiment.py', *run, '--total_environment_frames=20000', '--num_actors=1',
           '--envs_per_actor=2')  # fmt: skip
  assert returns(folder, 'episodes.csv') == {RETURN}

  def done(*flags):
    assert experiment.main(['experiment.py', *run, *flags]) == 0
    return capsys.readouterr().out

  done('--mode=test', '--env_kwargs={"game_steps": 1}')
  evaluation, *_ = json.loads(read(folder, 'evaluation.json'))
  assert set(evaluation['returns']) == {RETURN / 3}
  assert evaluation['env_kwargs'] == '{"game_steps": 1}'
  assert f'Steps-v0: return {RETURN}; ' in done('--mode=video')
  done('--mode=export')
  export = os.path.join(folder, 'export')
  policy = json.loads(read(export, 'policy.json'))
  assert policy['environment'] == dict(
    name='Steps-v0', env_kwargs='{"game_steps": 3}', imports='wrapped_env:register',
    env_wrappers='wrapped_env.Sum:{"numbers": [4, 6]},wrapped_env.Double', observation_keys='',
    action_masks='auto', channels=0, num_action_repeats=1,
  )  # fmt: skip
  card = read(export, 'MODEL_CARD.md')
  assert all(f"'{flag}'" in card or flag in card for flag in OWN_CODE)
  assert '| `import` | wrapped_env:register |' in card
  played = finished(os.path.join(export, 'play_exported.py'), cwd=tmp_path, name='played')
  assert re.search(rf'^return {RETURN}\.0$', played, re.M)


def read(folder, name):
  with open(os.path.join(folder, name), encoding='utf-8') as file:
    return file.read()
