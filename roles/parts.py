"""The parts of a role: acting, learning, reporting to the chief, and being the chief.

Each part defines what happens when a session opens, which loops run, and what happens at the end.
A role (`roles.role`) is a list of parts.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import tensorflow as tf
from absl import logging

from acting.fixed_lag import FixedLag
from evaluation.periodic import PeriodicEvaluator
from learning.optimizers import SyncOps
from roles.checkpointer import Checkpointer
from roles.initialization import KEPT
from roles.observers import Update, UpdateObserver
from roles.records import Records
from roles.reports import Reports
from roles.sending import ReportSender, UnrollSender
from roles.task import Task
from roles.wiring import ActorSide, Graph, LearnerSide
from runtime import cluster_file, peers
from runtime.checkpoint_folder import Saved
from runtime.heartbeat import ExpectedWait
from runtime.process import RunFailed
from runtime.sessions import Loops, first_line, run_within


class Part:
  """Base class whose methods do nothing; subclasses override some of them."""

  @property
  def lasting_loops(self) -> Collection[str]:
    """Names of the loops that must end before `finish`, however long they take."""
    return ()

  def opened(self, session: tf.compat.v1.Session, path: str | None) -> None:
    """Prepares for a newly opened session.

    Args:
      session: the role's session.
      path: on a chief that resumes, the path of a checkpoint or `roles.initialization.KEPT`; None
        in a new run and in other tasks.
    """

  def start(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """Starts this part's loops on the session."""

  def announce_end(self, session: tf.compat.v1.Session) -> None:
    """Prepares for the end of the run, while the loops are still running."""

  def check_alive(self, session: tf.compat.v1.Session) -> None:
    """Reports to the chief that this task is alive; raises if a task that it waits for is not.

    Called repeatedly while loops of `lasting_loops` are running.
    """

  def finish(self, session: tf.compat.v1.Session) -> None:
    """Completes the run; called after the loops have ended, while the session is still open."""

  def release(self) -> list[tf.compat.v1.Session]:
    """Returns the sessions that this part has opened; the caller closes them."""
    return []

  def conclude(self) -> None:
    """Does the remaining work after a normal end of the run; called before `close`."""

  def close(self, failed: bool) -> None:
    """Releases this part's resources.

    Args:
      failed: whether the task failed.
    """


