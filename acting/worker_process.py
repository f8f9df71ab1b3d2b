"""Runs Python objects in worker processes and calls their methods, without TensorFlow.

A worker process is a fresh interpreter, which runs `acting/worker_program.py`. It imports what its
object needs, but neither TensorFlow nor, unless the object's class is defined there, the program's
main module. It ends with its parent, even if the parent is killed. Linux only. `py_process` makes
the methods graph operations.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from acting import worker_messages, worker_program
from common import descendants, open_files

# Time limit for the object's close(), in seconds; then the worker is killed.
CLOSE_SECS = 3.0

# While waiting for an answer, the interval between checks that the process is alive.
_LOOK_SECS = 0.2
_FILES_OF_A_WORKER = 2
_TIMEVAL = struct.Struct('@ll')  # Seconds and microseconds.
_numbers = itertools.count()

# A machine runs many workers, so each uses a single thread.
_SINGLE_THREADED = {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}


class WorkerError(RuntimeError):
  """A call raised an exception inside a worker; the text includes the worker's traceback.

  Attributes:
    type_name: name of the exception's type.
    message: the exception's message.
  """

  def __init__(self, text: str, type_name: str = '', message: str = ''):
    super().__init__(text)
    self.type_name, self.message = type_name, message


class WorkerDied(WorkerError):
  """The worker's process has ended; `message` says how."""


class TooManyFiles(WorkerError):
  """The workers need more open files than the hard limit allows."""


class Worker:
  """A Python object in a process of its own.

  Args:
    type_: the object's class; importable, or defined at the top level of the main module.
    *args: arguments of the constructor. These, and the arguments and results of all calls, are
      pickled.
    **kwargs: keyword arguments of the constructor.

  Raises:
    ValueError: the class or the arguments cannot be pickled.
  """

  def __init__(self, type_: type, *args: Any, **kwargs: Any):
    self._label = type_.__name__
    try:
      self._construction = pickle.dumps((type_, args, kwargs))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
      raise ValueError(
        f'{type_.__qualname__} cannot be sent to a process of its own ({error}); '
        'define it at the top level of a module and give it arguments that pickle can send'
      ) from error
    self._lock = threading.Lock()
    self._inherited = ()
    self._process = self._socket = self._finalizer = self._mark = None

  @property
  def pid(self) -> int | None:
    """The id of the process, or None before `start` and after `close`."""
    return self._process and self._process.pid

  def inherit(self, *files: int) -> None:
    """Makes processes started from now on inherit file descriptors, under the same numbers."""
    self._inherited = files

  def start(self) -> None:
    """Starts the process and constructs the object.

    Raises:
      WorkerError: the constructor failed; the process has been ended.
    """
    start_all([self])

  def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a method of the object and returns its result.

    Args:
      method: name of the method.
      *args: its arguments.
      **kwargs: its keyword arguments.

    Raises:
      WorkerError: the method raised an exception. The worker remains usable.
      WorkerDied: the process has ended. Call `close`, then `start`, for a new one.
    """
    request = worker_messages.dumps((method, args, kwargs))
    (result,) = _converse([self], lambda worker: worker._send(request))
    if isinstance(result, WorkerError):
      raise result
    return result

  def close(self) -> None:
    """Calls the object's `close()`, if it has one, and ends the process; may be called twice."""
    close_all([self])

  def _spawn(self):
    if self._process:
      raise RuntimeError(f'the process of {self._label} runs already')
    ours, theirs = socket.socketpair()
    # Nothing is written to the lifeline. The worker dies when our end closes, which happens at the
    # latest when this process ends.
    lifeline, our_lifeline = os.pipe()
    self._mark = f'{descendants.mark()}:{next(_numbers)}'
    try:
      fds = theirs.fileno(), lifeline
      self._process = subprocess.Popen(
        [sys.executable, os.path.abspath(worker_program.__file__), *map(str, fds), self._label],
        stdin=subprocess.DEVNULL,
        pass_fds=(*fds, *self._inherited),
        # Outside the terminal's process group, so that Ctrl-C reaches only the parent.
        start_new_session=True,
        env={**os.environ, **_SINGLE_THREADED, descendants.VARIABLE: self._mark},
      )
    except BaseException:
      ours.close()
      os.close(our_lifeline)
      raise
    finally:
      theirs.close()
      os.close(lifeline)
    # A child forked by the worker may keep the other end open after the worker's death. The timeout
    # lets a read check whether the worker is alive.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, int(1e6 * _LOOK_SECS)))
    self._socket = ours
    self._finalizer = weakref.finalize(self, _end, self._process, ours, our_lifeline, self._mark)
    main = getattr(sys.modules.get('__main__'), '__file__', None)
    self._send(worker_messages.dumps((sys.path, main and os.path.abspath(main))))
    self._send(self._construction)

  def _send(self, data):
    sock = self._socket
    # A closed or dead worker is reported when its answer is read.
    if sock is not None:
      with contextlib.suppress(OSError):
        worker_messages.write(sock, data)

  def _wake(self):
    self._send(b'')

  def _receive(self):
    """Returns the result of the last request, or a `WorkerError` if it failed."""
    sock = self._socket
    if sock is None:
      return self._died()
    try:
      message = worker_messages.read(sock, self._has_ended)
      if not message:
        return None
      succeeded, *answer = pickle.loads(message)
    except (EOFError, OSError):
      return self._died()
    if succeeded:
      return answer[0]
    type_name, message, text = answer
    return WorkerError(
      f'{type_name} in the process of {self._label} (pid {self.pid}): {message}\n{text}',
      type_name,
      message,
    )

  def _died(self):
    process = self._process
    if process is None:
      return WorkerDied(f'the process of {self._label} is closed', 'WorkerDied', 'is closed')
    message = _describe_end(_wait(process, time.monotonic() + 1))
    descendants.end({process.pid}, {self._mark} if self._mark else set())
    text = f'the process of {self._label} (pid {process.pid}) {message}'
    return WorkerDied(text, 'WorkerDied', message)

  def _has_ended(self):
    return self._process is None or self._process.poll() is not None

  def _hang_up(self):
    if self._process:
      _shut_down(self._socket)

  def _finish(self):
    if self._process and self._finalizer:
      self._finalizer()
      self._process = self._socket = self._finalizer = None


