"""Copies files into a folder of this machine, or of another one over SFTP, each in one step."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from common import files
from frontend.connection import fetching
from frontend.errors import HostError

if TYPE_CHECKING:
  from frontend.connection import sftp

# Ending of temporary names, and the age from which such files are of a push that was killed.
SUFFIX = '.push'
LEFTOVER_SECS = 3600.0


class LocalFolder:
  """A folder of this machine, which is made if it does not exist.

  All methods raise HostError, with the path and the reason, if they cannot write.

  Args:
    base: its path.
  """

  def __init__(self, base: str) -> None:
    self._base = base

  def put(self, root: str, names: Sequence[str]) -> int:
    """Copies files, given relative to the folder `root`; returns how many.

    Copies nothing if both folders are the same.
    """
    self._prepare_folders([''])
    if self.is_same(root):
      return 0
    self._prepare_folders(sorted({os.path.dirname(name) for name in names}))
    for name in names:
      with self._named('write', name):
        self._put_file(os.path.join(root, name), self._path(name))
    return len(names)

  def is_same(self, root: str) -> bool:
    """Returns whether this is the folder `root` of this machine."""
    return os.path.samefile(root, self._base)

  def touch(self, name: str) -> None:
    """Writes an empty file."""
    self._prepare_folders([''])
    with self._named('write', name):
      self._write(self._path(name), b'')

  def has(self, name: str) -> bool:
    """Returns whether a file exists."""
    return os.path.exists(self._path(name))

  def remove(self, name: str) -> bool:
    """Removes a file and folders that are empty then; returns whether the file is gone."""
    with contextlib.suppress(OSError):
      self._remove(self._path(name))
      while name := os.path.dirname(name):
        self._remove_folder(self._path(name))
      return True
    return not self.has(name)

  def read_names(self, name: str) -> list[str]:
    """Returns the names of files below this folder in a JSON file; [] if there is no such file."""
    try:
      found = json.loads(self._read(self._path(name)))
    except (HostError, OSError, ValueError, RecursionError):
      return []
    names = [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []
    return [entry for entry in names if is_below(entry)]

  def write_names(self, name: str, names: Iterable[str]) -> None:
    """Writes the JSON file that `read_names` reads."""
    with self._named('write', name):
      self._write(self._path(name), json.dumps(sorted(names), indent=0).encode())

  def _path(self, name: str) -> str:
    return os.path.join(self._base, name) if name else self._base

  @contextlib.contextmanager
  def _named(self, verb: str, name: str) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      reason = error.strerror or error
      raise HostError('workdir', f'cannot {verb} {self._path(name)}: {reason}') from None

  def _prepare_folders(self, names: Sequence[str]) -> None:
    for name in names:
      with self._named('make the folder', name):
        os.makedirs(self._path(name), exist_ok=True)
      files.remove_leftovers(self._path(name), SUFFIX, LEFTOVER_SECS, time.time())

  def _put_file(self, source: str, path: str) -> None:
    mode = os.stat(source).st_mode & 0o777
    with open(source, 'rb') as file, files.replacing(path, SUFFIX, mode=mode) as copy:
      shutil.copyfileobj(file, copy)
      os.fchmod(copy.fileno(), mode)

  def _write(self, path: str, data: bytes) -> None:
    with files.replacing(path, SUFFIX) as file:
      file.write(data)

  def _read(self, path: str) -> bytes:
    return fetching.read(fetching.LocalFiles(), path)

  def _remove(self, path: str) -> None:
    os.remove(path)

  def _remove_folder(self, path: str) -> None:
    os.rmdir(path)


class RemoteFolder(LocalFolder):
  """A folder of another machine.

  Args:
    client: connection to the machine.
    base: path of the folder there; it may begin with `~/`.
  """

  def __init__(self, client: sftp.Client, base: str) -> None:
    # The working folder of SFTP is the home folder.
    super().__init__('.' + base[1:] if base == '~' or base.startswith('~/') else base)
    self._sftp = client

  def is_same(self, root: str) -> bool:
    """Returns False: whether machines share a folder cannot be seen."""
    return False

  def has(self, name: str) -> bool:
    """Returns whether a file exists."""
    try:
      self._sftp.stat(self._path(name))
      return True
    except FileNotFoundError:
      return False

  def _prepare_folders(self, names: Sequence[str]) -> None:
    made: set[str] = set()
    for name in names:
      self._make_folder(self._path(name), made)
      self._remove_leftovers(self._path(name))

  def _make_folder(self, path: str, made: set[str]) -> None:
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

  def _remove_leftovers(self, folder: str) -> None:
    import paramiko

    with contextlib.suppress(OSError, paramiko.SFTPError):
      for name, found in self._sftp.listing(folder).items():
        late = time.time() - found.mtime > LEFTOVER_SECS
        if late and found.is_file and files.is_temporary(name, SUFFIX):
          self._sftp.remove(os.path.join(folder, name))

  def _put_file(self, source: str, path: str) -> None:
    with open(source, 'rb') as file:
      self._replace(path, file, os.fstat(file.fileno()))

  def _write(self, path: str, data: bytes) -> None:
    self._replace(path, io.BytesIO(data), None)

  def _replace(self, path: str, source: BinaryIO, found: os.stat_result | None) -> None:
    """Copies under a temporary name first, so that a running program never sees half of a file."""
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

  def _read(self, path: str) -> bytes:
    return fetching.read(fetching.RemoteFiles(self._sftp), path)

  def _remove(self, path: str) -> None:
    self._sftp.remove(path)

  def _remove_folder(self, path: str) -> None:
    self._sftp.rmdir(path)


def is_below(name: str) -> bool:
  """Returns whether a relative path stays below the folder that it is relative to."""
  return (
    bool(name)
    and '\0' not in name
    and not os.path.isabs(name)
    and os.path.normpath(name) == name
    and name.split('/')[0] != os.pardir
  )
