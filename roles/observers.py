"""What happens after each update of a learner: a list of observers, called in its thread."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from runtime.process import Interrupts


class Update(NamedTuple):
  """One update of this learner.

  Attributes:
    session: on which it was made.
    values: numpy values after it, see `learning.learner.build_update`; and the `pass` over the
      batch, from 1 on.
    wait_secs: time that the learner waited for the batch.
    busy_secs: time that the update took.
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
  """Is told of every update of a learner."""

  def on_update(self, update: Update) -> None:
    """Acts on an update; the next one waits for it."""


class EndOfRun:
  """Ends the run once all of its frames are trained on.

  Args:
    interrupts: where the end is asked for.
    total_environment_frames: frames to train on.
  """

  def __init__(self, interrupts: Interrupts, total_environment_frames: int):
    self._interrupts, self._total = interrupts, total_environment_frames

  def on_update(self, update: Update) -> None:
    """As `UpdateObserver`."""
    self.reached(update.frames)

  def reached(self, environment_frames: int) -> bool:
    """Asks for the end if these are all frames; returns whether they are."""
    if environment_frames < self._total:
      return False
    self._interrupts.set(f'all {self._total} frames are done')
    return True
