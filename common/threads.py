"""Work in threads that nobody has to wait for: Ctrl-C, and a limit, end the waiting at once.

The pools of concurrent.futures join their threads, also at the end of the program, so a host that
does not answer would keep a person from leaving.
"""

import queue
import threading


def on_each(function, items):
  """Calls `function(item)` for all items at once; returns the results in order.

  Raises:
    The first item's exception, once all calls have returned. KeyboardInterrupt comes at once.
  """
  outcomes = [_Outcome(function, item) for item in items]
  for outcome in outcomes:
    outcome.wait()
  return [outcome.result() for outcome in outcomes]


def within(limit_secs, function, *args):
  """Calls `function(*args)`; raises TimeoutError where it does not return within the limit.

  The call is left alone then: whoever asks closes what it waits for.
  """
  outcome = _Outcome(function, *args)
  if not outcome.wait(limit_secs):
    raise TimeoutError(f'no answer within {limit_secs:g} s')
  return outcome.result()


def stream(function, items):
  """Calls `function(item, put)` for all items at once; yields what they `put`, until all end."""
  came, end = queue.SimpleQueue(), object()

  def work(item):
    try:
      function(item, came.put)
    finally:
      came.put(end)

  outcomes = [_Outcome(work, item) for item in items]
  left = len(outcomes)
  while left:
    what = came.get()
    if what is end:
      left -= 1
    else:
      yield what
  for outcome in outcomes:
    outcome.wait()
    outcome.result()


class _Outcome:
  """One call in a thread of its own."""

  def __init__(self, function, *args):
    self._error = self._value = None
    self._done = threading.Event()
    threading.Thread(target=self._call, args=(function, *args), daemon=True).start()

  def _call(self, function, *args):
    try:
      self._value = function(*args)
    except BaseException as error:
      self._error = error
    self._done.set()

  def wait(self, limit_secs=None):
    """Waits for the call; returns whether it has returned."""
    return self._done.wait(limit_secs)

  def result(self):
    """What it returned; raises what it raised."""
    if self._error is not None:
      raise self._error
    return self._value
