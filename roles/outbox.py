"""What a task sends: unrolls to a learner's queue, reports to ps 0."""

import tensorflow as tf

import actor
from runtime import placement, sessions
from runtime.shared_state import SharedState


class Outbox:
  """Sends through the role's own session.

  Args:
    graph: `roles.wiring.Graph`.
    queue, specs: as `Graph.unroll_queue` gives them, or None where no unrolls are sent.

  Attributes:
    send_report: function of a report's text; None before `open`.
    send_unroll: function of the arrays of a flat `actor.Unroll` of [N, ...], which waits while the
      queue is full; None before `open`, and where no unrolls are sent.
  """

  def __init__(self, graph, queue=None, specs=None):
    self._shared = graph.shared
    self._sender = actor.UnrollSender(queue, specs) if queue else None
    self.send_unroll = self.send_report = None

  def open(self, session):
    """Prepares to send.

    Args:
      session: tf.compat.v1.Session of the role.
    """
    self.send_report = session.make_callable(
      self._shared.send_report, feed_list=[self._shared.report]
    )
    if self._sender:
      self.send_unroll = self._sender.on(session)

  def close(self):
    """The session is lost, or about to be closed."""


class ActorOutbox(Outbox):
  """Sends through a session of the learner's server, as its client.

  What is fed to a session enters the cluster at that session's server. Through the actor's own the
  learner and ps 0 would have to fetch it from the actor, one tensor after another, and so would
  need to know its address; through the learner's, it arrives in one message, and nobody ever
  connects to an actor.

  Args:
    graph: `roles.wiring.Graph` of an actor in a cluster.
  """

  def __init__(self, graph):
    self._cluster, self._session = graph.cluster, None
    self._tf_graph = tf.Graph()
    with self._tf_graph.as_default():
      queue, specs = graph.unroll_queue(self._cluster.learner_of_actor)
      super().__init__(graph, queue, specs)
      self._shared = SharedState(self._cluster)
    self._tf_graph.finalize()

  def open(self, session):
    """As `Outbox`; a spare actor says that it is there."""
    self.close()
    learner = f'learner:{self._cluster.learner_of_actor}'
    config = placement.session_config(self._cluster)
    target = f'grpc://{self._cluster.address(learner)}'
    self._session = tf.compat.v1.Session(target, self._tf_graph, config)
    super().open(self._session)
    if self._cluster.is_spare:
      name = {self._shared.spare_actor: self._cluster.name}
      self._session.run(self._shared.spare_actor_joins, name)

  def close(self):
    """As `Outbox`: calls in flight are cancelled."""
    session, self._session = self._session, None
    if session:
      sessions.close_session(session)
