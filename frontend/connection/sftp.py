"""SFTP with an untrusted host: sizes of answers and listings, and waiting times, are limited.

paramiko's client accepts packets of 16 MB and any name, and schedules requests for the whole size
that the host claims. Here, memory and time are bounded whatever the host answers.
"""

# pyright: reportAttributeAccessIssue=false
# `Client` uses private methods of paramiko.SFTPClient, which its type stubs leave out.

from __future__ import annotations

import collections
import contextlib
import os
import stat
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

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
# Limit for the files in one folder, and for the answers to one listing.
MOST_NAMES = 20_000
PIECE_BYTES = 32 * 1024
# Pieces of a file that are requested in advance.
REQUESTS_AHEAD = 64
# Limits for the silence of a host, and for one answer (a piece of a file, one listing).
SILENCE_SECS = 60.0
ANSWER_SECS = 180.0


class Attributes(NamedTuple):
  """Attributes of a file.

  Attributes:
    size: bytes.
    mtime: Unix time in whole seconds, the resolution of SFTP.
    is_file: whether it is a regular file, not a folder, link or device.
  """

  size: int
  mtime: int
  is_file: bool


class ProtocolError(paramiko.SFTPError):
  """An answer that violates the protocol."""

  def __init__(self, what: str) -> None:
    super().__init__(f'the host breaks the rules of SFTP: {what}')


class EndOfData(Exception):
  """The end of a listing or a file."""


class Client(paramiko.SFTPClient):
  """An SFTPClient with limits; made by `Client.from_transport(transport)`."""

  _deadline: float | None = None

  def start_deadline(self) -> None:
    """Limits all requests from now on to ANSWER_SECS together, instead of each packet."""
    self._deadline = time.monotonic() + ANSWER_SECS

  def _read_all(self, n: int) -> bytes:
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

  def stat(self, path: str) -> Attributes:  # pyright: ignore[reportIncompatibleMethodOverride]
    """Returns the attributes of a path."""
    return self._found(CMD_STAT, path)

  def attributes(self, file: paramiko.SFTPFile) -> Attributes:
    """Returns the current attributes of an open file."""
    return self._found(CMD_FSTAT, file.handle)

  def _found(self, *request: Any) -> Attributes:
    kind, message = self._request(*request)
    if kind != CMD_ATTRS:
      raise ProtocolError('no attributes of a file')
    return _attributes(message)

  def close(self) -> None:
    """Ends the session, if the connection still exists."""
    with contextlib.suppress(OSError, EOFError):
      super().close()

  def listing(self, folder: str) -> dict[str, Attributes]:
    """Returns {name: Attributes} of a folder, for names that are `is_plain`."""
    kind, message = self._request(CMD_OPENDIR, folder)
    if kind != CMD_HANDLE:
      raise ProtocolError('no handle of a folder')
    handle = message.get_binary()
    found = {}
    for _ in range(MOST_NAMES):
      try:
        message = self._answer(CMD_NAME, *self._asked(CMD_READDIR, handle))
      except EndOfData:
        self._request(CMD_CLOSE, handle)
        return found
      for name, attributes in _names(message):
        if is_plain(name):
          found[name] = attributes
      if len(found) > MOST_NAMES:
        break
    raise ProtocolError(f'more than {MOST_NAMES:,} files in one folder')

  def pieces(self, file: paramiko.SFTPFile, size: int) -> Iterator[bytes]:
    """Yields the first `size` bytes of an open file in pieces.

    Raises:
      EndOfData: the file is shorter.
    """
    answers = _Answers()
    pending: collections.deque[tuple[int, int, int]] = collections.deque()
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
      while len(data) < length:  # A short answer is allowed; the rest is requested again.
        position, length = position + len(data), length - len(data)
        data = self._data(*self._asked(CMD_READ, file.handle, int64(position), length), length)
        yield data

  def _data(self, answers: _Answers, number: int, length: int) -> bytes:
    data = self._answer(CMD_DATA, answers, number).get_string()
    if not 0 < len(data) <= length:
      raise ProtocolError(f'{len(data):,} bytes where {length:,} were asked for')
    return data

  def _asked(self, *request: Any) -> tuple[_Answers, int]:
    answers = _Answers()
    return answers, self._async_request(answers, *request)

  def _answer(self, kind: int, answers: _Answers, number: int) -> paramiko.Message:
    """Returns the answer to a request, which must be of this kind; raises EndOfData."""
    while number not in answers.found:
      self._read_response()
    found, message = answers.found.pop(number)
    if found == kind:
      return message
    try:
      self._convert_status(message)
    except EOFError:
      raise EndOfData from None
    raise ProtocolError('an answer of another kind')


class _Answers:
  """Collects answers for paramiko.

  Attributes:
    found: {number of a request: (kind, message)}.
  """

  def __init__(self) -> None:
    self.found: dict[int, tuple[int, paramiko.Message]] = {}

  def _async_response(self, kind: int, message: paramiko.Message, number: int) -> None:
    self.found[number] = kind, message


def is_plain(name: object) -> bool:
  """Returns whether a name in a listing is printable and cannot lead out of the folder."""
  return (
    isinstance(name, str)
    and 0 < len(name) <= 255
    and name not in (os.curdir, os.pardir)
    and not {'/', '\\', '\0'} & set(name)
    and texts.printable(name) == name
  )


def _names(message: paramiko.Message) -> Iterator[tuple[str | None, Attributes]]:
  """Yields (name, Attributes) of a listing; a name that is not UTF-8 is None."""
  count = message.get_int()
  # An entry has two strings and attributes, of at least four bytes each.
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


def _attributes(message: paramiko.Message) -> Attributes:
  flags = message.get_int()
  size = message.get_int64() & (2**64 - 1) if flags & 1 else 0
  if flags & 2:
    message.get_int()  # User.
    message.get_int()  # Group.
  mode = message.get_int() if flags & 4 else 0
  mtime = 0
  if flags & 8:
    message.get_int()  # Time of the last access.
    mtime = message.get_int()
  if flags & 0x80000000:
    count = message.get_int()
    if count * 8 > len(message.asbytes()):
      raise ProtocolError('fewer attributes than it counts')
    for _ in range(2 * count):
      message.get_binary()
  return Attributes(size, mtime, stat.S_ISREG(mode))


# Exceptions of invalid answers; those of a lost connection come in addition.
INVALID_ANSWERS = (
  paramiko.SSHException,
  paramiko.SFTPError,
  struct.error,
  ValueError,
  OverflowError,
)
