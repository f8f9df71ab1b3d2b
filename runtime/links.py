"""Asks each peer of a task something every few seconds, so that a vanished host is noticed.

A host without power or network sends nothing, and a call that waits for it would never fail; see
"Peers that vanish" in docs/design.md.
"""

from __future__ import annotations

import contextlib
import threading
import time

import tensorflow as tf

from runtime import peers, placement, sessions
from runtime.cluster import Cluster
from runtime.unresponsive import UnresponsiveTasks

ASK_SECS = 3.0  # Between two questions to a peer.
_SWEEP_SECS = 2.0  # Between two looks for dead connections.
LOST_SECS = 8.0  # A host that acknowledges nothing for this long has vanished.


def watch(cluster: Cluster, target: str, unresponsive: UnresponsiveTasks) -> None:
  """Starts threads that question each peer of a task for ever and note its answers.

  They also close connections to hosts that have vanished, so that all calls on them fail at once.

  Args:
    cluster: with this task's place in it.
    target: of the task's server.
    unresponsive: where answers are noted.
  """
  for name in cluster.peers:
    _Link(cluster, target, name, unresponsive)
  threading.Thread(target=_close_dead, daemon=True, name='closes dead connections').start()


def _close_dead() -> None:
  connections = peers.Connections()
  while True:
    connections.close_dead(LOST_SECS)
    time.sleep(_SWEEP_SECS)


class _Link:
  """Asks one peer, over the connection that this task's other calls to it use."""

  def __init__(self, cluster: Cluster, target: str, name: str, unresponsive: UnresponsiveTasks):
    self._target, self._name, self._unresponsive = target, name, unresponsive
    job, task = name.split(':')
    device = cluster.device(job, int(task))
    self._config = placement.session_config(cluster)
    self._config.device_filters[:] = [device, cluster.own_device]
    with tf.Graph().as_default() as self._graph, tf.device(device + '/cpu:0'):
      self._question = tf.timestamp()  # An answer that only the peer knows.
    threading.Thread(target=self._ask, daemon=True, name=f'asks {name}').start()

  def _ask(self) -> None:
    while True:
      session = None
      with contextlib.suppress(tf.errors.OpError):
        session = tf.compat.v1.Session(self._target, self._graph, self._config)  # Waits for it.
        self._ask_in(session)
      if session:
        sessions.close_session(session)
      time.sleep(ASK_SECS)

  def _ask_in(self, session: tf.compat.v1.Session) -> None:
    while True:
      # A peer that is suspended may go on later.
      with contextlib.suppress(tf.errors.DeadlineExceededError):
        sessions.run_within(session, self._question, secs=sessions.ANSWER_SECS)
        self._unresponsive.answered(self._name)
      time.sleep(ASK_SECS)
