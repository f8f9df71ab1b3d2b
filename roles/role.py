"""A task's life: local training, a learner or an actor, from its settings to its end.

The three kinds are three lists of the same parts (`local`, `learner`, `actor`); `Role` lives any
such list: connect, run the loops, connect again where a peer was lost, leave.
"""

import contextlib
import math
import time

import tensorflow as tf
from absl import logging

from common.background import BackgroundCall
from envs import faults
from roles.connection import Connection, agree_as_chief, agree_with_chief
from roles.outbox import ActorOutbox, Outbox
from roles.parts import Acting, Chief, Learning, Telling
from roles.settings import derived_seed
from roles.task import Task
from roles.wiring import Graph
from runtime import peers, sessions
from runtime.process import POLL_SECS, WAITING_SECS, RunFailed
from runtime.sessions import first_line, lost_peer

_LOOPS_SECS = 5.0  # For loops that nothing of a run's folder depends on.
_CLOSING_SECS = 1.0  # For sessions to close before the task deregisters.
_SIGN_SECS = 2.0  # Between two signs of life of a task whose loops come to their end.


def run(cluster, options, interrupts, claim=None):
  """Runs local training, a learner or an actor to its end.

  Args:
    cluster: `runtime.cluster.Cluster`, with this task's place in it.
    options: `roles.settings.Options`.
    interrupts: `runtime.process.Interrupts`.
    claim: the chief's `roles.resuming.RunLock`.

  Raises:
    BadInput: the command line contradicts the run or this machine.
    RunFailed: the run cannot go on.
  """
  task = Task(cluster, options, interrupts)
  agreement = agree_as_chief(task, claim) if claim else agree_with_chief(task)
  if agreement is None:  # Told to stop meanwhile.
    return
  kind = {'': local, 'learner': learner, 'actor': actor}[cluster.job]
  with _seeded_graph(task, agreement.settings) as graph:
    role = kind(task, graph, agreement, claim)
  role.run()


def local(task, graph, agreement, claim):
  """Local training: a learner that is the chief, and an actor, in one process."""
  learning = Learning(task, graph)
  outbox = Outbox(graph, learning.side.queue, learning.side.specs)
  telling = Telling(task, graph, learning.side.queue, outbox)
  acting = Acting(task, graph, outbox, agreement.start_frames, telling.reports)
  chief = Chief(task, graph, learning, claim)
  return Role(task, agreement, [chief, learning, acting, telling], telling.reports, chief)


def learner(task, graph, agreement, claim):
  """A learner; the first is the chief, the one with a claim on the run's folder."""
  learning = Learning(task, graph)
  telling = Telling(task, graph, learning.side.queue, Outbox(graph))
  chief = Chief(task, graph, learning, claim) if claim else None
  if not chief:
    learning.after_update = lambda session, enter, values, *secs: telling.reports.add_wait(*secs)
  learning.build_sync()
  parts = [chief, learning, telling] if chief else [learning, telling]
  return Role(task, agreement, parts, telling.reports, chief)


def actor(task, graph, agreement, claim):
  """An actor; it feeds one learner."""
  del claim
  queue, _ = graph.unroll_queue(task.cluster.learner_of_actor)
  outbox = ActorOutbox(graph)
  telling = Telling(task, graph, queue, outbox)
  acting = Acting(task, graph, outbox, agreement.start_frames, telling.reports)
  return Role(task, agreement, [acting, telling], telling.reports)


@contextlib.contextmanager
def _seeded_graph(task, settings):
  """The `Graph` of a task inside a TensorFlow graph of its own, which nothing is added to later."""
  cluster = task.cluster
  place = max(0, cluster.task) + (10_000 if cluster.job == 'actor' else 0)
  with tf.Graph().as_default() as tf_graph:
    tf.compat.v1.set_random_seed(derived_seed(settings.seed, place))
    yield Graph(settings, cluster)
    tf_graph.finalize()


