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
  'running': Scale(0.0, 1.0),  # `RunningScaling` has done it,
  'held': Scale(0.0, 1.0),  # and in copies of the weights `HeldScaling`.
}


class _Scaling(snt.Module):
  """(x - mean) / std, clipped to +-5, for each element on its own (pixel and channel of images)."""

  def __call__(self, observation):
    """[N, ...] of any dtype -> float32 [N, ...]."""
    mean, std = self.moments()
    return tf.clip_by_value((tf.cast(observation, tf.float32) - mean) / std, -_CLIP, _CLIP)


class RunningScaling(_Scaling):
  """Scales by the moments of all observations learned from.

  The statistics are float64 sums, so that additions of many learners commute and none is lost
  beside large sums; they are variables like the weights: on one parameter server, and in
  checkpoints.
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
      with tf.device(self.sum.device):
        self.sum_of_squares = zeros(shape, 'sum_of_squares')

  def moments(self):
    """(mean, standard deviation) of each element, float32; made where the statistics are."""
    with tf.device(self.sum.device):
      count, one = self.count.read_value(), tf.ones([], tf.float64)
      mean = self.sum.read_value() / tf.maximum(count, one)
      squares = self.sum_of_squares.read_value() / tf.maximum(count, one)
      std = tf.maximum(tf.sqrt(tf.maximum(squares - tf.square(mean), 0.0)), self._least_std)
      known = count > 0
      mean = tf.where(known, mean, self._first_mean)
      std = tf.where(known, std, self._first_std)
      return tf.cast(mean, tf.float32), tf.cast(std, tf.float32)

  def add(self, count, sums, sums_of_squares):
    """Takes in `count` observations, a float64 scalar, by `sums_of` them; an operation."""
    return tf.group(
      self.count.assign_add(count),
      self.sum.assign_add(sums),
      self.sum_of_squares.assign_add(sums_of_squares),
    )


class HeldScaling(_Scaling):
  """Scales by moments that were copied with the weights: nothing but that at every step.

  Attributes:
    mean, std: float32 variables like an observation; without use before the first copy.
  """

  def __init__(self, shape, name='observation_moments'):
    super().__init__(name=name)
    with self.name_scope:
      self.mean = tf.Variable(tf.zeros(shape), trainable=False, name='mean')
      self.std = tf.Variable(tf.ones(shape), trainable=False, name='std')

  def moments(self):
    """(mean, standard deviation) as they were copied."""
    return self.mean, self.std


def scaling_by_moments(name, like):
  """What scales observations like the tensor [N, ...], or None where the key of `SCALES` does."""
  shape = like.shape[1:]
  if name == 'running':
    return RunningScaling(shape, like.dtype)
  return HeldScaling(shape) if name == 'held' else None


def sums_of(observations):
  """(N, their sum, the sum of their squares), float64, of observations [N, ...] of any dtype."""
  values = tf.cast(observations, tf.float64)
  number = tf.cast(tf.shape(values)[0], tf.float64)
  return number, tf.reduce_sum(values, axis=0), tf.reduce_sum(tf.square(values), axis=0)


def with_moments(agent, values):
  """What an agent's variables hold, with the moments in place of what they come from.

  Args:
    agent: has `variables` and `running_scaling`.
    values: list like `agent.variables`.
  """
  if not agent.running_scaling:
    return values
  statistics = {variable.ref() for variable in agent.running_scaling.variables}
  pairs = zip(agent.variables, values, strict=True)
  others = [value for variable, value in pairs if variable.ref() not in statistics]
  return [*others, *agent.running_scaling.moments()]
