"""Observers of the user's (`--observers=module:Class`), which get what the records of a run get.

docs/observers.md describes the interface. Each observer has a thread of its own, so training waits
for none of them, and one that raises is left out.
"""

from __future__ import annotations

import inspect
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from common import own_code, texts
from runtime.process import BadInput

METHODS = (
  'on_start',
  'on_update',
  'on_game',
  'on_metrics',
  'on_evaluation',
  'on_checkpoint',
  'on_end',
)
# Events that are dropped while an observer is too far behind; the others are few.
_FREQUENT = ('on_update', 'on_game')
_MOST_WAITING = 20_000  # Events; some 20 MB. Catch has 300 games and updates per second.
_LAST_SECS = 30.0  # Time for an observer's last events, at the end of the run.


def load(names: Iterable[str]) -> dict[str, type]:
  """Imports the classes of observers and checks their methods.

  Args:
    names: 'module:Class' of each.

  Returns:
    The classes by name.

  Raises:
    BadInput: a class cannot be imported or is no observer.
  """
  return {name: _load(name) for name in names}


def _load(name: str) -> type:
  try:
    observer = own_code.load_class(name)
    _check(observer)
  except ValueError as e:
    raise BadInput(f'--observers: {name} {e}') from e
  return observer


def _check(observer: type) -> None:
  """Raises ValueError if a class has none of the methods, or one that is never called."""
  own = [n for n in dir(observer) if n.startswith('on_') and callable(getattr(observer, n))]
  for name in own:
    if name not in METHODS:
      hint = texts.did_you_mean(name, METHODS)
      raise ValueError(f'has a method {name}, which is never called; {hint}'.rstrip('; '))
  if not own:
    raise ValueError(f'has none of the methods of an observer: {", ".join(METHODS)}')
  for name in own:
    try:
      inspect.signature(getattr(observer, name)).bind(None, {})
    except TypeError:
      raise ValueError(f'has a method {name} that cannot be called with one argument') from None
    except ValueError:  # A method without a signature, for example one written in C.
      pass


class Observers:
  """The observers of a run. Thread-safe.

  Args:
    classes: see `load`; each is called without arguments.

  Raises:
    BadInput: one of them raised.
  """

  def __init__(self, classes: Mapping[str, type]):
    self._threads = [_ObserverThread(name, cls) for name, cls in classes.items()]
    self._has_started = False

  def report_to(self, say: Callable[[str], None]) -> None:
    """Sets the function that shows a sentence to the user; before `start`."""
    for thread in self._threads:
      thread.say = say

  def start(self, start: Mapping[str, Any]) -> None:
    """Calls `on_start` with a dict; only once, though a chief that reconnects begins again."""
    if not self._has_started:
      self._has_started = True
      for thread in self._threads:
        thread.start()
      self.send('on_start', start)

  def send(self, method: str, event: Mapping[str, Any]) -> None:
    """Lets the observers' threads call a method with a dict; returns at once."""
    for thread in self._threads:
      thread.send(method, event)

  def end(self, end: Mapping[str, Any]) -> None:
    """Calls `on_end` and waits until all is done, at most _LAST_SECS. May be called twice."""
    if self._has_started:
      self.send('on_end', end)
      deadline = time.monotonic() + _LAST_SECS
      for thread in self._threads:
        thread.finish(max(0.0, deadline - time.monotonic()))
      self._has_started = False


class _ObserverThread:
  """Calls one observer, one event after another, in a daemon thread.

  Attributes:
    say: function that shows a sentence to the user.
  """

  def __init__(self, name: str, cls: type):
    self._name, self._module = name, cls.__module__
    try:
      self._observer = cls()
    except (Exception, SystemExit) as e:
      reason = own_code.described(e, self._module)
      raise BadInput(f'--observers: {name} cannot be made: {reason}') from e
    # (method, event), or None at the end.
    self._events: queue.SimpleQueue[tuple[str, Mapping[str, Any]] | None] = queue.SimpleQueue()
    self._dropped, self._is_left_out = 0, False
    self.say: Callable[[str], None] = print
    self._thread = threading.Thread(target=self._run, daemon=True, name=self._name)

  def start(self) -> None:
    """Starts the thread."""
    self._thread.start()

  def send(self, method: str, event: Mapping[str, Any]) -> None:
    """Queues an event, unless nobody would get it."""
    if self._is_left_out or not hasattr(self._observer, method):
      return
    if method in _FREQUENT and self._events.qsize() >= _MOST_WAITING:
      if not self._dropped:
        self.say(
          f'the observer {self._name} is slower than the run: {_MOST_WAITING} updates and games '
          'wait for it, and more are dropped'
        )
      self._dropped += 1
      return
    self._events.put((method, event))

  def finish(self, limit_secs: float) -> None:
    """Waits for the last event; tells the user what the observer did not get."""
    self._events.put(None)
    self._thread.join(limit_secs)
    waiting = self._dropped + (self._events.qsize() if self._thread.is_alive() else 0)
    if self._thread.is_alive():
      self._is_left_out = True
      self.say(f'the observer {self._name} has not ended within {_LAST_SECS:.0f} s: it is left')
    if waiting:
      self.say(f'the observer {self._name} did not get {waiting} events')

  def _run(self) -> None:
    while (item := self._events.get()) is not None:
      method, event = item
      try:
        getattr(self._observer, method)({key: _plain(value) for key, value in event.items()})
      except BaseException as e:  # SystemExit too: nothing of an observer ends the run.
        self._is_left_out = True
        self.say(
          f'the observer {self._name} raised {own_code.described(e, self._module)} in {method}: it '
          'is left out, training goes on'
        )
        return


def _plain(value: Any) -> Any:
  """Returns a number or array of numpy as Python's own."""
  return value.tolist() if hasattr(value, 'tolist') else value
