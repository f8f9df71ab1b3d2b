"""Obtains the settings of the run, waits for peers, and opens and reopens the task's sessions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from common.background import BackgroundCall
from roles.initialization import VariableInitializer
from roles.parts import Part
from roles.resuming import RunLock
from roles.settings import Settings, adopted
from roles.task import Task
from runtime import checkpoints, peers, sessions, shared_state
from runtime.checkpoints import Checkpoints
from runtime.process import POLL_SECS, WAITING_SECS
from runtime.sessions import ANSWER_SECS, Loops, first_line, lost_peer
from runtime.waiting import wait_for


class RunSettings(NamedTuple):
  """The settings that all tasks of a run share.

  Attributes:
    settings: the chief's settings.
    start_frames: environment frames when the run began or was resumed.
  """

  settings: Settings
  start_frames: int


def chief_settings(task: Task, lock: RunLock) -> RunSettings | None:
  """Returns the settings of the run once all peers are up; None if stopped first.

  Args:
    task: the chief's task.
    lock: lock on the run's folder.

  Raises:
    BadInput: all checkpoints in the folder are damaged.
    RunFailed: the folder cannot be read.
  """
  path = checkpoints.take_over(lock.logdir)
  _wait_for_peers(task, task.cluster.peers)
  if task.interrupts.is_set():
    return None
  frames = int(Checkpoints.value(path, 'environment_frames')) if path else 0
  return RunSettings(lock.settings, frames)


def announced_settings(task: Task) -> RunSettings | None:
  """Returns the settings that the chief announced; None if stopped first.

  Raises:
    BadInput: this task's command line contradicts them.
  """
  _wait_for_peers(task, ['ps:0'])
  announcement = shared_state.read_shared_settings(
    task.cluster, task.target, task.options.wait_secs, task.interrupts.is_set
  )
  if not announcement:
    return None
  return RunSettings(adopted(announcement, task.options), announcement['start_frames'])


def _wait_for_peers(task: Task, names: Collection[str]) -> None:
  task.heartbeat.phase('waiting for peers')
  peers.wait_for_peers(task.cluster, names, task.options.wait_secs, task.interrupts.is_set)


class _RunIsOver:
  """Whether to stop connecting: ps 0 says that the run is done, or a signal came."""

  def __init__(self, task: Task):
    self._task = task
    self._query: BackgroundCall | None = None  # To ps 0, in progress.

  def __call__(self) -> bool:
    """Waits up to POLL_SECS for an answer of ps 0."""
    cluster, interrupts = self._task.cluster, self._task.interrupts
    if cluster.is_local:
      return interrupts.is_set()
    if cluster.is_chief:  # The chief connects even after a signal, to announce the end.
      return interrupts.is_set() and bool(peers.missing_peers(cluster, cluster.peers))
    if self._query is None:
      self._query = BackgroundCall(shared_state.read_shared_state, cluster, self._task.target)
    if self._query.has_ended(POLL_SECS):
      query, self._query = self._query, None
      try:
        if query.result()[1]:
          interrupts.set('the run is done')
      except Exception as e:
        if not lost_peer(e):
          raise
    return interrupts.is_set()


class Connection:
  """Opens the sessions of a role, one after another, and notices when the run is over.

  The constructor finalizes the default graph.

  Args:
    task: this task.
    parts: notified of every new session.
    initializer: initializes the variables on the chief; None in other tasks.
    logdir: the run's folder; the chief restores its last checkpoint.
  """

  def __init__(
    self,
    task: Task,
    parts: Sequence[Part],
    initializer: VariableInitializer | None = None,
    logdir: str = '',
  ):
    v1 = tf.compat.v1
    self._task, self._parts = task, parts
    self._initializer, self._logdir = initializer, logdir
    self._tf_graph = v1.get_default_graph()
    self._local_init_op = v1.local_variables_initializer()
    self._ready_op = v1.report_uninitialized_variables(v1.global_variables())
    self._tf_graph.finalize()
    self._run_is_over = _RunIsOver(task)

  def open(self) -> tf.compat.v1.Session | None:
    """Opens a session with all variables initialized; returns None if the run ends first."""
    task, cluster = self._task, self._task.cluster
    task.heartbeat.phase('connecting')
    while True:
      self._wait_for_all_peers()
      opening = BackgroundCall(self._open_session)
      self._wait_for_answer(opening)
      if self._run_is_over():
        logging.info('%s leaves: %s', cluster.name, task.interrupts.reason)
        self.deregister()
        return None
      try:
        session, origin = opening.result()
      except Exception as e:
        if cluster.is_local or not lost_peer(e):
          raise
        self.report_loss(e)
        time.sleep(POLL_SECS)
        continue
      resumed = f', resumed from {origin}' if origin else ''
      logging.info('%s is connected%s', cluster.name, resumed)
      return session

  def _wait_for_all_peers(self) -> None:
    cluster = self._task.cluster
    if not cluster.peers:
      return
    _wait_for_peers(self._task, [name for name in cluster.peers if name.startswith('ps')])
    peers.wait_for_peers(cluster, cluster.peers, self._task.options.wait_secs, self._run_is_over)
    if not self._task.interrupts.is_set():
      logging.info('%s connects: all its peers are up', cluster.name)

  def _wait_for_answer(self, opening: BackgroundCall) -> None:
    """Waits for the session to open, which never happens if a peer has disappeared."""
    cluster = self._task.cluster
    by_chief = '' if cluster.is_chief else ', and for learner:0 to initialize the variables'
    wait_for(
      lambda: opening.has_ended(POLL_SECS),
      lambda: f'an answer of {", ".join(cluster.peers)}{by_chief}',
      cluster.name,
      self._run_is_over,
      quiet_secs=WAITING_SECS,
      poll_secs=0,
    )

  def _open_session(self) -> tuple[tf.compat.v1.Session, str | None]:
    """Returns (session, source of the chief's values, see `VariableInitializer.initialize`)."""
    initializer, origin = self._initializer, None

    def initialize(session: tf.compat.v1.Session) -> None:
      nonlocal origin
      assert initializer
      origin = initializer.initialize(session, Checkpoints.latest(self._logdir))

    with self._tf_graph.as_default():
      session = sessions.open_session(
        self._task.target,
        self._task.config,
        self._local_init_op,
        self._ready_op,
        initialize if initializer else None,
      )
    for part in self._parts:
      part.opened(session, origin)
    return session, origin

  def report_loss(self, error: BaseException) -> None:
    """Logs that a peer was lost and writes the reason to the state file."""
    reason = first_line(error)
    self._task.heartbeat.update(last_error=reason)
    logging.warning('%s lost a peer and connects again: %s', self._task.cluster.name, reason)

  def invalidate(self, session: tf.compat.v1.Session) -> None:
    """Makes the next chief process restore the last checkpoint, because this one failed."""
    if self._initializer:
      invalidating = BackgroundCall(self._initializer.invalidate, session)
      if invalidating.has_ended(ANSWER_SECS):
        with contextlib.suppress(tf.errors.OpError):
          invalidating.result()

  def drop(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """Stops the loops of a failed session and closes it; gives up if the run is over."""
    loops.stop()
    closing = BackgroundCall(self._close, loops, session)
    # Closing may block until the peers are back; if the run is over, they never come back.
    while not closing.has_ended(POLL_SECS) and not self._run_is_over():
      pass

  def _close(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    self.close_sessions(session)
    running: list[str] = []

    def ended() -> bool:
      running[:] = loops.join(POLL_SECS)
      return not running

    # All loops must have ended before the next session starts its own.
    wait_for(
      ended,
      lambda: f'its loops to end: {", ".join(running)}',
      self._task.cluster.name,
      quiet_secs=WAITING_SECS,
      poll_secs=0,
    )

  def close_sessions(self, session: tf.compat.v1.Session) -> None:
    """Closes this session and the sessions that the parts have opened."""
    sessions.close_session(session, *(one for part in self._parts for one in part.release()))

  def deregister(self) -> None:
    """Deregisters this task on ps 0, unless ps 0 does not answer or this task will restart."""
    cluster = self._task.cluster
    will_be_back = self._task.interrupts.run_goes_on and not cluster.is_spare
    if cluster.is_local or will_be_back:
      return
    call = BackgroundCall(shared_state.deregister, cluster, self._task.target)
    try:
      if call.has_ended(ANSWER_SECS):
        call.result()
      else:
        logging.info('%s could not deregister: no answer from ps:0', cluster.name)
    except tf.errors.OpError as e:
      logging.info('%s could not deregister: %s', cluster.name, first_line(e))
