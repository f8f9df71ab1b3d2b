"""Files of a host are listed and fetched, each whole or not at all, here or over SFTP."""

import collections
import contextlib
import os
import stat

from frontend.host_error import LOST, HostError

CHUNK_BYTES = 256 * 1024
# Requests for parts of a file that SFTP keeps under way at a time.
REQUESTS_AHEAD = 64
# Longest silence of a host in the middle of a file.
SILENCE_SECS = 60

# What tells a file that changed from one that did not. size: bytes; mtime: Unix time in whole
# seconds, more SFTP does not tell.
Version = collections.namedtuple('Version', 'size mtime')


class Gone(HostError):
  """A file or folder that is not there, or no more."""


def version(attributes):
  """The `Version` in the attributes of a file, of this machine or of SFTP."""
  return Version(attributes.st_size, int(attributes.st_mtime))


class FilesHere:
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
      file = open(path, 'rb')
      return file, version(self._attributes(file))

  def chunks(self, file, size, path):
    """Yields the first `size` bytes of an open file, in parts."""
    left = size
    while left:
      with self._named(path):
        data = file.read(min(left, CHUNK_BYTES))
        if not data:
          self._attributes(file)  # To paramiko a lost connection may look like the end of a file.
          raise HostError('', f'{path} became shorter while it was read; try again')
      left -= len(data)
      yield data

  def _attributes(self, file):
    """Those of an open file, as its host has them now."""
    return os.fstat(file.fileno())

  @contextlib.contextmanager
  def _named(self, path):
    try:
      yield
    except FileNotFoundError:
      raise Gone('', f'there is no {path}') from None
    except self.lost as error:
      reason = getattr(error, 'strerror', None) or str(error) or 'the connection was lost'
      raise HostError('', f'cannot read {path}: {reason}') from None


class FilesOverSftp(FilesHere):
  """Files of another machine.

  Args:
    sftp: a paramiko SFTPClient.
  """

  def __init__(self, sftp):
    import paramiko

    self.lost = (*LOST, paramiko.SSHException, paramiko.SFTPError)
    self._sftp = sftp
    sftp.get_channel().settimeout(SILENCE_SECS)

  def listing(self, folder):
    """As in `FilesHere`."""
    with self._named(folder):
      entries = self._sftp.listdir_attr(folder)
    return {entry.filename: version(entry) for entry in entries if stat.S_ISREG(entry.st_mode)}

  def open(self, path):
    """As in `FilesHere`."""
    with self._named(path):
      file = self._sftp.open(path, 'rb')
      found = version(self._attributes(file))
      file._prefetch_thread = self._quiet(file._prefetch_thread)
      file.prefetch(found.size, REQUESTS_AHEAD)
      return file, found

  def _quiet(self, ask_ahead):
    """paramiko's thread without its traceback of a lost connection: whoever reads says so."""

    def ask(*args):
      with contextlib.suppress(*self.lost):
        ask_ahead(*args)

    return ask

  def _attributes(self, file):
    return file.stat()


def read(files, path):
  """All bytes of a small file; raises HostError, or Gone where there is none."""
  file, found = files.open(path)
  with file:
    return b''.join(files.chunks(file, found.size, path))


def fetch(files, source, target):
  """Copies a file, with its time, under another name first: nobody ever sees half of it.

  Args:
    files: FilesHere or FilesOverSftp.
    source: path there.
    target: path here.

  Returns:
    How many bytes it has.

  Raises:
    HostError: it cannot be read, or written here; what `target` was before it still is.
    Gone: there is no such file.
  """
  file, found = files.open(source)
  with file, _whole(target) as copy:
    for data in files.chunks(file, found.size, source):
      copy.write(data)
    copy.flush()
    os.utime(copy.fileno(), (found.mtime, found.mtime))
  return found.size


def put(data, target):
  """Writes bytes to a file here, as `fetch` does."""
  with _whole(target) as copy:
    copy.write(data)


@contextlib.contextmanager
def _whole(target):
  """A file to write to, which becomes `target` at the end if nothing went wrong."""
  temporary = target + '.pull'
  try:
    with open(temporary, 'wb') as copy:
      yield copy
    os.replace(temporary, target)
  except OSError as error:
    raise HostError('', f'cannot write {target}: {error.strerror or error}') from None
  finally:
    with contextlib.suppress(OSError):
      os.remove(temporary)
