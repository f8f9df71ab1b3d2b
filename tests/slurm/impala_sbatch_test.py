"""slurm/*.sbatch on a real Slurm: deaths, requeues, actors that join; jobs train to the end."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from cluster_fixtures import ACTING, TRAINING, connected_actors
from conftest import updates_of_checkpoint, whole_rows
from runtime.checkpoints import listed
from slurm_fixtures import network, slurm  # noqa: F401

FLAGS = (*TRAINING, *ACTING, '--batch_size=4', '--envs_per_actor=2', '--threads=1')
SLOW = (
  '--level_name=throttled_env:ThrottledCatch-v0', '--total_environment_frames=100000000',
  '--save_checkpoint_secs=30',
)  # fmt: skip
TOTAL_FRAMES = 3_000


def rows(job):
  return whole_rows(os.path.join(job.logdir, 'metrics.csv'))


def saved_frames(job):
  return max((saved.frames for saved in listed(job.logdir)), default=0)


def frames(job):
  return int(rows(job)[-1]['environment_frames']) if rows(job) else 0


@pytest.fixture(scope='module')
def jobs(slurm):  # noqa: F811
  """Two jobs that train at the same time: one over three nodes, and one without an end."""
  first = slurm.submit(
    *FLAGS,
    '--slurm_learners=2',
    f'--total_environment_frames={TOTAL_FRAMES}',
    options=['--nodes=3', '--ntasks=6'],
  )
  second = slurm.submit(*FLAGS, *SLOW, options=['--ntasks=3'])
  return first, second


def test_a_job_beside_another_trains_to_the_end_though_a_task_dies(jobs):
  job, other = jobs
  # The learner: without it there is no end.
  job.until(lambda: 'learner:0 is connected' in job.output())
  os.kill(job.pid_of(1), signal.SIGKILL)
  job.until_state('COMPLETED', 'FAILED')
  assert (job.about('JobState'), job.about('ExitCode')) == ('COMPLETED', '0:0'), job.story()
  assert 'task-1 was ended by SIGKILL' in job.output()
  assert frames(job) >= TOTAL_FRAMES
  other.until(lambda: frames(other) > 0)
  assert (job.about('NumNodes'), other.about('JobState')) == ('3', 'RUNNING')
  assert 'starting it again' not in other.output(), other.story()


@pytest.fixture(scope='module')
def more_actors(slurm, jobs):  # noqa: F811
  jobs[1].until(lambda: frames(jobs[1]) > 0)
  return slurm.submit_actors(jobs[1].logdir, (0, 3), *ACTING, '--envs_per_actor=2', '--threads=1')


def states(job):
  """{task: state}, as the frontend's status tells from the run's folder."""
  words = ['--action=status', f'--run_folder={job.logdir}', '--json']
  done = subprocess.run(
    [sys.executable, 'run_experiment_mm_raw.py', *words], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  return {row['task']: row['state'] for row in json.loads(done.stdout)}


def test_an_array_of_actors_joins_a_run_and_leaves_it(slurm, jobs, more_actors):  # noqa: F811
  _, job = jobs
  first, second = more_actors
  job.until(lambda: connected_actors(job.output()) == 3)
  tasks = ['ps-0', 'learner-0', 'actor-0', 'actor-1', 'actor-4']
  job.until(lambda: states(job) == dict.fromkeys(tasks, 'running'))
  slurm.command('scancel', first.id)
  first.until_state('CANCELLED')
  job.until(lambda: connected_actors(job.output()) == 2)
  assert states(job) == {**dict.fromkeys(tasks, 'running'), 'actor-1': 'exited 0'}
  assert 'actor:1 leaves: SIGTERM' in first.output(), first.story()
  assert second.about('JobState') == 'RUNNING'
  assert 'starting it again' not in first.output() + second.output() + job.output(), job.story()


def until_it_goes_on(job, said):
  """Until the job, which had `said` that much before, trains again; the frames it resumed at."""
  resumed = job.until(lambda: re.search(r'resumed at (\d+) frames', job.output()[len(said) :]))
  then = len(rows(job))
  job.until(lambda: len(rows(job)) > then and frames(job) > int(resumed[1]))
  return int(resumed[1])


def test_a_time_limit_requeues_a_job_which_goes_on(jobs, more_actors):
  _, job = jobs
  hours, minutes, _ = map(int, job.about('RunTime').split(':'))
  # At most the two minutes are left that `#SBATCH --signal` names, and at least one.
  job.limit_to(60 * hours + minutes + 2)
  job.until(lambda: job.about('Restarts') == '1')
  more_actors[1].until_state('COMPLETED', 'FAILED')  # The run has ended, for now.
  assert more_actors[1].about('JobState') == 'COMPLETED', more_actors[1].story()
  job.limit_to(600)
  saved, trained = updates_of_checkpoint(job.logdir), frames(job)
  assert saved > 0, job.story()
  assert until_it_goes_on(job, '') == trained


def test_a_node_that_fails_requeues_its_job_which_goes_on_elsewhere(slurm, jobs):  # noqa: F811
  _, job = jobs
  saved = job.until(lambda: saved_frames(job))
  restarts, node, said = int(job.about('Restarts')), job.about('BatchHost'), job.output()
  slurm.fail(node)
  job.until(lambda: int(job.about('Restarts')) == restarts + 1)
  assert until_it_goes_on(job, said) >= saved > 0
  assert job.about('JobState') == 'RUNNING' and job.about('BatchHost') != node, job.story()


def test_scancel_leaves_a_checkpoint(slurm, jobs):  # noqa: F811
  _, job = jobs
  saved, before = updates_of_checkpoint(job.logdir), job.output()
  slurm.command('scancel', job.id)
  job.until_state('CANCELLED')
  job.until(lambda: not slurm.command('squeue', '-h', '-j', job.id, check=False).strip())
  assert updates_of_checkpoint(job.logdir) > saved, job.story()
  assert 'checkpoint in' in job.output().removeprefix(before)


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
  # Slurm ends the tasks that still start when the first one fails.
  said_by = [
    line
    for line in job.output().splitlines()
    if 'experiment.py: ' in line and not line.endswith('ended by SIGTERM')
  ]
  assert said_by and all(said in line for line in said_by), job.story()
  assert 'Traceback' not in job.output()