class Reporting(Part):
  """Sends this task's reports to the chief and notices when the run is done.

  Args:
    task: this task.
    reports: collects the reports.
    sender: sends the reports to ps 0.
  """

  def __init__(self, task: Task, reports: Reports, sender: ReportSender):
    self._task, self._reports, self._sender = task, reports, sender

  def opened(self, session: tf.compat.v1.Session, path: str | None) -> None:
    """As `Part`."""
    self._sender.open(session)

  def start(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """As `Part`."""
    loops.start('reports', self._reports.run, session, loops.should_stop)

  def check_alive(self, session: tf.compat.v1.Session) -> None:
    """As `Part`."""
    if not self._task.cluster.is_chief:
      self._reports.send()

  def release(self) -> list[tf.compat.v1.Session]:
    """As `Part`."""
    return self._sender.release()


class Acting(Part):
  """Runs the actor loops of this task.

  Args:
    task: this task.
    actors: its actor loops and environments.
    sender: sends unrolls to the learner's queue.
    reports: collects the reports of the actor loops.
    expected_wait: tells the watchdog which waits are expected.
  """

  def __init__(
    self,
    task: Task,
    actors: ActorSide,
    sender: UnrollSender,
    reports: Reports,
    expected_wait: ExpectedWait,
  ):
    self._task, self._actors, self._sender, self._reports = task, actors, sender, reports
    self._expected_wait = expected_wait

  def opened(self, session: tf.compat.v1.Session, path: str | None) -> None:
    """As `Part`."""
    self._sender.open(session)

  def start(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """As `Part`."""
    for i, loop in enumerate(self._actors.loops):
      enter = self._task.heartbeat.entering(f'actor loop {i}', self._expected_wait)
      loops.start(f'actor-{i}', loop.run, session, self._sender.send, loops.should_stop, enter,
                  self._reports.add_unroll)  # fmt: skip

  def release(self) -> list[tf.compat.v1.Session]:
    """As `Part`."""
    return self._sender.release()

  def close(self, failed: bool) -> None:
    """As `Part`."""
    self._actors.close()


class Learning(Part):
  """Stages batches and runs updates.

  Args:
    task: this task.
    graph: the task's graph.
    learner: batches and update.
    observers: called after every update, in this order.
    expected_wait: tells the watchdog which waits are expected.
    lag: fixes the policy lag, or None.
    ends_between_updates: whether a deferred signal ends the run when an update is complete and no
      unroll of the next one has begun.
  """

  def __init__(
    self,
    task: Task,
    graph: Graph,
    learner: LearnerSide,
    observers: Sequence[UpdateObserver],
    expected_wait: ExpectedWait,
    lag: FixedLag | None = None,
    ends_between_updates: bool = False,
  ):
    self._task, self._graph, self._learner, self._lag = task, graph, learner, lag
    self._ends_between_updates = ends_between_updates
    self._observers, self._expected_wait = observers, expected_wait

  def opened(self, session: tf.compat.v1.Session, path: str | None) -> None:
    """As `Part`."""
    if self._learner.replay and not self._task.cluster.is_chief:  # The chief's records say it.
      logging.info('%s', self._learner.replay.described())

  def start(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """As `Part`."""
    heartbeat, loop = self._task.heartbeat, self._learner.loop

    def should_stop():  # There must be no update after the last frame.
      return loops.should_stop() or self._task.interrupts.is_set()

    def on_update(values, wait_secs, busy_secs):
      self._on_update(Update(session, values, wait_secs, busy_secs))

    may_not_stage = loops.should_stop
    if lag := self._lag:
      lag.start(loops.should_stop)

      def may_not_stage():
        return not lag.wait_for_batch()

    loops.start('staging', loop.run_staging, session, may_not_stage,
                heartbeat.entering('staging', self._expected_wait))  # fmt: skip
    loops.start('learner', loop.run, session, self._learner.update, should_stop,
                heartbeat.entering('learner', self._expected_wait), on_update)  # fmt: skip

  def _on_update(self, update: Update) -> None:
    self._task.heartbeat.update(environment_frames=update.frames)
    for observer in self._observers:
      observer.on_update(update)
    if self._ends_between_updates:
      self._task.interrupts.take_signal()
    if self._lag and not self._task.interrupts.is_set():  # Else no further unroll may begin.
      self._lag.on_update(update)

  @property
  def lasting_loops(self) -> Collection[str]:
    """As `Part`: an unfinished update must not be saved. A synchronous update may wait for ever."""
    return () if self._learner.sync_ops else ('learner',)

  def announce_end(self, session: tf.compat.v1.Session) -> None:
    """As `Part`: unblocks actors that wait for room in the queue."""
    run_within(session, self._learner.close_queue)

  def check_alive(self, session: tf.compat.v1.Session) -> None:
    """As `Part`: raises if a parameter server does not answer, since updates cannot end then."""
    run_within(session, self._graph.counters.updates)


class SyncUpdates(Part):
  """Runs the operations of synchronous training; must be first in a list of parts.

  Args:
    ops: operations of the learner's optimizer.
    is_chief: whether this task applies the gradients of all learners.
  """

  def __init__(self, ops: SyncOps, is_chief: bool):
    self._ops, self._is_chief = ops, is_chief

  def opened(self, session: tf.compat.v1.Session, path: str | None) -> None:
    """As `Part`."""
    session.run(self._ops.chief_init if self._is_chief else self._ops.init)
    if self._is_chief and path:
      session.run(self._ops.spare_tokens)

  def start(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """As `Part`."""
    if self._is_chief:
      loops.start('sync', self._ops.run, session, loops.should_stop)


class Chief(Part):
  """Announces the run, keeps its records, and saves the last checkpoint.

  Args:
    task: the chief's task.
    graph: the task's graph.
    logdir: the run's folder.
    origin: checkpoint whose weights a new run starts with, or None.
    records: records of the run.
    evaluations: evaluates checkpoints during training.
    checkpointer: saves the last checkpoint.
  """

  def __init__(
    self,
    task: Task,
    graph: Graph,
    logdir: str,
    origin: str | None,
    records: Records,
    evaluations: PeriodicEvaluator,
    checkpointer: Checkpointer,
  ):
    self._task, self._graph, self._logdir, self._origin = task, graph, logdir, origin
    self._records, self._evaluations, self._checkpointer = records, evaluations, checkpointer
    self._last_saved: Saved | None = None
    task.heartbeat.update(logdir=os.path.abspath(logdir))

  @property
  def lasting_loops(self) -> Collection[str]:
    """As `Part`: the loop that writes the records."""
    return ('records',)

  def opened(self, session: tf.compat.v1.Session, path: str | None) -> None:
    """As `Part`: announces the run."""
    self._evaluations.begin(self._records.begin(session, path, self._origin))
    if path == KEPT:
      self._checkpointer.save_soon()
    if not self._task.cluster.is_local:
      cluster_file.write(self._logdir, self._task.cluster)

  def start(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """As `Part`."""
    loops.start('records', self._records.run, session, loops.should_stop)
    self._task.interrupts.describe_end('saving a checkpoint', 'without it')

  def announce_end(self, session: tf.compat.v1.Session) -> None:
    """As `Part`: marks the run as done on ps 0, for the other tasks."""
    if not self._task.interrupts.run_goes_on:
      run_within(session, self._graph.shared.mark_done)

  def finish(self, session: tf.compat.v1.Session) -> None:
    """As `Part`: saves the last checkpoint, then writes the last records.

    Raises:
      RunFailed: the checkpoint cannot be written.
    """
    if self._task.interrupts.had_signal:
      self._evaluations.stop()
    run_goes_on = self._task.interrupts.run_goes_on  # Then the other tasks wait for the chief.
    if not run_goes_on:
      self._wait_for_last_updates(session)
    updates = run_within(session, self._graph.counters.updates)
    self._records.collect(session)
    self._last_saved, unsaved = self._checkpointer.save_last(session, updates)
    self._records.finish(session, unsaved)
    if not run_goes_on:
      run_within(session, self._graph.shared.mark_chief_left)
    if unsaved:
      self._records.close()
      raise RunFailed(
        f'the last checkpoint could not be written ({unsaved}): what was learned since the one '
        f'before it, in {self._logdir}, is lost'
      )

  def conclude(self) -> None:
    """As `Part`: evaluates the last checkpoint; no other task waits for this."""
    self._task.interrupts.describe_end('the last evaluation is dropped')
    try:
      self._evaluations.finish(self._last_saved)
      self._records.close()
    except Exception as e:  # The last checkpoint is already on disk.
      logging.warning('the run is done, though not all of its records: %s', first_line(e))

  def close(self, failed: bool) -> None:
    """As `Part`: after a normal end, actors can no longer join the run."""
    self._evaluations.stop()
    if not (failed or self._task.cluster.is_local or self._task.interrupts.run_goes_on):
      cluster_file.remove(self._logdir)

  def _wait_for_last_updates(self, session: tf.compat.v1.Session) -> None:
    """Waits for the other learners to leave, so that the last checkpoint has their last updates.

    There is no time limit while a learner still reports.
    """
    cluster = self._task.cluster
    others = [f'learner:{i}' for i in range(1, len(cluster.learner))]
    present = peers.wait_until_gone(cluster, others)
    while present and self._records.heard(session, [name.split()[0] for name in present]):
      present = peers.wait_until_gone(cluster, others)
    if present:
      logging.warning(
        '%s saves without the last updates of %s: still there after %.0f s',
        cluster.name,
        ', '.join(present),
        peers.LAST_UPDATES_SECS,
      )
