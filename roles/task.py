"""A training task: its index in the cluster, options, server, heartbeat and requests to end."""

from __future__ import annotations

from collections.abc import Callable

from roles.settings import Options
from runtime import links, placement, sessions
from runtime.cluster import Cluster
from runtime.heartbeat import Heartbeat
from runtime.process import Interrupts
from runtime.unresponsive import UnresponsiveTasks


class Task:
  """A training task; it starts a server unless training is local.

  Args:
    cluster: the cluster and this task's index in it.
    options: this task's options.
    interrupts: requests to end.
    say: shows a sentence about unresponsive tasks to the user; None writes to the log.

  Attributes:
    cluster, options, interrupts: as given.
    unresponsive: tasks that do not respond to this one.
    heartbeat: phases of the loops, state file and watchdog.
    config: tf.compat.v1.ConfigProto of the sessions.
    target: target of the sessions: this task's server, or '' in local training.
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
