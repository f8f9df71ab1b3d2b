"""What a cluster is: its tasks and their names, its hosts, and the command line of each task.

Pure: no host is touched here. A command line is a list of arguments and stays one until `exec`.
"""

import collections
import ipaddress

from common import cluster_names
from common.cluster_names import JOBS

# What places a task in the cluster comes from the CSV, so neither the command line nor a `flags`
# cell may set it.
PLACEMENT_FLAGS = ('ps_hosts', 'learner_hosts', 'actor_hosts', 'job_name', 'task', 'state_dir')

# One row of the CSV. index: number within its job; cuda_visible_devices: None for all GPUs, ''
# for none; ssh_port: int or None; flags: list of arguments; line: of the CSV; tf_port: int, None
# where the CSV places no task on a host. Other cells: str, '' if not given.
Task = collections.namedtuple(
  'Task',
  'job index ip tf_port cuda_visible_devices ssh_port ssh_username workdir python flags line cpus '
  'memory',
  defaults=('', ''),
)

# Tasks that run on one machine, with how to get there.
Host = collections.namedtuple('Host', 'address ssh_port ssh_username workdir python tasks')

# warnings: sentences about what is allowed but rarely meant.
Cluster = collections.namedtuple('Cluster', 'tasks hosts warnings')


def task_name(task):
  """The name of a task's window and files: `learner-0`."""
  return cluster_names.file_name(cluster_names.task_name(task.job, task.index))


def parse_task_name(text):
  """Turns `learner:0` or `learner-0` into `learner-0`; raises ValueError for anything else."""
  try:
    job, index = cluster_names.parse_task_name(text)
  except ValueError:
    raise ValueError(f'--task={text!r} is not a task: write for example --task=learner:0') from None
  return cluster_names.file_name(cluster_names.task_name(job, index))


def is_loopback(address):
  """Whether `address` (a name or an IP address) means "this machine" wherever it is read."""
  try:
    return ipaddress.ip_address(address).is_loopback
  except ValueError:
    return address.lower() == 'localhost'


def placement_problem(arguments):
  """A sentence if an argument sets what the CSV decides or cannot be passed on; else None."""
  for argument in arguments:
    if '\0' in argument:
      return f'{argument!r} holds a NUL character, which no command line can carry'
    name = argument.lstrip('-').split('=')[0] if argument.startswith('-') else ''
    if name in PLACEMENT_FLAGS:
      return f'--{name} follows from the cluster CSV and cannot be given as well'
  return None


def host_port(task):
  """`address:port` as TensorFlow and URLs write it."""
  return f'[{task.ip}]:{task.tf_port}' if ':' in task.ip else f'{task.ip}:{task.tf_port}'


def cluster_flags(cluster):
  """The three host lists, the same for every task."""
  return [
    f'--{job}_hosts=' + ','.join(host_port(task) for task in cluster.tasks if task.job == job)
    for job in JOBS
  ]


def task_arguments(cluster, task, training_flags):
  """What follows `experiment.py` on the command line of one task, save --state_dir.

  Args:
    cluster: a Cluster.
    task: one of its tasks.
    training_flags: list of arguments, passed on unchanged. The task's own flags come last and win.

  Returns:
    A list of arguments.
  """
  return (
    cluster_flags(cluster)
    + [f'--job_name={task.job}', f'--task={task.index}']
    + list(training_flags)
    + list(task.flags)
  )


def task_environment(task):
  """Environment variables of one task: {name: value, or None to remove it}."""
  return {'CUDA_VISIBLE_DEVICES': task.cuda_visible_devices}