class Role:
  """A task that has a graph, while it lives.

  Args:
    task: `roles.task.Task`.
    agreement: `roles.connection.Agreement`.
    parts: list of `roles.parts.Part`; at the end, the first is told first.
    reports: `roles.bookkeeping.Reports`, knows whether the queue is full.
    chief: the `roles.parts.Chief` among the parts, or None.
  """

  def __init__(self, task, agreement, parts, reports, chief=None):
    self._task, self._agreement, self._parts = task, agreement, parts
    self._reports, self._chief = reports, chief
    self._connection = Connection(task, parts, chief)
    task.heartbeat.excused = self._excuse

  def run(self):
    """From the first connection to the end."""
    failed = True
    try:
      while (session := self._connection.open()) is not None:
        if self._train(session):
          for part in self._parts:
            part.conclude()
          break
      failed = False
    finally:
      for part in self._parts:
        part.close(failed)

  def _train(self, session):
    """Runs the loops on a session; True at the end of the run, False when a peer was lost."""
    loops, interrupts = sessions.Loops(), self._task.interrupts
    if not self._was_done_before():
      self._task.heartbeat.clear()
      for part in self._parts:
        part.start(loops, session)
    while not loops.wait(POLL_SECS) and not interrupts.is_set():
      pass
    if loops.error is None or interrupts.is_set():
      self._leave(loops, session)
      return True
    lost = not self._task.cluster.is_local and lost_peer(loops.error)
    if not lost:
      self._connection.failed(session)
    self._connection.drop(loops, session)
    if not lost:
      raise RunFailed(failure(loops.error)) from loops.error
    self._connection.remember_loss(loops.error)
    return False

  def _was_done_before(self):
    """Whether the checkpoint that was resumed leaves nothing to do."""
    total = self._agreement.settings.total_environment_frames
    if self._agreement.start_frames < total:
      return False
    self._task.interrupts.set(f'all {total} frames were done before (--total_environment_frames)')
    return True

  def _leave(self, loops, session):
    """The end: all parts hear of it, loops end, what has to be kept is kept, goodbye to ps 0."""
    cluster = self._task.cluster
    logging.info('%s leaves: %s', cluster.name, self._task.interrupts.reason)
    self._task.heartbeat.phase('leaving')
    loops.stop()
    try:
      for part in self._parts:
        part.announce_end(session)
      self._wait_for_loops(loops, session)
      for part in self._parts:
        part.finish(session)
    except Exception as e:
      if cluster.is_local or not lost_peer(e):
        raise
      logging.warning('%s could not take leave: %s', cluster.name, first_line(e))
      if self._chief:
        raise RunFailed(f'the last checkpoint could not be written: {first_line(e)}') from e
    finally:
      closing = BackgroundCall(self._connection.close_sessions, session)
      closing.has_ended(_CLOSING_SECS)  # Those of a peer that has gone may never close.
      self._connection.say_goodbye()
      closing.result()

  def _wait_for_loops(self, loops, session):
    """Waits for the loops of whatever a checkpoint or a record holds, however long they take.

    Of the others, an environment may never answer: what they were about to send is given up.
    """
    loops.join(_LOOPS_SECS)
    lasting = [name for part in self._parts for name in part.lasting_loops]
    said = -math.inf
    while running := loops.join(_SIGN_SECS, lasting):
      if time.monotonic() - said > WAITING_SECS:
        logging.info('%s waits for its loops to end: %s', self._task.cluster.name,
                     ', '.join(running))  # fmt: skip
        said = time.monotonic()
      for part in self._parts:
        part.check_alive(session)

  def _excuse(self, phase):
    """Why a long stay in a phase is a wait for others, or '' if it is not."""
    cluster = self._task.cluster
    if cluster.is_local:
      return 'the queue is full' if phase == 'enqueue' else ''
    needed = list(cluster.peers)
    together = phase == 'update' and self._agreement.settings.sync_learners
    if together:
      needed += [f'learner:{i}' for i in range(len(cluster.learner))]
    missing = peers.missing_peers(cluster, needed)
    if together and not missing:
      missing = _lost_actors_of_a_learner(cluster, self._task.heartbeat.silence.there)
    if missing:
      return 'waiting for ' + ', '.join(missing)
    if phase == 'enqueue' and self._reports.queue_is_full():
      return 'the queue is full'
    return ''


def _lost_actors_of_a_learner(cluster, there):
  """The actors of the first learner that has none, as 'actor:1 at localhost:8003'.

  Args:
    cluster: `runtime.cluster.Cluster`.
    there: set of the names of tasks that report to the chief; None where that is not known.
  """
  if there is None:
    return []
  fed = {int(n.partition(':')[2]) % len(cluster.learner) for n in there if n.startswith('actor')}
  for learner, actors in enumerate(cluster.actors_of_learners):
    if learner not in fed:  # By none that is listed, and by no spare one.
      return [f'{name} at {cluster.address(name)}' for name in actors]
  return []


def failure(error):
  """What went wrong in a loop, in words that a person can act on."""
  if fault := faults.sentence_in(error):
    return fault
  message = getattr(error, 'message', None) or str(error)
  marker = 'the loss or its gradient is not finite at update'
  if marker in message:
    update = ''.join(c for c in message.split(marker)[1][:30] if c.isdigit())
    return f'{marker} {update}; the last checkpoint before it is kept'
  return f'{type(error).__name__}: {message}'
