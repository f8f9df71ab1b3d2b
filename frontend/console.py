"""What every action gets: the cluster, its hosts, the flags, and a place to print.

An action is a function of a Console that returns the exit code. It talks to all hosts at once,
keeps each host's outcome, and reports all of them.
"""

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO, TypeVar

from common import background, texts
from frontend import cluster as cluster_lib
from frontend.connection import hosts, scripts
from frontend.errors import HostError, UserError

# Interval at which an action that waits for something checks it again.
POLL_SECS = 0.5
# How long Ctrl-C waits for connections to close.
LEAVE_SECS = 1.0

AnyHost = hosts.LocalHost | hosts.SshHost
T = TypeVar('T')


class Console:
  """One cluster and its connections, for the duration of one action.

  Args:
    cluster: what the CSV describes.
    options: the frontend's own flags, as attributes.
    training_flags: arguments for every task.
    out: where to print; standard output by default.

  Attributes:
    cluster, options, training_flags, out: the arguments.
    hosts: a host for each of the cluster's, in the order of the CSV, not connected yet.
  """

  def __init__(
    self,
    cluster: cluster_lib.Cluster,
    options: Any,
    training_flags: Sequence[str],
    out: TextIO | None = None,
  ):
    self.cluster = cluster
    self.options = options
    self.training_flags = list(training_flags)
    self.out = out or sys.stdout
    self.hosts: list[AnyHost] = [hosts.open_host(host) for host in cluster.hosts]

  def close(self, at_once: bool = False) -> None:
    """Closes all connections.

    Args:
      at_once: whether to give up after LEAVE_SECS, because the user wants to leave.
    """
    limit_secs = LEAVE_SECS if at_once else None
    with contextlib.suppress(TimeoutError):
      background.within(
        limit_secs, background.on_each, lambda host: host.close(at_once), self.hosts
      )

  def say(self, text: str = '') -> None:
    """Prints lines without control characters, which text from a host may hold."""
    print(texts.printable_lines(text), file=self.out, flush=True)

  def on_all(
    self, function: Callable[[AnyHost], T], targets: Iterable[AnyHost] | None = None
  ) -> list[tuple[AnyHost, T | HostError]]:
    """Calls `function(host)` for all hosts at once; Ctrl-C interrupts it even if hosts hang.

    Args:
      function: may raise HostError, or OSError for a file of this machine.
      targets: hosts to call it for; all by default.

    Returns:
      List of (host, result of the call, or HostError for either exception).
    """
    targets = self.hosts if targets is None else list(targets)

    def outcome(host: AnyHost) -> T | HostError:
      try:
        return function(host)
      except HostError as error:
        return error
      except OSError as error:
        return HostError('', str(error) or type(error).__name__)

    return list(zip(targets, background.on_each(outcome, targets)))

  def failures(self, outcomes: Iterable[tuple[AnyHost, Any]]) -> int:
    """Prints a line for each host that failed; returns how many did."""
    failed = [(host, result) for host, result in outcomes if isinstance(result, HostError)]
    for host, error in failed:
      self.say(f'{host.name}: {error}')
    return len(failed)

  def host_of(self, name: str) -> AnyHost:
    """Returns the host of the task with this name; raises UserError if there is no such task."""
    for host in self.hosts:
      if name in task_names(host):
        return host
    count = {job: sum(task.job == job for task in self.cluster.tasks) for job in cluster_lib.JOBS}
    raise UserError(
      f'--task={name.replace("-", ":")}: the cluster has '
      + ', '.join(f'{number} {job}' for job, number in count.items())
    )

  def session(self) -> dict[str, Any]:
    """Returns the field of a request that names the session."""
    return {'session': self.options.tmux_sess}

  def session_and_socket(self) -> dict[str, Any]:
    """Returns the fields of a request that uses tmux."""
    return {'session': self.options.tmux_sess, 'tmux_socket': self.options.tmux_socket}

  def command(self, action: str, *extra: str) -> str:
    """Returns the command line of another action on this cluster, ready to paste."""
    program = 'python' if shutil.which('python') == sys.executable else sys.executable
    in_checkout = os.getcwd() == hosts.CODE
    path = scripts.PROGRAM if in_checkout else os.path.join(hosts.CODE, scripts.PROGRAM)
    words = [program, path]
    if self.options.cluster_csv_path:  # A sweep on this machine has none.
      words.append(f'--cluster_csv_path={self.options.cluster_csv_path}')
    if self.options.tmux_sess != 'impala':
      words.append(f'--tmux_sess={self.options.tmux_sess}')
    if self.options.tmux_socket:
      words.append(f'--tmux_socket={self.options.tmux_socket}')
    return shlex.join(words + [f'--action={action}', *extra])


def task_names(host: AnyHost) -> list[str]:
  """Returns the names of the tasks on a host."""
  return [cluster_lib.task_name(task) for task in host.host.tasks]
