"""slurm/impala.sbatch on a real Slurm: trains to the end, through deaths, ends and requeues."""

import csv
import os
import signal

import pytest

from cluster_fixtures import ACTING, TRAINING
from conftest import eventually, updates_of_checkpoint
from slurm_fixtures import LIMIT_SECS, network, slurm  # noqa: F401

FLAGS = (*TRAINING, *ACTING)
ENDLESS = '--total_environment_frames=100000000'


def rows(job):
  path = os.path.join(job.logdir, 'metrics.csv')
  if not os.path.exists(path):
    return []
  with open(path, newline='') as file:
    return [row for row in csv.DictReader(file) if None not in row.values()]


def frames(job):
  return int(rows(job)[-1]['environment_frames']) if rows(job) else 0


def test_two_jobs_at_once_train_to_the_end_though_a_task_dies(slurm):  # noqa: F811
  total = 60_000
  flags = (*FLAGS, f'--total_environment_frames={total}')
  first = slurm.submit(*flags, options=['--nodes=2'])
  second = slurm.submit(*flags)
  eventually(lambda: frames(first) > 0, LIMIT_SECS, first.story)
  killed = first.pid_of(3)  # An actor.
  os.kill(killed, signal.SIGKILL)
  for job in (first, second):
    job.until_state('COMPLETED', 'FAILED')
    assert (job.about('JobState'), job.about('ExitCode')) == ('COMPLETED', '0:0'), job.story()
    assert frames(job) >= total
  assert 'was ended by SIGKILL' in first.output()
  assert first.output().count('starting it again') == 1
  assert first.about('NumNodes') == '2'


@pytest.mark.parametrize(
  'flags, said',
  [
    (['--slurm_ps=2', '--slurm_learners=3'], 'leave 0 of the 4 tasks of this step to the actors'),
    (['--learning_rate=-1'], '--learning_rate=-1 is not a positive number'),
  ],
)
def test_bad_input_ends_the_job_with_a_sentence(slurm, flags, said):  # noqa: F811
  job = slurm.submit(*flags)
  job.until_state('FAILED', 'COMPLETED')
  assert job.about('JobState') == 'FAILED', job.story()
  assert ' exited 2\n' in job.output()
  said_by = [line for line in job.output().splitlines() if 'experiment.py: ' in line]
  assert said_by and all(said in line for line in said_by), job.story()
  assert 'Traceback' not in job.output()


def test_a_job_that_is_requeued_goes_on_and_scancel_leaves_a_checkpoint(slurm):  # noqa: F811
  job = slurm.submit(*FLAGS, ENDLESS, options=['--ntasks=3'])
  eventually(lambda: frames(job) > 0, LIMIT_SECS, job.story)
  # As Slurm does it, `#SBATCH --signal`, before the time limit.
  slurm.command('scancel', '--batch', '--signal=USR1', job.id)
  job.until(lambda: job.about('Restarts') == '1')
  saved = updates_of_checkpoint(job.logdir)
  assert saved > 0, job.story()
  job.until(lambda: f'model.ckpt-{saved}' in job.output())
  before = len(rows(job))
  job.until(lambda: len(rows(job)) > before)
  slurm.command('scancel', job.id)
  job.until_state('CANCELLED')
  job.until(
    lambda: 'CG' not in slurm.command('squeue', '-h', '-o', '%t', '-j', job.id, check=False)
  )
  assert updates_of_checkpoint(job.logdir) > saved, job.story()
