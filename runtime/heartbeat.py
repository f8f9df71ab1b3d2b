"""Signs of life: the phase of each loop of a task, its state file, a watchdog over progress."""

import contextlib
import json
import os
import socket
import sys
import threading
import time

from absl import logging

from common import files
from runtime.process import EXIT_FAILURE, WAITING_SECS
from runtime.silence import Silence

STATE_SECS = 2.0  # Between two rewrites of a task's state file.
# A heartbeat that is late by more did not run: its process was suspended (Ctrl-Z, SIGSTOP).
_SUSPENDED_SECS = 5.0


class Heartbeat:
  """Knows in which phase each loop of a task is, writes the state file, and watches over progress.

  Args:
    cluster: `Cluster`.
    state_dir: folder of the state file, or '' for none.
    watchdog_secs: a loop that stays in a working phase for longer, without an excuse, ends the
      process; 0 = never.

  Attributes:
    facts: dict of what else the state file tells: frames_per_sec, environment_frames, last_error;
      no_answer ({task: Unix time since when}); of a chief also logdir, mean_return_100, who waits,
      and trouble: what is not on disk.
    excused: function of a phase: why a long stay in it now is a wait for others, to be reported
      only; '' where it is none.
    silence: `runtime.silence.Silence`, of the tasks that this one hears of.
  """

  WORKING = ('refresh', 'unroll', 'enqueue', 'update', 'save')

  def __init__(self, cluster, state_dir='', watchdog_secs=0):
    self._cluster, self._state_dir = cluster, state_dir
    self._watchdog_secs, self.excused = watchdog_secs, lambda phase: ''
    self.silence = Silence(cluster)
    self._phases, self._lock = {}, threading.Lock()
    self._started = time.time()
    self._last_excuses, self._said, self._looked = {}, 0.0, time.monotonic()
    self.facts = {'frames_per_sec': None, 'environment_frames': None, 'last_error': ''}
    self._path = os.path.join(state_dir, f'{cluster.job or "local"}-{max(0, cluster.task)}.json')
    self._unwritten = ''  # Why the state file could not be written the last time.
    if state_dir:
      with contextlib.suppress(OSError):  # Then nothing can be written, which is said.
        os.makedirs(state_dir, exist_ok=True)
        files.sweep(state_dir, os.path.basename(self._path))
    threading.Thread(target=self._live, daemon=True, name='heartbeat').start()

  def enter(self, loop, phase):
    """The named loop begins a phase."""
    with self._lock:
      self._phases[loop] = (phase, time.monotonic())

  def entering(self, loop):
    """`enter` for one loop, as a function of the phase."""
    return lambda phase: self.enter(loop, phase)

  def clear(self):
    """No loop runs: a session is being made."""
    with self._lock:
      self._phases.clear()

  def phase(self, phase):
    """The task as a whole is in this phase, no loop runs."""
    with self._lock:
      self._phases = {'task': (phase, time.monotonic())}

  def _live(self):
    while True:
      now = time.monotonic()
      away = now - self._looked - STATE_SECS
      self._watch(now, away > _SUSPENDED_SECS)
      if away > _SUSPENDED_SECS:
        self.silence.suspended(away)
      self.facts['no_answer'] = self.silence.look()
      self.write()
      self._looked = time.monotonic()  # A slow disk, or a peer that is asked for, suspends nobody.
      time.sleep(STATE_SECS)

  def write(self):
    """Rewrites the state file."""
    if not self._state_dir:
      return
    with self._lock:
      phases = '+'.join(sorted({phase for phase, _ in self._phases.values()}))
    state = dict(
      job=self._cluster.job or 'local',
      task=self._cluster.task,
      host=socket.gethostname(),
      pid=os.getpid(),
      phase=phases,
      last_seen=time.time(),
      started=self._started,
      **self.facts,
    )
    reason = ''
    try:
      files.write_whole(self._path, json.dumps(state), durable=False)
    except OSError as e:
      reason = e.strerror or str(e)
    if reason and reason != self._unwritten:  # Once: it is written every two seconds.
      logging.warning('cannot write the state file %s: %s', self._path, reason)
    self._unwritten = reason

  def _watch(self, now, was_suspended):
    with self._lock:
      if was_suspended:  # No loop could make progress; they begin to be watched anew.
        self._phases = {loop: (phase, now) for loop, (phase, _) in self._phases.items()}
      phases = dict(self._phases)
    for loop, (phase, since) in phases.items():
      stuck = now - since
      if not self._watchdog_secs or phase not in self.WORKING or stuck < self._watchdog_secs:
        continue
      excuse = self.excused(phase)
      if excuse:
        self._last_excuses[loop] = now
      elif now - self._last_excuses.get(loop, since) < self._watchdog_secs:
        continue  # A peer that is back needs its time, too.
      else:
        self.die(
          f'{self._cluster.name}: {loop} made no progress for {stuck:.0f} s in phase {phase} '
          '(--watchdog_secs)'
        )
      if now - self._said > WAITING_SECS:
        what = (self._cluster.name, loop, phase, stuck, excuse)
        logging.info('%s: %s has been in phase %s for %.0f s: %s', *what)
        self._said = now

  def die(self, reason):
    """Leaves the process at once with exit 1, the reason last."""
    self.facts['last_error'] = reason
    self.write()
    logging.error(reason)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_FAILURE)
