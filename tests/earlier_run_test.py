"""A run folder that an earlier version wrote is resumed, tested and drawn by this one.

`data/earlier_run` is what commit a4944ee left after 3,000 frames:
experiment.py --flagfile=flagfiles/cartpole.flags --total_environment_frames=3000
"""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from conftest import ROOT

pytestmark = pytest.mark.slow  # Every test is a run of the program.

LIMIT_SECS = 240.0
PRESET = '--flagfile=flagfiles/cartpole.flags'
FRAMES, UPDATES, UPDATE_FRAMES = 3072, 24, 128


@pytest.fixture
def folder(tmp_path):
  """A copy of the run's folder."""
  source = os.path.join(ROOT, 'tests', 'data', 'earlier_run')
  return shutil.copytree(source, tmp_path / 'earlier_run')


def variables(folder):
  """{name: value} of the newest checkpoint."""
  reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def test_it_is_resumed_where_it_stood(folder, processes):
  before, lines = variables(folder), (folder / 'metrics.csv').read_text().splitlines()
  games = (folder / 'episodes.csv').read_text().splitlines()
  frames = FRAMES + 2 * UPDATE_FRAMES
  run = processes.start(
    'experiment.py', PRESET, f'--logdir={folder}', f'--total_environment_frames={frames}',
    '--num_actors=1', '--envs_per_actor=2', '--sample_reuse=1',  # As the preset had then.
  )  # fmt: skip
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  assert f'resumed at {FRAMES} frames from ' in run.output()
  after = variables(folder)
  assert {name: value.shape for name, value in after.items()} == {
    name: value.shape for name, value in before.items()
  }
  assert (after['environment_frames'], after['global_step']) == (frames, UPDATES + 2)
  # Two updates at the end of a rate that falls to 0 change the weights a little, and not nothing.
  change = np.abs(after['agent/policy/w'] - before['agent/policy/w']).max()
  assert 0 < change < 1e-3
  # The columns that are new since then are empty in its rows.
  now = (folder / 'metrics.csv').read_text().splitlines()[: len(lines)]
  new = ',entropy_cost,truncated_weights,replayed_lag_mean,replayed_lag_max'
  new += ',mean_score,mean_capped_score'
  assert now == [lines[0] + new] + [line + ',' * new.count(',') for line in lines[1:]]
  assert (folder / 'episodes.csv').read_text().splitlines()[: len(games)] == games
  starts = json.loads((folder / 'run.json').read_text())['starts']
  assert [start['settings']['total_environment_frames'] for start in starts] == [3000]


def test_it_had_no_choice_of_what_the_network_sees(folder, processes):
  refused = processes.start(
    'experiment.py', PRESET, f'--logdir={folder}', '--observation_scaling=running'
  )
  assert refused.exit_code(LIMIT_SECS) == 2
  assert 'observation_scaling unit' in refused.output()


def test_a_file_of_somebody_elses_is_refused_and_untouched(folder, processes):
  (folder / 'metrics.csv').write_text('a,b\n1,2\n')
  refused = processes.start('experiment.py', PRESET, f'--logdir={folder}')
  assert refused.exit_code(LIMIT_SECS) == 2
  last = refused.output().splitlines()[-1]
  assert 'metrics.csv has the columns a,b' in last and 'another --logdir' in last
  assert (folder / 'metrics.csv').read_text() == 'a,b\n1,2\n'


def test_it_plays_and_is_drawn(folder, processes):
  # Its record says the level, the agent and the rest.
  flags = [f'--logdir={folder}']
  played = processes.start('experiment.py', *flags, '--mode=test', '--test_num_episodes=3')
  assert played.exit_code(LIMIT_SECS) == 0, played.output()
  (evaluation,) = json.loads((folder / 'evaluation.json').read_text())
  assert len(evaluation['returns']) == 3 and min(evaluation['returns']) >= 8
  drawn = processes.start('experiment.py', *flags, '--mode=plot')
  assert drawn.exit_code(LIMIT_SECS) == 0, drawn.output()
  assert (folder / 'learning_curve.png').stat().st_size > 10_000
