"""A cluster: its tasks and their names, its hosts, and the command line of each task.

Nothing here touches a host. A command line is a list of arguments until `exec`.
"""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from common import cluster_names
from common.cluster_names import JOBS
from frontend.errors import UserError

# The CSV sets these, so neither the command line nor a `flags` cell may.
PLACEMENT_FLAGS = ('ps_hosts', 'learner_hosts', 'actor_hosts', 'job_name', 'task', 'state_dir')


class Task(NamedTuple):
  """A row of the CSV; a cell that is not given is '' unless said otherwise.

  Attributes:
    job: one of JOBS.
    index: number within the job.
    ip: address or host name.
    tf_port: port of TensorFlow's server; 0, and `ip` is "", where a cluster manager places tasks.
    cuda_visible_devices: None for all GPUs, '' for none.
    ssh_port: None if not given.
    ssh_username, workdir, python: how the host is reached and where the code is.
    flags: training flags of this task alone, a list of arguments.
    line: line number in the CSV.
    cpus, memory: requests of its pod under Kubernetes, such as '500m' and '4Gi'.
  """

  job: str
  index: int
  ip: str
  tf_port: int
  cuda_visible_devices: str | None
  ssh_port: int | None
  ssh_username: str
  workdir: str
  python: str
  flags: Sequence[str]
  line: int
  cpus: str = ''
  memory: str = ''


class Host(NamedTuple):
  """A machine of the cluster, its cells as in `Task`.

  Attributes:
    address: its `ip` cell.
    ssh_port, ssh_username, workdir, python: cells that all its rows share.
    tasks: the tasks on it.
    slots: how many runs of a sweep it takes at a time; 0 for its default.
    devices: GPUs that these runs take in turn, as in `Task.cuda_visible_devices`.
  """

  address: str
  ssh_port: int | None
  ssh_username: str
  workdir: str
  python: str
  tasks: tuple[Task, ...]
  slots: int = 0
  devices: str | None = None


class Cluster(NamedTuple):
  """What a CSV describes.

  Attributes:
    tasks: all tasks in the order of the rows; none if the rows are hosts of a sweep.
    hosts: all hosts; empty where the CSV places no task on a host.
    warnings: sentences about what is allowed but rarely meant.
  """

  tasks: tuple[Task, ...]
  hosts: tuple[Host, ...]
  warnings: tuple[str, ...]


def this_machine(slots: int) -> Cluster:
  """Returns what takes the place of a CSV for a sweep on this machine alone."""
  return Cluster((), (Host('localhost', None, '', '', '', (), slots),), ())


def task_name(task: Task) -> str:
  """Returns the name of a task's window and files, such as `learner-0`."""
  return cluster_names.file_name(cluster_names.task_name(task.job, task.index))


def parse_task_name(text: str) -> str:
  """Turns `learner:0` or `learner-0` into `learner-0`; raises UserError for anything else."""
  try:
    job, index = cluster_names.parse_task_name(text)
  except ValueError:
    raise UserError(f'--task={text!r} is not a task: write for example --task=learner:0') from None
  return cluster_names.file_name(cluster_names.task_name(job, index))


def is_loopback(address: str) -> bool:
  """Whether `address` (a name or an IP address) means "this machine" wherever it is resolved."""
  try:
    return ipaddress.ip_address(address).is_loopback
  except ValueError:
    return address.lower() == 'localhost'


def placement_problem(arguments: Sequence[str]) -> str | None:
  """Returns a sentence if an argument sets what the CSV sets, or cannot be passed on; else None."""
  for argument in arguments:
    if '\0' in argument:
      return f'{argument!r} holds a NUL character, which no command line can carry'
    name = argument.lstrip('-').split('=')[0] if argument.startswith('-') else ''
    if name in PLACEMENT_FLAGS:
      return f'--{name} follows from the cluster CSV and cannot be given as well'
  return None


def actors_problem(cluster: Cluster) -> str | None:
  """Returns a sentence if a learner has no actor; else None."""
  learners, actors = (sum(task.job == job for task in cluster.tasks) for job in JOBS[1:])
  if actors >= learners:
    return None
  return (
    f'the CSV has {learners} learners, but only {actors} actors: every learner needs an actor of '
    'its own'
  )


def host_port(task: Task) -> str:
  """Returns `address:port` as TensorFlow and URLs write it."""
  return f'[{task.ip}]:{task.tf_port}' if ':' in task.ip else f'{task.ip}:{task.tf_port}'


def cluster_flags(cluster: Cluster) -> list[str]:
  """Returns the three host lists, the same for every task."""
  return [
    f'--{job}_hosts=' + ','.join(host_port(task) for task in cluster.tasks if task.job == job)
    for job in JOBS
  ]


def task_arguments(cluster: Cluster, task: Task, training_flags: Sequence[str]) -> list[str]:
  """Returns the arguments of one task's experiment.py, without --state_dir.

  The task's own flags come after `training_flags`, so they take precedence.
  """
  return (
    cluster_flags(cluster)
    + [f'--job_name={task.job}', f'--task={task.index}']
    + list(training_flags)
    + list(task.flags)
  )


def task_environment(task: Task) -> dict[str, str | None]:
  """Returns environment variables of one task: {name: value, or None to remove it}."""
  return {'CUDA_VISIBLE_DEVICES': task.cuda_visible_devices}
