"""Runs Python objects in worker processes and calls their methods, without TensorFlow.

A worker process is a fresh interpreter. It imports what its object needs, but neither TensorFlow
nor, unless the object's class is defined there, the program's main module. It ends with its parent,
even if the parent is killed. Linux only. `py_process` makes the methods graph operations.

This file holds both sides of the connection, because a worker process runs it as its program before
it can import anything of the project. The two sides use a pair of connected sockets. A message is
its size in bytes, as 8 bytes, followed by a pickle:

  parent: first (sys.path, file of the main module or None), then (class, args, kwargs), then
    requests (method, args, kwargs).
  worker: one answer to the class and one to each request, either (True, result) or
    (False, name of the exception's type, message, traceback).
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import io
import itertools
import os
import pickle
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import types
import weakref
from collections.abc import Sequence
from typing import Any

if __name__ == '__main__':  # sys.path[0] is this file's folder; the project is its parent.
  sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from common import descendants, open_files

# Time limit for the object's close(), in seconds; then the worker is killed.
CLOSE_SECS = 3.0

# While waiting for an answer, the interval between checks that the process is alive.
_LOOK_SECS = 0.2
_FILES_OF_A_WORKER = 2

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
    self._process = self._socket = self._finalizer = self._mark = None

  @property
  def pid(self) -> int | None:
    """The id of the process, or None before `start` and after `close`."""
    return self._process and self._process.pid

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
    request = _dumps((method, args, kwargs))
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
        [sys.executable, os.path.abspath(__file__), *map(str, fds), self._label],
        stdin=subprocess.DEVNULL,
        pass_fds=fds,
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
    self._send(_dumps((sys.path, main and os.path.abspath(main))))
    self._send(self._construction)

  def _send(self, data):
    sock = self._socket
    # A closed or dead worker is reported when its answer is read.
    if sock is not None:
      with contextlib.suppress(OSError):
        _write(sock, data)

  def _receive(self, sock):
    """Returns the result of the last request, or a `WorkerError` if it failed."""
    try:
      succeeded, *answer = pickle.loads(_read(sock, self._has_ended))
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
  if reason := open_files.raise_limit(_FILES_OF_A_WORKER * len(workers)):
    raise TooManyFiles(reason, 'TooManyFiles', f'{len(workers)} processes do not start: {reason}')
  try:
    results = _converse(workers, Worker._spawn)
  except BaseException:
    close_all(workers)
    raise
  for result in results:
    if isinstance(result, WorkerError):
      close_all(workers)
      raise result


def call_all(workers: Sequence[Worker], method: str, arguments: Sequence[tuple]) -> list[Any]:
  """Calls one method of N workers in parallel.

  Args:
    workers: N workers.
    method: name of the method.
    arguments: N tuples, the positional arguments of each call.

  Returns:
    A list of N results. The result of a failed call is its `WorkerError` or `WorkerDied`.
  """
  requests = {w: _dumps((method, args, {})) for w, args in zip(workers, arguments, strict=True)}
  return _converse(workers, lambda worker: worker._send(requests[worker]))


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
  """Calls `request(worker)` for each worker, then reads all answers as they arrive.

  Returns:
    A list of results, in the order of `workers`; a failure is a `WorkerError`.
  """
  for worker in workers:
    worker._lock.acquire()
  try:
    for worker in workers:
      request(worker)
    return _collect(workers)
  except BaseException:
    # The next request would take an unread answer for its own.
    for worker in workers:
      worker._hang_up()
    raise
  finally:
    for worker in workers:
      worker._lock.release()


def _collect(workers):
  poll = select.poll()
  results = [None] * len(workers)
  pending = {}
  for i, worker in enumerate(workers):
    sock = worker._socket
    if sock is None:
      results[i] = worker._died()
      continue
    poll.register(sock, select.POLLIN)
    pending[sock.fileno()] = i, sock
  while pending:
    ready = [fd for fd, _ in poll.poll(1000 * _LOOK_SECS)]
    # A dead worker's socket stays silent while a child forked by the worker holds the other end.
    for fd in ready or [fd for fd, (i, _) in pending.items() if workers[i]._has_ended()]:
      poll.unregister(fd)
      i, sock = pending.pop(fd)
      results[i] = workers[i]._receive(sock)
  return results


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


# The protocol of both sides.

_HEADER = struct.Struct('<Q')  # The size of the following pickle, in bytes.
_TIMEVAL = struct.Struct('@ll')  # Seconds and microseconds.
_numbers = itertools.count()


def _dumps(message):
  return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def _write(sock, data):
  sock.sendall(_HEADER.pack(len(data)) + data)


def _read(sock, has_ended=lambda: False):
  (size,) = _HEADER.unpack(_read_exactly(sock, _HEADER.size, has_ended))
  return _read_exactly(sock, size, has_ended)


def _read_exactly(sock, size, has_ended):
  data = b''
  while len(data) < size:
    try:
      part = sock.recv(size - len(data), socket.MSG_WAITALL)
    except BlockingIOError:  # The socket's timeout, `_LOOK_SECS`.
      if has_ended():
        raise EOFError('the other side has ended') from None
      continue
    if not part:
      raise EOFError('the other side has closed the connection')
    data = data + part if data else part
  return data


# The worker's side.


class _Unpickler(pickle.Unpickler):
  """Loads the parent's main module, as `__mp_main__`, only if a pickle refers to it."""

  def __init__(self, data, main_path):
    super().__init__(io.BytesIO(data))
    self._main_path = main_path

  def find_class(self, module, name):
    if module == '__main__' and self._main_path:
      main = types.ModuleType('__main__')
      main.__dict__.update(runpy.run_path(self._main_path, run_name='__mp_main__'))
      sys.modules['__main__'] = main
      self._main_path = None
    return super().find_class(module, name)


