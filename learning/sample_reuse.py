"""A batch is learned from several times: what later passes know of the first (--sample_reuse).

As in IMPACT (Luo et al. 2019, arXiv 1912.00167) and APPO. Frames come faster than a learner that
waits for actors can use up; learning from each batch again costs it nothing but its own time.
"""

import tensorflow as tf


class SampleReuse:
  """Which pass over a batch runs, and what all passes share.

  Args:
    passes: int, how many updates are made of a batch. With 1 nothing is kept.

  Attributes:
    passes: as given.
    index: int32 placeholder, 0 for the first pass over a batch.
  """

  def __init__(self, passes):
    self.passes = passes
    self.index = tf.compat.v1.placeholder_with_default(0, [], name='pass')
    self._is_first = tf.equal(self.index, 0)

  def held(self, make, specs):
    """Tensors that the first pass makes, and every pass has.

    They are kept in variables of this task, on the current device, until the next first pass.

    Args:
      make: function without arguments, gives a list of tensors; runs in the first pass only.
      specs: list of their (dtype, shape).

    Returns:
      A list of tensors.
    """
    if self.passes == 1:
      return make()
    variables = [_local_variable(dtype, shape) for dtype, shape in specs]

    def first():
      held = []
      for variable, tensor in zip(variables, make(), strict=True):
        with tf.control_dependencies([variable.assign(tensor)]):
          held.append(tf.identity(tensor))
      return held

    return tf.cond(self._is_first, first, lambda: [v.read_value() for v in variables])

  def at_first(self, shape):
    """A function of a float32 tensor of `shape`, what it was in the first pass; None for 1 pass."""
    if self.passes == 1:
      return None
    return lambda tensor: self.held(lambda: [tensor], [(tf.float32, shape)])[0]

  def in_first(self, operation):
    """`operation()`, a function that gives an operation, in the first pass; else nothing."""
    if self.passes == 1:
      return operation()
    return tf.cond(self._is_first, lambda: tf.group(operation()), tf.no_op)

  def first_only(self, value):
    """A float32 scalar in the first pass, 0 in the others."""
    if self.passes == 1:
      return value
    return tf.where(self._is_first, value, 0.0)


def _local_variable(dtype, shape):
  return tf.compat.v1.Variable(
    lambda: tf.zeros(shape, dtype),
    trainable=False,
    use_resource=True,
    collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
  )
