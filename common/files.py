"""Atomic file writes: after a kill, power cut or I/O error, a file is either new or unchanged.

A file is written under a random temporary name and then renamed. So readers never see half of it,
other users cannot plant a link in its place, and two writers do not conflict, even on two hosts
that share the folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

Result = TypeVar('Result')

# Pauses between attempts: a busy file server may refuse for a moment.
_PAUSES_SECS = (0.1, 0.3, 1.0)
# Errors of file systems that cannot sync a folder, such as FUSE and SMB.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


# ---- Reading. ----------------------------------------------------------------------------------


def names(folder: str) -> set[str]:
  """Returns the names in a folder; an empty set if there is no such folder.

  Raises:
    OSError: the folder cannot be listed.
  """
  try:
    return set(_retried(os.listdir, folder))
  except FileNotFoundError:
    return set()


def read(path: str) -> bytes:
  """Returns the contents of a file.

  Raises:
    FileNotFoundError: there is no such file.
    OSError: it cannot be read.
  """
  return _retried(_read, path)


def _read(path: str) -> bytes:
  with open(path, 'rb') as file:
    return file.read()


def read_through(path: str, block: int = 1 << 20) -> int:
  """Reads a file in blocks, to see that it can be read; returns its size in bytes.

  Raises:
    OSError: as `read`.
  """
  return _retried(_read_through, path, block)


def _read_through(path: str, block: int) -> int:
  size = 0
  with open(path, 'rb', buffering=0) as file:
    while data := file.read(block):
      size += len(data)
  return size


def _retried(function: Callable[..., Result], *args: Any) -> Result:
  """Returns `function(*args)`; tries again after an OSError other than a missing file."""
  for secs in _PAUSES_SECS:
    try:
      return function(*args)
    except (FileNotFoundError, NotADirectoryError, FileExistsError):
      raise
    except OSError:
      time.sleep(secs)
  return function(*args)


# ---- Replacing. --------------------------------------------------------------------------------


def write_whole(path: str, content: str | bytes, durable: bool = True) -> None:
  """Writes a file, or replaces it, in one step.

  Args:
    path: path of the file.
    content: str (written as UTF-8) or bytes.
    durable: whether the file is on the disk when this returns, and would survive a power cut.

  Raises:
    OSError: it cannot be written; the old file is unchanged, and no temporary file is left.
  """
  data = content.encode() if isinstance(content, str) else content
  try:
    with replacing(path, durable=durable) as file:
      file.write(data)
  except OSError as e:
    e.filename, e.filename2 = path, None  # The message names the file, not its temporary name.
    raise


@contextlib.contextmanager
def replacing(
  path: str, suffix: str = '', durable: bool = False, mode: int = 0o666
) -> Iterator[BinaryIO]:
  """Yields a temporary binary file that replaces `path` when the context ends without an exception.

  Args:
    path: path of the file. A symbolic link of this name is replaced, not followed.
    suffix: ending of the temporary name; '' for a name that `sweep` finds.
    durable: whether the file is on the disk when the context ends, and would survive a power cut.
    mode: mode bits of the file, before the umask.

  Raises:
    OSError: it cannot be written; the old file is unchanged, and no temporary file is left.
  """
  temporary = f'{path}.{secrets.token_hex(4)}{suffix}' if suffix else temporary_path(path)
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
  file = os.fdopen(os.open(temporary, flags, mode), 'wb')
  try:
    with file:
      yield file
      if durable:
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.remove(temporary)
    raise
  if durable:
    sync_folder(os.path.dirname(path))


def temporary_path(path: str) -> str:
  """Returns a random name in the folder of `path`, one that `sweep` finds."""
  folder, name = os.path.split(path)
  return os.path.join(folder, f'.{name}.{secrets.token_hex(8)}.new')


def sweep(folder: str, *of_names: str) -> None:
  """Removes the temporary files that killed writers of files with these names left in a folder."""
  pattern = r'\.({})\.[0-9a-f]{{16}}\.new'.format('|'.join(map(re.escape, of_names)))
  for name in names(folder):
    if re.fullmatch(pattern, name):
      with contextlib.suppress(OSError):
        os.remove(os.path.join(folder, name))


def remove_leftovers(folder: str, suffix: str, older_than_secs: float, now: float) -> None:
  """Removes old temporary files that killed writers left in a folder, but not in its subfolders.

  Args:
    folder: where to look.
    suffix: ending of the temporary names, as for `replacing`.
    older_than_secs: files that were modified later than this long ago are kept.
    now: Unix seconds.
  """
  with contextlib.suppress(OSError), os.scandir(folder) as entries:
    for entry in entries:
      if is_temporary(entry.name, suffix) and entry.is_file(follow_symlinks=False):
        if now - entry.stat(follow_symlinks=False).st_mtime > older_than_secs:
          os.remove(entry.path)


def is_temporary(name: str, suffix: str) -> bool:
  """Returns whether a name is a temporary name of `replacing` with this suffix."""
  return bool(re.fullmatch(rf'.*\.[0-9a-f]{{8}}{re.escape(suffix)}', name, re.DOTALL))


def why_not_written(folder: str) -> str:
  """Tries to write a file in a folder; returns why that failed, or ''."""
  path = temporary_path(os.path.join(folder, 'probe'))
  try:
    with open(path, 'xb') as file:
      file.write(bytes(4096))
    return ''
  except OSError as e:
    return e.strerror or str(e)
  finally:
    with contextlib.suppress(OSError):
      os.remove(path)


# ---- On the disk. ------------------------------------------------------------------------------


def sync(path: str) -> None:
  """Writes the contents of a file to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def sync_folder(folder: str) -> None:
  """Writes the names in a folder to the disk, where the file system can do that."""
  try:
    sync(folder or '.')
  except OSError as e:
    if e.errno not in _CANNOT_SYNC:
      raise


