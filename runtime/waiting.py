"""Waiting for a condition, with a line in the log for the people who wonder what is going on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from absl import logging

from runtime.process import POLL_SECS, WAITING_SECS, RunFailed

_Value = TypeVar('_Value')


class WaitTimedOut(RunFailed):
  """The condition did not come true within the limit."""


def wait_for(
  condition: Callable[[], _Value],
  what: Callable[[], str],
  name: str,
  stop: Callable[[], bool] = lambda: False,
  limit_secs: float = 0,
  quiet_secs: float = 0,
  poll_secs: float = POLL_SECS,
) -> _Value | None:
  """Polls a condition until it is true, and logs every 10 s what is awaited.

  Args:
    condition: returns a true value once the wait is over. It may itself block for a moment.
    what: returns what is awaited, for the log.
    name: of the task that waits.
    stop: returns whether to give up waiting.
    limit_secs: how long to wait at most; 0 = for ever.
    quiet_secs: nothing is logged before this time has passed.
    poll_secs: between two looks at the condition.

  Returns:
    The value of the condition, or None if stopped.

  Raises:
    WaitTimedOut: the limit has passed.
  """
  began = time.monotonic()
  next_line = began + quiet_secs
  while not stop():
    if value := condition():
      return value
    now = time.monotonic()
    if now >= next_line:
      logging.info('%s is waiting for %s', name, what())
      next_line = now + WAITING_SECS
    if limit_secs and now - began > limit_secs:
      raise WaitTimedOut(timed_out(name, limit_secs, what()))
    time.sleep(poll_secs)
  return None


def timed_out(name: str, wait_secs: float, what: str) -> str:
  """The sentence that ends a task after --wait_secs."""
  return f'{name} waited {wait_secs:g} s (--wait_secs) in vain for {what}'
