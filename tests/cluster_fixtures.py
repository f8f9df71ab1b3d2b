"""A cluster of real processes, on this machine or on the hosts of a test's own network."""

import os
import signal

import pytest

import throttled_env
from conftest import ROOT, eventually, free_ports, updates_of_checkpoint, whole_rows

LIMIT_SECS = 240.0
THROTTLED = '--level_name=throttled_env:ThrottledCatch-v0'
# Actors at this pace feed learners and leave the processors to who is still starting; what a
# cluster trains while a test waits for something else costs little.
PACE = {
  'PYTHONPATH': os.path.join(ROOT, 'tests'),
  'THROTTLED_ENV_SECS': '0.02',
  throttled_env.OPEN: '/nowhere/open',
}
TRAINING = (
    '--level_name=impala/Catch-v0', '--batch_size=4', '--unroll_length=9', '--optimizer=adam',
    '--learning_rate=1e-3', '--epsilon=1e-5', '--metrics_secs=1',
)  # fmt: skip
# Each environment is a process, whose start costs a quarter of a second of a processor.
ACTING = ('--num_actors=1', '--envs_per_actor=4')


class Cluster:
  """The tasks of one run; each is started, killed and started again with the same command.

  Args:
    processes: the fixture.
    folder: for what the run writes, as the tasks see it.
    ps, learner, actor: how many.
    flags: of all tasks.
    env: environment variables of all tasks, in addition to those of `PACE`.
  """

  def __init__(self, processes, folder, ps=1, learner=1, actor=1, flags=(), env=None):
    self.processes, self.env = processes, {**PACE, **(env or {})}
    self.logdir, self.state_dir = os.path.join(folder, 'run'), os.path.join(folder, 'state')
    numbers = {'ps': ps, 'learner': learner, 'actor': actor}
    ports = iter(free_ports(sum(numbers.values())))
    self.hosts = {job: [f'localhost:{next(ports)}' for _ in range(n)] for job, n in numbers.items()}
    self.flags = [f'--logdir={self.logdir}', f'--state_dir={self.state_dir}', *flags]
    self.tasks = {}

  @property
  def names(self):
    return [f'{job}:{i}' for job, hosts in self.hosts.items() for i in range(len(hosts))]

  def start(self, name, *extra, program=('experiment.py',), inside=None):
    job, task = name.split(':')
    lists = [f'--{j}_hosts={",".join(hosts)}' for j, hosts in self.hosts.items()]
    role = {'ps': (), 'learner': (*TRAINING, THROTTLED), 'actor': ACTING}[job]
    self.tasks[name] = self.processes.start(
        *program, *lists, f'--job_name={job}', f'--task={task}', *self.flags, *role, *extra,
        name=name.replace(':', ''), env=self.env, inside=inside,
    )  # fmt: skip
    return self.tasks[name]

  def start_all(self, order=None, **extra):
    for name in order or self.names:
      self.start(name, *extra.get(name.split(':')[0], ()))
    return self

  def kill(self, name):
    os.kill(self.tasks[name].pid, signal.SIGKILL)
    self.tasks[name].wait()

  def rows(self):
    return whole_rows(os.path.join(self.logdir, 'metrics.csv'))

  def frames(self):
    rows = self.rows()
    return int(rows[-1]['environment_frames']) if rows else 0

  def until_frames(self, frames):
    eventually(lambda: self.frames() >= frames, LIMIT_SECS, self.logs)

  def checkpoint(self):
    return updates_of_checkpoint(self.logdir)

  def logs(self):
    return '\n'.join(f'--- {n}\n{t.output()[-3000:]}' for n, t in self.tasks.items())

  def exit_codes(self, limit_secs=LIMIT_SECS):
    eventually(
      lambda: all(t.poll() is not None for t in self.tasks.values()), limit_secs, self.logs
    )
    return {name: task.returncode for name, task in self.tasks.items()}

  def in_checkpoint(self, name):
    """The value of a variable in the newest checkpoint."""
    import tensorflow as tf

    return tf.train.load_checkpoint(tf.train.latest_checkpoint(self.logdir)).get_tensor(name)

  def frames_in_checkpoint(self):
    return int(self.in_checkpoint('environment_frames'))


@pytest.fixture
def new_cluster(processes, tmp_path):
  return lambda **kwargs: Cluster(processes, tmp_path, **kwargs)


def all_zero(cluster):
  return dict.fromkeys(cluster.tasks, 0)


def assert_no_step_back_beyond(rows, save_secs, slack_secs=20.0):
  """Where frames step back, the frames they step back to are of the last `save_secs`."""
  frames = [int(row['environment_frames']) for row in rows]
  times = [float(row['time']) for row in rows]
  steps_back = [i for i in range(1, len(rows)) if frames[i] < frames[i - 1]]
  for i in steps_back:
    passed = max((times[j] for j in range(i) if frames[j] <= frames[i]), default=times[0])
    assert times[i - 1] - passed <= save_secs + slack_secs


def throttled_cluster(new_cluster, folder, **size):
  """No machine exceeds its pace, until the file `open` in the folder lets the environments run."""
  env = {'THROTTLED_ENV_SECS': str(throttled_env.STEP_SECS), throttled_env.OPEN: f'{folder}/open'}
  return new_cluster(flags=['--watchdog_secs=120'], env=env, **size)


def connected_actors(output):
  """How many actors the chief last said are there, None before it said so.

  Args:
    output: of the chief.
  """
  said = output.rpartition('  connected ')[2].split()
  return int(said[0]) if said and said[0].isdigit() else None
