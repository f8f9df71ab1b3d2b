"""How busy the processors are that this process may run on, whoever uses them."""

import os

_STAT = '/proc/stat'
# Of the control group that a container sees as its own: version 2, and version 1.
_CPU_STATS = ('/sys/fs/cgroup/cpu.stat', '/sys/fs/cgroup/cpu/cpu.stat')


class ProcessorUse:
  """Looks at the processors' times whenever it is asked (Linux; elsewhere it does not know).

  Args:
    path: a file in the form of /proc/stat, see proc_stat(5).
    cpu_stats: files in the form of a control group's cpu.stat, the first that is there counts. A
      container with a limit may have used up its time on a machine that is idle.
  """

  def __init__(self, path=_STAT, cpu_stats=_CPU_STATS):
    self._path, self._cpu_stats = path, cpu_stats
    self._before, self._periods_before = self._times(), self._periods()

  def share(self):
    """The share of the time since the last call that was not idle, in [0, 1]; None if unknown.

    Where this container was held back for a larger share of its periods, that one.
    """
    before, self._before = self._before, self._times()
    idle = _share(before, self._before)
    before, self._periods_before = self._periods_before, self._periods()
    held_back = _share(before, self._periods_before)
    known = [] if idle is None else [1 - idle]
    return max(known + ([] if held_back is None else [held_back]), default=None)

  def _times(self):
    """(idle, total) so far, in ticks; None where nobody tells."""
    try:
      mine = {f'cpu{i}' for i in os.sched_getaffinity(0)}
      with open(self._path, encoding='ascii') as file:
        lines = [line.split() for line in file]
    except (AttributeError, OSError):  # AttributeError: no Linux.
      return None
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    times = [[int(word) for word in line[1:9]] for line in lines if line and line[0] in mine]
    return sum(t[3] + t[4] for t in times), sum(map(sum, times))

  def _periods(self):
    """(those in which this container was held back, all) so far; None where it has no limit."""
    for path in self._cpu_stats:
      try:
        with open(path, encoding='ascii') as file:
          values = dict(line.split()[:2] for line in file if line.strip())
        return int(values['nr_throttled']), int(values['nr_periods'])
      except (OSError, ValueError, KeyError):
        continue
    return None


def _share(before, after):
  """What part of all came to (part, all) between two looks; None where nothing came."""
  if not before or not after:
    return None
  part, total = (b - a for a, b in zip(before, after, strict=True))
  return part / total if total > 0 else None
