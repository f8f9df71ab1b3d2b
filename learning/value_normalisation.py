"""PopArt: the baseline learns normalised returns, and its values stay those of the real ones.

Van Hasselt et al. 2016 (arXiv 1602.07714), and with V-trace Hessel et al. 2018 (arXiv 1809.04474).
The value is the last layer's output times the standard deviation of the returns plus their mean.
When these statistics change, the layer is rescaled so that no value changes. Baseline errors and
advantages are divided by the deviation, so one learning rate suits rewards of any size.
"""

from __future__ import annotations

from typing import Any, Protocol

import sonnet as snt
import tensorflow as tf

from learning.sliced_weights import SlicedWeights

# Both as Hessel et al.: step size of the moving averages per update, smallest deviation.
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
  """Mean and deviation of the V-trace targets that the baseline learned from.

  The statistics are variables of the run like the weights: on parameter servers, in checkpoints,
  and copied to actors and learners together with the weights they belong to.

  Attributes:
    moments: float64 [3], moving averages over updates of (number of targets, their sum, the sum of
      their squares).
    scale: float32 [2], (mean, deviation) that the baseline's weights are normalised by.
  """

  def __init__(self, name: str = 'value_statistics'):
    super().__init__(name=name)
    with self.name_scope:
      self.moments = tf.Variable(tf.zeros([3], tf.float64), trainable=False, name='moments')
      initial: Any = [0.0, 1.0]
      self.scale = tf.Variable(initial, trainable=False, name='scale')

  def __call__(self, normalised: tf.Tensor) -> tf.Tensor:
    """Converts outputs of the last layer to values; float32 of any shape."""
    mean, std = tf.unstack(self.scale.read_value())
    return normalised * std + mean

  def factor(self) -> tf.Tensor:
    """Returns the factor of baseline errors and advantages, a float32 scalar."""
    return 1.0 / self.scale.read_value()[1]

  def add(self, moments: tf.Tensor, num_learners: int = 1) -> tf.Operation:
    """Returns an operation that adds one batch of one learner.

    Args:
      moments: float32 [3], see `losses.Losses.targets`.
      num_learners: how many learners add theirs for one update.
    """
    share = self.moments.read_value() / num_learners
    return self.moments.assign_add(_STEP * (tf.cast(moments, tf.float64) - share))

  def statistics(self) -> tf.Tensor:
    """Returns float32 [2], (mean, deviation) of the targets; `scale` before the first batch."""
    number, total, squares = tf.unstack(self.moments.read_value())
    mean = total / tf.maximum(number, 1e-30)
    variance = squares / tf.maximum(number, 1e-30) - tf.square(mean)
    std = tf.maximum(tf.sqrt(tf.maximum(variance, 0.0)), _LEAST_STD)
    return tf.where(number > 0, tf.cast([mean, std], tf.float32), self.scale.read_value())

  def rescale(self, weights: SlicedWeights, layer: LinearLayer) -> tf.Operation:
    """Returns an operation that adopts the newest statistics and keeps all values as they are.

    Args:
      weights: hold the layer.
      layer: the last of the baseline.
    """
    before, after = self.scale.read_value(), self.statistics()
    (mean, std), (new_mean, new_std) = tf.unstack(before), tf.unstack(after)
    changes = (
      weights.scale_and_shift(layer.w, std / new_std),
      weights.scale_and_shift(layer.b, std / new_std, (mean - new_mean) / new_std),
    )
    with tf.control_dependencies([before, *changes]):
      return self.scale.assign(after)
