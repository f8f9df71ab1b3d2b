"""`plan`: what `launch` would run where, and how fast it would be.

It touches no host, and no shell runs what it prints.
"""

import shlex

from common import texts
from frontend import cluster as cluster_lib
from frontend.connection import hosts
from frontend.planning import report


def plan(console):
  """Prints the command line of every task, by host, and a prediction where a speed is given.

  Returns:
    The exit code.

  Raises:
    ValueError: bad input, in one sentence; nothing is printed.
    HostError: this machine could not tell how large the run is.
  """
  foretold = report.prediction(console) if report.asked(console.options) else None
  for host in console.hosts:
    over = 'here' if isinstance(host, hosts.LocalHost) else 'over SSH'
    console.say(f'{host.name} ({over}), in {texts.printable(host.workdir)}:')
    for task in host.host.tasks:
      arguments = cluster_lib.task_arguments(console.cluster, task, console.training_flags)
      devices = task.cuda_visible_devices
      setting = [] if devices is None else [f'CUDA_VISIBLE_DEVICES={devices}']
      words = setting + [host.python, 'experiment.py', *arguments]
      console.say(f'  {cluster_lib.task_name(task)}: {shlex.join(words)}')
  if foretold:
    console.say(foretold)
  return 0
