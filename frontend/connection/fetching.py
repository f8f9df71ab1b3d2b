"""Lists and copies files of a host, of this machine or over SFTP, each in one step.

Replies of the host are checked: names are those of files in the folder, and sizes fit on the disk.
Memory use does not grow with either.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from common import files
from frontend.errors import LOST, HostError

if TYPE_CHECKING:
  from frontend.connection import sftp

CHUNK_BYTES = 256 * 1024
# Limit for files that are read into memory (a record, a list of checkpoints).
MOST_READ_BYTES = 16 * 1024 * 1024
# Ending of temporary names, and the age from which such files are of a pull that was killed.
SUFFIX = '.pull'
LEFTOVER_SECS = 3600.0


class Version(NamedTuple):
  """Tells a file that has changed from one that has not.

  Attributes:
    size: bytes.
    mtime: Unix time in whole seconds, the resolution of SFTP.
  """

  size: int
  mtime: int


class Missing(HostError):
  """A file or folder that does not exist (any more)."""


def version(attributes: os.stat_result) -> Version:
  """Returns the `Version` of a file of this machine."""
  return Version(attributes.st_size, int(attributes.st_mtime))


class LocalFiles:
  """Reads files of this machine.

  Attributes:
    lost: exceptions of a file that cannot be read.
  """

  lost: tuple[type[BaseException], ...] = (OSError,)

  def listing(self, folder: str) -> dict[str, Version]:
    """Returns {name: Version} of the files in a folder, without subfolders."""
    found = {}
    with self._named(folder), os.scandir(folder) as entries:
      for entry in entries:
        with contextlib.suppress(FileNotFoundError):  # Removed since.
          if entry.is_file():
            found[entry.name] = version(entry.stat())
    return found

  def open(self, path: str) -> tuple[Any, Version]:
    """Returns (open file, its Version now); what is appended later is not read."""
    with self._named(path):
      file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb')
      found = os.fstat(file.fileno())
      return self._checked(file, stat.S_ISREG(found.st_mode), version(found), path)

  def _checked(self, file: Any, is_file: bool, found: Version, path: str) -> tuple[Any, Version]:
    if not is_file:
      file.close()
      raise HostError('', f'{path} is not a file')
    return file, found

  def chunks(self, file: Any, size: int, path: str) -> Iterator[bytes]:
    """Yields the first `size` bytes of an open file in chunks; `path` is for messages."""
    left = size
    while left:
      with self._named(path):
        data = file.read(min(left, CHUNK_BYTES))
        if not data:
          raise HostError('', f'{path} became shorter while it was read; try again')
      left -= len(data)
      yield data

  @contextlib.contextmanager
  def _named(self, path: str) -> Iterator[None]:
    try:
      yield
    except FileNotFoundError:
      raise Missing('', f'there is no {path}') from None
    except self.lost as error:
      reason = getattr(error, 'strerror', None) or str(error) or 'the connection was lost'
      raise HostError('', f'cannot read {path}: {reason}') from None


class RemoteFiles(LocalFiles):
  """Reads files of another machine.

  Args:
    client: connection to the machine.
  """

  def __init__(self, client: sftp.Client) -> None:
    from frontend.connection import sftp

    self.lost = (*LOST, *sftp.INVALID_ANSWERS)
    self._sftp = client

  def listing(self, folder: str) -> dict[str, Version]:
    """Returns {name: Version} of the files in a folder, without subfolders."""
    with self._named(folder):
      found = self._sftp.listing(folder)
    return {name: Version(a.size, a.mtime) for name, a in found.items() if a.is_file}

  def open(self, path: str) -> tuple[Any, Version]:
    """Returns (open file, its Version now); what is appended later is not read."""
    with self._named(path):
      file = self._sftp.open(path, 'rb')
      found = self._sftp.attributes(file)
      return self._checked(file, found.is_file, Version(found.size, found.mtime), path)

  def chunks(self, file: Any, size: int, path: str) -> Iterator[bytes]:
    """Yields the first `size` bytes of an open file in chunks; `path` is for messages."""
    from frontend.connection import sftp

    pieces = self._sftp.pieces(file, size)
    while True:
      with self._named(path):
        try:
          data = next(pieces, None)
        except sftp.EndOfData:
          raise HostError('', f'{path} became shorter while it was read; try again') from None
      if data is None:
        return
      yield data

  @contextlib.contextmanager
  def _named(self, path: str) -> Iterator[None]:
    self._sftp.start_deadline()
    with super()._named(path):
      yield


def read(source: LocalFiles, path: str) -> bytes:
  """Returns the contents of a small file.

  Raises:
    Missing: there is no such file.
    HostError: it cannot be read, or is larger than MOST_READ_BYTES.
  """
  file, found = source.open(path)
  with file:
    if found.size > MOST_READ_BYTES:
      raise HostError('', f'{path} is said to have {found.size:,} bytes, too many for such a file')
    return b''.join(source.chunks(file, found.size, path))


def fetch(source: LocalFiles, path: str, target: str) -> int:
  """Copies a file and its modification time; no reader ever sees half of it.

  Args:
    source: LocalFiles or RemoteFiles.
    path: of the file there.
    target: path on this machine.

  Returns:
    Its size in bytes.

  Raises:
    Missing: there is no such file.
    HostError: it cannot be read or written; `target` is unchanged.
  """
  file, found = source.open(path)
  with file, _written(target) as copy:
    room = shutil.disk_usage(os.path.dirname(target) or '.').free
    if found.size > room:
      raise HostError(
        '', f'{path} is said to have {found.size:,} bytes, and {target} has room for {room:,}'
      )
    for data in source.chunks(file, found.size, path):
      copy.write(data)
    copy.flush()
    os.utime(copy.fileno(), (found.mtime, found.mtime))
  return found.size


def write(data: bytes, target: str) -> None:
  """Writes bytes to a file of this machine in one step."""
  with _written(target) as copy:
    copy.write(data)


def remove_leftovers(folder: str, now: float) -> None:
  """Removes temporary files that killed pulls have left in a folder; `now` is Unix seconds."""
  files.remove_leftovers(folder, SUFFIX, LEFTOVER_SECS, now)


@contextlib.contextmanager
def _written(target: str) -> Iterator[BinaryIO]:
  """Yields a temporary file that replaces `target`, durably, if no exception occurs."""
  try:
    with files.replacing(target, SUFFIX, durable=True) as copy:
      yield copy
  except OSError as error:
    raise HostError('', f'cannot write {target}: {error.strerror or error}') from None
