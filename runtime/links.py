"""Each peer of a task is asked something every few seconds, so that one that vanishes is noticed.

A host without power or cable says nothing, and a call that waits for it would never fail; see
"Peers that vanish" in docs/design.md.
"""

import contextlib
import threading
import time

import tensorflow as tf

from runtime import peers, placement, sessions

ASK_SECS = 3.0  # Between two questions to a peer.
_SWEEP_SECS = 2.0
LOST_SECS = 8.0  # Without an acknowledgement of what was sent: the host has vanished.


def watch(cluster, target, silence):
  """Asks each peer of a task for ever, and tells `silence` who answered.

  Connections to hosts that have vanished are closed, so that all calls on them fail at once.

  Args:
    cluster: `runtime.cluster.Cluster`, with this task's place in it.
    target: of the task's server.
    silence: `runtime.silence.Silence`.
  """
  for name in cluster.peers:
    _Link(cluster, target, name, silence)
  threading.Thread(target=_close_dead, daemon=True, name='closes dead connections').start()


def _close_dead():
  connections = peers.Connections()
  while True:
    connections.close_dead(LOST_SECS)
    time.sleep(_SWEEP_SECS)


class _Link:
  """Asks one peer, on the connection on which this task's other calls to it are."""

  def __init__(self, cluster, target, name, silence):
    self._target, self._name, self._silence = target, name, silence
    device = cluster.device(*name.split(':'))
    self._config = placement.session_config(cluster)
    self._config.device_filters[:] = [device, cluster.own_device]
    with tf.Graph().as_default() as self._graph, tf.device(device + '/cpu:0'):
      self._question = tf.timestamp()  # Nothing that could be known without asking.
    threading.Thread(target=self._ask, daemon=True, name=f'asks {name}').start()

  def _ask(self):
    while True:
      session = None
      with contextlib.suppress(tf.errors.OpError):
        session = tf.compat.v1.Session(self._target, self._graph, self._config)  # Waits for it.
        self._ask_in(session)
      if session:
        sessions.close_session(session)
      time.sleep(ASK_SECS)

  def _ask_in(self, session):
    while True:
      with contextlib.suppress(tf.errors.DeadlineExceededError):  # Suspended: it may go on.
        sessions.run_within(session, self._question, secs=sessions.ANSWER_SECS)
        self._silence.answered(self._name)
      time.sleep(ASK_SECS)
