"""A task's output goes to a file and to a terminal; neither can end or hold up who writes it."""

import collections
import contextlib
import os
import select
import stat
import time

LOG_BYTES = 4 * 1024 * 1024
LINE_MARK = '[supervisor '
# What waits for a terminal that takes nothing (Ctrl-S, a window that nobody reads).
WAITING_BYTES = 256 * 1024
# A pipe or terminal that is ready takes this much at once.
PIECE_BYTES = 512
# Of the last line of the output, what is kept.
_LINE_BYTES = 2000


class Log:
  """A task's output: to the terminal, and to a file that starts anew when it is full.

  A file that cannot be written (full disk, an error of the disk) costs what should have gone there
  meanwhile, and nothing else. Where that is, a line of the file says as soon as it can be written.

  Args:
    path: the file; the older part of the output is `path` + '.1'.
    limit_bytes: when it is full.
    terminal: file descriptor.

  Attributes:
    problem: why the file cannot be written now, or None.
    lost_bytes: how many bytes of output the file has lost so far.
    lost_why: the reason of the last loss, or None.
    last_line: the last line of the output that is not empty, bytes; not the supervisor's own.
  """

  def __init__(self, path, limit_bytes=LOG_BYTES, terminal=1):
    self._path = path
    self._limit_bytes = limit_bytes
    self._file = None
    self._line_open = False
    self._terminal = Terminal(terminal)
    self._untold = 0
    self._tail = b''
    self.problem = None
    self.lost_bytes = 0
    self.lost_why = None
    self.last_line = b''
    self._to_file(b'')

  def write(self, data):
    """Appends bytes of the task; never raises for want of a place to write to."""
    self._keep_last_line(data)
    self._write(data)

  def say(self, text):
    """Appends a line of the supervisor's own."""
    start = '\n' if self._line_open else ''
    self._write(f'{start}{_stamped(text)}'.encode())

  def retry(self):
    """Tries again what could not be written; costs next to nothing where all was."""
    if self.problem:
      self._to_file(b'')
    self._terminal.flush()

  def close(self, limit_secs=2.0):
    """Gives the terminal a moment to take what it has not."""
    deadline = time.monotonic() + limit_secs
    while self._terminal.flush() and time.monotonic() < deadline:
      time.sleep(0.05)
    self._close_file()

  def _write(self, data):
    self._to_file(data)
    self._line_open = not data.endswith(b'\n')
    self._terminal.write(data)

  def _keep_last_line(self, data):
    *whole, self._tail = (self._tail + data).split(b'\n')
    self._tail = self._tail[-_LINE_BYTES:]
    for line in reversed([*whole, self._tail]):
      if line.strip():
        self.last_line = line[-_LINE_BYTES:]
        break

  def _to_file(self, data):
    note = b''
    if self._untold:
      note = _stamped(f'{self._untold:,} bytes of output are missing here: {self.lost_why}')
      note = b'\n' + note.encode()
    written = 0
    try:
      self._open(len(note) + len(data))
      for part in (note, data):
        while part:
          count = self._file.write(part)
          part = part[count:]
          written += count
        self._untold = 0 if written >= len(note) else self._untold
      self.problem = None
    except OSError as error:
      self.problem = self.lost_why = error.strerror or str(error)
      lost = len(data) - max(0, written - len(note))
      self._untold += lost
      self.lost_bytes += lost
      self._close_file()

  def _open(self, more_bytes):
    if self._file is None:
      # A pipe without a reader would hold up the opening.
      number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666)
      self._file = os.fdopen(number, 'wb', buffering=0)
    size = os.fstat(self._file.fileno()).st_size
    if size and size + more_bytes > self._limit_bytes:
      os.replace(self._path, self._path + '.1')
      self._close_file()
      self._open(0)

  def _close_file(self):
    file, self._file = self._file, None
    if file is not None:
      with contextlib.suppress(OSError):
        file.close()


def _stamped(text):
  return f'{LINE_MARK}{time.strftime("%H:%M:%S")}] {text}\n'


class Terminal:
  """What a person watches: given what it takes, and never waited for.

  Args:
    number: file descriptor; a terminal, a pipe, a file, or closed.
  """

  def __init__(self, number):
    self._number = number
    self._waits = False
    self._ready = None
    self._parts = collections.deque()
    self._size = self._dropped = 0
    with contextlib.suppress(OSError):
      kind = os.fstat(number).st_mode
      self._waits = not stat.S_ISREG(kind)
      if stat.S_ISCHR(kind) or stat.S_ISFIFO(kind):
        self._ready = _reopened(number)

  def write(self, data):
    """Shows bytes, now or when they are taken; where too many wait, the oldest are left out."""
    self._parts.append(data)
    self._size += len(data)
    self.flush()
    while self._size > WAITING_BYTES:
      left_out = len(self._parts.popleft())
      self._size -= left_out
      self._dropped += left_out

  def flush(self):
    """Shows what waits, as far as it is taken; returns how many bytes still wait."""
    try:
      while self._parts:
        if self._dropped:
          self._say_what_is_left_out()
        self._show_first()
    except BlockingIOError:
      pass
    except OSError:  # A terminal that is gone is no error.
      self._parts.clear()
      self._size = 0
    return self._size

  def _say_what_is_left_out(self):
    text = _stamped(f'{self._dropped:,} bytes are left out here; the log has them')
    os.write(*self._place(f'\n{text}'.encode()))
    self._dropped = 0

  def _show_first(self):
    part = self._parts[0]
    count = os.write(*self._place(part))
    self._size -= count
    if count == len(part):
      self._parts.popleft()
    else:
      self._parts[0] = part[count:]

  def _place(self, part):
    """(file descriptor, bytes to write to it now); BlockingIOError where it takes none."""
    if self._ready is not None:
      return self._ready, part
    if self._waits:
      # Others may use the same descriptor, so it is not made one that does not block.
      if not select.select([], [self._number], [], 0)[1]:
        raise BlockingIOError
      return self._number, part[:PIECE_BYTES]
    return self._number, part


def _reopened(number):
  """The same terminal or pipe, opened once more so that writing to it never waits; or None."""
  with contextlib.suppress(OSError):
    path = os.ttyname(number) if os.isatty(number) else f'/proc/self/fd/{number}'
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
  return None
