"""Keeps actors exactly K updates behind the learner (--policy_lag=K), in one process.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), appendix E.1, compares corrections at fixed lags.
The queue is the delay: update u is made of the unrolls of places u * M to (u + 1) * M - 1, where M
is the number of new unrolls per update. Actors play the unrolls of update u when u - K updates are
done, and the learner begins update u when the unrolls of the updates up to u + K are in the queue,
so that no later weights exist before all of those have been played. The first K updates learn from
the first weights.

With --deterministic_training, actor loops also take the places in a fixed turn, so that a run does
not depend on which of them is faster.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

_POLL_SECS = 0.5


class FixedLag:
  """Lets actor loops and learner take turns. Thread-safe.

  Args:
    lag: K, the updates between acting and learning.
    unrolls_per_update: M.
    num_loops: number of actor loops, if they take places in a fixed turn; 0 gives a place to
      whichever comes first.

  Attributes:
    first_loop: index of the loop that takes the first place, if there is a fixed turn.
  """

  def __init__(self, lag: int, unrolls_per_update: int, num_loops: int = 0):
    self._lag, self._per_update, self._num_loops = lag, unrolls_per_update, num_loops
    self.first_loop = 0
    self._changed = threading.Condition()
    self.start(lambda: False)

  def start(self, should_stop: Callable[[], bool]) -> None:
    """Begins with an empty queue, in a new session; later waits end when `should_stop()`."""
    self._should_stop = should_stop
    self._taken = self._sent = self._staged = self._updates = 0
    self._rounds = [0] * self._num_loops  # Places that each loop has taken.

  def next_loop(self, number: int) -> int:
    """Returns the loop whose turn follows what has been sent; `number` as in `take_place`."""
    with self._changed:
      return (self.first_loop + self._sent // number) % self._num_loops

  def take_place(self, number: int, loop: int = 0) -> int:
    """Waits until the weights are those for the next unrolls; returns the place of the first.

    Args:
      number: number of unrolls that are played together; M is a multiple of it.
      loop: index of the actor loop.
    """
    with self._changed:
      place = self._next_place(number, loop)
      self._wait(lambda: self._updates >= place // self._per_update - self._lag)
      return place

  def _next_place(self, number: int, loop: int) -> int:
    if not self._num_loops:
      place = self._taken
      self._taken += number
      return place
    turn = self._rounds[loop] * self._num_loops + (loop - self.first_loop) % self._num_loops
    self._rounds[loop] += 1
    return turn * number

  @contextlib.contextmanager
  def in_order(self, place: int, number: int) -> Iterator[None]:
    """Sends unrolls within this context: waits for all of earlier places.

    Args:
      place: from `take_place`.
      number: as given there.
    """
    with self._changed:
      self._wait(lambda: self._sent == place)
    yield
    with self._changed:
      self._sent += number
      self._changed.notify_all()

  def wait_for_batch(self) -> bool:
    """Waits until the learner may take a batch from the queue; returns False if stopped."""
    with self._changed:
      self._wait(lambda: self._sent >= (self._staged + self._lag + 1) * self._per_update)
      self._staged += 1
      return not self._should_stop()

  def on_update(self, _: Any) -> None:
    """Counts an update; see `roles.observers`."""
    with self._changed:
      self._updates += 1
      self._changed.notify_all()

  def _wait(self, is_reached: Callable[[], bool]) -> None:
    while not (is_reached() or self._should_stop()):
      self._changed.wait(_POLL_SECS)
