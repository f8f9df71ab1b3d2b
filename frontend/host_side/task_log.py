"""Copies a task's output to a file and a terminal; neither can stop or block the writer."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import stat
import time
from typing import BinaryIO

LOG_BYTES = 4 * 1024 * 1024
LINE_MARK = '[supervisor '
# Output that is kept for a blocked terminal (Ctrl-S, a pipe that nobody reads).
WAITING_BYTES = 256 * 1024
# A pipe or terminal that is ready takes at least this much without blocking.
PIECE_BYTES = 512
# Longest part of the last line of output that is kept.
_LINE_BYTES = 2000


class Log:
  """A task's output on a terminal and in a file, which is rotated when it is full.

  Output is lost while the file cannot be written (a full disk, a disk error). A line of the file
  says how much, as soon as it can be written again.

  Args:
    path: of the file; the older part of the output is in `path` + '.1'.
    limit_bytes: size at which the file is rotated.
    terminal: file descriptor.

  Attributes:
    problem: why the file cannot be written now; or None.
    lost_bytes: bytes of output that are missing in the file.
    lost_why: reason of the last loss; or None.
    last_line: bytes, the last line of the task's output that is not empty.
  """

  def __init__(self, path: str, limit_bytes: int = LOG_BYTES, terminal: int = 1) -> None:
    self.problem: str | None = None
    self.lost_bytes = 0
    self.lost_why: str | None = None
    self.last_line = b''
    self._path = path
    self._limit_bytes = limit_bytes
    self._file: BinaryIO | None = None
    self._line_open = False
    self._terminal = Terminal(terminal)
    self._unreported_bytes = 0  # Lost, and not yet noted in the file.
    self._tail = b''
    self._to_file(b'')

  def write(self, data: bytes) -> None:
    """Appends output of the task; never raises OSError."""
    self._keep_last_line(data)
    self._write(data)

  def say(self, text: str) -> None:
    """Appends a line of the supervisor."""
    start = '\n' if self._line_open else ''
    self._write(f'{start}{_stamped(text)}'.encode())

  def retry(self) -> None:
    """Retries failed writes."""
    if self.problem:
      self._to_file(b'')
    self._terminal.flush()

  def close(self, limit_secs: float = 2.0) -> None:
    """Closes the file, after waiting at most `limit_secs` for the terminal to take the rest."""
    deadline = time.monotonic() + limit_secs
    while self._terminal.flush() and time.monotonic() < deadline:
      time.sleep(0.05)
    self._close_file()

  def _write(self, data: bytes) -> None:
    self._to_file(data)
    self._line_open = not data.endswith(b'\n')
    self._terminal.write(data)

  def _keep_last_line(self, data: bytes) -> None:
    *whole, self._tail = (self._tail + data).split(b'\n')
    self._tail = self._tail[-_LINE_BYTES:]
    for line in reversed([*whole, self._tail]):
      if line.strip():
        self.last_line = line[-_LINE_BYTES:]
        break

  def _to_file(self, data: bytes) -> None:
    note = b''
    if self._unreported_bytes:
      text = f'{self._unreported_bytes:,} bytes of output are missing here: {self.lost_why}'
      note = f'\n{_stamped(text)}'.encode()
    written = 0
    try:
      file = self._opened(len(note) + len(data))
      for part in (note, data):
        while part:
          count = file.write(part)
          part = part[count:]
          written += count
        self._unreported_bytes = 0 if written >= len(note) else self._unreported_bytes
      self.problem = None
    except OSError as error:
      self.problem = self.lost_why = error.strerror or str(error)
      lost = len(data) - max(0, written - len(note))
      self._unreported_bytes += lost
      self.lost_bytes += lost
      self._close_file()

  def _opened(self, more_bytes: int) -> BinaryIO:
    """Returns the file, rotated if it has no room for more bytes."""
    if self._file is None:
      # O_NONBLOCK: opening a pipe without a reader would block.
      number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666)
      self._file = os.fdopen(number, 'wb', buffering=0)
    size = os.fstat(self._file.fileno()).st_size
    if size and size + more_bytes > self._limit_bytes:
      os.replace(self._path, self._path + '.1')
      self._close_file()
      return self._opened(0)
    return self._file

  def _close_file(self) -> None:
    file, self._file = self._file, None
    if file is not None:
      with contextlib.suppress(OSError):
        file.close()


def _stamped(text: str) -> str:
  return f'{LINE_MARK}{time.strftime("%H:%M:%S")}] {text}\n'


class Terminal:
  """Writes to a terminal without ever blocking.

  Args:
    number: file descriptor of a terminal, a pipe or a file; it may be closed.
  """

  def __init__(self, number: int) -> None:
    self._number = number
    self._may_block = False
    self._nonblocking: int | None = None
    self._parts: collections.deque[bytes] = collections.deque()
    self._size = self._dropped = 0
    with contextlib.suppress(OSError):
      kind = os.fstat(number).st_mode
      self._may_block = not stat.S_ISREG(kind)
      if stat.S_ISCHR(kind) or stat.S_ISFIFO(kind):
        self._nonblocking = _reopened(number)

  def write(self, data: bytes) -> None:
    """Shows bytes, now or later; if more than WAITING_BYTES wait, the oldest are left out."""
    self._parts.append(data)
    self._size += len(data)
    self.flush()
    while self._size > WAITING_BYTES:
      left_out = len(self._parts.popleft())
      self._size -= left_out
      self._dropped += left_out

  def flush(self) -> int:
    """Writes what the terminal takes without blocking; returns how many bytes still wait."""
    try:
      while self._parts:
        if self._dropped:
          self._say_what_is_left_out()
        self._show_first()
    except BlockingIOError:
      pass
    except OSError:  # The terminal is gone.
      self._parts.clear()
      self._size = 0
    return self._size

  def _say_what_is_left_out(self) -> None:
    text = _stamped(f'{self._dropped:,} bytes are left out here; the log has them')
    os.write(*self._place(f'\n{text}'.encode()))
    self._dropped = 0

  def _show_first(self) -> None:
    part = self._parts[0]
    count = os.write(*self._place(part))
    self._size -= count
    if count == len(part):
      self._parts.popleft()
    else:
      self._parts[0] = part[count:]

  def _place(self, part: bytes) -> tuple[int, bytes]:
    """Returns (file descriptor, bytes to write to it now); raises BlockingIOError if none."""
    if self._nonblocking is not None:
      return self._nonblocking, part
    if self._may_block:
      # Other processes may share the descriptor, so it must stay blocking.
      if not select.select([], [self._number], [], 0)[1]:
        raise BlockingIOError
      return self._number, part[:PIECE_BYTES]
    return self._number, part


def _reopened(number: int) -> int | None:
  """Opens the same terminal or pipe again, without blocking; returns None if that fails."""
  with contextlib.suppress(OSError):
    path = os.ttyname(number) if os.isatty(number) else f'/proc/self/fd/{number}'
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
  return None
