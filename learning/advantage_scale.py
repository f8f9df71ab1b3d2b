"""Advantages divided by their root mean square: one entropy cost suits rare rewards and many.

Only a division: an advantage of 0 stays 0, and the sum of weighted steps that the V-trace policy
gradient is (Espeholt et al. 2018, arXiv 1802.01561, section 4.2) keeps its direction, which the
subtraction of a mean would change where actions are weighted by their importance.
"""

import tensorflow as tf

_DECAY = 0.99  # An update of 80 steps says little alone: the last hundred or so count.
_LEAST = 1e-4  # Of the root mean square: where nothing is rewarded, nothing is made of rounding.


class AdvantageScale(tf.Module):
  """The root mean square of the advantages of late, of all learners of a run.

  The statistics are variables of the run, on parameter servers and in checkpoints, and every
  learner adds its batch to them once an update.

  Args:
    num_learners: int, how many learners add to them for one update.
  """

  def __init__(self, num_learners=1):
    super().__init__(name='advantage_scale')
    self._num_learners = num_learners
    # Moving averages over updates of (number of advantages, sum of their squares).
    self.moments = tf.Variable(tf.zeros([2], tf.float64), trainable=False, name='advantage_moments')

  def factor(self):
    """float32 scalar that advantages are multiplied with; 1 before the first update."""
    number, squares = tf.unstack(self.moments.read_value())
    root = tf.sqrt(squares / tf.maximum(number, 1e-9))
    factor = tf.where(number > 0, 1.0 / tf.maximum(root, _LEAST), 1.0)
    return tf.cast(factor, tf.float32)

  def add(self, moments):
    """Takes in one batch of one learner; an operation.

    Args:
      moments: float32 [2], how many advantages there were and the sum of their squares.
    """
    share = self.moments.read_value() / self._num_learners
    return self.moments.assign_add((1.0 - _DECAY) * (tf.cast(moments, tf.float64) - share))
