"""What every part of a role knows of its task: its place, its options, its server, its end."""

from __future__ import annotations

from collections.abc import Callable

from roles.settings import Options
from runtime import links, placement, sessions
from runtime.cluster import Cluster
from runtime.heartbeat import Heartbeat
from runtime.process import Interrupts
from runtime.unresponsive import UnresponsiveTasks


class Task:
  """A task that trains. It has a server, unless training is local.

  Args:
    cluster: with this task's place in it.
    options: of this task alone.
    interrupts: by which it hears of the end.
    say: function of a sentence about tasks that do not respond; None writes to the log.

  Attributes:
    cluster, options, interrupts: as given.
    unresponsive: the tasks that do not respond to this one.
    heartbeat: phases of the loops, state file and watchdog.
    config: of its sessions.
    target: of its sessions: its server's, or '' in local training.
  """

  def __init__(
    self,
    cluster: Cluster,
    options: Options,
    interrupts: Interrupts,
    say: Callable[[str], None] | None = None,
  ):
    self.cluster, self.options, self.interrupts = cluster, options, interrupts
    self.unresponsive = UnresponsiveTasks(cluster, say)
    self.heartbeat = Heartbeat(cluster, self.unresponsive, options.state_dir, options.watchdog_secs)
    self.config = placement.session_config(cluster, options.threads)
    self._server = None if cluster.is_local else sessions.start_server(cluster, self.config)
    self.target: str = self._server.target if self._server else ''
    if self._server:
      links.watch(cluster, self.target, self.unresponsive)
