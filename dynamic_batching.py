"""Dynamic batching: merges concurrent calls of a function into one batch.

The interface is that of the original IMPALA release (Espeholt et al. 2018, arXiv 1802.01561,
section 3.1). TensorFlow's operation `BatchFunction` does the batching, so nothing needs compiling.

  @dynamic_batching.batch_fn
  def act(observation):  # [total rows of all merged calls, ...]
    return agent(observation)

  first, second = act(observation_a), act(observation_b)  # Each result has the rows of its call.

The result of a row must not depend on other rows, because any calls may be merged.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# A full queue rejects calls; this bound is high enough never to be reached.
_MAX_ENQUEUED_BATCHES = 1 << 20
# Each thread holds one group of the minimum size that waits to run; further groups stay queued. An
# idle thread wakes every millisecond: 16 threads cost 1.6% of a core, 64 cost 7%.
_NUM_GATHERING_THREADS = 16


def batch_fn(f: Callable[..., Any]) -> Callable[..., Any]:
  """Decorates `f` so that concurrent calls are merged into one batch; no call waits for others.

  Calls that arrive during a run of `f` form the next batch.

  Args:
    f: function from tensors, or nests of tensors, to a nest of tensors, all of shape [rows, ...].
      Its variables must exist before the first call. It may capture outer tensors, except those
      created inside a tf.while_loop.

  Returns:
    A function with the signature of `f`. Its results have the static shapes of `f` and as many rows
    as the call. Only calls with equal dtypes and equal static shapes, apart from the rows, are
    merged. A call must have at least one row. Gradients are not supported.

  Raises, when the returned function is called:
    ValueError: static shapes are wrong: no inputs, no outputs, inputs with different numbers of
      rows, or an output with another number of rows than the inputs.
    tf.errors.InvalidArgumentError: inputs have wrong shapes when the graph runs.
    tf.errors.FailedPreconditionError: outputs have wrong shapes when the graph runs.
  An error, including one raised by `f`, fails all calls of its batch, but not the next batch.
  """
  return batch_fn_with_options()(f)


def batch_fn_with_options(
  minimum_batch_size: int = 1, maximum_batch_size: int = 1024, timeout_ms: float = 100
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Returns `batch_fn` with limits on the batch size, for example to fill the batches of a GPU.

  Args:
    minimum_batch_size: number of rows to wait for before `f` runs.
    maximum_batch_size: maximum number of rows in a batch, and therefore in a call.
    timeout_ms: maximum wait for the minimum, in milliseconds; then `f` runs with fewer rows. Has no
      effect if the minimum is 1.

  Returns:
    A decorator; see `batch_fn`.

  Raises:
    ValueError: not 1 <= minimum_batch_size <= maximum_batch_size, or timeout_ms < 0.
  """
  if not 1 <= minimum_batch_size <= maximum_batch_size:
    raise ValueError(
      f'minimum_batch_size {minimum_batch_size} must be between 1 and maximum_batch_size '
      f'{maximum_batch_size}'
    )
  if timeout_ms < 0:
    raise ValueError(f'timeout_ms must not be negative, but it is {timeout_ms}')

  def decorator(f):
    batchers = {}

    @functools.wraps(f, updated=())
    def batched(*args, **kwargs):
      inputs = tf.nest.map_structure(tf.convert_to_tensor, (args, kwargs))
      rows = _static_rows(tf.nest.flatten(inputs), maximum_batch_size)
      specs = tf.nest.map_structure(_any_rows, inputs)
      key = _graph_around_loops(), repr(specs)
      if key not in batchers:
        batchers[key] = _Batcher(f, specs, minimum_batch_size, maximum_batch_size, timeout_ms)
      return batchers[key](tf.nest.flatten(inputs), rows)

    return batched

  return decorator


