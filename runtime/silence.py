"""Who does not answer, and since when: said once as it begins, and once as it ends."""

import json
import threading
import time

from absl import logging

SILENT_SECS = 15.0  # Reports come once a second; a busy machine is late by a few.
_THERE_SECS = 5.0  # Sooner than a watchdog is impatient.
_FORGET_SPARE_SECS = 600.0  # A spare actor that was killed may never be missed.


class Silence:
  """The tasks that one task hears of, by the last time that it did.

  It asks some tasks itself, and hears of others through ps 0 only, when it looks there. While it
  cannot look, nothing is known of these, and they do not become silent.

  Args:
    cluster: `runtime.cluster.Cluster`, with this task's place in it.

  Attributes:
    say: function of a sentence; the log by default.
    there: set of the names of the tasks that report to the chief, as it last said; None before.
  """

  def __init__(self, cluster):
    self._cluster, self._lock = cluster, threading.Lock()
    self.say = lambda text: logging.warning('%s: %s', cluster.name, text)
    self._asked, self._told = {}, {}  # name -> time.monotonic() when it was last heard.
    self._looked = self._roll = self.there = None
    self._said = {}  # name -> since when it is silent, as was said.

  def answered(self, name):
    """The task, such as 'ps:1', has answered this one."""
    with self._lock:
      self._asked[name] = time.monotonic()

  def looked(self, heard=()):
    """This task has looked on ps 0, and found a sign of these tasks there."""
    with self._lock:
      now = time.monotonic()
      if self._looked and now - self._looked > SILENT_SECS:  # The others were not heard meanwhile.
        self._told = {n: at if n in self._said else now for n, at in self._told.items()}
      self._looked = now
      self._told.update(dict.fromkeys(heard, now))

  def called(self, roll):
    """This task has looked on ps 0, and found there what `call` gave the chief."""
    self.looked(['learner:0'] if roll != self._roll else [])
    self._roll = roll
    if roll:
      self.there = set(json.loads(roll)[1:])

  def call(self):
    """What the chief lets the others know: who is there, as text that differs each time."""
    with self._lock:
      at_least = (self._looked or 0.0) - _THERE_SECS
      self.there = {name for name, at in self._told.items() if at >= at_least}
    return json.dumps([time.time(), *sorted(self.there)])

  def left(self, name):
    """The task has taken its leave, and is not missed."""
    with self._lock:
      self._asked.pop(name, None)
      self._told.pop(name, None)
      self._said.pop(name, None)

  def suspended(self, secs):
    """This process did not run for so long, and could hear nobody."""
    with self._lock:
      self._asked = {name: at + secs for name, at in self._asked.items()}

  def who(self):
    """{name: Unix time since when it is silent}, in the order of that time."""
    now, wall = time.monotonic(), time.time()
    with self._lock:
      since = {n: at for n, at in self._asked.items() if now - at > SILENT_SECS}
      if self._looked:
        told = {n: at for n, at in self._told.items() if self._looked - at > SILENT_SECS}
        since = {**told, **since}
      for name in [n for n in since if self._is_spare(n) and now - since[n] > _FORGET_SPARE_SECS]:
        del since[name], self._told[name]
    return {n: wall - (now - at) for n, at in sorted(since.items(), key=lambda item: item[1])}

  def _is_spare(self, name):
    job, _, task = name.partition(':')
    return job == 'actor' and int(task) >= len(self._cluster.actor)

  def look(self):
    """Says what has changed; returns `who`."""
    silent = self.who()
    with self._lock:
      begun = {n: at for n, at in silent.items() if n not in self._said}
      ended = {n: at for n, at in self._said.items() if n not in silent}
      self._said = {**begun, **{n: at for n, at in self._said.items() if n in silent}}
    for name, since in begun.items():
      clock = time.strftime('%H:%M:%S', time.localtime(since))
      self.say(f'{self._place(name)} does not answer since {clock}')
    for name, since in ended.items():
      self.say(f'{self._place(name)} answers again, after {time.time() - since:.0f} s')
    return silent

  def _place(self, name):
    if self._is_spare(name):
      return name
    return f'{name} at {self._cluster.address(name)}'
