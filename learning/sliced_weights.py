"""The trained weights of a run in slices of one size, one slice on each parameter server.

Where single variables are dealt to parameter servers, the largest may be nearly all there is (95%
of `SimpleConvNetAgent`), and a second server hardly helps. Slices are even whatever the network is,
and one message takes the weights of a server, another brings it their gradients. Optimisers work
element by element, so they learn from slices what they would learn from the variables.

Checkpoints hold the variables under their own names and in their own shapes (`Whole`): they know
nothing of slices, and a run may go on with another number of them.
"""

import contextlib

import tensorflow as tf

# Elements of a slice are a multiple of it: TensorFlow cuts without copying at every 64 bytes.
_ALIGNMENT = 16


@contextlib.contextmanager
def templates(device):
  """Trainable variables made inside only say what slices hold and begin with.

  They are on `device`, in no collection of TensorFlow, and never have a value.
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
  """What is trained, in slices; created on the devices that the current scope chooses.

  Args:
    variables: list of float32 tf.Variable, not empty; `templates` makes them.
    num_slices: int, at least 1.

  Attributes:
    variables: as given; they have no values.
    slices: list of float32 tf.Variable [N], all of the same N; zeros follow the last weight.
  """

  def __init__(self, variables, num_slices):
    self.variables = variables
    self._sizes = [v.shape.num_elements() for v in variables]
    even = -(-sum(self._sizes) // num_slices)
    self._size = -(-even // _ALIGNMENT) * _ALIGNMENT
    self._num_slices = num_slices
    self._padding = self._size * num_slices - sum(self._sizes)
    # What an initializer is fed (see `Checkpoints.first_values`) comes through, too.
    first = self.cut([v.initializer.inputs[1] for v in variables])
    self.slices = [tf.Variable(value, name=f'weights_{i}') for i, value in enumerate(first)]

  def cut(self, tensors):
    """Tensors of the shapes of the variables -> list of [N], as the slices hold them."""
    flat = [tf.reshape(t, [-1]) for t in tensors]
    whole = tf.concat([*flat, tf.zeros([self._padding])], axis=0)
    return tf.split(whole, self._num_slices)

  def joined(self, slices=None):
    """The inverse of `cut`: a list of tensors like the variables, by default the weights."""
    slices = self.slices if slices is None else slices
    whole = tf.concat([tf.convert_to_tensor(s) for s in slices], axis=0)
    pieces = tf.split(whole, [*self._sizes, self._padding])
    return [tf.reshape(t, v.shape) for t, v in zip(pieces, self.variables, strict=False)]

  def change(self, variable, factor, offset=0.0):
    """Each element of one of the variables times `factor` plus `offset`; an operation."""
    assigned = []
    for piece, start, stop in self._pieces(variable):
      with tf.device(piece.device):
        assigned.append(piece[start:stop].assign(piece[start:stop] * factor + offset))
    return tf.group(*assigned)

  def _pieces(self, variable):
    """Where a variable lies: (slice, start, stop) of each slice that holds some of it."""
    index = next(i for i, v in enumerate(self.variables) if v is variable)
    first = sum(self._sizes[:index])
    last = first + self._sizes[index]
    for i, piece in enumerate(self.slices):
      start, stop = max(first - i * self._size, 0), min(last - i * self._size, self._size)
      if start < stop:
        yield piece, start, stop

  def values_of(self, agent):
    """What `agent.variables` hold, with the weights out of the slices; a list of tensors."""
    weights = {v.ref(): t for v, t in zip(self.variables, self.joined(), strict=True)}
    return [weights.get(v.ref(), v) for v in agent.variables]

  def whole(self, optimizer):
    """`Whole` of the weights and of their slots in a tf.compat.v1.train.Optimizer.

    Its variables are created on the current device.
    """
    parts = {v.op.name: v.shape for v in self.variables}
    columns = [(list(parts), self.slices)]
    for slot in optimizer.get_slot_names():
      slots = [optimizer.get_slot(s, slot) for s in self.slices]
      suffix = slots[0].op.name.rpartition('/')[2]
      columns.append(([f'{name}/{suffix}' for name in parts], slots))
    return Whole(self, columns, list(parts.values()))


class Whole:
  """Sliced values as single variables, for who saves or restores them.

  Attributes:
    variables: {name: tf.Variable}; in no collection, and without a value until `gather` ran.
    sliced: list of the tf.Variable that they stand for.
    gather: operation, slices -> variables.
    scatter: operation, variables -> slices.
  """

  def __init__(self, weights, columns, shapes):
    self.variables, self.sliced, gather, scatter = {}, [], [], []
    for names, slices in columns:
      singles = [_without_collection(shape) for shape in shapes]
      self.variables.update(zip(names, singles, strict=True))
      self.sliced += slices
      gather += [v.assign(t) for v, t in zip(singles, weights.joined(slices), strict=True)]
      cut = weights.cut([v.read_value() for v in singles])
      scatter += [s.assign(t) for s, t in zip(slices, cut, strict=True)]
    self.gather, self.scatter = tf.group(gather), tf.group(scatter)


def _without_collection(shape):
  return tf.compat.v1.Variable(
    lambda: tf.zeros(shape), trainable=False, use_resource=True, collections=[]
  )