def start_all(workers: Sequence[Worker]) -> None:
  """Starts workers in parallel.

  Raises:
    WorkerError: a constructor failed; all workers have been closed.
    TooManyFiles: the limit of open files is too low; no worker was started.
  """
  for result in start_each(workers):
    if result is not None:
      close_all(workers)
      raise result


def start_each(workers: Sequence[Worker]) -> list[WorkerError | None]:
  """Starts workers in parallel.

  Returns:
    A list with None for each worker that started, and a `WorkerError` for each whose constructor
    failed or whose process has ended.

  Raises:
    TooManyFiles: the limit of open files is too low; no worker was started.
  """
  if reason := open_files.raise_limit(_FILES_OF_A_WORKER * len(workers)):
    raise TooManyFiles(reason, 'TooManyFiles', f'{len(workers)} processes do not start: {reason}')
  try:
    return _converse(workers, Worker._spawn)
  except BaseException:
    close_all(workers)
    raise


def call_all(workers: Sequence[Worker], method: str, arguments: Sequence[tuple]) -> list[Any]:
  """Calls one method of N workers in parallel.

  Args:
    workers: N workers.
    method: name of the method.
    arguments: N tuples, the positional arguments of each call.

  Returns:
    A list of N results. The result of a failed call is its `WorkerError` or `WorkerDied`.
  """
  requests = {
    w: worker_messages.dumps((method, args, {})) for w, args in zip(workers, arguments, strict=True)
  }
  return _converse(workers, lambda worker: worker._send(requests[worker]))


def wake_all(workers: Sequence[Worker]) -> list[Any]:
  """Calls the method `wake()` of N workers in parallel; quick, as long as it returns None.

  Returns:
    A list of N results, as of `call_all`.
  """
  return _converse(workers, Worker._wake)


def close_all(workers: Sequence[Worker]) -> None:
  """Closes workers in parallel; ignores those that are not running."""
  processes = [worker._process for worker in workers if worker._process]
  for worker in workers:
    worker._hang_up()
  deadline = time.monotonic() + CLOSE_SECS
  for process in processes:
    if _wait(process, deadline) is None:
      process.kill()
  ended = {worker._process.pid: worker._mark for worker in workers if worker._process}
  if ended:
    descendants.end(set(ended), {mark for mark in ended.values() if mark})
  for worker in workers:
    worker._finish()


def _converse(workers, request):
  """Calls `request(worker)` for each worker, then reads all answers.

  Returns:
    A list of results, in the order of `workers`; a failure is a `WorkerError`.
  """
  for worker in workers:
    worker._lock.acquire()
  try:
    for worker in workers:
      request(worker)
    # All of them work meanwhile. A dead one's answer is its end, or it is found by `_has_ended`.
    return [worker._receive() for worker in workers]
  except BaseException:
    # The next request would take an unread answer for its own.
    for worker in workers:
      worker._hang_up()
    raise
  finally:
    for worker in workers:
      worker._lock.release()


def _end(process, sock, lifeline, mark):
  """Asks a process to end, kills it after `CLOSE_SECS`, and ends its descendants."""
  if process.returncode is None:
    _shut_down(sock)
    if _wait(process, time.monotonic() + CLOSE_SECS) is None:
      process.kill()
      process.wait()
    descendants.end({process.pid}, {mark})
  sock.close()
  os.close(lifeline)


def _shut_down(sock):
  with contextlib.suppress(OSError):  # The other side may already have closed the connection.
    sock.shutdown(socket.SHUT_RDWR)


def _wait(process, deadline):
  try:
    return process.wait(max(0, deadline - time.monotonic()))
  except subprocess.TimeoutExpired:
    return None


def _describe_end(returncode):
  if returncode is None:
    return 'has closed its connection'
  if returncode >= 0:
    return f'has ended with exit code {returncode}'
  try:
    name = f' ({signal.Signals(-returncode).name})'
  except ValueError:
    name = ''
  return f'was killed by signal {-returncode}{name}'
