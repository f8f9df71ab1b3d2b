"""What the network sees of an observation: as it is, shifted and scaled, or by running moments.

It stands beside `nets`, since its statistics are variables of a run like the weights, without being
trained.
"""

import collections

import sonnet as snt
import tensorflow as tf

_CLIP = 5.0  # Standard deviations, of an observation scaled by running statistics.

# What is subtracted from the pixels (or elements) of an observation, and then multiplied with.
Scale = collections.namedtuple('Scale', 'offset factor')
SCALES = {
  'unit': Scale(0.0, 1 / 255),
  'centred': Scale(128.0, 1 / 128),
  'running': Scale(0.0, 1.0),  # `RunningScaling` has done it.
}


class RunningScaling(snt.Module):
  """Scales by the moments of all observations learned from: (x - mean) / std, clipped to +-5.

  For each element on its own (pixel and channel of images). The statistics are float64 sums, so
  that additions of many learners commute and none is lost beside large sums; they are variables
  like the weights: on parameter servers, in checkpoints, and copied to actors with the weights.
  """

  def __init__(self, shape, dtype, name='observation_statistics'):
    super().__init__(name=name)
    is_pixels = tf.dtypes.as_dtype(dtype) == tf.uint8
    # Before the first update, and the least that counts as a deviation at all.
    self._first_mean, self._first_std, self._least_std = (
      (128, 128, 1) if is_pixels else (0, 1, 1e-4)
    )

    def zeros(shape, name):
      return tf.Variable(tf.zeros(shape, tf.float64), trainable=False, name=name)

    with self.name_scope:
      self.count = zeros([], 'count')
      self.sum = zeros(shape, 'sum')
      self.sum_of_squares = zeros(shape, 'sum_of_squares')

  def moments(self):
    """(mean, standard deviation) of each element, float32 like an observation."""
    count, one = self.count.read_value(), tf.ones([], tf.float64)
    mean = self.sum.read_value() / tf.maximum(count, one)
    squares = self.sum_of_squares.read_value() / tf.maximum(count, one)
    std = tf.maximum(tf.sqrt(tf.maximum(squares - tf.square(mean), 0.0)), self._least_std)
    known = count > 0
    mean = tf.where(known, mean, self._first_mean)
    std = tf.where(known, std, self._first_std)
    return tf.cast(mean, tf.float32), tf.cast(std, tf.float32)

  def __call__(self, observation):
    """[N, ...] of any dtype -> float32 [N, ...]."""
    mean, std = self.moments()
    return tf.clip_by_value((tf.cast(observation, tf.float32) - mean) / std, -_CLIP, _CLIP)

  def add(self, observations):
    """Takes in observations [N, ...]; an operation."""
    values = tf.cast(observations, tf.float64)
    return tf.group(
      self.count.assign_add(tf.cast(tf.shape(values)[0], tf.float64)),
      self.sum.assign_add(tf.reduce_sum(values, axis=0)),
      self.sum_of_squares.assign_add(tf.reduce_sum(tf.square(values), axis=0)),
    )
