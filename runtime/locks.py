"""Locks on folders and outputs, so that only one process at a time writes them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from typing import TextIO

from absl import logging

from common import files
from runtime.process import BadInput, RunFailed

# Errors of file systems without locks: NFS without lock daemon, Lustre without -o flock, some FUSE.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# Errors of a full or broken disk, where another --logdir would not help.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)


def lock_folder(path: str, flag: str) -> TextIO:
  """Creates a folder and locks it for this process.

  Args:
    path: path of the folder.
    flag: the flag that names the folder, for messages.

  Returns:
    The open lock file; closing it releases the lock.

  Raises:
    BadInput: the folder cannot be written, or another process holds the lock.
    RunFailed: the disk is full or broken.
  """
  return _locked(
    path, 'lock', flag, '{flag}={path} is in use by process {holder}: choose another one'
  )


def lock_output(path: str, what: str, flag: str) -> TextIO:
  """Locks an output of a run, such as its export, for this process.

  Args:
    path: path of the run's folder.
    what: the output, such as 'export'.
    flag: the flag that names the folder, for messages.

  Returns:
    The open lock file; closing it releases the lock.

  Raises:
    BadInput, RunFailed: as `lock_folder`.
  """
  sentence = f'{{flag}}={{path}}: process {{holder}} writes its {what} already; wait for its end'
  return _locked(path, f'.{what}.lock', flag, sentence)


@contextlib.contextmanager
def alone(folder: str, name: str) -> Iterator[None]:
  """Holds an exclusive lock on a folder; other processes that call this wait.

  Has no effect if the file system has no locks.

  Args:
    folder: folder to lock.
    name: name of a file in it to lock if folders cannot be locked, as on NFS.

  Raises:
    OSError: the folder cannot be read.
  """
  with contextlib.ExitStack() as held:
    descriptor = os.open(folder, os.O_RDONLY)
    held.callback(os.close, descriptor)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as e:
      if e.errno not in (errno.EBADF, *_NO_LOCKS):
        raise
      with contextlib.suppress(OSError):
        file = held.enter_context(
          open(os.path.join(folder, name), 'a', opener=files.nofollow_opener)
        )
        fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _locked(path: str, name: str, flag: str, sentence: str) -> TextIO:
  try:
    os.makedirs(path, exist_ok=True)
    file = open(os.path.join(path, name), 'a+', opener=files.nofollow_opener)
  except OSError as e:
    kind = RunFailed if e.errno in _DISK else BadInput
    raise kind(f'{flag}={path} cannot be written: {e.strerror}') from None
  with contextlib.suppress(OSError):
    file.seek(0)
  holder = _holder(file)
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    is_held = False
  except OSError as e:
    is_held = e.errno not in _NO_LOCKS or _lives_here(holder)
    if not is_held:
      logging.warning(
        '%s: its file system has no file locks (%s), so nothing keeps a process of another machine '
        'from writing there too',
        os.path.join(path, name),
        e.strerror,
      )
  if is_held:
    holder = holder.split()[0] if holder else 'unknown'
    raise BadInput(sentence.format(flag=flag, path=path, holder=holder))
  with contextlib.suppress(OSError):  # On a full disk, the lock works but does not name its holder.
    file.truncate(0)
    file.write(f'{os.getpid()} {socket.gethostname()} {_start_time(os.getpid())}')
    file.flush()
  return file


def _holder(file: TextIO) -> str:
  """Returns the holder in a lock file, 'process_id host start_time', or '' if it is unreadable."""
  try:
    return file.read().strip()
  except (OSError, ValueError):
    return ''


def _lives_here(holder: str) -> bool:
  """Returns whether the holder named in a lock file still runs on this machine."""
  process_id, _, rest = holder.partition(' ')
  host, _, started = rest.rpartition(' ')
  if host != socket.gethostname() or not process_id.isdecimal():
    return False
  return int(process_id) != os.getpid() and _start_time(process_id) == started != ''


def _start_time(process_id: int | str) -> str:
  """Returns when a process of this machine began, in ticks since boot, or '' if it has ended."""
  try:
    with open(f'/proc/{process_id}/stat', 'rb') as file:
      return file.read().rpartition(b')')[2].split()[19].decode()
  except (OSError, IndexError):
    return ''
