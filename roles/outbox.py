"""What a task sends: unrolls to a learner's queue, reports to ps 0."""

import tensorflow as tf

from acting import actor
from runtime import placement, sessions
from runtime.shared_state import SharedState


class Outbox:
  """Sends through the role's own session.

  Args:
    graph: `roles.wiring.Graph`.
    queue, specs: as `Graph.unroll_queue` gives them, or None where no unrolls are sent.

  Attributes:
    send_report: function of a report's text; None before `open`.
    send_unroll: function of the flat arrays of an `Unroll` of [N, ...], which waits while the
      queue is full; None before `open`, and where no unrolls are sent.
  """

  def __init__(self, graph, queue=None, specs=None):
    self._shared, self._cluster = graph.shared, graph.cluster
    self._sender = actor.UnrollSender(queue, specs) if queue else None
    self.send_unroll = self.send_report = None

  def open(self, session):
    """Prepares to send.

    Args:
      session: tf.compat.v1.Session of the role.
    """
    self._open(session, session)

  def _open(self, at_ps, at_learner):
    self._shared.join(at_ps, self._cluster)
    self.send_report = at_ps.make_callable(
      self._shared.send_report, feed_list=[self._shared.report]
    )
    if self._sender:
      self.send_unroll = self._sender.on(at_learner)

  def release(self):
    """Returns the list of sessions that this outbox has opened; whoever asks closes them."""
    return []


class ActorOutbox(Outbox):
  """Sends through sessions of the receivers' own servers, as their client.

  What is fed to a session enters the cluster at that session's server. Through the actor's own the
  learner and ps 0 would have to fetch it from the actor, one tensor after another, and so would
  need to know its address; through theirs, it arrives in one message, and nobody ever connects to
  an actor. Two sessions, so that a learner that is away or frozen does not hold up what ps 0 hears.

  Args:
    graph: `roles.wiring.Graph` of an actor in a cluster.
  """

  def __init__(self, graph):
    self._sessions = []
    self._ps_graph, self._learner_graph = tf.Graph(), tf.Graph()
    with self._learner_graph.as_default():
      super().__init__(graph, *graph.unroll_queue(graph.cluster.learner_of_actor))
    with self._ps_graph.as_default():
      self._shared = SharedState(self._cluster)
    for tf_graph in (self._ps_graph, self._learner_graph):
      tf_graph.finalize()

  def open(self, session):
    """As `Outbox`."""
    sessions.close_session(*self.release())
    at_ps = self._session('ps', 0, self._ps_graph)
    self._open(at_ps, self._session('learner', self._cluster.learner_of_actor, self._learner_graph))

  def _session(self, job, task, tf_graph):
    """A session of another task's server, which asks no third one."""
    config = placement.session_config(self._cluster)
    config.device_filters[:] = [self._cluster.device(job, task)]
    target = f'grpc://{self._cluster.address(f"{job}:{task}")}'
    self._sessions.append(tf.compat.v1.Session(target, tf_graph, config))
    return self._sessions[-1]

  def release(self):
    """As `Outbox`."""
    opened, self._sessions = self._sessions, []
    return opened