# ---- Appending. --------------------------------------------------------------------------------


def nofollow_opener(path: str, flags: int) -> int:
  """An `opener` for `open`: follows no symbolic link in a folder that other users can write to."""
  not_followed = os.O_NOFOLLOW if others_can_write(os.path.dirname(path)) else 0
  return os.open(path, flags | not_followed, 0o666)


def others_can_write(folder: str) -> bool:
  """Returns whether another user can create files, and so symbolic links, in a folder."""
  status = os.stat(folder or '.')
  writers = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
  return bool(writers) or status.st_uid not in (0, os.geteuid())


class AppendOnlyFile:
  """A file with atomic appends: a failed append leaves the file unchanged.

  The first `append` opens the file; after a failure, the next one opens it again.

  Attributes:
    size: int, bytes of the file without a failed append; None until the file has been opened.
  """

  def __init__(self, path: str) -> None:
    self.size: int | None = None
    self._path = path
    self._descriptor: int | None = None

  def append(self, data: bytes) -> None:
    """Appends bytes; when this returns, the operating system has accepted them.

    Raises:
      OSError: they cannot be written; the file is unchanged.
    """
    try:
      self.open()
      assert self._descriptor is not None and self.size is not None
      left = memoryview(data)
      while left:
        left = left[os.write(self._descriptor, left) :]
      self.size += len(data)
    except OSError:
      self._truncate()
      self.close()
      raise

  def open(self) -> None:
    """Opens the file, if it is not open, and sets `size`.

    Raises:
      OSError: it cannot be opened.
    """
    if self._descriptor is None:
      flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
      self._descriptor = nofollow_opener(self._path, flags)
      self._truncate()
      self.size = os.fstat(self._descriptor).st_size

  def cut(self, size: int) -> None:
    """Cuts the file to so many bytes, if it has more; raises OSError if that is not possible."""
    self.open()
    assert self._descriptor is not None and self.size is not None
    if size < self.size:
      os.ftruncate(self._descriptor, size)
      self.size = size

  def _truncate(self) -> None:
    """Cuts off what a failed `append` has written."""
    if self._descriptor is None or self.size is None:
      return
    with contextlib.suppress(OSError):
      if self.size < os.fstat(self._descriptor).st_size:
        os.ftruncate(self._descriptor, self.size)

  def close(self) -> None:
    """Closes the file; the next `append` opens it again."""
    if self._descriptor is not None:
      with contextlib.suppress(OSError):
        os.close(self._descriptor)
    self._descriptor = None
