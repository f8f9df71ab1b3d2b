"""How busy the processors are that this process may run on, whoever uses them."""

import os

_STAT = '/proc/stat'


class ProcessorUse:
  """Looks at the processors' times whenever it is asked (Linux; elsewhere it does not know).

  Args:
    path: a file in the form of /proc/stat, see proc_stat(5).
  """

  def __init__(self, path=_STAT):
    self._path = path
    self._before = self._times()

  def share(self):
    """The share of the time since the last call that was not idle, in [0, 1]; None if unknown."""
    before, self._before = self._before, self._times()
    if not before or not self._before:
      return None
    idle, total = (b - a for a, b in zip(before, self._before, strict=True))
    return 1 - idle / total if total > 0 else None

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