def _serve(sock):
  """Constructs the object, then answers requests until the parent closes the connection."""
  sys.path[:], main_path = pickle.loads(_read(sock))
  try:
    type_, args, kwargs = _Unpickler(_read(sock), main_path).load()
    target = type_(*args, **kwargs)
  except BaseException as error:
    _write(sock, _failure(error))
    return
  with contextlib.suppress(EOFError, OSError):
    _write(sock, _success(None))
    while True:
      _write(sock, _answer(target, _read(sock)))
  if hasattr(target, 'close'):
    target.close()


def _answer(target, request):
  try:
    method, args, kwargs = pickle.loads(request)
    return _success(getattr(target, method)(*args, **kwargs))
  except BaseException as error:
    return _failure(error)


def _success(result):
  return _dumps((True, result))


def _failure(error):
  return _dumps((False, type(error).__name__, str(error), traceback.format_exc()))


def die_with_parent(lifeline: int) -> None:
  """Makes the kernel kill this process when its parent ends, even inside a call that never returns.

  If this process leads its process group, the whole group is killed.

  Args:
    lifeline: file descriptor of the read end of a pipe to which the parent never writes.
  """
  # The kernel sends SIGIO when the pipe's write end closes; its default action is to terminate.
  signal.signal(signal.SIGIO, signal.SIG_DFL)
  leads_group = os.getpgrp() == os.getpid()
  fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpid() if leads_group else os.getpid())
  fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
  # The parent may have ended before O_ASYNC was set.
  if select.select([lifeline], [], [], 0)[0]:
    sys.exit('the parent has ended')


def _main(socket_fd, lifeline, _):
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  die_with_parent(int(lifeline))
  # A program may read our standard output, so what the object prints goes to standard error.
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  faulthandler.enable()
  sock = socket.socket(fileno=int(socket_fd))
  # Children must not hold the connection open after this process has ended.
  for fd in (int(socket_fd), int(lifeline)):
    os.set_inheritable(fd, False)
  os.register_at_fork(after_in_child=sock.close)
  _serve(sock)


if __name__ == '__main__':
  _main(*sys.argv[1:])
