"""What every action is handed: the cluster, its hosts asked all at once, the flags, a way to print.

An action is a function of a Console that returns the exit code. It talks to all hosts at once,
keeps each host's outcome, and reports all of them.
"""

import contextlib
import os
import shlex
import shutil
import sys

from common import background, texts
from frontend import cluster as cluster_lib
from frontend.connection import hosts, scripts
from frontend.errors import HostError

# How often an action that waits for something looks again.
POLL_SECS = 0.5
# How long Ctrl-C waits until the hosts are told.
LEAVE_SECS = 1.0


class Console:
  """One cluster in the hands of a person.

  Args:
    cluster: a Cluster of frontend/cluster.py.
    options: the frontend's own flags, as attributes.
    training_flags: list of arguments for every task.
    out: where to print.

  Attributes:
    cluster, options, training_flags, out: the arguments.
    hosts: list of LocalHost and SshHost, in the order of the CSV.
  """

  def __init__(self, cluster, options, training_flags, out=None):
    self.cluster = cluster
    self.options = options
    self.training_flags = training_flags
    self.out = out or sys.stdout
    self.hosts = [hosts.open_host(host) for host in cluster.hosts]

  def close(self, at_once=False):
    """Ends all connections.

    Args:
      at_once: whether to leave alone what does not end: a person wants to go.
    """
    limit_secs = LEAVE_SECS if at_once else None
    with contextlib.suppress(TimeoutError):
      background.within(
        limit_secs, background.on_each, lambda host: host.close(at_once), self.hosts
      )

  def say(self, text=''):
    """Prints a line, or several, without what a host may have put there to steer the terminal."""
    print(texts.printable_lines(text), file=self.out, flush=True)

  def on_all(self, function, targets=None):
    """Calls `function(host)` for every host, or for the `targets` alone, all at once.

    Ctrl-C ends the waiting at once, whatever the hosts do.

    Returns:
      List of (host, result or the HostError); a file or folder of this machine that cannot be read
      or written is that host's HostError too.
    """
    targets = self.hosts if targets is None else targets

    def outcome(host):
      try:
        return function(host)
      except HostError as error:
        return error
      except OSError as error:
        return HostError('', str(error) or type(error).__name__)

    return list(zip(targets, background.on_each(outcome, targets)))

  def failures(self, outcomes):
    """Prints one line for each host that failed; returns how many did."""
    failed = [(host, result) for host, result in outcomes if isinstance(result, HostError)]
    for host, error in failed:
      self.say(f'{host.name}: {error}')
    return len(failed)

  def host_of(self, name):
    """The host of the task with this name; ValueError if the cluster has no such task."""
    for host in self.hosts:
      if name in task_names(host):
        return host
    count = {job: sum(task.job == job for task in self.cluster.tasks) for job in cluster_lib.JOBS}
    raise ValueError(
      f'--task={name.replace("-", ":")}: the cluster has '
      + ', '.join(f'{number} {job}' for job, number in count.items())
    )

  def session(self):
    """The field of a request that names the session."""
    return {'session': self.options.tmux_sess}

  def session_and_socket(self):
    """The fields of a request that reaches for tmux."""
    return {'session': self.options.tmux_sess, 'tmux_socket': self.options.tmux_socket}

  def command(self, action, *extra):
    """The command line of another action on this cluster, ready to paste."""
    program = 'python' if shutil.which('python') == sys.executable else sys.executable
    there = os.getcwd() == hosts.CODE
    path = scripts.PROGRAM if there else os.path.join(hosts.CODE, scripts.PROGRAM)
    words = [program, path, f'--cluster_csv_path={self.options.cluster_csv_path}']
    if self.options.tmux_sess != 'impala':
      words.append(f'--tmux_sess={self.options.tmux_sess}')
    if self.options.tmux_socket:
      words.append(f'--tmux_socket={self.options.tmux_socket}')
    return shlex.join(words + [f'--action={action}', *extra])


def task_names(host):
  """Names of the tasks on a host."""
  return [cluster_lib.task_name(task) for task in host.host.tasks]
