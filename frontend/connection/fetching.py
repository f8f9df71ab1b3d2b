"""Files of a host are listed and fetched, each whole or not at all, here or over SFTP.

What a host says is checked: a name is that of a file in the folder, and a size is what there is
room for; memory does not grow with either.
"""

import collections
import contextlib
import os
import shutil
import stat

from common import files
from frontend.errors import LOST, HostError

CHUNK_BYTES = 256 * 1024
# Of a file that is read into memory (a record, a list of checkpoints).
MOST_READ_BYTES = 16 * 1024 * 1024
# How the names of files end that are not whole yet, and how old those of killed pulls are.
SUFFIX = '.pull'
LEFTOVER_SECS = 3600.0

# What tells a file that changed from one that did not. size: bytes; mtime: Unix time in whole
# seconds, more SFTP does not tell.
Version = collections.namedtuple('Version', 'size mtime')


class Missing(HostError):
  """A file or folder that is not there, or no more."""


def version(attributes):
  """The `Version` in the attributes of a file, of this machine or of SFTP."""
  return Version(attributes.st_size, int(attributes.st_mtime))


class LocalFiles:
  """Files of this machine."""

  lost = (OSError,)

  def listing(self, folder):
    """{name: Version} of the files in a folder, without what lies deeper."""
    found = {}
    with self._named(folder), os.scandir(folder) as entries:
      for entry in entries:
        with contextlib.suppress(FileNotFoundError):  # Removed since.
          if entry.is_file():
            found[entry.name] = version(entry.stat())
    return found

  def open(self, path):
    """(file, Version) of a file as it is now; later additions are not waited for."""
    with self._named(path):
      file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb')
      found = os.fstat(file.fileno())
      return self._checked(file, stat.S_ISREG(found.st_mode), version(found), path)

  def _checked(self, file, is_file, found, path):
    if not is_file:
      file.close()
      raise HostError('', f'{path} is no file')
    return file, found

  def chunks(self, file, size, path):
    """Yields the first `size` bytes of an open file, in parts."""
    left = size
    while left:
      with self._named(path):
        data = file.read(min(left, CHUNK_BYTES))
        if not data:
          raise HostError('', f'{path} became shorter while it was read; try again')
      left -= len(data)
      yield data

  @contextlib.contextmanager
  def _named(self, path):
    try:
      yield
    except FileNotFoundError:
      raise Missing('', f'there is no {path}') from None
    except self.lost as error:
      reason = getattr(error, 'strerror', None) or str(error) or 'the connection was lost'
      raise HostError('', f'cannot read {path}: {reason}') from None


class RemoteFiles(LocalFiles):
  """Files of another machine.

  Args:
    client: a `sftp.Client`.
  """

  def __init__(self, client):
    from frontend.connection import sftp

    self.lost = (*LOST, *sftp.INVALID_ANSWERS)
    self._sftp = client

  def listing(self, folder):
    """As in `LocalFiles`."""
    with self._named(folder):
      found = self._sftp.listing(folder)
    return {name: Version(a.size, a.mtime) for name, a in found.items() if a.is_file}

  def open(self, path):
    """As in `LocalFiles`."""
    with self._named(path):
      file = self._sftp.open(path, 'rb')
      found = self._sftp.attributes(file)
      return self._checked(file, found.is_file, Version(found.size, found.mtime), path)

  def chunks(self, file, size, path):
    """As in `LocalFiles`."""
    from frontend.connection import sftp

    pieces = self._sftp.pieces(file, size)
    while True:
      with self._named(path):
        try:
          data = next(pieces, None)
        except sftp.Ended:
          raise HostError('', f'{path} became shorter while it was read; try again') from None
      if data is None:
        return
      yield data

  @contextlib.contextmanager
  def _named(self, path):
    self._sftp.begin()
    with super()._named(path):
      yield


def read(files, path):
  """All bytes of a small file; raises HostError, or Missing where there is none."""
  file, found = files.open(path)
  with file:
    if found.size > MOST_READ_BYTES:
      raise HostError('', f'{path} is said to have {found.size:,} bytes, which is no such file')
    return b''.join(files.chunks(file, found.size, path))


def fetch(files, source, target):
  """Copies a file, with its time, under another name first: nobody ever sees half of it.

  Args:
    files: LocalFiles or RemoteFiles.
    source: path there.
    target: path here.

  Returns:
    How many bytes it has.

  Raises:
    HostError: it cannot be read, or written here; what `target` was before it still is.
    Missing: there is no such file.
  """
  file, found = files.open(source)
  with file, _written(target) as copy:
    room = shutil.disk_usage(os.path.dirname(target) or '.').free
    if found.size > room:
      raise HostError(
        '', f'{source} is said to have {found.size:,} bytes, and {target} has room for {room:,}'
      )
    for data in files.chunks(file, found.size, source):
      copy.write(data)
    copy.flush()
    os.utime(copy.fileno(), (found.mtime, found.mtime))
  return found.size


def write(data, target):
  """Writes bytes to a file here, as `fetch` does."""
  with _written(target) as copy:
    copy.write(data)


def remove_leftovers(folder, now):
  """Removes what pulls to a folder here have left that were killed; `now` in Unix seconds."""
  files.remove_leftovers(folder, SUFFIX, LEFTOVER_SECS, now)


@contextlib.contextmanager
def _written(target):
  """A file to write to, which becomes `target`, on the disk, if nothing went wrong."""
  try:
    with files.replacing(target, SUFFIX, durable=True) as copy:
      yield copy
  except OSError as error:
    raise HostError('', f'cannot write {target}: {error.strerror or error}') from None
