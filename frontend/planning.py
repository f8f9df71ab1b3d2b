"""`plan`: what `launch` would run where. It touches no host, and no shell runs what it prints."""

import shlex

from frontend import cluster as cluster_lib
from frontend import hosts, on_host


def plan(console):
  """Prints the command line of every task, by host; returns the exit code."""
  for host in console.hosts:
    over = 'here' if isinstance(host, hosts.LocalHost) else 'over SSH'
    console.say(f'{host.name} ({over}), in {on_host.printable(host.workdir)}:')
    for task in host.host.tasks:
      arguments = cluster_lib.task_arguments(console.cluster, task, console.training_flags)
      devices = task.cuda_visible_devices
      setting = [] if devices is None else [f'CUDA_VISIBLE_DEVICES={devices}']
      words = setting + [host.python, 'experiment.py', *arguments]
      console.say(f'  {cluster_lib.task_name(task)}: {shlex.join(words)}')
  return 0
