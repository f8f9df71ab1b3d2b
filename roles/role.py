"""The life cycle of a training task: connect, run loops, reconnect after losing a peer, leave."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from common.background import BackgroundCall
from envs import faults
from roles.connection import Connection, RunSettings
from roles.parts import Part
from roles.task import Task
from runtime.process import POLL_SECS, RunFailed
from runtime.sessions import Loops, first_line, lost_peer
from runtime.waiting import wait_for

_LOOPS_SECS = 5.0  # Time for loops to end, unless checkpoints or records depend on them.
_CLOSING_SECS = 1.0  # Time for sessions to close before the task deregisters.
_ALIVE_SECS = 2.0  # Interval of reports from a task whose loops are ending.


class Role:
  """Runs a task, whose graph is complete, until the run ends.

  Args:
    task: this task.
    run_settings: settings and first frame count of the run.
    parts: the parts of this role, called in this order.
    connection: opens sessions.
  """

  def __init__(
    self, task: Task, run_settings: RunSettings, parts: Sequence[Part], connection: Connection
  ):
    self._task, self._run_settings = task, run_settings
    self._parts, self._connection = parts, connection

  def run(self) -> None:
    """Runs the task until the run ends.

    Raises:
      RunFailed: the run cannot continue.
    """
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

  def _train(self, session: tf.compat.v1.Session) -> bool:
    """Runs the loops on a session; returns True at the end of the run, False if a peer was lost."""
    loops, interrupts = Loops(), self._task.interrupts
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
      self._connection.invalidate(session)
    self._connection.drop(loops, session)
    if not lost:
      raise RunFailed(failure(loops.error)) from loops.error
    self._connection.report_loss(loops.error)
    return False

  def _was_done_before(self) -> bool:
    """Returns whether the resumed checkpoint already has all frames; if so, requests the end."""
    settings, start_frames = self._run_settings
    total = settings.total_environment_frames
    if start_frames < total:
      return False
    self._task.interrupts.set(f'all {total} frames were done before (--total_environment_frames)')
    return True

  def _leave(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """Stops the loops, lets the parts finish, and deregisters."""
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
      logging.warning('%s lost a peer while it left: %s', cluster.name, first_line(e))
      if cluster.is_chief:
        raise RunFailed(f'the last checkpoint could not be written: {first_line(e)}') from e
    finally:
      closing = BackgroundCall(self._connection.close_sessions, session)
      closing.has_ended(_CLOSING_SECS)  # A session may never close if its peer has disappeared.
      self._connection.deregister()
      closing.result()

  def _wait_for_loops(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """Waits for the loops that checkpoints or records depend on, without a time limit.

    Other loops, such as an actor loop whose environment hangs, are abandoned after _LOOPS_SECS.
    """
    loops.join(_LOOPS_SECS)
    lasting = [name for part in self._parts for name in part.lasting_loops]
    running: list[str] = []

    def ended() -> bool:
      running[:] = loops.join(_ALIVE_SECS, lasting)
      if running:
        for part in self._parts:
          part.check_alive(session)
      return not running

    wait_for(
      ended, lambda: f'its loops to end: {", ".join(running)}', self._task.cluster.name, poll_secs=0
    )


def failure(error: BaseException) -> str:
  """Returns an error of a loop as a message that the user can act on."""
  if fault := faults.sentence_in(error):
    return fault
  message = getattr(error, 'message', None) or str(error)
  marker = 'the loss or its gradient is not finite at update'
  if marker in message:
    update = ''.join(c for c in message.split(marker)[1][:30] if c.isdigit())
    return f'{marker} {update}; the last checkpoint before it is kept'
  return f'{type(error).__name__}: {message}'
