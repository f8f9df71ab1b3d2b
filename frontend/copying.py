"""Files are copied to a folder here, or below one on another machine over SFTP."""

import os
import shutil

from frontend.host_error import HostError


def put_here(root, names, base):
  """Copies files to a folder of this machine, which is made if it is not there.

  Args:
    root: the folder that the names are relative to.
    names: list of paths.
    base: the folder to copy to.

  Returns:
    How many were copied: none when both folders are the same.
  """
  os.makedirs(base, exist_ok=True)
  if os.path.samefile(root, base):
    return 0
  for name in names:
    path = os.path.join(base, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy2(os.path.join(root, name), path)
  return len(names)


def put_over_sftp(sftp, root, names, base):
  """Copies files to a folder at the other end, which is made if it is not there.

  Args:
    sftp: a paramiko SFTPClient.
    root: the folder that the names are relative to.
    names: list of paths.
    base: the folder to copy to; it may begin with `~/`.

  Raises:
    HostError: a file or folder that cannot be written.
  """
  if base == '~' or base.startswith('~/'):
    base = '.' + base[1:]  # SFTP begins in the home folder.
  made = set()
  for name in names:
    path = os.path.join(base, name)
    _make_folders(sftp, os.path.dirname(path), made)
    try:
      _put_file(sftp, os.path.join(root, name), path)
    except OSError as error:
      raise HostError('workdir', f'cannot write {path}: {error}') from None


def _make_folders(sftp, path, made):
  if not path or path == '/' or path in made:
    return
  made.add(path)
  try:
    sftp.stat(path)
  except FileNotFoundError:
    _make_folders(sftp, os.path.dirname(path), made)
    try:
      sftp.mkdir(path)
    except OSError as error:
      raise HostError('workdir', f'cannot make the folder {path}: {error}') from None


def _put_file(sftp, source, path):
  """Copies under another name first: a program that runs never sees half of a file."""
  temporary = path + '.push'
  sftp.put(source, temporary)
  sftp.chmod(temporary, os.stat(source).st_mode & 0o777)
  sftp.posix_rename(temporary, path)
