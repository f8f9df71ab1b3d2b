"""The limit of open files is raised where it is low, or it is said what was needed."""

import os
import resource

# Whatever else opens files meanwhile: TensorFlow, connections, checkpoints.
_SPARE = 64
_MOST = 65_536  # Enough for everybody, where there is no limit.


def raise_limit(more=0):
  """Raises the soft limit of open files as far as the hard one allows.

  Args:
    more: how many files will be opened, beside what else a program needs.

  Returns:
    '' or, where the hard limit is too low for that, a sentence that says so.
  """
  needed = len(os.listdir('/proc/self/fd')) + more + _SPARE
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  infinite = resource.RLIM_INFINITY
  wanted = max(needed, _MOST) if hard == infinite else min(hard, max(needed, _MOST))
  if soft != infinite and soft < wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
  if hard == infinite or needed <= hard:
    return ''
  return f'{needed} open files are needed, but the limit is {hard} (ulimit -Hn)'
