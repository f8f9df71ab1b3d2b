"""Dynamic batching: calls of one function from many places and threads run as one batch.

The interface is that of the original IMPALA release (Espeholt et al. 2018, arXiv 1802.01561,
section 3.1). TensorFlow's own operation `BatchFunction` does the work: there is nothing to compile.

  @dynamic_batching.batch_fn
  def act(observation):  # [rows of all callers together, ...]
    return agent(observation)

  first, second = act(observation_a), act(observation_b)  # Each gets the rows it sent.

Rows must not depend on each other: which callers share a run is up to chance.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# A queue that is full refuses calls; this one never is.
_MAX_ENQUEUED_BATCHES = 1 << 20
# Groups that reached the minimum and wait for their run; further ones queue behind them. An idle
# thread wakes every millisecond: 16 of them cost 1.6% of a core, 64 cost 7%.
_NUM_GATHERING_THREADS = 16


def batch_fn(f: Callable[..., Any]) -> Callable[..., Any]:
  """Decorator: merges concurrent calls of `f`; no call waits for others to arrive.

  While a run is under way, the calls that arrive form the next batch.

  Args:
    f: takes tensors, or nests of them, and returns a nest of tensors, all of shape [rows, ...]. Its
      variables must exist when it is first called. It may use tensors from outside, but none that
      live in a loop.

  Returns:
    A function with the arguments and results of `f`. Results have the static shapes of `f` and as
    many rows as the call. Calls are merged whose dtypes and static shapes agree, but for the rows.
    A call has at least one row. There are no gradients.

  Raises, when the returned function is called:
    ValueError: the call is known to be wrong while the graph is built: no inputs or no outputs,
      rows that differ between inputs, an output that has not as many rows as the inputs.
    tf.errors.InvalidArgumentError: inputs that turn out to be wrong when the graph runs.
    tf.errors.FailedPreconditionError: outputs that do.
  All calls in a batch see its errors, those of `f` too; the next batch is not affected.
  """
  return batch_fn_with_options()(f)


def batch_fn_with_options(
  minimum_batch_size: int = 1, maximum_batch_size: int = 1024, timeout_ms: float = 100
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """`batch_fn` for GPUs and others that profit from waiting for more rows.

  Args:
    minimum_batch_size: rows to wait for before `f` runs.
    maximum_batch_size: rows that `f` gets at most; also the most that a call may send.
    timeout_ms: milliseconds that a row waits at most for the minimum to be reached; then `f` runs
      with fewer. Without effect at a minimum of 1.

  Returns:
    A decorator, see `batch_fn`.

  Raises:
    ValueError: not 1 <= minimum_batch_size <= maximum_batch_size, or a negative timeout.
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
  """One function for one nest of input specs: waiting for the minimum, then the run."""

  def __init__(self, f, specs, minimum_batch_size, maximum_batch_size, timeout_ms):
    """Traces `f` for the specs [None, ...]; sizes in rows."""
    self._minimum = minimum_batch_size

    def run(*flat):
      args, kwargs = tf.nest.pack_sequence_as(specs, flat)
      outputs = tf.nest.map_structure(tf.convert_to_tensor, f(*args, **kwargs))
      self._structure = tf.nest.map_structure(_any_rows, outputs)
      return tf.nest.flatten(outputs)

    # One thread and no timeout: it takes what is there when the run before is over.
    self._run = _Queue(run, tf.nest.flatten(specs), maximum_batch_size, num_batch_threads=1)
    if minimum_batch_size > 1:
      # The operation knows a time and a size at which a batch leaves, but no minimum beside a
      # larger maximum. So rows leave this queue in groups of the minimum, and merge in the other.
      self._gather = _Queue(
        lambda *flat: self._run(flat, None),
        tf.nest.flatten(specs),
        maximum_batch_size,
        num_batch_threads=_NUM_GATHERING_THREADS,
        batch_timeout_micros=int(1000 * timeout_ms),
        # All sizes are allowed, so nothing is padded; the last one is where a group is complete.
        allowed_batch_sizes=list(range(1, minimum_batch_size + 1)),
        enable_large_batch_splitting=True,
      )

  def __call__(self, flat, rows):
    """Flat inputs to the nest of outputs; `rows` is static, None where it is not known."""
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
  """A queue of calls of one traced function, shared by all operations that this object makes."""

  def __init__(self, function, specs, maximum_batch_size, batch_timeout_micros=0, **options):
    """Traces the function.

    Args:
      function: flat tensors [rows, ...] to flat tensors [rows, ...].
      specs: list of tf.TensorSpec of its inputs.
      maximum_batch_size: in rows.
      batch_timeout_micros: microseconds after which an incomplete batch leaves.
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
      # Sessions of one server share their queues by name, so no other graph may have this one.
      shared_name=f'dynamic_batching_{uuid.uuid4().hex}',
      **options,
    )

  def __call__(self, flat, rows):
    """Flat inputs to flat outputs; `rows` is static, None where it is not known."""
    # The graph optimiser takes `BatchFunction` for a pure function: it would compute it once and
    # for all when the inputs are constant, and once for calls that are alike. The time is not used,
    # but it is not constant either, and each call has its own.
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
  """The graph that holds the function bodies being built, None in eager mode."""
  with tf.init_scope():
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _any_rows(tensor):
  """The spec of a tensor [rows, ...] with any number of rows."""
  return tf.TensorSpec(tf.TensorShape([None]).concatenate(tensor.shape[1:]), tensor.dtype)


def _static_rows(inputs, maximum_batch_size):
  """The number of rows of a call, None where it is not known."""
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
