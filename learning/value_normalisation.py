"""PopArt: the baseline learns normalised returns, and its values stay in the original scale.

Van Hasselt et al. 2016 (arXiv 1602.07714), and with V-trace Hessel et al. 2018 (arXiv 1809.04474).
A value is the last layer's output times the standard deviation of the returns plus their mean. When
these statistics change, the layer is rescaled so that no value changes. Baseline errors and
advantages are divided by the deviation, so that one learning rate suits rewards of any size.
"""

from __future__ import annotations

from typing import Any, Protocol

import sonnet as snt
import tensorflow as tf

from learning.sliced_weights import SlicedWeights

# From Hessel et al.: step size of the moving averages per update; lower bound of the deviation.
_STEP = 3e-4
_LEAST_STD = 1e-4


class LinearLayer(Protocol):
  """The last layer of a baseline.

  Attributes:
    w: float32 variable [inputs, 1].
    b: float32 variable [1].
  """

  w: tf.Variable
  b: tf.Variable


class PopArt(snt.Module):
  """Mean and standard deviation of the V-trace targets that the baseline has learned from.

  The statistics are variables on parameter servers and in checkpoints, and are copied to actors and
  learners along with the weights.

  Attributes:
    moments: float64 [3], moving averages over updates of (number of targets, their sum, the sum of
      their squares).
    scale: float32 [2], (mean, deviation) that the baseline's last layer is normalised by.
  """

  def __init__(self, name: str = 'value_statistics'):
    super().__init__(name=name)
    with self.name_scope:
      self.moments = tf.Variable(tf.zeros([3], tf.float64), trainable=False, name='moments')
      initial: Any = [0.0, 1.0]
      self.scale = tf.Variable(initial, trainable=False, name='scale')

  def __call__(self, normalised: tf.Tensor) -> tf.Tensor:
    """Converts outputs of the last layer, float32 of any shape, to values."""
    mean, std = tf.unstack(self.scale.read_value())
    return normalised * std + mean

  def factor(self) -> tf.Tensor:
    """Returns the factor for baseline errors and advantages, a float32 scalar."""
    return 1.0 / self.scale.read_value()[1]

  def add(self, moments: tf.Tensor, num_learners: int = 1) -> tf.Operation:
    """Returns an operation that adds one batch of one learner.

    Args:
      moments: float32 [3], see `losses.Losses.targets`.
      num_learners: number of learners that each add a batch per update.
    """
    share = self.moments.read_value() / num_learners
    return self.moments.assign_add(_STEP * (tf.cast(moments, tf.float64) - share))

  def statistics(self) -> tf.Tensor:
    """Returns (mean, deviation) of the targets, float32 [2]; `scale` before the first batch."""
    number, total, squares = tf.unstack(self.moments.read_value())
    mean = total / tf.maximum(number, 1e-30)
    variance = squares / tf.maximum(number, 1e-30) - tf.square(mean)
    std = tf.maximum(tf.sqrt(tf.maximum(variance, 0.0)), _LEAST_STD)
    return tf.where(number > 0, tf.cast([mean, std], tf.float32), self.scale.read_value())

  def rescale(self, weights: SlicedWeights, layer: LinearLayer) -> tf.Operation:
    """Returns an operation that sets `scale` to the newest statistics and preserves all values.

    Args:
      weights: slices that hold the layer's variables.
      layer: the baseline's last layer.
    """
    before, after = self.scale.read_value(), self.statistics()
    (mean, std), (new_mean, new_std) = tf.unstack(before), tf.unstack(after)
    changes = (
      weights.scale_and_shift(layer.w, std / new_std),
      weights.scale_and_shift(layer.b, std / new_std, (mean - new_mean) / new_std),
    )
    with tf.control_dependencies([before, *changes]):
      return self.scale.assign(after)
