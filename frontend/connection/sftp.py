"""SFTP with a host that is not believed: answers, listings and waiting are all limited.

paramiko's client takes a packet of 16 MB for each request and a name of any kind, and plans its
requests by the whole size that the host claims. Here memory and time are bounded whatever it says.
"""

import collections
import contextlib
import os
import stat
import struct
import time

import paramiko
from paramiko.sftp import (
  CMD_ATTRS,
  CMD_CLOSE,
  CMD_DATA,
  CMD_FSTAT,
  CMD_HANDLE,
  CMD_NAME,
  CMD_OPENDIR,
  CMD_READ,
  CMD_READDIR,
  CMD_STAT,
  int64,
)

from common import texts

# OpenSSH sends at most 256 KB a packet.
MOST_PACKET_BYTES = 300 * 1024
# Files in one folder, and answers to one listing.
MOST_NAMES = 20_000
PIECE_BYTES = 32 * 1024
# Requests for parts of a file that are under way at a time.
REQUESTS_AHEAD = 64
# Longest silence of a host; and how long one answer (a piece of a file, one listing) may take.
SILENCE_SECS = 60.0
ANSWER_SECS = 180.0

# size: bytes; mtime: Unix time in whole seconds, more SFTP does not tell; is_file: whether it is a
# file and no folder, link or device.
Attributes = collections.namedtuple('Attributes', 'size mtime is_file')


class ProtocolError(paramiko.SFTPError):
  """An answer that no host gives which keeps to the protocol."""

  def __init__(self, what):
    super().__init__(f'the host breaks the rules of SFTP: {what}')


class Ended(Exception):
  """A listing or a file has no more."""


class Client(paramiko.SFTPClient):
  """An SFTPClient that can be had with `Client.from_transport(transport)`."""

  _deadline = None

  def begin(self):
    """From now on, what is asked has ANSWER_SECS in all; without it, each packet has."""
    self._deadline = time.monotonic() + ANSWER_SECS

  def _read_all(self, n):
    if n > MOST_PACKET_BYTES:
      raise ProtocolError(f'an answer of {n:,} bytes')
    deadline = self._deadline or time.monotonic() + ANSWER_SECS
    data = bytearray()
    while len(data) < n:
      left_secs = deadline - time.monotonic()
      if left_secs <= 0:
        raise TimeoutError(f'no whole answer within {ANSWER_SECS:.0f} s')
      self.sock.settimeout(min(SILENCE_SECS, left_secs))
      more = self.sock.recv(n - len(data))
      if not more:
        raise EOFError
      data += more
    return bytes(data)

  def stat(self, path):
    """The `Attributes` of what is at a path."""
    return self._found(CMD_STAT, path)

  def attributes(self, file):
    """The `Attributes` of an open file as its host has them now."""
    return self._found(CMD_FSTAT, file.handle)

  def _found(self, *request):
    kind, message = self._request(*request)
    if kind != CMD_ATTRS:
      raise ProtocolError('no attributes of a file')
    return _attributes(message)

  def close(self):
    """Ends the session; a connection that is lost has ended it."""
    with contextlib.suppress(OSError, EOFError):
      super().close()

  def listing(self, folder):
    """{name: Attributes} of a folder, without names that are no plain names of a file in it."""
    kind, message = self._request(CMD_OPENDIR, folder)
    if kind != CMD_HANDLE:
      raise ProtocolError('no handle of a folder')
    handle = message.get_binary()
    found = {}
    for _ in range(MOST_NAMES):
      try:
        message = self._answer(CMD_NAME, *self._asked(CMD_READDIR, handle))
      except Ended:
        self._request(CMD_CLOSE, handle)
        return found
      for name, attributes in _names(message):
        if is_plain(name):
          found[name] = attributes
      if len(found) > MOST_NAMES:
        break
    raise ProtocolError(f'more than {MOST_NAMES:,} files in one folder')

  def pieces(self, file, size):
    """Yields the first `size` bytes of an open file in parts; `Ended` where it is shorter."""
    answers = _Answers()
    pending = collections.deque()
    asked = 0
    while pending or asked < size:
      while asked < size and len(pending) < REQUESTS_AHEAD:
        length = min(PIECE_BYTES, size - asked)
        number = self._async_request(answers, CMD_READ, file.handle, int64(asked), length)
        pending.append((number, asked, length))
        asked += length
      number, position, length = pending.popleft()
      data = self._data(answers, number, length)
      yield data
      while len(data) < length:  # Less than asked is allowed; the rest is asked for again.
        position, length = position + len(data), length - len(data)
        data = self._data(*self._asked(CMD_READ, file.handle, int64(position), length), length)
        yield data

  def _data(self, answers, number, length):
    data = self._answer(CMD_DATA, answers, number).get_string()
    if not 0 < len(data) <= length:
      raise ProtocolError(f'{len(data):,} bytes where {length:,} were asked for')
    return data

  def _asked(self, *request):
    answers = _Answers()
    return answers, self._async_request(answers, *request)

  def _answer(self, kind, answers, number):
    """The message that answers a request, of the kind that it must have; or `Ended`."""
    while number not in answers.found:
      self._read_response()
    found, message = answers.found.pop(number)
    if found == kind:
      return message
    try:
      self._convert_status(message)
    except EOFError:
      raise Ended from None
    raise ProtocolError('an answer of another kind')


class _Answers:
  """{number of a request: (kind, message)} of what has been answered and not been looked at."""

  def __init__(self):
    self.found = {}

  def _async_response(self, kind, message, number):
    self.found[number] = kind, message


def is_plain(name):
  """Whether a name in a listing can only be that of a file in that folder, and can be printed."""
  return (
    isinstance(name, str)
    and 0 < len(name) <= 255
    and name not in (os.curdir, os.pardir)
    and not {'/', '\\', '\0'} & set(name)
    and texts.printable(name) == name
  )


def _names(message):
  """Yields (name, Attributes) of an answer; a name that is not UTF-8 is None."""
  count = message.get_int()
  # Each has two strings and attributes, four bytes at least each.
  if count * 12 > len(message.asbytes()):
    raise ProtocolError(f'{count:,} names in {len(message.asbytes()):,} bytes')
  for _ in range(count):
    name = message.get_binary()
    message.get_binary()  # The line that `ls -l` would print.
    attributes = _attributes(message)
    try:
      yield name.decode(), attributes
    except UnicodeDecodeError:
      yield None, attributes


def _attributes(message):
  flags = message.get_int()
  size = message.get_int64() & (2**64 - 1) if flags & 1 else 0
  if flags & 2:
    message.get_int(), message.get_int()  # User and group.
  mode = message.get_int() if flags & 4 else 0
  mtime = 0
  if flags & 8:
    message.get_int()  # When it was read.
    mtime = message.get_int()
  if flags & 0x80000000:
    count = message.get_int()
    if count * 8 > len(message.asbytes()):
      raise ProtocolError('fewer attributes than it counts')
    for _ in range(2 * count):
      message.get_binary()
  return Attributes(size, mtime, stat.S_ISREG(mode))


# What an answer that makes no sense raises, on top of what a lost connection does.
INVALID_ANSWERS = (
  paramiko.SSHException,
  paramiko.SFTPError,
  struct.error,
  ValueError,
  OverflowError,
)
