"""Whether a failure is a bug of this project, or the machine's: a full disk, a missing right."""

import errno
import os
import resource

from runtime.process import RunFailed

# What a disk, its rights or the limits of this process refuse.
_OF_THE_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ESTALE, errno.EMFILE, errno.ENFILE,
    errno.ENOMEM, errno.ETXTBSY, errno.ELOOP,
}  # fmt: skip


def reason(error):
  """What to tell of an exception that is no bug, in one sentence; '' of one that may be."""
  if isinstance(error, RunFailed):
    return str(error)
  while error is not None:
    if text := _of_the_machine(error):
      return text
    error = error.__cause__
  return ''


def _of_the_machine(error):
  if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
    where = f'{os.fsdecode(error.filename)}: ' if isinstance(error.filename, (str, bytes)) else ''
    limit = ''
    if error.errno == errno.EMFILE:
      limit = f' (ulimit -n is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})'
    return where + os.strerror(error.errno) + limit
  if isinstance(error, MemoryError):
    return ' '.join(['this machine is out of memory', *str(error).split()])
  # TensorFlow's own errors tell the system's in their text.
  message = getattr(error, 'message', None)
  if isinstance(message, str):
    for line in message.splitlines():
      if any(line.rstrip().endswith(os.strerror(number)) for number in _OF_THE_MACHINE):
        return line.strip()
  return ''
