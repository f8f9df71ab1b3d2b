"""What a task sends: unrolls to a learner's queue, reports to ps 0."""

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
  """Sessions on the server of another task, as its client.

  Arrays that are fed to a session enter the cluster at that session's server. If an actor fed them
  to its own, the learner and ps 0 would have to fetch them from the actor, one tensor after
  another, and would need its address. Through the receiver's server they arrive in one message,
  and nobody ever connects to an actor.

  Args:
    cluster: with the place of this actor in it.
    job, task: the other task.
    tf_graph: what is run there.
  """

  def __init__(self, cluster: Cluster, job: str, task: int, tf_graph: tf.Graph):
    self._target = f'grpc://{cluster.address(f"{job}:{task}")}'
    self._tf_graph, self._config = tf_graph, placement.session_config(cluster)
    self._config.device_filters[:] = [cluster.device(job, task)]  # No third task is needed.
    self._opened: list[tf.compat.v1.Session] = []

  def open(self) -> tf.compat.v1.Session:
    """Opens a session; one that was opened before is closed."""
    sessions.close_session(*self.release())
    self._opened = [tf.compat.v1.Session(self._target, self._tf_graph, self._config)]
    return self._opened[0]

  def release(self) -> list[tf.compat.v1.Session]:
    """Returns the sessions that are open; the caller closes them."""
    opened, self._opened = self._opened, []
    return opened


class UnrollSender:
  """Sends unrolls to a learner's queue.

  Args:
    enqueue: into that queue.
    remote: sessions of the learner's server; None sends through the role's own session.
  """

  def __init__(self, enqueue: EnqueueOp, remote: RemoteSessions | None = None):
    self._enqueue, self._remote = enqueue, remote
    self._send: Callable[..., Any] | None = None

  def open(self, session: tf.compat.v1.Session) -> None:
    """Prepares to send, on a new session of the role."""
    self._send = self._enqueue.on(self._remote.open() if self._remote else session)

  def send(self, *arrays: Any) -> None:
    """Sends the flat arrays of an `Unroll` of [N, ...]; waits while the queue is full."""
    assert self._send, 'not open'
    self._send(*arrays)

  def release(self) -> list[tf.compat.v1.Session]:
    """Returns the sessions that this object has opened; the caller closes them."""
    return self._remote.release() if self._remote else []


class ReportSender:
  """Registers this task on ps 0 and sends its reports there.

  Args:
    shared: the shared state, in the graph that the reports are sent with.
    cluster: with this task's place in it.
    remote: sessions of the server of ps 0; None sends through the role's own session.
  """

  def __init__(self, shared: SharedState, cluster: Cluster, remote: RemoteSessions | None = None):
    self._shared, self._cluster, self._remote = shared, cluster, remote
    self._send: Callable[[str], Any] | None = None

  def open(self, session: tf.compat.v1.Session) -> None:
    """Registers the task and prepares to send, on a new session of the role."""
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
  """Returns the senders of an actor in a cluster, clients of its learner and of ps 0.

  They have a session each, so that a learner that is gone or frozen does not delay the reports.
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
