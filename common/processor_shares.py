"""CPU affinity: divides the processors of a machine among programs that run side by side.

The thread pools of TensorFlow are as wide as the processors that a process may use. Programs that
share all processors slow each other down (docs/performance.md, "Runs side by side").
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence, Set


def usable() -> list[int]:
  """Returns the processors that this process may use, ordered by socket and core.

  Empty on systems without CPU affinity (macOS).
  """
  if not hasattr(os, 'sched_getaffinity'):
    return []
  return sorted(os.sched_getaffinity(0), key=lambda number: (*_place(number), number))


def _place(processor: int) -> tuple[int, ...]:
  """Returns the numbers of a processor's socket and core, or () if Linux does not list them."""
  folder = f'/sys/devices/system/cpu/cpu{processor}/topology'
  numbers = []
  for name in ('physical_package_id', 'core_id'):
    try:
      with open(os.path.join(folder, name), encoding='ascii') as file:
        numbers.append(int(file.read()))
    except (OSError, ValueError):
      return ()
  return tuple(numbers)


def affinity(pid: int) -> Set[int]:
  """Returns the processors that a process may use; empty if it has ended."""
  with contextlib.suppress(AttributeError, OSError):
    return os.sched_getaffinity(pid)
  return frozenset()


def least_used(parts: int, pids: Iterable[int]) -> Set[int]:
  """Returns the part of this process's processors that running processes use least.

  Args:
    parts: number of equal parts, see `choose`.
    pids: the running processes.
  """
  return choose(usable(), parts, map(affinity, pids))


def choose(processors: Sequence[int], parts: int, others: Iterable[Set[int]]) -> Set[int]:
  """Divides processors into equal parts, and returns the part that others use least.

  Args:
    processors: as from `usable`.
    parts: number of parts; at most one for each processor.
    others: the processors of each process that runs already.

  Returns:
    Numbers of processors; empty if `processors` is.
  """
  count = len(processors)
  parts = max(1, min(parts, count))
  bounds = [count * i // parts for i in range(parts + 1)]
  all_parts = [frozenset(processors[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
  running = [other for other in others if other]
  return min(all_parts, key=lambda part: sum(len(part & other) / len(other) for other in running))


def pin(pid: int, processors: Set[int]) -> None:
  """Restricts a process, and all that it will start, to processors; does nothing if empty."""
  if processors:
    with contextlib.suppress(OSError):  # It has ended, or the processors were taken away.
      os.sched_setaffinity(pid, processors)
