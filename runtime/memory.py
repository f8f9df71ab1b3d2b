"""Measures the memory that this process may still take (Linux only)."""

from __future__ import annotations

import math
import os

# Of a container's own control group: version 2, then version 1.
_GROUPS = (
  ('/sys/fs/cgroup', 'memory.max', 'memory.current'),
  ('/sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes'),
)


def available_bytes(root: str = '/') -> float:
  """Returns the bytes of memory that are available here; math.inf if unknown.

  The smaller of what the machine has and what the control group of a container allows.

  Args:
    root: folder that has proc/meminfo, see proc_meminfo(5), and sys/fs/cgroup.
  """
  return min(_of_machine(root), *(_of_group(root, *group) for group in _GROUPS))


def _of_machine(root: str) -> float:
  values = _values(os.path.join(root, 'proc/meminfo'))
  return values['MemAvailable:'] * 1024 if 'MemAvailable:' in values else math.inf


def _of_group(root: str, folder: str, limit: str, usage: str) -> float:
  folder = os.path.join(root, folder.lstrip('/'))
  try:
    limit_bytes, used_bytes = (_number(os.path.join(folder, name)) for name in (limit, usage))
  except (OSError, ValueError):  # ValueError: 'max', which is no limit.
    return math.inf
  # Cached files count as used, but are given up when memory is needed.
  stat = _values(os.path.join(folder, 'memory.stat'))
  cached = stat.get('inactive_file', stat.get('total_inactive_file', 0))
  return limit_bytes - used_bytes + cached


def _number(path: str) -> int:
  with open(path, encoding='ascii') as file:
    return int(file.read())


def _values(path: str) -> dict[str, int]:
  """Returns the first number of each line, by the line's first word; {} if there is no file."""
  try:
    with open(path, encoding='ascii') as file:
      return {words[0]: int(words[1]) for words in map(str.split, file) if len(words) > 1}
  except (OSError, ValueError):
    return {}
