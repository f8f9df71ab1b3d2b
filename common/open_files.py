"""Raises the limit of open files."""

from __future__ import annotations

import os
import resource

# For TensorFlow, connections and checkpoints.
_SPARE = 64
_MOST = 65_536  # The limit to set if the hard limit is infinite.


def raise_limit(more: int = 0) -> str:
  """Raises the soft limit of open files up to the hard limit.

  Args:
    more: number of files that will be opened, beside those that every program needs.

  Returns:
    '', or a sentence if the hard limit is too low.
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
