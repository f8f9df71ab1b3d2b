"""A file is replaced in one step: nobody ever sees half of it, and a failure leaves the old one."""

import contextlib
import os
import secrets


@contextlib.contextmanager
def replacing(path, suffix='.tmp', sync=False, mode=0o666):
  """A binary file to write to, which becomes `path` at the end if nothing went wrong.

  Its own name meanwhile is random, so that nobody can put a link in its place, and two writers
  (of two hosts that share a folder, with the same process id) do not meet.

  Args:
    path: the file to replace; what stands there is no link to follow.
    suffix: how the temporary name ends.
    sync: whether the file and its name are on the disk when the context ends.
    mode: of the file, before the umask.

  Raises:
    OSError: it cannot be written; what was there before still is.
  """
  temporary = f'{path}.{secrets.token_hex(4)}{suffix}'
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
  file = os.fdopen(os.open(temporary, flags, mode), 'wb')
  try:
    with file:
      yield file
      if sync:
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.remove(temporary)
    raise
  if sync:
    _sync_folder(os.path.dirname(path) or '.')


def _sync_folder(folder):
  with contextlib.suppress(OSError):  # Some file systems do not have that.
    number = os.open(folder, os.O_RDONLY)
    try:
      os.fsync(number)
    finally:
      os.close(number)


def remove_leftovers(folder, suffix, older_than_secs, now):
  """Removes temporary files of writers that were killed: those that no one has written to lately.

  Args:
    folder: where to look; deeper folders are left alone.
    suffix: of the temporary names, as for `replacing`.
    older_than_secs: how long ago the last byte came.
    now: Unix seconds.
  """
  with contextlib.suppress(OSError), os.scandir(folder) as entries:
    for entry in entries:
      if is_temporary(entry.name, suffix) and entry.is_file(follow_symlinks=False):
        if now - entry.stat(follow_symlinks=False).st_mtime > older_than_secs:
          os.remove(entry.path)


def is_temporary(name, suffix):
  """Whether a name is one that `replacing` makes up."""
  token = name.removesuffix(suffix)[-9:]
  return (
    name.endswith(suffix)
    and len(token) == 9
    and token[0] == '.'
    and all(letter in '0123456789abcdef' for letter in token[1:])
  )
