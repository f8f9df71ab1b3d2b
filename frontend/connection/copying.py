"""Files are put below a folder, here or on another machine over SFTP, each whole or not at all."""

import contextlib
import json
import os
import secrets
import shutil
import time

from common import files
from frontend.connection import fetching
from frontend.errors import HostError

# How the names of files end that are not whole yet, and how old those of killed pushes are.
SUFFIX = '.push'
LEFTOVER_SECS = 3600.0


class LocalFolder:
  """A folder of this machine, which is made if it is not there.

  Args:
    base: its path.

  Raises:
    HostError: (methods) with the file or folder that cannot be written, and the reason.
  """

  def __init__(self, base):
    self._base = base

  def put(self, root, names):
    """Copies files, given relative to the folder `root`; returns how many.

    None are copied where both folders are the same.
    """
    self._make_folders([''])
    if self.is_same(root):
      return 0
    self._make_folders(sorted({os.path.dirname(name) for name in names}))
    for name in names:
      with self._named('write', name):
        self._put_file(os.path.join(root, name), self._path(name))
    return len(names)

  def is_same(self, root):
    """Whether it is the folder `root` of this machine."""
    return os.path.samefile(root, self._base)

  def touch(self, name):
    """Makes an empty file."""
    self._make_folders([''])
    with self._named('write', name):
      self._write(self._path(name), b'')

  def has(self, name):
    """Whether a file is there."""
    return os.path.exists(self._path(name))

  def remove(self, name):
    """Removes a file, and folders that are empty then; whether it was there."""
    with contextlib.suppress(OSError):
      self._remove(self._path(name))
      while name := os.path.dirname(name):
        self._remove_folder(self._path(name))
      return True
    return not self.has(name)

  def read_names(self, name):
    """The list of names in a JSON file, without what is no name of a file below; [] without one."""
    try:
      found = json.loads(self._read(self._path(name)))
    except (HostError, OSError, ValueError, RecursionError):
      return []
    names = [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []
    return [entry for entry in names if is_below(entry)]

  def write_names(self, name, names):
    """Writes the list that `read_names` reads."""
    with self._named('write', name):
      self._write(self._path(name), json.dumps(sorted(names), indent=0).encode())

  def _path(self, name):
    return os.path.join(self._base, name) if name else self._base

  @contextlib.contextmanager
  def _named(self, verb, name):
    try:
      yield
    except OSError as error:
      reason = error.strerror or error
      raise HostError('workdir', f'cannot {verb} {self._path(name)}: {reason}') from None

  def _make_folders(self, names):
    for name in names:
      with self._named('make the folder', name):
        os.makedirs(self._path(name), exist_ok=True)
      files.remove_leftovers(self._path(name), SUFFIX, LEFTOVER_SECS, time.time())

  def _put_file(self, source, path):
    mode = os.stat(source).st_mode & 0o777
    with open(source, 'rb') as file, files.replacing(path, SUFFIX, mode=mode) as copy:
      shutil.copyfileobj(file, copy)
      os.fchmod(copy.fileno(), mode)

  def _write(self, path, data):
    with files.replacing(path, SUFFIX) as file:
      file.write(data)

  def _read(self, path):
    return fetching.read(fetching.LocalFiles(), path)

  def _remove(self, path):
    os.remove(path)

  def _remove_folder(self, path):
    os.rmdir(path)


class RemoteFolder(LocalFolder):
  """A folder of another machine.

  Args:
    client: a `sftp.Client`.
    base: its path there; it may begin with `~/`.
  """

  def __init__(self, client, base):
    # SFTP begins in the home folder.
    super().__init__('.' + base[1:] if base == '~' or base.startswith('~/') else base)
    self._sftp = client

  def is_same(self, root):
    """Of another machine's folder nobody can tell that it is one of this machine."""
    return False

  def has(self, name):
    """As in `LocalFolder`."""
    try:
      self._sftp.stat(self._path(name))
      return True
    except FileNotFoundError:
      return False

  def _make_folders(self, names):
    made = set()
    for name in names:
      self._make_folder(self._path(name), made)
      self._remove_leftovers(self._path(name))

  def _make_folder(self, path, made):
    if not path or path == '/' or path in made:
      return
    made.add(path)
    try:
      self._sftp.stat(path)
    except FileNotFoundError:
      self._make_folder(os.path.dirname(path), made)
      try:
        self._sftp.mkdir(path)
      except OSError as error:
        reason = error.strerror or error
        raise HostError('workdir', f'cannot make the folder {path}: {reason}') from None

  def _remove_leftovers(self, folder):
    import paramiko

    with contextlib.suppress(OSError, paramiko.SFTPError):
      for name, found in self._sftp.listing(folder).items():
        late = time.time() - found.mtime > LEFTOVER_SECS
        if late and found.is_file and files.is_temporary(name, SUFFIX):
          self._sftp.remove(os.path.join(folder, name))

  def _put_file(self, source, path):
    with open(source, 'rb') as file:
      self._replace(path, file, os.fstat(file.fileno()))

  def _write(self, path, data):
    import io

    self._replace(path, io.BytesIO(data), None)

  def _replace(self, path, source, found):
    """Copies under another name first: a program that runs never sees half of a file."""
    temporary = f'{path}.{secrets.token_hex(4)}{SUFFIX}'
    try:
      with self._sftp.open(temporary, 'wbx') as copy:
        copy.set_pipelined(True)
        shutil.copyfileobj(source, copy, 32 * 1024)
      if found is not None:
        size = self._sftp.stat(temporary).size
        if size != found.st_size:
          raise OSError(f'{size} bytes arrived of {found.st_size}')
        self._sftp.chmod(temporary, found.st_mode & 0o777)
      self._sftp.posix_rename(temporary, path)
    except BaseException:
      with contextlib.suppress(OSError, EOFError):
        self._sftp.remove(temporary)
      raise

  def _read(self, path):
    return fetching.read(fetching.RemoteFiles(self._sftp), path)

  def _remove(self, path):
    self._sftp.remove(path)

  def _remove_folder(self, path):
    self._sftp.rmdir(path)


def is_below(name):
  """Whether a name is that of a file below the folder that it is relative to."""
  return (
    bool(name)
    and '\0' not in name
    and not os.path.isabs(name)
    and os.path.normpath(name) == name
    and name.split('/')[0] != os.pardir
  )
