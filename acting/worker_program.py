"""The program of a worker process: constructs an object and calls its methods when asked.

  python acting/worker_program.py SOCKET LIFELINE LABEL

SOCKET and LIFELINE are file descriptors; LABEL is shown by `ps`. `acting/worker_process.py` starts
this file and `acting/worker_messages.py` describes what is sent. Nothing else of the project is
imported before the object's class.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import io
import os
import pickle
import runpy
import select
import signal
import socket
import sys
import traceback
import types

if __name__ == '__main__':  # sys.path[0] is this file's folder; the project is its parent.
  sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from acting import worker_messages


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
  sys.path[:], main_path = pickle.loads(worker_messages.read(sock))
  try:
    type_, args, kwargs = _Unpickler(worker_messages.read(sock), main_path).load()
    target = type_(*args, **kwargs)
  except BaseException as error:
    worker_messages.write(sock, _failure(error))
    return
  with contextlib.suppress(EOFError, OSError):
    worker_messages.write(sock, _success(None))
    while True:
      worker_messages.write(sock, _answer(target, worker_messages.read(sock)))
  if hasattr(target, 'close'):
    target.close()


def _answer(target, request):
  try:
    if not request:
      result = target.wake()
      return b'' if result is None else _success(result)
    method, args, kwargs = pickle.loads(request)
    return _success(getattr(target, method)(*args, **kwargs))
  except BaseException as error:
    return _failure(error)


def _success(result):
  return worker_messages.dumps((True, result))


def _failure(error):
  return worker_messages.dumps((False, type(error).__name__, str(error), traceback.format_exc()))


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
