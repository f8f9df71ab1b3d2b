"""What an actor loop keeps between two unrolls, to be put into a checkpoint and taken from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from acting.actor import EpisodeTracker


class LoopState:
  """The local variables and the running episodes of an actor loop.

  Args:
    variables: from `actor.build_unroll`.
    tracker: the loop's.
  """

  def __init__(self, variables: Sequence[tf.Variable], tracker: EpisodeTracker):
    self._variables, self._tracker = variables, tracker
    self._fed = [tf.compat.v1.placeholder(v.dtype, v.shape) for v in variables]
    self._assign = [v.assign(t).op for v, t in zip(variables, self._fed, strict=True)]

  def restart(self, session: tf.compat.v1.Session) -> None:
    """Starts new games, before the loop begins."""
    session.run([v.initializer for v in self._variables])
    self._tracker.begin_with(np.zeros(len(self._tracker.clipped_returns)))

  def arrays(self, session: tf.compat.v1.Session) -> list[np.ndarray]:
    """Returns the state; the loop must be between two unrolls."""
    values = session.run(list(self._variables))
    return [np.asarray(value) for value in values] + [self._tracker.clipped_returns]

  def set(self, session: tf.compat.v1.Session, arrays: Sequence[np.ndarray]) -> None:
    """Sets a state, before the loop begins.

    Raises:
      ValueError: it is that of other environments or of another agent.
    """
    *values, clipped_returns = arrays
    shapes = [(v.dtype.as_numpy_dtype, tuple(v.shape)) for v in self._variables]
    if [(value.dtype.type, value.shape) for value in values] != shapes:
      raise ValueError('the environments or the agent are others')
    self._tracker.begin_with(clipped_returns)
    session.run(self._assign, dict(zip(self._fed, values, strict=True)))
