"""Several updates per batch (--sample_reuse): what later passes share with the first.

As in IMPACT (Luo et al. 2019, arXiv 1912.00167) and APPO. Where actors are slower than the learner,
learning from each batch again uses time in which the learner would wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class SampleReuse:
  """Knows which pass over a batch runs, and keeps tensors of the first pass for the others.

  Args:
    passes: updates per batch. With 1 nothing is kept.

  Attributes:
    passes: as given.
    index: int32 placeholder, 0 for the first pass over a batch.
  """

  def __init__(self, passes: int):
    self.passes = passes
    self.index = tf.compat.v1.placeholder_with_default(0, [], name='pass')
    self._is_first = tf.equal(self.index, 0)

  def kept_for_all_passes(
    self, make: Callable[[], Sequence[tf.Tensor]], specs: Sequence[tuple[tf.DType, Any]]
  ) -> list[tf.Tensor]:
    """Returns the tensors that `make` returned in the first pass, in every pass.

    They are kept in local variables on the current device until the next first pass.

    Args:
      make: returns the tensors; runs in the first pass only.
      specs: their (dtype, shape).
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
    """Returns a function of a float32 tensor of `shape` that returns its value in the first pass.

    None where there is one pass.
    """
    if self.passes == 1:
      return None
    return lambda tensor: self.kept_for_all_passes(lambda: [tensor], [(tf.float32, shape)])[0]

  def run_in_first_pass(self, build: Callable[[], tf.Operation]) -> tf.Operation:
    """Returns the operation that `build` returns; it does nothing in later passes."""
    if self.passes == 1:
      return build()
    return tf.cond(self._is_first, lambda: tf.group(build()), tf.no_op)

  def zero_after_first_pass(self, value: float | tf.Tensor) -> float | tf.Tensor:
    """Returns a float32 scalar in the first pass, 0 in the others."""
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
