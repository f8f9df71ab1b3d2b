"""Sends unrolls to a learner's queue and reports to ps 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from acting.actor import EnqueueOp
from roles.wiring import Graph
from runtime import placement, sessions
from runtime.cluster import Cluster
from runtime.shared_state import SharedState


class RemoteSessions:
  """Opens sessions on the server of another task, as its client.

  Fed arrays enter the cluster at the session's server. If an actor fed its own server, the learner
  and ps 0 would need its address and would fetch the tensors from it one by one. Fed to the
  receiver's server, they arrive in one message, and no task ever connects to an actor.

  Args:
    cluster: the cluster and this actor's index in it.
    job, task: job and index of the other task.
    tf_graph: graph of the sessions.
  """

  def __init__(self, cluster: Cluster, job: str, task: int, tf_graph: tf.Graph):
    self._target = f'grpc://{cluster.address(f"{job}:{task}")}'
    self._tf_graph, self._config = tf_graph, placement.session_config(cluster)
    self._config.device_filters[:] = [cluster.device(job, task)]  # Do not wait for other tasks.
    self._opened: list[tf.compat.v1.Session] = []

  def open(self) -> tf.compat.v1.Session:
    """Opens a session and closes the previous one."""
    sessions.close_session(*self.release())
    self._opened = [tf.compat.v1.Session(self._target, self._tf_graph, self._config)]
    return self._opened[0]

  def release(self) -> list[tf.compat.v1.Session]:
    """Returns the open sessions; the caller closes them."""
    opened, self._opened = self._opened, []
    return opened


class UnrollSender:
  """Sends unrolls to a learner's queue.

  Args:
    enqueue: enqueues into that queue.
    remote: sessions on the learner's server; None sends through the role's own session.
  """

  def __init__(self, enqueue: EnqueueOp, remote: RemoteSessions | None = None):
    self._enqueue, self._remote = enqueue, remote
    self._send: Callable[..., Any] | None = None

  def open(self, session: tf.compat.v1.Session) -> None:
    """Prepares to send, after the role has opened a new session."""
    self._send = self._enqueue.on(self._remote.open() if self._remote else session)

  def send(self, *arrays: Any) -> None:
    """Sends the flattened arrays of an `Unroll` of [N, ...]; blocks while the queue is full."""
    assert self._send, 'not open'
    self._send(*arrays)

  def release(self) -> list[tf.compat.v1.Session]:
    """Returns the sessions that this object has opened; the caller closes them."""
    return self._remote.release() if self._remote else []


class ReportSender:
  """Registers this task on ps 0 and sends its reports there.

  Args:
    shared: the shared state, in the graph of the sending sessions.
    cluster: the cluster and this task's index in it.
    remote: sessions on the server of ps 0; None sends through the role's own session.
  """

  def __init__(self, shared: SharedState, cluster: Cluster, remote: RemoteSessions | None = None):
    self._shared, self._cluster, self._remote = shared, cluster, remote
    self._send: Callable[[str], Any] | None = None

  def open(self, session: tf.compat.v1.Session) -> None:
    """Registers the task and prepares to send, after the role has opened a new session."""
    at_ps = self._remote.open() if self._remote else session
    self._shared.register(at_ps, self._cluster)
    self._send = at_ps.make_callable(self._shared.send_report, feed_list=[self._shared.report])

  def send(self, report: str) -> None:
    """Sends a report."""
    assert self._send, 'not open'
    self._send(report)

  def release(self) -> list[tf.compat.v1.Session]:
    """Returns the sessions that this object has opened; the caller closes them."""
    return self._remote.release() if self._remote else []


def actor_senders(graph: Graph) -> tuple[UnrollSender, ReportSender]:
  """Returns an actor's senders, which are clients of its learner and of ps 0.

  Each has its own session, so that a dead or frozen learner does not delay the reports.
  """
  cluster = graph.cluster
  with tf.Graph().as_default() as learner_graph:
    enqueue = EnqueueOp(*graph.unroll_queue(cluster.learner_of_actor))
  with tf.Graph().as_default() as ps_graph:
    shared = SharedState(cluster)
  learner_graph.finalize()
  ps_graph.finalize()
  return (
    UnrollSender(
      enqueue, RemoteSessions(cluster, 'learner', cluster.learner_of_actor, learner_graph)
    ),
    ReportSender(shared, cluster, RemoteSessions(cluster, 'ps', 0, ps_graph)),
  )
