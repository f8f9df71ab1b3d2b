"""PopArt: the baseline learns returns of mean 0 and deviation 1, and is worth what they are.

As van Hasselt et al. 2016 (arXiv 1602.07714), and Hessel et al. 2018 (arXiv 1809.04474) with
V-trace: what the last layer gives is multiplied with the deviation of the returns, their mean is
added, and where these statistics change its weights are changed so that no value does. Errors of
the baseline and advantages are divided by the deviation, so that one learning rate suits rewards of
any size.
"""

import sonnet as snt
import tensorflow as tf

_STEP = 3e-4  # Of the moving averages, an update; and the least deviation: both as Hessel et al.
_LEAST_STD = 1e-4


class PopArt(snt.Module):
  """Mean and deviation of the V-trace targets that the baseline learned from.

  The statistics are variables of the run like the weights: on parameter servers, in checkpoints,
  and copied to actors and learners with the weights that they belong to.

  Attributes:
    moments: float64 [3], moving averages over updates of (number of targets, their sum, the sum of
      their squares).
    scale: float32 [2], (mean, deviation) that the baseline's weights stand for.
  """

  def __init__(self, name='value_statistics'):
    super().__init__(name=name)
    with self.name_scope:
      self.moments = tf.Variable(tf.zeros([3], tf.float64), trainable=False, name='moments')
      self.scale = tf.Variable([0.0, 1.0], trainable=False, name='scale')

  def __call__(self, normalised):
    """What the last layer gives -> values; float32 of any shape."""
    mean, std = tf.unstack(self.scale.read_value())
    return normalised * std + mean

  def factor(self):
    """float32 scalar that errors of the baseline and advantages are multiplied with."""
    return 1.0 / self.scale.read_value()[1]

  def add(self, moments, num_learners=1):
    """Takes in one batch of one learner; an operation.

    Args:
      moments: float32 [3], see `losses.Losses.targets`.
      num_learners: how many learners add theirs for one update.
    """
    share = self.moments.read_value() / num_learners
    return self.moments.assign_add(_STEP * (tf.cast(moments, tf.float64) - share))

  def statistics(self):
    """float32 [2], (mean, deviation) of the targets so far; those of now before the first ones."""
    number, total, squares = tf.unstack(self.moments.read_value())
    mean = total / tf.maximum(number, 1e-30)
    variance = squares / tf.maximum(number, 1e-30) - tf.square(mean)
    std = tf.maximum(tf.sqrt(tf.maximum(variance, 0.0)), _LEAST_STD)
    return tf.where(number > 0, tf.cast([mean, std], tf.float32), self.scale.read_value())

  def rescale(self, weights, layer):
    """Takes the statistics of now, and changes a layer so that no value changes; an operation.

    Args:
      weights: `sliced_weights.SlicedWeights`, which hold the layer.
      layer: has `w` [inputs, 1] and `b` [1], the last of the baseline.
    """
    before, after = self.scale.read_value(), self.statistics()
    (mean, std), (new_mean, new_std) = tf.unstack(before), tf.unstack(after)
    changes = (
      weights.change(layer.w, std / new_std),
      weights.change(layer.b, std / new_std, (mean - new_mean) / new_std),
    )
    with tf.control_dependencies([before, *changes]):
      return self.scale.assign(after)
