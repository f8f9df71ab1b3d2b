"""Ends a deadlock of synchronous learners, in which all wait for a token.

A learner dequeues a token before its next step (`learning.optimizers.SyncOps`). If a connection is
lost while a parameter server hands out a token, the token may be lost, too: then all learners wait,
and no update can come. Tokens that are added in vain cost one gradient each, dropped as stale.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from learning.optimizers import SyncOps
from roles.observers import Update
from roles.parts import Part
from roles.task import Task
from runtime.sessions import Loops, run_within

# An update counts as stuck after this time, or this multiple of the longest of the last updates,
# whichever is longer.
LEAST_SECS = 30.0
_TIMES_LONGEST = 5
_LAST_UPDATES = 20
_LOOK_SECS = 1.0


class LostTokens(Part):
  """Adds tokens if the current updates of all learners last too long; a part of the chief.

  Args:
    task: the chief's task.
    ops: operations of the chief's optimizer.
    update_secs: returns how long another learner's update has lasted, see `roles.records.Inbox`.
    least_secs: see `LEAST_SECS`.
  """

  def __init__(
    self,
    task: Task,
    ops: SyncOps,
    update_secs: Callable[[str], float],
    least_secs: float = LEAST_SECS,
  ):
    self._task, self._ops, self._update_secs, self._least_secs = task, ops, update_secs, least_secs
    self._durations: collections.deque[float] = collections.deque(maxlen=_LAST_UPDATES)
    self._added = -least_secs

  def on_update(self, update: Update) -> None:
    """As `UpdateObserver`."""
    self._durations.append(update.busy_secs)

  def start(self, loops: Loops, session: tf.compat.v1.Session) -> None:
    """As `Part`."""
    self._durations.clear()
    loops.start('tokens', self.run, session, loops.should_stop)

  def run(self, session: tf.compat.v1.Session, should_stop: Callable[[], bool]) -> None:
    """Looks every second until stopped."""
    while not should_stop():
      if self._all_wait():
        logging.warning(
          'no learner has made an update for %.0f s: tokens were lost, and are added', self._limit()
        )
        run_within(session, self._ops.spare_tokens)
        self._added = time.monotonic()
      time.sleep(_LOOK_SECS)

  def _limit(self) -> float:
    return max(self._least_secs, _TIMES_LONGEST * max(self._durations))

  def _all_wait(self) -> bool:
    if not self._durations:  # A first update may take any time.
      return False
    limit = self._limit()
    if time.monotonic() - self._added < limit:
      return False
    others = range(1, len(self._task.cluster.learner))
    lasting = [self._update_secs(f'learner:{i}') for i in others]
    return min([self._task.heartbeat.secs_in('update'), *lasting]) > limit
