"""A task of a Slurm step is supervised; its exit code is 0 unless it cannot go on."""

import os
import signal
import sys

import pytest

from conftest import ROOT, eventually
from frontend.host_side import supervisor

LIVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
print('arguments', *sys.argv[1:], flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(processes, tmp_path):
  """Starts a task whose experiment.py is `script`."""

  def start_task(script, *words, rank='3'):
    (tmp_path / 'experiment.py').write_text(script)
    env = {'PYTHONPATH': ROOT, 'SLURM_PROCID': rank}
    command = [sys.executable, '-m', 'frontend.host_side.slurm_task', *words]
    return processes.start(*command, env=env, cwd=tmp_path, name='task')

  return start_task


def test_a_task_that_is_killed_is_started_again_and_one_that_is_told_to_end_is_no_failure(
  start, tmp_path
):
  task = start(LIVES, 'run', '--seed=2')
  started = 'arguments --cluster=slurm --logdir=run --state_dir=run/tasks --seed=2'
  eventually(lambda: started in task.output(), 60, task.output)
  record = supervisor.read_json(tmp_path / 'run' / 'tasks' / 'task-3.supervisor.json')
  os.kill(record['pid'], signal.SIGKILL)
  eventually(lambda: task.output().count(started) == 2, 60, task.output)
  assert (tmp_path / 'run' / 'tasks' / 'task-3.log').read_text() == task.output()
  os.kill(task.pid, signal.SIGTERM)
  assert task.exit_code() == 0
  assert task.output().count(started) == 2
  # Command lines and logs are nobody else's.
  assert os.stat(tmp_path / 'run' / 'tasks').st_mode & 0o777 == 0o700


def test_bad_input_is_final(start):
  task = start('raise SystemExit(2)', 'run')
  assert task.exit_code() == 2
  assert 'not started again' in task.output()


@pytest.mark.parametrize(
  'words, rank, said',
  [
    ([], '3', 'the folder of the run comes first'),
    (['--seed=2'], '3', 'the folder of the run comes first'),
    (['run'], '', 'SLURM_PROCID is missing'),
    (['experiment.py/run'], '3', 'experiment.py/run cannot be written: Not a directory'),
  ],
)
def test_what_cannot_start_is_one_sentence(start, words, rank, said):
  task = start('', *words, rank=rank)
  assert task.exit_code() == 2
  assert said in task.output() and task.output().count('\n') == 1
