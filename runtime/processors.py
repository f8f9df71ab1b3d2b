"""Measures how busy this process's processors are, including the load of other processes."""

from __future__ import annotations

import os
from collections.abc import Sequence

_STAT = '/proc/stat'
# Statistics of a container's own control group: version 2, then version 1.
_CPU_STATS = ('/sys/fs/cgroup/cpu.stat', '/sys/fs/cgroup/cpu/cpu.stat')


class ProcessorUse:
  """Measures the load of the processors that this process may run on (Linux only).

  Args:
    path: a file like /proc/stat, see proc_stat(5).
    cpu_stats: files like a control group's cpu.stat; the first existing one is used. A container
      with a CPU limit may be throttled on an idle machine.
  """

  def __init__(self, path: str = _STAT, cpu_stats: Sequence[str] = _CPU_STATS):
    self._path, self._cpu_stats = path, cpu_stats
    self._before, self._periods_before = self._times(), self._periods()

  def share(self) -> float | None:
    """Returns the busy share of the time since the last call, in [0, 1]; None if unknown.

    If this container was throttled in a larger share of its periods, returns that share instead.
    """
    before, self._before = self._before, self._times()
    idle = _share(before, self._before)
    before, self._periods_before = self._periods_before, self._periods()
    throttled = _share(before, self._periods_before)
    known = [] if idle is None else [1 - idle]
    return max(known + ([] if throttled is None else [throttled]), default=None)

  def _times(self) -> tuple[int, int] | None:
    """Returns (idle, total) ticks so far, or None if unknown."""
    try:
      mine = {f'cpu{i}' for i in os.sched_getaffinity(0)}
      with open(self._path, encoding='ascii') as file:
        lines = [line.split() for line in file]
    except (AttributeError, OSError):  # AttributeError: not on Linux.
      return None
    # user, nice, system, idle, iowait, irq, softirq, steal; user includes guest.
    times = [[int(word) for word in line[1:9]] for line in lines if line and line[0] in mine]
    return sum(t[3] + t[4] for t in times), sum(map(sum, times))

  def _periods(self) -> tuple[int, int] | None:
    """Returns (throttled, all) periods of this container so far, or None if it has no limit."""
    for path in self._cpu_stats:
      try:
        with open(path, encoding='ascii') as file:
          values = dict(line.split()[:2] for line in file if line.strip())
        return int(values['nr_throttled']), int(values['nr_periods'])
      except (OSError, ValueError, KeyError):
        continue
    return None


def _share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
  """Returns the growth of `part` over the growth of `total`, given two samples (part, total)."""
  if not before or not after:
    return None
  part, total = (b - a for a, b in zip(before, after, strict=True))
  return part / total if total > 0 else None