class _Batcher:
  """Batches the calls of one function with one nest of input specs."""

  def __init__(self, f, specs, minimum_batch_size, maximum_batch_size, timeout_ms):
    """Traces `f`; `specs` is a nest of tf.TensorSpec [None, ...], and sizes are in rows."""
    self._minimum = minimum_batch_size

    def run(*flat):
      args, kwargs = tf.nest.pack_sequence_as(specs, flat)
      outputs = tf.nest.map_structure(tf.convert_to_tensor, f(*args, **kwargs))
      self._structure = tf.nest.map_structure(_any_rows, outputs)
      return tf.nest.flatten(outputs)

    # With one thread and no timeout, each run takes all rows that arrived during the last run.
    self._run = _Queue(run, tf.nest.flatten(specs), maximum_batch_size, num_batch_threads=1)
    if minimum_batch_size > 1:
      # `BatchFunction` has a maximum batch size and a timeout, but no minimum. So this queue emits
      # groups of the minimum size, and the other queue merges them up to the maximum.
      self._gather = _Queue(
        lambda *flat: self._run(flat, None),
        tf.nest.flatten(specs),
        maximum_batch_size,
        num_batch_threads=_NUM_GATHERING_THREADS,
        batch_timeout_micros=int(1000 * timeout_ms),
        # The largest allowed size completes a group. All smaller sizes are listed to avoid padding.
        allowed_batch_sizes=list(range(1, minimum_batch_size + 1)),
        enable_large_batch_splitting=True,
      )

  def __call__(self, flat, rows):
    """Maps flat inputs to the nest of outputs; `rows` is the static number of rows, or None."""
    return tf.nest.pack_sequence_as(self._structure, self._call(flat, rows))

  def _call(self, flat, rows):
    if rows is None and self._minimum > 1:
      return tf.cond(
        tf.shape(flat[0])[0] >= self._minimum,
        lambda: self._run(flat, rows),
        lambda: self._gather(flat, rows),
      )
    return (self._run if self._minimum == 1 or rows >= self._minimum else self._gather)(flat, rows)


class _Queue:
  """A queue of calls of one traced function, shared by all operations that this object creates."""

  def __init__(self, function, specs, maximum_batch_size, batch_timeout_micros=0, **options):
    """Traces the function.

    Args:
      function: maps flat tensors [rows, ...] to flat tensors [rows, ...].
      specs: list of tf.TensorSpec, the inputs of `function`.
      maximum_batch_size: in rows.
      batch_timeout_micros: maximum wait of an incomplete batch, in microseconds.
      **options: further attributes of `BatchFunction`.
    """

    def with_time(*flat_and_time):
      return function(*flat_and_time[:-1])

    self._function = tf.function(with_time, autograph=False).get_concrete_function(
      *specs, tf.TensorSpec([], tf.float64)
    )
    _check_outputs(self._function.outputs)
    self._attributes = dict(
      f=self._function,
      Tout=[output.dtype for output in self._function.outputs],
      max_batch_size=maximum_batch_size,
      batch_timeout_micros=batch_timeout_micros,
      max_enqueued_batches=_MAX_ENQUEUED_BATCHES,
      # Sessions of one server share queues by name, so the name must be unique among graphs.
      shared_name=f'dynamic_batching_{uuid.uuid4().hex}',
      **options,
    )

  def __call__(self, flat, rows):
    """Maps flat inputs to flat outputs; `rows` is the static number of rows, or None."""
    # The graph optimiser takes `BatchFunction` for a pure function: it would fold calls with
    # constant inputs and merge identical calls. The unused timestamp prevents both, because it is
    # not constant and each call has its own.
    outputs = tf.raw_ops.BatchFunction(
      in_tensors=flat,
      captured_tensors=[tf.timestamp(), *self._function.captured_inputs],
      **self._attributes,
    )
    return [
      tf.ensure_shape(output, tf.TensorShape([rows]).concatenate(static.shape[1:]))
      for output, static in zip(outputs, self._function.outputs, strict=True)
    ]


def _graph_around_loops():
  """Returns the outermost graph, around any function bodies being built, or None in eager mode."""
  with tf.init_scope():
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _any_rows(tensor):
  """Returns the tf.TensorSpec of a tensor [rows, ...] with any number of rows."""
  return tf.TensorSpec(tf.TensorShape([None]).concatenate(tensor.shape[1:]), tensor.dtype)


def _static_rows(inputs, maximum_batch_size):
  """Returns the static number of rows of a call, or None if it is unknown."""
  if not inputs:
    raise ValueError('a batched function needs at least one input')
  for tensor in inputs:
    if tensor.shape.rank == 0:
      raise ValueError(f'an input of a batched function must have a batch dimension: {tensor}')
  known = {tensor.shape[0] for tensor in inputs if tensor.shape.rank} - {None}
  if len(known) > 1:
    raise ValueError(
      'the inputs of a batched function must have the same number of rows, but they are of shape '
      + ', '.join(str(tensor.shape) for tensor in inputs)
    )
  rows = known.pop() if known else None
  if rows is not None and rows > maximum_batch_size:
    raise ValueError(
      f'a call of {rows} rows is larger than the maximum_batch_size {maximum_batch_size}'
    )
  return rows


def _check_outputs(outputs):
  if not outputs:
    raise ValueError('a batched function must return at least one tensor')
  for tensor in outputs:
    if tensor.shape.rank == 0:
      raise ValueError(f'an output of a batched function must have a batch dimension: {tensor}')
    if tensor.shape.rank and tensor.shape[0] is not None:
      raise ValueError(
        'an output of a batched function must have as many rows as the inputs, but it always has '
        f'{tensor.shape[0]}: {tensor}'
      )
