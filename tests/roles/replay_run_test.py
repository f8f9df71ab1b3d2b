"""A run with replay, from the command of the documentation, and what a resumed one begins with."""

import json

import pytest

from cluster_fixtures import LIMIT_SECS
from conftest import commands_of, whole_rows

EMPTY = 'the replay buffer is empty; it will hold 10000, which take 0.00852 GB of memory on each'


@pytest.mark.timeout(580)
def test_a_run_with_replay_and_its_second_part(tmp_path, processes):
  ((_, program, *flags),) = commands_of('docs/training.md', 'Replay')
  folder = tmp_path / 'run'
  few = '--num_actors=1', '--envs_per_actor=4', '--batch_size=4', '--metrics_secs=0.5'

  def run(frames, *flags):
    process = processes.start(
      program, *flags, f'--logdir={folder}', f'--total_environment_frames={frames}',
      f'--state_dir={tmp_path}/state',
    )  # fmt: skip
    assert process.exit_code(LIMIT_SECS) == 0, process.output()
    assert EMPTY in process.output()
    row = whole_rows(folder / 'metrics.csv')[-1]
    # `status` shows the last figures of a run that has ended.
    (path,) = (tmp_path / 'state').glob('*.json')
    state = json.loads(path.read_text())
    assert state['environment_frames'] == frames
    assert state['mean_return_100'] == pytest.approx(float(row['mean_return_100']))
    return row

  row = run(1800, *flags, *few)
  assert int(row['environment_frames']) == 1800 and int(row['updates']) == 100
  # Two unrolls come in with every update, so that half of those kept are from before half of all.
  assert 20 < float(row['replayed_lag_mean']) < 80 > float(row['replayed_lag_max']) / 2
  assert float(row['policy_lag_mean']) < float(row['replayed_lag_mean'])
  assert int(run(1980)['updates']) == 110
