"""PopArt: the baseline learns normalised returns, and its values stay in the original scale.

Van Hasselt et al. 2016 (arXiv 1602.07714), and with V-trace Hessel et al. 2018 (arXiv 1809.04474).
A value is the last layer's output times the standard deviation of the returns plus their mean. When
these statistics change, the layer is rescaled so that no value changes. Baseline errors and
advantages are divided by the deviation, so that one learning rate suits rewards of any size.

With n levels, the last layer has n outputs, and each level has statistics of its own (Hessel et
al., section 3.2): a level with large rewards does not outweigh the others.
"""

from __future__ import annotations

from typing import Protocol

import sonnet as snt
import tensorflow as tf

from learning.sliced_weights import SlicedWeights

# From Hessel et al.: step size of the moving averages per update; bounds of the deviation.
_STEP = 3e-4
_LEAST_STD, _MOST_STD = 1e-4, 1e6


class LinearLayer(Protocol):
  """The last layer of a baseline.

  Attributes:
    w: float32 variable [inputs, n], n = 1 with one level.
    b: float32 variable [n].
  """

  w: tf.Variable
  b: tf.Variable


def of_level(values: tf.Tensor, level_id: tf.Tensor) -> tf.Tensor:
  """Returns the value for the level of each unroll: float32 [T, B, n] -> [T, B].

  Args:
    values: a value for each of n levels.
    level_id: int32 [B].
  """
  return tf.reduce_sum(values * tf.one_hot(level_id, values.shape[-1]), axis=-1)


class PopArt(snt.Module):
  """Mean and standard deviation of the V-trace targets that the baseline has learned from.

  The statistics are variables on parameter servers and in checkpoints, and are copied to actors and
  learners along with the weights.

  Args:
    num_levels: number of levels, each of which has statistics of its own.

  Attributes:
    num_levels: as given.
    moments: float64 [3], moving averages over updates of (number of targets, their sum, the sum of
      their squares); [n, 3] with n > 1 levels.
    scale: float32 [2], (mean, deviation) that the baseline's last layer is normalised by; [n, 2]
      with n > 1 levels.
  """

  def __init__(self, num_levels: int = 1, name: str = 'value_statistics'):
    super().__init__(name=name)
    self.num_levels = num_levels
    levels = [num_levels] if num_levels > 1 else []
    with self.name_scope:
      zeros = tf.zeros([*levels, 3], tf.float64)
      self.moments = tf.Variable(zeros, trainable=False, name='moments')
      initial = tf.broadcast_to([0.0, 1.0], [*levels, 2])
      self.scale = tf.Variable(initial, trainable=False, name='scale')

  def __call__(self, normalised: tf.Tensor) -> tf.Tensor:
    """Converts outputs of the last layer to values.

    Args:
      normalised: float32 of any shape; [..., n] with n > 1 levels.
    """
    mean, std = tf.unstack(self.scale.read_value(), axis=-1)
    return normalised * std + mean

  def factor(self) -> tf.Tensor:
    """Returns the factor for baseline errors and advantages, a float32 scalar or [n]."""
    return 1.0 / self.scale.read_value()[..., 1]

  def add(self, moments: tf.Tensor, num_learners: int = 1) -> tf.Operation:
    """Returns an operation that adds one batch of one learner.

    With several levels, the moments of a level that is not in the batch do not change.

    Args:
      moments: float32 [3] or [n, 3], see `losses.Losses.targets`.
      num_learners: number of learners that each add a batch per update.
    """
    moments = tf.cast(moments, tf.float64)
    change = _STEP * (moments - self.moments.read_value() / num_learners)
    if self.num_levels > 1:
      change = tf.where(moments[:, :1] > 0, change, 0.0)
    return self.moments.assign_add(change)

  def statistics(self) -> tf.Tensor:
    """Returns (mean, deviation) of the targets, shaped as `scale`; `scale` before the first."""
    number, total, squares = tf.unstack(self.moments.read_value(), axis=-1)
    mean = total / tf.maximum(number, 1e-30)
    variance = squares / tf.maximum(number, 1e-30) - tf.square(mean)
    std = tf.clip_by_value(tf.sqrt(tf.maximum(variance, 0.0)), _LEAST_STD, _MOST_STD)
    known = tf.cast(tf.stack([mean, std], axis=-1), tf.float32)
    return tf.where(tf.expand_dims(number > 0, -1), known, self.scale.read_value())

  def rescale(self, weights: SlicedWeights, layer: LinearLayer) -> tf.Operation:
    """Returns an operation that sets `scale` to the newest statistics and preserves all values.

    Args:
      weights: slices that hold the layer's variables.
      layer: the baseline's last layer.
    """
    before, after = self.scale.read_value(), self.statistics()
    (mean, std), (new_mean, new_std) = (tf.unstack(scale, axis=-1) for scale in (before, after))
    changes = (
      weights.scale_and_shift(layer.w, std / new_std),
      weights.scale_and_shift(layer.b, std / new_std, (mean - new_mean) / new_std),
    )
    with tf.control_dependencies([before, *changes]):
      return self.scale.assign(after)
