"""Tracks which tasks do not respond and since when, and logs each change."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable

from absl import logging

from runtime.cluster import Cluster

UNRESPONSIVE_SECS = 15.0  # Reports come once a second; a busy machine is a few seconds late.
_PRESENT_SECS = 5.0  # Shorter than any sensible --watchdog_secs.
_FORGET_SPARE_SECS = 600.0  # A spare actor that was killed may never come back.


class UnresponsiveTasks:
  """Tracks when each other task last responded.

  A task queries its peers directly and learns about all other tasks from ps 0. While ps 0 is
  unreachable, the other tasks do not become unresponsive.

  Args:
    cluster: the cluster and this task's index in it.
    say: shows a sentence to the user; None writes to the log.

  Attributes:
    present: names of the tasks that report to the chief, from its last announcement; None before
      the first one.
  """

  def __init__(self, cluster: Cluster, say: Callable[[str], None] | None = None):
    self._cluster, self._lock = cluster, threading.Lock()
    self._say = say or (lambda text: logging.warning('%s: %s', cluster.name, text))
    # Name -> time.monotonic() of the last answer, or of the last report on ps 0.
    self._answers: dict[str, float] = {}
    self._reports: dict[str, float] = {}
    self._looked: float | None = None  # time.monotonic() of the last successful query to ps 0.
    self._roll_call: bytes | str | None = None
    self.present: set[str] | None = None
    self._announced: dict[str, float] = {}  # Task announced as unresponsive -> since (Unix time).

  def answered(self, name: str) -> None:
    """Records an answer from a task such as 'ps:1'."""
    with self._lock:
      self._answers[name] = time.monotonic()

  def saw_reports(self, names: Iterable[str] = ()) -> None:
    """Records that this task has queried ps 0 and found reports of the named tasks."""
    with self._lock:
      now = time.monotonic()
      if self._looked and now - self._looked > UNRESPONSIVE_SECS:
        # This task could not see any reports during the gap, so the gap does not count.
        self._reports = {n: at if n in self._announced else now for n, at in self._reports.items()}
      self._looked = now
      self._reports.update(dict.fromkeys(names, now))

  def saw_roll_call(self, roll_call: bytes | str) -> None:
    """Records the `roll_call` read from ps 0; a new one shows that the chief is alive."""
    self.saw_reports(['learner:0'] if roll_call != self._roll_call else [])
    self._roll_call = roll_call
    if roll_call:
      self.present = set(json.loads(roll_call)[1:])

  def roll_call(self) -> str:
    """Returns the chief's announcement on ps 0: its time and the names of the reporting tasks."""
    with self._lock:
      at_least = (self._looked or 0.0) - _PRESENT_SECS
      self.present = {name for name, at in self._reports.items() if at >= at_least}
    return json.dumps([time.time(), *sorted(self.present)])

  def forget(self, name: str) -> None:
    """Stops tracking a task that leaves."""
    with self._lock:
      self._answers.pop(name, None)
      self._reports.pop(name, None)
      self._announced.pop(name, None)

  def suspended(self, secs: float) -> None:
    """Discounts a time during which this process was suspended and could receive nothing."""
    with self._lock:
      self._answers = {name: at + secs for name, at in self._answers.items()}

  def since(self) -> dict[str, float]:
    """Returns {name of an unresponsive task: Unix time of its last response}, oldest first."""
    now, wall = time.monotonic(), time.time()
    with self._lock:
      late = {n: at for n, at in self._answers.items() if now - at > UNRESPONSIVE_SECS}
      if self._looked:
        looked = self._looked
        reports = {n: at for n, at in self._reports.items() if looked - at > UNRESPONSIVE_SECS}
        late = {**reports, **late}
      for name in [n for n in late if self._is_spare(n) and now - late[n] > _FORGET_SPARE_SECS]:
        del late[name], self._reports[name]
    return {n: wall - (now - at) for n, at in sorted(late.items(), key=lambda item: item[1])}

  def _is_spare(self, name: str) -> bool:
    job, _, task = name.partition(':')
    return job == 'actor' and int(task) >= len(self._cluster.actor)

  def announce_changes(self) -> dict[str, float]:
    """Announces tasks that stopped or resumed responding since the last call; returns `since()`."""
    late = self.since()
    with self._lock:
      begun = {n: at for n, at in late.items() if n not in self._announced}
      ended = {n: at for n, at in self._announced.items() if n not in late}
      self._announced = {**begun, **{n: at for n, at in self._announced.items() if n in late}}
    for name, since in begun.items():
      clock = time.strftime('%H:%M:%S', time.localtime(since))
      self._say(f'{self._described(name)} does not answer since {clock}')
    for name, since in ended.items():
      self._say(f'{self._described(name)} answers again, after {time.time() - since:.0f} s')
    return late

  def _described(self, name: str) -> str:
    return name if self._is_spare(name) else f'{name} at {self._cluster.address(name)}'
