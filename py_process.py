"""Runs a Python object in a process of its own and makes its methods graph operations.

The interface is that of the original IMPALA release (Espeholt et al. 2018, arXiv 1802.01561).
`acting/worker_process.py` implements the process, and can be used without TensorFlow; its public
names are also available here. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from typing import Any

from acting.worker_process import Worker, WorkerDied, WorkerError, call_all, close_all, start_all

__all__ = [
  'PyProcess',
  'PyProcessHook',  # noqa: F822 - created on first access by `__getattr__` below.
  'Worker',
  'WorkerDied',
  'WorkerError',
  'call_all',
  'close_all',
  'start_all',
]

_graph_processes = weakref.WeakKeyDictionary()  # tf.Graph -> list of PyProcess.


class PyProcess:
  """A Python object in a process of its own, with methods as operations of the default graph.

  Example:
    class Zeros:
      def __init__(self, size): self._size = size
      def get(self, factor): return np.zeros(self._size, np.float32) * factor

      @staticmethod
      def _tensor_specs(method_name, kwargs, constructor_kwargs):
        return tf.TensorSpec([constructor_kwargs['size']], tf.float32)

    process = PyProcess(Zeros, 3)
    zeros = process.proxy.get(2.0)  # A tensor of shape [3].
    with tf.compat.v1.train.SingularMonitoredSession(hooks=[PyProcessHook()]) as session:
      session.run(zeros)

  Args:
    type_: the object's class, importable. Its static method
      `_tensor_specs(method_name, kwargs, constructor_kwargs)` returns the nest of tf.TensorSpec of
      a method's result. Both dicts map names of arguments to values.
    *args: arguments of the constructor.
    **kwargs: keyword arguments of the constructor.
  """

  def __init__(self, type_: type, *args: Any, **kwargs: Any):
    import tensorflow as tf

    bound = inspect.signature(type_).bind(*args, **kwargs)
    bound.apply_defaults()
    self._worker = Worker(type_, *args, **kwargs)
    self._proxy = _Proxy(type_, dict(bound.arguments), self._worker)
    _graph_processes.setdefault(tf.compat.v1.get_default_graph(), []).append(self)

  @property
  def proxy(self) -> Any:
    """An object with the same methods, each of which takes tensors and returns tensors.

    Calling a method adds an operation to the graph. If the method or its process fails, the
    operation raises a tf.errors.OpError with the traceback. A running operation blocks a thread of
    the session; for many workers use `call_all`.
    """
    return self._proxy

  @property
  def pid(self) -> int | None:
    """The id of the process, or None while no process runs."""
    return self._worker.pid

  def start(self) -> None:
    """Starts the process; see `Worker.start`."""
    self._worker.start()

  def close(self) -> None:
    """Ends the process; may be called twice."""
    self._worker.close()


class _Proxy:
  def __init__(self, type_, constructor_kwargs, worker):
    self._type, self._constructor_kwargs, self._worker = type_, constructor_kwargs, worker

  def __getattr__(self, method):
    signature = inspect.signature(getattr(self._type, method))

    def call(*args, **kwargs):
      bound = signature.bind(None, *args, **kwargs)  # None takes the place of self.
      bound.apply_defaults()
      named = dict(list(bound.arguments.items())[1:])
      specs = self._type._tensor_specs(method, named, self._constructor_kwargs)
      if specs is None:
        raise ValueError(
          f'{self._type.__name__}._tensor_specs names no specification for {method!r}'
        )
      return _operation(self._worker, method, args, kwargs, specs)

    return call


def _operation(worker, method, args, kwargs, specs):
  import tensorflow as tf

  flat_specs = tf.nest.flatten(specs)

  def run(*flat_inputs):
    args_v, kwargs_v = tf.nest.pack_sequence_as((args, kwargs), flat_inputs)
    result = worker.call(method, *args_v, **kwargs_v)
    if not flat_specs:
      return []
    tf.nest.assert_same_structure(specs, result)
    return [_checked(method, r, s) for r, s in zip(tf.nest.flatten(result), flat_specs)]

  outputs = tf.numpy_function(
    run, tf.nest.flatten((args, kwargs)), [s.dtype for s in flat_specs], name=method
  )
  if not flat_specs:
    return outputs
  for output, spec in zip(outputs, flat_specs):
    output.set_shape(spec.shape)
  return tf.nest.pack_sequence_as(specs, outputs)


def _checked(method, value, spec):
  import numpy as np

  array = np.asarray(value)
  fits = spec.shape.is_compatible_with(array.shape)
  # 'same_kind' lets Python's numbers, which are int64 and float64 here, become narrower types. The
  # numpy dtype of tf.string is object.
  if not fits or not np.can_cast(array.dtype, spec.dtype.as_numpy_dtype, 'same_kind'):
    raise ValueError(
      f'{method} returned {array.dtype} of shape {array.shape} where _tensor_specs promises '
      f'{spec.dtype.name} of shape {spec.shape}'
    )
  return array


def _hook_class():
  import tensorflow as tf

  class PyProcessHook(tf.compat.v1.train.SessionRunHook):
    """Starts every `PyProcess` of the graph before a monitored session and closes them with it.

    The processes are closed after a normal end, after an error, and if one of them fails to start.
    A session that recovers from a lost peer restarts them after its initialisers have run. If
    TensorFlow cannot create the session, it calls no hook, and the processes end with the program.
    """

    def begin(self):
      """Starts all processes; raises `WorkerError` if a constructor fails."""
      self._workers = [
        p._worker for p in _graph_processes.get(tf.compat.v1.get_default_graph(), [])
      ]
      start_all(self._workers)

    def after_create_session(self, session, coord):
      """Restarts closed processes; starts a thread that closes all when the coordinator stops."""
      start_all([w for w in self._workers if w.pid is None])
      closer = threading.Thread(target=self._close_at_stop, args=[coord], daemon=True)
      closer.start()
      coord.register_thread(closer)

    def end(self, session):
      """Closes all processes."""
      close_all(self._workers)

    def _close_at_stop(self, coord):
      coord.wait_for_stop()
      close_all(self._workers)

  return PyProcessHook


def __getattr__(name):
  # The hook's base class is in TensorFlow, so the hook is defined when it is first used.
  if name != 'PyProcessHook':
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  globals()[name] = _hook_class()
  return globals()[name]
