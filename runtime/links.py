"""Queries each peer of a task every few seconds, to detect hosts that have vanished.

A host that loses power or network sends nothing, and a call that waits for it would never fail; see
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

ASK_SECS = 3.0  # Interval between queries to a peer.
_SWEEP_SECS = 2.0  # Interval between checks for dead connections.
LOST_SECS = 8.0  # A host that has not acknowledged data for this long counts as vanished.


def watch(cluster: Cluster, target: str, unresponsive: UnresponsiveTasks) -> None:
  """Starts daemon threads that query each peer of a task and record its answers.

  They also close connections to vanished hosts, so that all calls on them fail at once.

  Args:
    cluster: the cluster and this task's index in it.
    target: gRPC target of this task's server.
    unresponsive: records the answers.
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
  """Queries one peer, over the same connection as this task's other calls to it."""

  def __init__(self, cluster: Cluster, target: str, name: str, unresponsive: UnresponsiveTasks):
    self._target, self._name, self._unresponsive = target, name, unresponsive
    job, task = name.split(':')
    device = cluster.device(job, int(task))
    self._config = placement.session_config(cluster)
    self._config.device_filters[:] = [device, cluster.own_device]
    with tf.Graph().as_default() as self._graph, tf.device(device + '/cpu:0'):
      self._question = tf.timestamp()  # Runs on the peer, so it cannot be answered locally.
    threading.Thread(target=self._ask, daemon=True, name=f'asks {name}').start()

  def _ask(self) -> None:
    while True:
      session = None
      with contextlib.suppress(tf.errors.OpError):
        session = tf.compat.v1.Session(self._target, self._graph, self._config)  # Waits for peer.
        self._ask_in(session)
      if session:
        sessions.close_session(session)
      time.sleep(ASK_SECS)

  def _ask_in(self, session: tf.compat.v1.Session) -> None:
    while True:
      # A suspended peer may continue later.
      with contextlib.suppress(tf.errors.DeadlineExceededError):
        sessions.run_within(session, self._question, secs=sessions.ANSWER_SECS)
        self._unresponsive.answered(self._name)
      time.sleep(ASK_SECS)
