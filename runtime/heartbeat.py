"""A task's heartbeat: the phase of each of its loops, its state file, and a watchdog."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from absl import logging

from common import files
from runtime.cluster import Cluster
from runtime.process import EXIT_FAILURE, WAITING_SECS
from runtime.unresponsive import UnresponsiveTasks

STATE_SECS = 2.0  # Interval between rewrites of a task's state file.
# A heartbeat that is later than this means that the process was suspended (Ctrl-Z, SIGSTOP).
_SUSPENDED_SECS = 5.0

# Returns why a loop is expected to wait for others in a phase, or ''.
ExpectedWait = Callable[[str], str]


class _LoopPhase(NamedTuple):
  """The phase of one loop, its start (time.monotonic()), and the loop's `ExpectedWait`."""

  phase: str
  since: float
  expected_wait: ExpectedWait


def _never(phase: str) -> str:
  del phase
  return ''


class Heartbeat:
  """Tracks the phase of each loop of a task, writes the state file, and ends a stuck task.

  Args:
    cluster: the cluster and this task's index in it.
    unresponsive: tasks that do not respond to this one.
    state_dir: folder of the state file; '' writes none.
    watchdog_secs: the process ends if a loop stays in one phase for longer, unless the wait is
      expected; 0 = never.
  """

  WORKING = ('refresh', 'unroll', 'enqueue', 'update', 'save')

  def __init__(
    self,
    cluster: Cluster,
    unresponsive: UnresponsiveTasks | None = None,
    state_dir: str = '',
    watchdog_secs: float = 0,
  ):
    self._cluster, self._state_dir, self._watchdog_secs = cluster, state_dir, watchdog_secs
    self._unresponsive = unresponsive or UnresponsiveTasks(cluster)
    self._loops: dict[str, _LoopPhase] = {}
    self._lock = threading.Lock()
    self._started = time.time()
    self._last_waits: dict[str, float] = {}  # Loop -> time of its last expected wait.
    self._logged, self._looked = 0.0, time.monotonic()
    self._facts: dict[str, Any] = {
      'frames_per_sec': None,
      'environment_frames': None,
      'last_error': '',
    }
    self._path = os.path.join(state_dir, f'{cluster.job or "local"}-{max(0, cluster.task)}.json')
    self._write_error = ''  # Why the last write of the state file failed.
    if state_dir:
      with contextlib.suppress(OSError):  # `write` logs why the folder cannot be used.
        os.makedirs(state_dir, exist_ok=True)
        files.sweep(state_dir, os.path.basename(self._path))
    threading.Thread(target=self._live, daemon=True, name='heartbeat').start()

  def update(self, **facts: Any) -> None:
    """Sets entries of the state file.

    All tasks have frames_per_sec, environment_frames, last_error and no_answer ({task: Unix time of
    its last answer}). The chief also has logdir, mean_return_100, the wait fractions, and trouble
    (what could not be written to disk).
    """
    self._facts.update(facts)

  def enter(self, loop: str, phase: str, expected_wait: ExpectedWait = _never) -> None:
    """Records that a loop enters a phase."""
    with self._lock:
      self._loops[loop] = _LoopPhase(phase, time.monotonic(), expected_wait)

  def entering(self, loop: str, expected_wait: ExpectedWait = _never) -> Callable[[str], None]:
    """Returns `enter` bound to one loop: a function of the phase.

    Args:
      loop: name of the loop.
      expected_wait: returns why being stuck in a phase is expected; see `ExpectedWait`.
    """
    return lambda phase: self.enter(loop, phase, expected_wait)

  def secs_in(self, phase: str) -> float:
    """Returns how long a loop has been in a phase, in seconds; 0.0 if none is in it."""
    with self._lock:
      since = [loop.since for loop in self._loops.values() if loop.phase == phase]
    return time.monotonic() - min(since) if since else 0.0

  def clear(self) -> None:
    """Forgets the phases of all loops; called before new loops start."""
    with self._lock:
      self._loops.clear()

  def phase(self, phase: str) -> None:
    """Records the phase of the whole task, while no loop is running."""
    with self._lock:
      self._loops = {'task': _LoopPhase(phase, time.monotonic(), _never)}

  def _live(self) -> None:
    while True:
      now = time.monotonic()
      late_secs = now - self._looked - STATE_SECS
      was_suspended = late_secs > _SUSPENDED_SECS
      self._watch(now, was_suspended)
      if was_suspended:
        self._unresponsive.suspended(late_secs)
      self.update(no_answer=self._unresponsive.announce_changes())
      self.write()
      self._looked = time.monotonic()  # Time spent on a slow disk or peer is not a suspension.
      time.sleep(STATE_SECS)

  def write(self) -> None:
    """Rewrites the state file."""
    if not self._state_dir:
      return
    with self._lock:
      phases = '+'.join(sorted({loop.phase for loop in self._loops.values()}))
    state = dict(
      job=self._cluster.job or 'local',
      task=self._cluster.task,
      host=socket.gethostname(),
      pid=os.getpid(),
      phase=phases,
      last_seen=time.time(),
      started=self._started,
      **self._facts,
    )
    error = ''
    try:
      files.write_whole(self._path, json.dumps(state), durable=False)
    except OSError as e:
      error = e.strerror or str(e)
    with self._lock:  # The thread and whoever changes a fact may write at the same time.
      is_new, self._write_error = error != self._write_error, error
    if error and is_new:  # Log once, not every two seconds.
      logging.warning('cannot write the state file %s: %s', self._path, error)

  def _watch(self, now: float, was_suspended: bool) -> None:
    with self._lock:
      if was_suspended:  # No loop could make progress during the suspension.
        self._loops = {name: loop._replace(since=now) for name, loop in self._loops.items()}
      loops = dict(self._loops)
    for name, (phase, since, expected_wait) in loops.items():
      stuck_secs = now - since
      if not self._watchdog_secs or phase not in self.WORKING or stuck_secs < self._watchdog_secs:
        continue
      reason = expected_wait(phase)
      if reason:
        self._last_waits[name] = now
      elif now - self._last_waits.get(name, since) < self._watchdog_secs:
        continue  # The loop needs some time to continue after a peer has returned.
      else:
        self.die(
          f'{self._cluster.name}: {name} made no progress for {stuck_secs:.0f} s in phase {phase} '
          '(--watchdog_secs)'
        )
      if now - self._logged > WAITING_SECS:
        what = (self._cluster.name, name, phase, stuck_secs, reason)
        logging.info('%s: %s has been in phase %s for %.0f s: %s', *what)
        self._logged = now

  def die(self, reason: str) -> NoReturn:
    """Ends the process at once with exit code 1 and prints the reason."""
    self.update(last_error=reason)
    self.write()
    logging.error(reason)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_FAILURE)
