"""--deterministic_training: the same command twice gives the same records and checkpoints."""

import csv
import filecmp
import itertools
import signal

import pytest

from conftest import ROOT, updates_of_checkpoint
from reporting import metrics

LIMIT_SECS = 240.0
FLAGS = (
  '--deterministic_training', '--num_actors=2', '--envs_per_actor=2', '--batch_size=6',
  '--unroll_length=9', '--metrics_updates=4', '--learning_rate=0.01',
)  # fmt: skip
CATCH = '--level_name=impala/Catch-v0', '--agent_name=SimpleConvNetLSTMAgent'
PONG = '--level_name=PongNoFrameskip-v4', '--agent_name=SimpleConvNetAgent'


def rows(path, figures):
  """The rows of a CSV file without the columns that depend on the clock."""
  timed = {figure.name for figure in figures if figure.is_timed}
  with open(path, newline='') as file:
    return [{n: v for n, v in row.items() if n not in timed} for row in csv.DictReader(file)]


def assert_equal(one, other, updates):
  """The records and the checkpoint after so many updates are the same in two folders."""
  for name, figures in (
    ('metrics.csv', metrics.METRICS),
    ('episodes.csv', metrics.EPISODE_METRICS),
  ):
    assert rows(one / name, figures) == rows(other / name, figures), name
  for ending in ('data-00000-of-00001', 'index'):
    name = f'model.ckpt-{updates}.{ending}'
    assert filecmp.cmp(one / name, other / name, shallow=False), name


def start(processes, folder, *flags):
  flags = *FLAGS, f'--logdir={folder}', *flags
  return processes.start('experiment.py', *flags, env={'PYTHONPATH': f'{ROOT}/tests'})


def finished(process):
  assert process.exit_code(LIMIT_SECS) == 0, process.output()
  return process.output()


def assert_repeated(whole, resumed, updates):
  """The records of a run that was ended and resumed are those of one that was not."""
  assert_equal(whole, resumed, updates)
  written = rows(whole / 'metrics.csv', metrics.METRICS)
  # A row every four updates, and one at the end.
  assert [int(row['updates']) for row in written] == [*range(4, updates, 4), updates]
  assert all(row['policy_lag_max'] == '0' for row in written)
  assert len(rows(whole / 'episodes.csv', metrics.EPISODE_METRICS)) > 10


LEVELS = {
  'Catch': CATCH,
  'CartPole': ('--level_name=CartPole-v1', '--observation_scaling=running'),
  'MinAtar': (
    '--level_name=MinAtar/Breakout-v0', '--import=minatar.gym:register_envs',
    '--return_normalisation=popart',
  ),
}  # fmt: skip


@pytest.mark.timeout(580)
@pytest.mark.parametrize('level', LEVELS)
def test_a_run_that_was_stopped_is_the_same_as_one_that_was_not(tmp_path, processes, level):
  """It follows that the same command twice gives the same, as most of the run is played twice."""
  updates = 42
  # With three loops for two turns per update, each update begins with another loop.
  loops, times = (3, 2) if level == 'Catch' else (1, 1)
  flags = (
    *LEVELS[level], f'--num_actors={loops}', '--envs_per_actor=3', '--unroll_length=7',
    f'--total_environment_frames={updates * 6 * 7}',
  )  # fmt: skip
  whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
  uninterrupted = start(processes, whole, *flags)
  stops = []
  for _ in range(times):
    observed = start(processes, stopped, *flags, '--observers=stopping_observer:AfterFour')
    assert 'SIGTERM: saving a checkpoint' in finished(observed)
    stops.append(updates_of_checkpoint(stopped))
  for before, after in itertools.pairwise([0, *stops]):
    assert before + 4 <= after < updates
  said = finished(start(processes, stopped, *flags))
  assert 'resumed at' in said and 'begin anew' not in said
  finished(uninterrupted)
  assert_repeated(whole, stopped, updates)


@pytest.mark.timeout(580)
def test_a_run_that_was_killed_is_the_same_from_its_last_checkpoint(tmp_path, processes):
  updates, whole, killed = 600, tmp_path / 'whole', tmp_path / 'killed'
  flags = (
    '--level_name=impala/Memory-v0', '--agent_name=MLPLSTMAgent', '--num_actors=1',
    '--envs_per_actor=3', '--unroll_length=7', f'--total_environment_frames={updates * 6 * 7}',
  )  # fmt: skip
  uninterrupted = start(processes, whole, *flags)
  observer = '--observers=stopping_observer:KilledAfterCheckpoint'
  first = start(processes, killed, *flags, '--save_checkpoint_secs=0.5', observer)
  assert first.exit_code(LIMIT_SECS) == -signal.SIGKILL, first.output()
  saved = updates_of_checkpoint(killed)
  assert 0 < saved < updates - 3
  assert f'resumed at {saved * 6 * 7} frames' in finished(start(processes, killed, *flags))
  finished(uninterrupted)
  assert_repeated(whole, killed, updates)


@pytest.mark.timeout(580)
def test_atari_repeats_from_the_start_and_says_that_games_begin_anew(tmp_path, processes):
  updates, folders = 6, [tmp_path / 'one', tmp_path / 'other']
  frames = updates * 6 * 9 * 4
  for folder in folders:
    said = finished(start(processes, folder, *PONG, f'--total_environment_frames={frames}'))
    assert 'a run that is resumed from a checkpoint begins new games: the state of PongNo' in said
  assert_equal(*folders, updates)
  run = start(processes, folders[0], f'--total_environment_frames={2 * frames}')
  assert 'the games begin anew: the state of PongNoFrameskip-v4 cannot be set (ale_py' in finished(
    run
  )
  assert updates_of_checkpoint(folders[0]) == 2 * updates
