"""Decides when the chief saves and evaluates checkpoints.

Training continues if the disk is full or broken.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import tensorflow as tf

from evaluation.periodic import PeriodicEvaluator
from roles.observers import Update
from roles.records import Records
from runtime.checkpoint_folder import Saved
from runtime.checkpoints import Checkpoints, SaveFailed
from runtime.heartbeat import Heartbeat

_RETRY_SECS = 30.0  # Delay before a failed save is retried; `save_secs` if that is shorter.
_LAST_PAUSES_SECS = (1.0, 4.0)  # Pauses between the attempts to save the last checkpoint.


class Checkpointer:
  """Saves a checkpoint at regular intervals and retries failed saves.

  Args:
    checkpoints: writes the checkpoints.
    save_secs: seconds between two checkpoints.
    records: gives the mean return and shows save failures to the user.
    heartbeat: records that the learner loop is in its saving phase.
    should_stop: returns whether the run is ending; then only `save_last` still saves.
    on_saved: called with each checkpoint.
  """

  def __init__(
    self,
    checkpoints: Checkpoints,
    save_secs: float,
    records: Records,
    heartbeat: Heartbeat,
    should_stop: Callable[[], bool],
    on_saved: Callable[[Saved], None],
  ):
    self._checkpoints, self._save_secs, self._records = checkpoints, save_secs, records
    self._heartbeat, self._should_stop, self._on_saved = heartbeat, should_stop, on_saved
    self._saved_at, self._error = time.time(), ''
    self._retry_at, self._next = 0.0, time.monotonic() + save_secs
    self._has_saved = False

  def on_update(self, update: Update) -> None:
    """Saves if a checkpoint is due; see `roles.observers`."""
    if time.monotonic() >= self._next or self._checkpoints.is_due(update.frames):
      self.save(update.session, update.values['updates'])

  def save_soon(self) -> None:
    """Saves with the next update, unless this process has already saved.

    For a restarted chief: the parameter servers hold updates that are in no checkpoint. Waiting a
    full interval could lose up to two intervals of training.
    """
    if not self._has_saved:
      self._next = time.monotonic()

  def save(self, session: tf.compat.v1.Session, updates: int) -> Saved | None:
    """Saves a checkpoint now.

    Args:
      session: session of the variables.
      updates: number of updates so far.

    Returns:
      The checkpoint; None if this save or a recent one failed, or if the run is ending.
    """
    if self._should_stop() or time.monotonic() < self._retry_at:
      return None
    self._heartbeat.enter('learner', 'save')
    return self._try_to_save(session, updates)

  def _try_to_save(self, session: tf.compat.v1.Session, updates: int) -> Saved | None:
    try:
      saved = self._checkpoints.save(session, updates, self._records.mean_return_100())
    except SaveFailed as e:
      self._report_failure(str(e))
      return None
    if self._error:
      self._records.message('a checkpoint could be written again')
      self._records.set_trouble('')
    self._saved_at, self._error, self._has_saved = time.time(), '', True
    self._retry_at, self._next = 0.0, time.monotonic() + self._save_secs
    self._on_saved(saved)
    return saved

  def _report_failure(self, reason: str) -> None:
    retry_secs = min(_RETRY_SECS, self._save_secs)
    self._retry_at = time.monotonic() + retry_secs
    if reason != self._error:
      self._records.message(
        f'no checkpoint could be written: {reason}; training goes on, and it is tried again every '
        f'{retry_secs:g} s'
      )
    self._error = reason
    since = time.strftime('%H:%M', time.localtime(self._saved_at))
    self._records.set_trouble(f'NOT SAVED since {since}: {reason}')

  def save_last(self, session: tf.compat.v1.Session, updates: int) -> tuple[Saved | None, str]:
    """Saves at the end of the run, with retries.

    Returns:
      (the checkpoint, ''), or (None, why it could not be saved).
    """
    for pause_secs in (*_LAST_PAUSES_SECS, None):
      if saved := self._try_to_save(session, updates):
        return saved, ''
      if pause_secs is not None:
        time.sleep(pause_secs)
    return None, self._error


class Evaluator:
  """Saves a checkpoint and starts its evaluation whenever an evaluation is due.

  Args:
    evaluations: runs the evaluations.
    checkpointer: saves the checkpoint to evaluate.
  """

  def __init__(self, evaluations: PeriodicEvaluator, checkpointer: Checkpointer):
    self._evaluations, self._checkpointer = evaluations, checkpointer

  def on_update(self, update: Update) -> None:
    """As `UpdateObserver`."""
    if self._evaluations.is_due(update.frames):
      if saved := self._checkpointer.save(update.session, update.values['updates']):
        self._evaluations.start(saved)
