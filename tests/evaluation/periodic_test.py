"""--eval_every_frames: real runs are evaluated while they train, and leave no process behind."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

import throttled_env
from cluster_fixtures import all_zero, new_cluster  # noqa: F401 (new_cluster is a fixture)
from conftest import (
  ROOT,
  commands_of,
  eventually,
  updates_of_checkpoint,
  whole_rows,
)
from evaluation import periodic
from runtime.checkpoints import Saved

LIMIT_SECS = 280.0
# Its pace leaves the processors to the evaluations.
THROTTLED = '--level_name=throttled_env:ThrottledCatch-v0'
FLAGS = (
    THROTTLED, '--batch_size=2', '--unroll_length=9', '--num_actors=1', '--envs_per_actor=4',
    '--metrics_secs=1', '--save_checkpoint_secs=1', '--keep_checkpoints=1',
    '--eval_every_frames=90', '--test_num_episodes=2',
)  # fmt: skip

slow = pytest.mark.slow


def start(processes, folder, *flags):
  env = {'PYTHONPATH': os.path.join(ROOT, 'tests'), throttled_env.OPEN: str(folder / 'never')}
  return processes.start('experiment.py', f'--logdir={folder / "run"}', *FLAGS, *flags, env=env)


def rows(folder):
  return whole_rows(folder / 'run' / 'evaluations.csv')


def evaluations_of(run):
  """The processes that evaluate a run right now, each a psutil.Process."""
  try:
    found = psutil.Process(run.pid).children()
    return [child for child in found if '--mode=test' in child.cmdline()]
  except psutil.NoSuchProcess:
    return []


def until(run, condition):
  """Waits for what a condition gives while a run goes on; never do two processes evaluate it.

  A process shows no arguments at the moment at which it becomes another program, so what
  evaluations_of found once it may not find again right after.
  """

  def met_or_ended():
    ended = run.poll() is not None  # Before the condition, which may have been met at the end.
    assert len(evaluations_of(run)) <= 1
    return [found] if (found := condition()) or ended else None

  (found,) = eventually(met_or_ended, LIMIT_SECS, run.output)
  assert found, run.output()
  return found


def stop(run):
  os.killpg(run.pid, signal.SIGTERM)
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  return run.output()


@slow
@pytest.mark.timeout(900)
def test_rows_come_in_while_it_trains_and_none_twice_where_it_resumes(tmp_path, processes):
  run = start(processes, tmp_path)
  until(run, lambda: len(rows(tmp_path)) == 2)
  (third,) = until(run, lambda: evaluations_of(run))
  third.suspend()  # Else it may come to its end while the run does.
  output = stop(run)
  assert not third.is_running()
  first = rows(tmp_path)
  frames = [int(row['environment_frames']) for row in first]
  assert [n // 90 for n in frames] == sorted({n // 90 for n in frames}) and frames[0] >= 90
  newest_first = json.loads((tmp_path / 'run' / 'evaluation.json').read_text())
  assert [entry['checkpoint_frames'] for entry in newest_first] == frames[::-1]
  for row, entry in zip(first, newest_first[::-1], strict=True):
    assert row['checkpoint'] == entry['checkpoint']
    assert (row['protocol'], row['num_episodes']) == ('training', '2')
    assert float(row['mean_return']) == entry['mean'] == sum(entry['returns']) / 2
    said = f'evaluation at {row["environment_frames"]} frames: 2 games, mean {entry["mean"]:.2f}'
    assert said in output
  assert 'was dropped, for the run ends' in output and 'failed' not in output
  (events,) = (tmp_path / 'run').glob('events.out.tfevents.*')
  assert b'evaluations/training/mean_return' in events.read_bytes()

  resumed = start(processes, tmp_path)
  until(resumed, lambda: len(rows(tmp_path)) == 3)
  stop(resumed)
  frames = [int(row['environment_frames']) for row in rows(tmp_path)]
  assert frames == sorted(set(frames))


@slow
@pytest.mark.timeout(600)
def test_one_that_fails_is_a_warning_and_none_outlives_a_run_that_is_killed(tmp_path, processes):
  run = start(processes, tmp_path, '--test_num_episodes=1600')  # None ends by itself.
  (first,) = until(run, lambda: evaluations_of(run))
  eventually(lambda: 'experiment.py' in ''.join(first.cmdline()[1:2]), LIMIT_SECS)
  assert first.nice() == 14 and os.getsid(first.pid) == os.getsid(run.pid)
  assert first.environ()['CUDA_VISIBLE_DEVICES'] == ''
  first.kill()
  until(run, lambda: 'failed, training goes on: exit code -9' in run.output())
  (second,) = until(run, lambda: [p for p in evaluations_of(run) if p.pid != first.pid])
  family = [second, *second.children(recursive=True)]
  run.kill()
  run.wait()
  _, alive = psutil.wait_procs(family, timeout=30)
  assert not alive
  assert rows(tmp_path) == []


@slow
@pytest.mark.timeout(600)
def test_the_command_of_the_documentation(tmp_path, processes):
  ((python, program, *flags),) = commands_of('docs/after_training.md', 'Evaluation while training')
  assert (python, program) == ('python', 'experiment.py')
  flags = [flag.replace('=100000', '=2000').replace('=10', '=3') for flag in flags]
  run = processes.start(os.path.join(ROOT, program), *flags, '--num_actors=1', cwd=tmp_path)
  evaluated = tmp_path / 'runs' / 'CartPole-v1-MLPAgent-seed1' / 'evaluations.csv'
  until(run, lambda: whole_rows(evaluated))
  stop(run)
  assert whole_rows(evaluated)[0]['num_episodes'] == '3'


def test_the_chief_of_a_cluster_evaluates(new_cluster, tmp_path):  # noqa: F811
  cluster = new_cluster()
  cluster.start_all(learner=['--eval_every_frames=500', '--test_num_episodes=2'])
  eventually(lambda: rows(tmp_path), LIMIT_SECS, cluster.logs)
  os.kill(cluster.tasks['learner:0'].pid, signal.SIGTERM)
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  assert 'evaluation at ' in cluster.tasks['learner:0'].output()


def test_what_cannot_be_played_so_is_refused_before_anything_is_made(tmp_path):
  flags = ['--level_name=impala/Catch-v0', '--eval_every_frames=100', '--eval_protocol=machado']
  done = subprocess.run(
    [sys.executable, 'experiment.py', *flags, f'--logdir={tmp_path / "run"}'],
    cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECS,
  )  # fmt: skip
  assert (done.returncode, done.stdout) == (2, '')
  (line,) = done.stderr.splitlines()
  assert '--eval_protocol=machado is for Atari games, and impala/Catch-v0 is none' in line
  assert os.listdir(tmp_path) == []


@slow
@pytest.mark.parametrize('knows_at, said', [(2, 'was dropped, for the run ends'), (None, 'failed')])
def test_a_signal_may_end_one_a_moment_before_the_run_hears_of_it(tmp_path, knows_at, said):
  asked, words = [], []

  def run_ends():
    asked.append(None)
    return len(asked) == knows_at

  # There is no such run: its process ends by itself.
  flags = {'eval_protocol': 'training', 'test_num_episodes': 1}
  played = periodic.PeriodicEvaluator(tmp_path / 'none', 1, flags, None, words.append, run_ends)
  played.start(Saved('model.ckpt-1', 7, 1, None, False))
  (line,) = eventually(lambda: words, LIMIT_SECS)
  played.stop()
  assert line.startswith(f'the evaluation at 7 frames {said}')


class PlayedAtOnce(periodic.PeriodicEvaluator):
  """What a process would have played is in evaluation.json at once, with this time on it."""

  at = 0.0

  def _exit_code(self, saved, output):
    entry = dict(
      checkpoint=saved.name, protocol='training', num_episodes=1, returns=[1.0], mean=1.0,
      median=1.0, mean_interval_95=None, checkpoint_frames=saved.frames, deterministic=False,
    )  # fmt: skip
    path = os.path.join(self._logdir, 'evaluation.json')
    with open(path, 'w') as file:
      json.dump([{**entry, 'time': self.at}, {**entry, 'time': 3e9, 'mean': -1.0}], file)
    return 0


def test_a_clock_that_was_set_back_costs_no_evaluation(tmp_path):
  earlier = dict(returns=[1.0], time=3e9, checkpoint='model.ckpt-1')
  (tmp_path / 'evaluation.json').write_text(json.dumps([earlier]))
  flags, rows, words = {'eval_protocol': 'training', 'test_num_episodes': 1}, [], []
  played = PlayedAtOnce(str(tmp_path), 1, flags, rows.append, words.append, lambda: False)
  played.start(Saved('model.ckpt-1', 7, 1, None, False))
  eventually(lambda: rows or words)
  assert not words and rows[0]['mean_return'] == 1.0


def evaluations(folder, every, frames):
  found = periodic.PeriodicEvaluator(str(folder), every, {}, None, None, None)
  found.begin(frames)
  return found


def test_one_is_due_at_the_first_update_past_every_so_many_frames(tmp_path):
  new = evaluations(tmp_path, 100, 0)
  assert [new.is_due(n) for n in (0, 99, 100, 101, 350)] == [False, False, True, True, True]
  assert not any(evaluations(tmp_path, 0, 0).is_due(n) for n in (0, 100, 1000))
  (tmp_path / 'evaluations.csv').write_text('environment_frames\n110\n205\n330\n')
  resumed = evaluations(tmp_path, 100, 330)
  assert [resumed.is_due(n) for n in (330, 399, 400)] == [False, False, True]
  # The process may have been killed before the row of what it saved last.
  assert evaluations(tmp_path, 100, 310).is_due(311)
  # Who goes on from an earlier checkpoint has what came after it played anew.
  earlier = evaluations(tmp_path, 100, 210)
  assert [earlier.is_due(n) for n in (299, 300)] == [False, True]


@slow
@pytest.mark.timeout(600)
def test_the_final_policy_is_played_and_ctrl_c_drops_that(tmp_path, processes):
  flags = ['--total_environment_frames=60', '--eval_every_frames=1000']
  run = start(processes, tmp_path, *flags)
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  (row,) = rows(tmp_path)
  checkpoint = f'model.ckpt-{updates_of_checkpoint(tmp_path / "run")}'
  assert row['checkpoint'] == checkpoint and int(row['environment_frames']) >= 60
  assert f'evaluation at {row["environment_frames"]} frames' in run.output()
  assert (tmp_path / 'run' / 'learning_curve.png').exists()

  other = tmp_path / 'other'
  other.mkdir()
  run = start(processes, other, *flags, '--test_num_episodes=1600')
  until(run, lambda: evaluations_of(run))
  os.kill(run.pid, signal.SIGINT)
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  assert 'SIGINT: the last evaluation is dropped' in run.output()
  assert 'was dropped, for the run ends' in run.output() and rows(other) == []
  assert updates_of_checkpoint(other / 'run') > 0
