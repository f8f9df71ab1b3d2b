"""Files that survive a kill, a power cut or a busy file server: whole and on disk, or as before."""

import contextlib
import errno
import os
import re
import secrets
import stat
import time

# Between the tries of what a file server may refuse for a moment.
_PAUSES_SECS = (0.1, 0.3, 1.0)
# A folder is not synced everywhere: FUSE and SMB may refuse.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


def patiently(function, *args):
  """What `function(*args)` returns; a few tries, unless the file is known not to be there.

  Raises:
    OSError: of the last try.
  """
  for secs in (*_PAUSES_SECS, None):
    try:
      return function(*args)
    except (FileNotFoundError, NotADirectoryError, FileExistsError):
      raise
    except OSError:
      if secs is None:
        raise
    time.sleep(secs)


def names(folder):
  """The set of names in a folder, empty where there is no folder.

  Raises:
    OSError: it cannot be listed.
  """
  try:
    return set(patiently(os.listdir, folder))
  except FileNotFoundError:
    return set()


def read(path):
  """The bytes of a file.

  Raises:
    OSError: it cannot be read; FileNotFoundError, it is not there.
  """
  return patiently(_read, path)


def _read(path):
  with open(path, 'rb') as file:
    return file.read()


def read_through(path, block=1 << 20):
  """Reads all of a file and keeps nothing; returns its size in bytes. Raises as `read`."""
  return patiently(_read_through, path, block)


def _read_through(path, block):
  size = 0
  with open(path, 'rb', buffering=0) as file:
    while data := file.read(block):
      size += len(data)
  return size


def write_whole(path, content, durable=True):
  """Writes a file under a random temporary name, and then gives it its own.

  Args:
    path: of the file; one that is there is replaced.
    content: str or bytes.
    durable: whether it is on disk when this returns, also after a power cut.

  Raises:
    OSError: it cannot be written; the file is as it was, and nothing is left of the new one.
  """
  data = content.encode() if isinstance(content, str) else content
  new = temporary(path)
  try:
    with open(new, 'xb') as file:  # Follows no symbolic link.
      file.write(data)
      file.flush()
      if durable:
        os.fsync(file.fileno())
    os.replace(new, path)
    if durable:
      sync_folder(os.path.dirname(path))
  except OSError as e:
    e.filename, e.filename2 = path, None  # For whoever names it.
    raise
  finally:
    with contextlib.suppress(OSError):  # Usually it has its own name by now.
      os.remove(new)


def why_not_written(folder):
  """Why no file can be written in a folder, by trying; '' where it can."""
  path = temporary(os.path.join(folder, 'probe'))
  try:
    with open(path, 'xb') as file:
      file.write(bytes(4096))
    return ''
  except OSError as e:
    return e.strerror
  finally:
    with contextlib.suppress(OSError):
      os.remove(path)


def temporary(path):
  """A name beside `path` that nobody can guess, and `sweep` knows."""
  folder, name = os.path.split(path)
  return os.path.join(folder, f'.{name}.{secrets.token_hex(8)}.new')


def sweep(folder, *of_names):
  """Removes the temporary files that killed writers of these names have left in a folder."""
  left = r'\.({})\.[0-9a-f]{{16}}\.new'.format('|'.join(map(re.escape, of_names)))
  for name in names(folder):
    if re.fullmatch(left, name):
      with contextlib.suppress(OSError):
        os.remove(os.path.join(folder, name))


def sync(path):
  """Has a file's contents written to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def sync_folder(folder):
  """Has the names in a folder written to the disk."""
  try:
    sync(folder or '.')
  except OSError as e:
    if e.errno not in _CANNOT_SYNC:
      raise


def own(path, flags):
  """The `opener` of `open` for a run's files: see `others_can_write`."""
  not_followed = os.O_NOFOLLOW if others_can_write(os.path.dirname(path)) else 0
  return os.open(path, flags | not_followed, 0o666)


def others_can_write(folder):
  """Whether another user can put files into a folder; then no symbolic link in it is followed."""
  status = os.stat(folder or '.')
  writers = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
  return bool(writers) or status.st_uid not in (0, os.geteuid())


class Growing:
  """A file that grows by whole pieces: where one cannot be written, the file stays as it was.

  It is opened by the first `append`, and anew after one that failed.

  Attributes:
    size: int, bytes that are known to be good; None before it was opened.
  """

  def __init__(self, path):
    self._path, self._descriptor, self.size = path, None, None

  def append(self, data):
    """Appends bytes; they have been handed to the system when this returns. OSError if not."""
    try:
      self.open()
      left = memoryview(data)
      while left:
        left = left[os.write(self._descriptor, left) :]
      self.size += len(data)
    except OSError:
      self._cut()
      self.close()
      raise

  def open(self):
    """Opens the file, so that `size` is known; without effect where it is open. May OSError."""
    if self._descriptor is None:
      self._descriptor = own(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
      self._cut()
      self.size = os.fstat(self._descriptor).st_size

  def _cut(self):
    """Takes away what a failed `append` has left."""
    if self._descriptor is None or self.size is None:
      return
    with contextlib.suppress(OSError):
      if self.size < os.fstat(self._descriptor).st_size:
        os.ftruncate(self._descriptor, self.size)

  def close(self):
    """Closes the file; `append` would open it again."""
    if self._descriptor is not None:
      with contextlib.suppress(OSError):
        os.close(self._descriptor)
    self._descriptor = None
