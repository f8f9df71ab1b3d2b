"""The trained weights of a run in slices of equal size, one slice on each parameter server.

If each parameter server held whole variables, one could hold nearly all weights (95% of
`SimpleConvNetAgent` is one variable) and a second server would hardly help. Equal slices balance
any network, and one message per server carries its weights or their gradients. RMSProp and Adam
work element by element, so slicing does not change learning.

Checkpoints hold the unsliced variables (`UnslicedVariables`), so a run can be resumed with another
number of parameter servers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

# Slice sizes are multiples of this: TensorFlow splits without a copy at 64-byte borders.
_ALIGNMENT = 16


@contextlib.contextmanager
def shape_only_variables(device: str) -> Iterator[None]:
  """Gives trainable variables created inside a shape and an initializer, but never a value.

  The variables are on `device` and in no TensorFlow collection.
  """

  def create(next_creator, **kwargs):
    if kwargs.get('trainable') is False:
      return next_creator(**kwargs)
    with tf.device(device):
      variable = next_creator(**kwargs)
    keys, graph = tf.compat.v1.GraphKeys, tf.compat.v1.get_default_graph()
    for key in (keys.GLOBAL_VARIABLES, keys.TRAINABLE_VARIABLES):
      collection = graph.get_collection_ref(key)
      collection[:] = [v for v in collection if v is not variable]
    return variable

  with tf.variable_creator_scope(create):
    yield


class SlicedWeights:
  """The trained weights in slices, which are created in the current device scope.

  Args:
    variables: float32 variables from `shape_only_variables`, at least one.
    num_slices: number of slices, at least 1.

  Attributes:
    variables: as given; they have no values.
    slices: float32 variables [N] of equal N; zeros follow the last weight.
  """

  def __init__(self, variables: Sequence[tf.Variable], num_slices: int):
    self.variables = variables
    self._sizes = [v.shape.num_elements() for v in variables]
    even = -(-sum(self._sizes) // num_slices)
    self._size = -(-even // _ALIGNMENT) * _ALIGNMENT
    self._num_slices = num_slices
    self._padding = self._size * num_slices - sum(self._sizes)
    # Feeding a variable's initializer (see `Checkpoints.first_values`) also sets its slices.
    first = self.cut([v.initializer.inputs[1] for v in variables])
    self.slices = [tf.Variable(value, name=f'weights_{i}') for i, value in enumerate(first)]

  def cut(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Converts tensors with the variables' shapes to one tensor [N] per slice."""
    flat = [tf.reshape(t, [-1]) for t in tensors]
    whole = tf.concat([*flat, tf.zeros([self._padding])], axis=0)
    return tf.split(whole, self._num_slices)

  def joined(self, slices: Sequence[tf.Tensor | tf.Variable] | None = None) -> list[tf.Tensor]:
    """Converts slices (default: the weights) to tensors with the variables' shapes."""
    slices = self.slices if slices is None else slices
    whole = tf.concat([tf.convert_to_tensor(s) for s in slices], axis=0)
    pieces = tf.split(whole, [*self._sizes, self._padding])
    return [tf.reshape(t, v.shape) for t, v in zip(pieces, self.variables, strict=False)]

  def scale_and_shift(
    self, variable: tf.Variable, factor: tf.Tensor, offset: float | tf.Tensor = 0.0
  ) -> tf.Operation:
    """Returns an operation that sets a variable to variable * factor + offset.

    Args:
      variable: one of `variables`.
      factor: float32 scalar, or [n] where the variable's last axis has n elements.
      offset: likewise.
    """
    factor, offset = tf.convert_to_tensor(factor), tf.convert_to_tensor(offset)

    def part(tensor, at, size):
      if not tensor.shape.rank:
        return tensor
      return tf.reshape(tf.broadcast_to(tensor, variable.shape), [-1])[at : at + size]

    assigned = []
    for piece, start, stop, at in self._pieces(variable):
      terms = part(factor, at, stop - start), part(offset, at, stop - start)
      with tf.device(piece.device):
        assigned.append(piece[start:stop].assign(piece[start:stop] * terms[0] + terms[1]))
    return tf.group(*assigned)

  def _pieces(self, variable: tf.Variable) -> Iterator[tuple[tf.Variable, int, int, int]]:
    """Yields (slice, start, stop, place in the flat variable) for each part of a variable."""
    index = next(i for i, v in enumerate(self.variables) if v is variable)
    first = sum(self._sizes[:index])
    last = first + self._sizes[index]
    for i, piece in enumerate(self.slices):
      start, stop = max(first - i * self._size, 0), min(last - i * self._size, self._size)
      if start < stop:
        yield piece, start, stop, start + i * self._size - first

  def values_of(self, agent: Any) -> list[tf.Tensor]:
    """Returns the values of `agent.variables`; the weights come from the slices."""
    weights: dict[Any, Any] = {
      v.ref(): t for v, t in zip(self.variables, self.joined(), strict=True)
    }
    return [weights.get(v.ref(), v) for v in agent.variables]

  def unsliced(self, optimizer: tf.compat.v1.train.Optimizer) -> UnslicedVariables:
    """Returns the weights and their optimizer slots as single variables on the current device."""
    parts = {v.op.name: v.shape for v in self.variables}
    columns = [(list(parts), self.slices)]
    for slot in optimizer.get_slot_names():
      slots = [optimizer.get_slot(s, slot) for s in self.slices]
      suffix = slots[0].op.name.rpartition('/')[2]
      columns.append(([f'{name}/{suffix}' for name in parts], slots))
    return UnslicedVariables(self, columns, list(parts.values()))


class UnslicedVariables:
  """The weights and slots as whole variables, for checkpoints.

  Args:
    weights: converts between slices and tensors with the variables' shapes.
    columns: (names of the variables, their slices) for the weights and for each kind of slot.
    shapes: shapes of the variables of a column.

  Attributes:
    variables: variables by name; in no collection, and without values until `gather` has run.
    sliced: the corresponding slices.
    gather: operation, slices -> variables.
    scatter: operation, variables -> slices.
  """

  def __init__(
    self,
    weights: SlicedWeights,
    columns: Sequence[tuple[list[str], list[tf.Variable]]],
    shapes: Sequence[tf.TensorShape],
  ):
    self.variables: dict[str, tf.Variable] = {}
    self.sliced: list[tf.Variable] = []
    gather, scatter = [], []
    for names, slices in columns:
      singles = [_without_collection(shape) for shape in shapes]
      self.variables.update(zip(names, singles, strict=True))
      self.sliced += slices
      gather += [v.assign(t) for v, t in zip(singles, weights.joined(slices), strict=True)]
      cut = weights.cut([v.read_value() for v in singles])
      scatter += [s.assign(t) for s, t in zip(slices, cut, strict=True)]
    self.gather: tf.Operation = tf.group(gather)
    self.scatter: tf.Operation = tf.group(scatter)


def _without_collection(shape: tf.TensorShape) -> tf.Variable:
  return tf.compat.v1.Variable(
    lambda: tf.zeros(shape), trainable=False, use_resource=True, collections=[]
  )
