"""Calls in background threads that do not keep a program from exiting.

concurrent.futures joins its threads at exit, so a host that does not answer would block the exit.
Here, Ctrl-C and time limits end a wait at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')

# Polling interval of `result`, so that signals are handled promptly.
_POLL_SECS = 0.5


class BackgroundCall:
  """Runs `function(*args)` in a daemon thread.

  For calls that may never return, such as a call to a dead peer, and for a whole role, so that the
  main thread is free to handle signals.
  """

  def __init__(self, function: Callable[..., Any], *args: Any) -> None:
    self._value: Any = None
    self._error: BaseException | None = None
    self._done = threading.Event()
    name = getattr(function, '__name__', None)
    threading.Thread(target=self._run, args=(function, args), daemon=True, name=name).start()

  def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
      self._value = function(*args)
    except BaseException as error:
      self._error = error
    self._done.set()

  def has_ended(self, limit_secs: float | None = None) -> bool:
    """Waits for the end of the call, at most `limit_secs`; returns whether it has ended."""
    return self._done.wait(limit_secs)

  def result(self) -> Any:
    """Waits for the end of the call; returns what it returned, or raises what it raised."""
    while not self.has_ended(_POLL_SECS):
      pass
    if self._error is not None:
      raise self._error
    return self._value


def on_each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
  """Calls `function(item)` for all items concurrently and returns the results in order.

  Raises:
    The exception of the first item whose call failed, after all calls have ended. KeyboardInterrupt
    is raised at once.
  """
  calls = [BackgroundCall(function, item) for item in items]
  for call in calls:
    call.has_ended()
  return [call.result() for call in calls]


def within(limit_secs: float | None, function: Callable[..., Result], *args: Any) -> Result:
  """Returns `function(*args)`.

  Raises:
    TimeoutError: the call exceeded the limit. Its thread continues; the caller must close whatever
      the function is waiting for.
  """
  call = BackgroundCall(function, *args)
  if not call.has_ended(limit_secs):
    raise TimeoutError(f'no answer within {limit_secs:g} s')
  return call.result()


def stream(
  function: Callable[[Item, Callable[[Result], None]], None], items: Sequence[Item]
) -> Iterator[Result]:
  """Calls `function(item, put)` for all items concurrently and yields what they `put`.

  Ends when all calls have ended; then raises the exception of the first item whose call failed.
  """
  queued: queue.SimpleQueue[Any] = queue.SimpleQueue()
  end = object()

  def work(item: Item) -> None:
    try:
      function(item, queued.put)
    finally:
      queued.put(end)

  calls = [BackgroundCall(work, item) for item in items]
  running = len(calls)
  while running:
    value = queued.get()
    if value is end:
      running -= 1
    else:
      yield value
  for call in calls:
    call.result()
