"""Which processors of a machine each of several programs gets that run side by side.

The thread pools of TensorFlow are as wide as the processors that a process may use. Programs that
share all processors slow each other down (docs/performance.md, "Runs side by side").
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence, Set


def usable() -> list[int]:
  """Returns the processors that this process may use, those of one core or socket side by side.

  Empty where the operating system does not say (macOS).
  """
  if not hasattr(os, 'sched_getaffinity'):
    return []
  return sorted(os.sched_getaffinity(0), key=lambda number: (*_place(number), number))


def _place(processor: int) -> tuple[int, ...]:
  """Returns the numbers of a processor's socket and core; nothing where they are not known."""
  folder = f'/sys/devices/system/cpu/cpu{processor}/topology'
  numbers = []
  for name in ('physical_package_id', 'core_id'):
    try:
      with open(os.path.join(folder, name), encoding='ascii') as file:
        numbers.append(int(file.read()))
    except (OSError, ValueError):
      return ()
  return tuple(numbers)


def of_program(pid: int) -> Set[int]:
  """Returns the processors that a program may use; empty if it has ended."""
  with contextlib.suppress(AttributeError, OSError):
    return os.sched_getaffinity(pid)
  return frozenset()


def choose(processors: Sequence[int], parts: int, others: Iterable[Set[int]]) -> Set[int]:
  """Returns the part of the processors that the other programs use least.

  Args:
    processors: of the machine, as from `usable`.
    parts: into how many equal parts they are divided; one processor is the least part.
    others: the processors of each program that runs already.

  Returns:
    A part; empty without processors.
  """
  count = len(processors)
  parts = max(1, min(parts, count))
  bounds = [count * i // parts for i in range(parts + 1)]
  all_parts = [frozenset(processors[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
  running = [other for other in others if other]
  return min(all_parts, key=lambda part: sum(len(part & other) / len(other) for other in running))


def give(pid: int, processors: Set[int]) -> None:
  """Restricts a program to processors, with all that it will start; does nothing without any."""
  if processors:
    with contextlib.suppress(OSError):  # It has ended, or the processors were taken away.
      os.sched_setaffinity(pid, processors)
