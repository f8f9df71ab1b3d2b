"""Whether a host of a sweep is among the majority of its hosts, so that it may start its runs.

A host that nobody reaches may lose its waiting runs to others, and must not start them any more if
it was only cut off. So each runner keeps trying the SSH ports of the other hosts. A host and those
that it reaches are a group. After half of `lost_secs` in a minority it starts nothing until it has
a later list of runs. Of two halves, the one with the first host counts as the majority.

The frontend takes runs from a host without its consent only if that host is known to do so
(`is_guarded`), and if a majority of runners has not reached it for all of `lost_secs`. What remains
is a network that is broken in one direction only.

A host that was never in a majority (a firewall, names that only the frontend knows) has nothing to
lose: it goes on, and is never taken for lost.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Collection, Mapping, Sequence

from common import background

MOST_PAUSE_SECS = 10.0
REPLY_SECS = 2.0

Address = tuple[str, int]


def is_majority(group: Collection[str], hosts: Sequence[str]) -> bool:
  """Returns whether a group is a majority of hosts; of two halves, the one with the first is."""
  size = sum(host in group for host in hosts)
  return 2 * size > len(hosts) or (2 * size == len(hosts) and hosts[0] in group)


def now() -> float:
  """Returns seconds on a clock that goes on while the machine sleeps, where there is one."""
  return time.clock_gettime(getattr(time, 'CLOCK_BOOTTIME', time.CLOCK_MONOTONIC))


def is_reached(address: Address) -> bool:
  """Returns whether a host answers, be it that it refuses the connection."""
  try:
    socket.create_connection(address, REPLY_SECS).close()
  except ConnectionRefusedError:
    return True
  except OSError:
    return False
  return True


class Contact:
  """Tries the other hosts from a thread of its own.

  Args:
    own: name of this host.
  """

  def __init__(self, own: str) -> None:
    self._own, self._lost_secs = own, math.inf
    self._addresses: dict[str, Address] = {}
    self._last_reached: dict[str, float] = {}
    self._last_majority = now()
    self._fenced_epoch: int | None = None
    self._thread: threading.Thread | None = None
    self.is_guarded = False  # Whether it has been in a majority, so that it stops in a minority.

  def watch(self, addresses: Mapping[str, Address], lost_secs: float) -> None:
    """Sets the hosts that count, this one included, in their order, and `lost_secs`.

    Args:
      addresses: {name: (address, SSH port)}.
      lost_secs: see the module.
    """
    self._addresses, self._lost_secs = dict(addresses), lost_secs
    if len(addresses) > 1 and self._thread is None:
      self._thread = threading.Thread(target=self._try_on, daemon=True, name='contact')
      self._thread.start()

  def may_start(self, epoch: int) -> bool:
    """Returns whether this host may start runs of the list with this epoch."""
    if len(self._addresses) > 1 and self.is_guarded:
      if now() - self._last_majority > self._lost_secs / 2:
        self._fenced_epoch = epoch
    return self._fenced_epoch is None or epoch > self._fenced_epoch

  def unreached_secs(self) -> dict[str, float]:
    """Returns {other host that was reached before: seconds since then}."""
    return {name: round(now() - then, 1) for name, then in dict(self._last_reached).items()}

  def _try_on(self) -> None:
    while True:
      began = now()
      hosts = list(self._addresses)
      others = [name for name in hosts if name != self._own]
      replies = background.on_each(is_reached, [self._addresses[name] for name in others])
      reached = {name for name, ok in zip(others, replies) if ok}
      self._last_reached.update(dict.fromkeys(reached, began))
      if is_majority({self._own, *reached}, hosts):
        self._last_majority, self.is_guarded = began, True
      time.sleep(min(MOST_PAUSE_SECS, self._lost_secs / 10))
