"""Messages between a process and its worker processes, over a pair of connected sockets.

A message is its size in bytes, as 8 bytes, followed by a pickle. An empty message, which is quick,
stands for a call of `wake()` and for its result None.

  parent: first (sys.path, file of the main module or None), then (class, args, kwargs), then
    requests (method, args, kwargs) or empty ones.
  worker: one answer to the class and one to each request, either (True, result), or
    (False, name of the exception's type, message, traceback), or empty.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Callable
from typing import Any

HEADER = struct.Struct('<Q')  # The size of the following pickle, in bytes.
EMPTY = HEADER.pack(0)


def dumps(message: Any) -> bytes:
  """Returns the pickle of a message."""
  return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def write(sock: socket.socket, data: bytes) -> None:
  """Sends a message: a pickle from `dumps`, or b''."""
  sock.sendall(HEADER.pack(len(data)) + data if data else EMPTY)


def read(sock: socket.socket, has_ended: Callable[[], bool] = lambda: False) -> bytes:
  """Returns the next message, a pickle or b''.

  Args:
    sock: the socket; while its timeout for receiving passes again and again, `has_ended` is asked.
    has_ended: returns whether the process at the other end has ended.

  Raises:
    EOFError: the other side has closed the connection, or its process has ended.
  """
  (size,) = HEADER.unpack(_read_exactly(sock, HEADER.size, has_ended))
  return _read_exactly(sock, size, has_ended) if size else b''


def _read_exactly(sock, size, has_ended):
  data = b''
  while len(data) < size:
    try:
      part = sock.recv(size - len(data), socket.MSG_WAITALL)
    except BlockingIOError:  # The socket's timeout.
      if has_ended():
        raise EOFError('the other side has ended') from None
      continue
    if not part:
      raise EOFError('the other side has closed the connection')
    data = data + part if data else part
  return data
