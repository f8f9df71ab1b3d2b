"""Observers of a learner's updates, called in the learner's thread after each update."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from runtime.process import Interrupts


class Update(NamedTuple):
  """One update of this learner.

  Attributes:
    session: the learner's session.
    values: fetched values of `learning.learner.build_update`, and `pass`, the pass over the batch
      (counted from 1).
    wait_secs: seconds that the learner waited for the batch.
    busy_secs: seconds that the update took.
  """

  session: tf.compat.v1.Session
  values: dict[str, Any]
  wait_secs: float
  busy_secs: float

  @property
  def frames(self) -> int:
    """Environment frames trained on so far, by all learners."""
    return int(self.values['environment_frames'])


class UpdateObserver(Protocol):
  """Called after every update of a learner."""

  def on_update(self, update: Update) -> None:
    """Handles an update; the learner waits until this returns."""


class EndOfRun:
  """Ends the run after its last environment frame.

  Args:
    interrupts: receives the request to end.
    total_environment_frames: environment frames to train on.
    round_end: frames after which this start ends earlier; None for none, see `roles.population`.
  """

  def __init__(
    self, interrupts: Interrupts, total_environment_frames: int, round_end: int | None = None
  ):
    self._interrupts, self._total = interrupts, total_environment_frames
    self._round_end = round_end

  def on_update(self, update: Update) -> None:
    """As `UpdateObserver`."""
    self.reached(update.frames)

  def reached(self, environment_frames: int) -> bool:
    """Requests the end if all frames are done; returns whether they are."""
    if environment_frames >= self._total:
      self._interrupts.set(f'all {self._total} frames are done')
    elif self._round_end is not None and environment_frames >= self._round_end:
      self._interrupts.set(f'the round of {self._round_end} frames is done')
    else:
      return False
    return True
