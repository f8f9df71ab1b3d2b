"""`plan`: the command line of each task, by host, and how fast the cluster would train.

It touches no host.
"""

import shlex

from common import texts
from frontend import cluster as cluster_lib
from frontend.connection import hosts
from frontend.console import Console
from frontend.planning import report


def run(console: Console) -> int:
  """Prints the command lines, and a prediction if a speed is given; returns the exit code.

  Raises:
    UserError: bad input; nothing is printed.
    HostError: experiment.py could not compute the run's sizes on this machine.
  """
  prediction = report.prediction(console) if report.is_asked_for(console.options) else None
  for host in console.hosts:
    over = 'here' if isinstance(host, hosts.LocalHost) else 'over SSH'
    console.say(f'{host.name} ({over}), in {texts.printable(host.workdir)}:')
    for task in host.host.tasks:
      arguments = cluster_lib.task_arguments(console.cluster, task, console.training_flags)
      devices = task.cuda_visible_devices
      setting = [] if devices is None else [f'CUDA_VISIBLE_DEVICES={devices}']
      words = setting + [host.python, 'experiment.py', *arguments]
      console.say(f'  {cluster_lib.task_name(task)}: {shlex.join(words)}')
  if prediction:
    console.say(prediction)
  return 0
