"""Several updates per batch (--sample_reuse), as in IMPACT (Luo et al. 2019, arXiv 1912.00167).

If actors are slower than the learner, further passes over a batch use time that the learner would
spend waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class SampleReuse:
  """Keeps tensors of the first pass over a batch for later passes.

  Args:
    passes: updates per batch. With 1, nothing is kept.

  Attributes:
    passes: as given.
    index: int32 scalar placeholder, the index of the current pass; 0 is the first.
  """

  def __init__(self, passes: int):
    self.passes = passes
    self.index = tf.compat.v1.placeholder_with_default(0, [], name='pass')
    self._is_first = tf.equal(self.index, 0)

  def kept_for_all_passes(
    self, make: Callable[[], Sequence[tf.Tensor]], specs: Sequence[tuple[tf.DType, Any]]
  ) -> list[tf.Tensor]:
    """Returns tensors that have their first-pass values in every pass.

    The values are kept in local variables on the current device until the next batch.

    Args:
      make: builds the tensors; they are evaluated in the first pass only.
      specs: (dtype, shape) of each tensor.
    """
    if self.passes == 1:
      return list(make())
    variables = [_local_variable(dtype, shape) for dtype, shape in specs]

    def first():
      kept = []
      for variable, tensor in zip(variables, make(), strict=True):
        with tf.control_dependencies([variable.assign(tensor)]):
          kept.append(tf.identity(tensor))
      return kept

    return tf.cond(self._is_first, first, lambda: [v.read_value() for v in variables])

  def first_pass_only(self, shape: Sequence[int]) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Returns a function that maps a float32 tensor of `shape` to its value in the first pass.

    Returns None if there is only one pass.
    """
    if self.passes == 1:
      return None
    return lambda tensor: self.kept_for_all_passes(lambda: [tensor], [(tf.float32, shape)])[0]

  def run_in_first_pass(self, build: Callable[[], tf.Operation]) -> tf.Operation:
    """Returns an operation that runs `build()` in the first pass and does nothing in others."""
    if self.passes == 1:
      return build()
    return tf.cond(self._is_first, lambda: tf.group(build()), tf.no_op)

  def zero_after_first_pass(self, value: float | tf.Tensor) -> float | tf.Tensor:
    """Returns `value` (a float32 scalar) in the first pass, and 0 in the others."""
    if self.passes == 1:
      return value
    return tf.where(self._is_first, value, 0.0)


def _local_variable(dtype: tf.DType, shape: Any) -> tf.Variable:
  return tf.compat.v1.Variable(
    lambda: tf.zeros(shape, dtype),
    trainable=False,
    use_resource=True,
    collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
  )
