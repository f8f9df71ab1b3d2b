"""Divides advantages by their root mean square, so that one entropy cost suits all reward rates.

Nothing is subtracted. An advantage of 0 stays 0, and the V-trace policy gradient, a weighted sum
over steps (Espeholt et al. 2018, arXiv 1802.01561, section 4.2), keeps its direction; subtracting a
mean would change it where actions have importance weights.
"""

from __future__ import annotations

import tensorflow as tf

_DECAY = 0.99  # Per update. One batch of 80 steps is a noisy estimate; a hundred batches are not.
_LEAST = 1e-4  # Lower bound of the root mean square; without rewards it is only rounding noise.


class AdvantageScale(tf.Module):
  """The root mean square of recent advantages of all learners of a run.

  The statistics are variables of the run, on parameter servers and in checkpoints; every learner
  adds its batch to them once per update.

  Args:
    num_learners: number of learners that each add a batch per update.
  """

  def __init__(self, num_learners: int = 1):
    super().__init__(name='advantage_scale')
    self._num_learners = num_learners
    # Moving averages over updates of (number of advantages, sum of their squares).
    self.moments = tf.Variable(tf.zeros([2], tf.float64), trainable=False, name='advantage_moments')

  def factor(self) -> tf.Tensor:
    """Returns the factor for advantages, a float32 scalar; 1 before the first update."""
    number, squares = tf.unstack(self.moments.read_value())
    root = tf.sqrt(squares / tf.maximum(number, 1e-9))
    factor = tf.where(number > 0, 1.0 / tf.maximum(root, _LEAST), 1.0)
    return tf.cast(factor, tf.float32)

  def add(self, moments: tf.Tensor) -> tf.Operation:
    """Returns an operation that adds one batch of one learner.

    Args:
      moments: float32 [2], number of advantages and sum of their squares.
    """
    share = self.moments.read_value() / self._num_learners
    return self.moments.assign_add((1.0 - _DECAY) * (tf.cast(moments, tf.float64) - share))
