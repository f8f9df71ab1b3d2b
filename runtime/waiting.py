"""Waits for a condition and logs what it is waiting for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from absl import logging

from runtime.process import POLL_SECS, WAITING_SECS, RunFailed

_Value = TypeVar('_Value')


class WaitTimedOut(RunFailed):
  """The condition did not become true within the time limit."""


def wait_for(
  condition: Callable[[], _Value],
  what: Callable[[], str],
  name: str,
  stop: Callable[[], bool] = lambda: False,
  limit_secs: float = 0,
  quiet_secs: float = 0,
  poll_secs: float = POLL_SECS,
) -> _Value | None:
  """Polls a condition until it is true, and logs every 10 s what it is waiting for.

  Args:
    condition: returns a true value to end the wait. It may block for a moment.
    what: returns the object of the wait, for the log.
    name: name of the waiting task.
    stop: returns whether to stop waiting.
    limit_secs: time limit; 0 = no limit.
    quiet_secs: time before the first log line.
    poll_secs: polling interval.

  Returns:
    The value of the condition, or None if stopped.

  Raises:
    WaitTimedOut: the condition was not true within `limit_secs`.
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
  """Returns the error message of a task that gives up after --wait_secs."""
  return f'{name} waited {wait_secs:g} s (--wait_secs) in vain for {what}'
