"""The runner of a sweep on a host: starts its runs, as many at a time as the host has slots.

  python -m frontend.host_side.sweep_runner FOLDER [--host=NAME] [--slots=N] [--wait]

It needs nobody: what is to be run lies in FOLDER/sweep.json, which it reads anew before each start,
so a run that was moved elsewhere is not started here. It ends when no run is left for this host.
Runs outlive it; the next runner counts those that still run. It also serves an element of an array
job: several runners in one folder, on one host or many, share the runs through claims.

SIGTERM, SIGINT or SIGHUP (a closed tmux session) ends the runs, with a checkpoint, and then the
runner.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import socket
import sys
import time
from typing import Any

from common import files
from frontend.host_side import processes, sweep_folder, task_record
from frontend.host_side.sweep_children import Children
from frontend.host_side.sweep_contact import Contact
from frontend.host_side.sweep_folder import HostEntry, Run, Sweep

POLL_SECS = 1.0
# A training needs about 0.7 GB with TensorFlow, and its environments; see docs/many_runs.md.
MIN_FREE_BYTES = 1 << 30
BYTES_PER_SLOT = 3 << 29
# After a start that failed (a full disk), the next comes this much later.
RETRY_SECS = 10.0


def default_slots() -> int:
  """Returns how many runs this host takes at a time: half its cores, if its memory allows."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
  total = _memory_bytes('MemTotal')
  by_memory = cores if total is None else total // BYTES_PER_SLOT
  return max(1, min(cores // 2, by_memory))


def _memory_bytes(name: str) -> int | None:
  """Returns an entry of /proc/meminfo in bytes; None where there is none."""
  with contextlib.suppress(OSError, ValueError, IndexError):
    with open('/proc/meminfo', encoding='utf-8') as file:
      for line in file:
        if line.startswith(name + ':'):
          return int(line.split()[1]) * 1024
  return None


def record_path(folder: str, host: str) -> str:
  """Returns the path of the record of a host's runner."""
  return os.path.join(folder, f'runner-{host.replace(":", "_").replace("/", "_")}.json')


def running_record(folder: str, host: str) -> dict[str, Any] | None:
  """Returns the record of the host's runner if it runs on this machine, else None."""
  record = task_record.read_json(record_path(folder, host))
  if not isinstance(record, dict) or record.get('realm') != processes.realm():
    return None
  return record if processes.is_running(record.get('pid'), record.get('mark')) else None


class Runner:
  """Works through the runs of one folder.

  Args:
    folder: of the sweep, absolute.
    host: name of this host in sweep.json, or any name in an array job.
    slots: how many runs at a time; 0 for what sweep.json says, or this host's default.
    waits: whether to stay while others run in this folder, for what they may leave.
  """

  def __init__(self, folder: str, host: str, slots: int = 0, waits: bool = False) -> None:
    self._folder, self._host, self._slots, self._waits = folder, host, slots, waits
    self._children = Children(folder, host, _say)
    self._contact = Contact(host)
    self._is_asked_to_stop = False
    self._problem = ''
    self._not_before = self._beat = -math.inf

  def run(self) -> int:
    """Runs until nothing is left to do here; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
      signal.signal(number, self._on_signal)
    sweep = sweep_folder.read(self._folder)
    if sweep is None:
      _say(f'{self._folder} has no {sweep_folder.LIST}')
      return 2
    while not self._try_turn(sweep):
      self._keep_record(sweep)
      time.sleep(POLL_SECS)
      sweep = self._read_again(sweep)
    with contextlib.suppress(OSError):
      os.remove(record_path(self._folder, self._host))
    return 0

  def _try_turn(self, sweep: Sweep) -> bool:
    """As `_turn`; a file server that fails for a while does not end the runner."""
    try:
      return self._turn(sweep)
    except OSError as error:
      self._note(f'cannot look at the runs: {error}')
      return False

  def _turn(self, sweep: Sweep) -> bool:
    """Looks at all runs once, and starts or ends some; returns whether this runner may leave."""
    entry = next((entry for entry in sweep.hosts if entry.name == self._host), HostEntry('', ''))
    states = sweep_folder.states(self._folder, sweep, entry.place)
    try:
      states.update(self._children.reap())
    except OSError as error:
      self._note(f'cannot record how a run ended: {error}')
    if self._stops():
      self._children.end(self._children.here(states))
      if not self._children:
        _say('asked to stop: no run is started any more')
      return not self._children
    if not self._children and not self._is_needed(states):
      _say('no run is left for this host')
      return True
    self._children.end_what_others_have()
    counted = {e.name: (e.name, e.ssh_port) for e in sweep.hosts if not e.is_lost}
    self._contact.watch(counted, sweep.lost_secs)
    if self._contact.may_start(sweep.epoch):
      self._note(self._start_free(sweep, entry, states))
    else:
      self._note(
        f'no contact with most hosts for {sweep.lost_secs / 2:g} s, so they may have got the '
        'waiting runs: nothing is started here until --action=sweep with this --logdir'
      )
    return False

  def _is_needed(self, states: dict[str, str]) -> bool:
    left = set(states.values())
    return 'waiting' in left or (self._waits and 'running' in left)

  def _on_signal(self, number: int, frame: object) -> None:
    del number, frame
    self._is_asked_to_stop = True

  def _stops(self) -> bool:
    return self._is_asked_to_stop or sweep_folder.is_stopping(self._folder)

  def _note(self, problem: str) -> None:
    """Shows a problem in the window and in `status`; '' if there is none any more."""
    if problem != self._problem:
      _say(problem or 'that is over')
      self._problem, self._beat = problem, -math.inf

  def _read_again(self, last: Sweep) -> Sweep:
    try:
      return sweep_folder.read(self._folder) or last
    except (OSError, ValueError) as error:
      self._note(str(error))
      return last

  def _start_free(self, sweep: Sweep, entry: HostEntry, states: dict[str, str]) -> str:
    """Starts waiting runs while slots and memory are left; returns what is in the way, or ''."""
    here = self._children.here(states)
    slots = self._slots_of(entry)
    waiting = sum(state == 'waiting' for state in states.values())
    at_a_time = min(slots, len(here) + waiting)
    if time.monotonic() < self._not_before:
      return self._problem
    for run in sweep_folder.by_turns(self._folder, sweep):
      if len(here) >= slots:
        break
      if states[run.name] != 'waiting' or run.name in here:
        continue
      free = _memory_bytes('MemAvailable')
      if here and free is not None and free < MIN_FREE_BYTES:
        return (
          f'less than {MIN_FREE_BYTES >> 20} MB of memory are free: the next run waits for more'
        )
      try:
        if self._start(sweep, entry, run, here, at_a_time):
          here.add(run.name)
      except OSError as error:
        self._not_before = time.monotonic() + RETRY_SECS
        return f'cannot start {run.name}: {error}'
    return ''

  def _start(
    self, sweep: Sweep, entry: HostEntry, run: Run, here: set[str], at_a_time: int
  ) -> bool:
    """Claims and starts a run; returns whether nobody else was faster."""
    tasks = sweep_folder.tasks_folder(self._folder, run.name)
    number, _ = sweep_folder.last_claim(tasks)
    # Who claims it after this look has the number that is claimed here.
    if sweep_folder.state(self._folder, run, entry.place, sweep.epoch) != 'waiting':
      return False
    if not sweep_folder.claim(tasks, number + 1, self._host, sweep.epoch):
      return False
    processors = self._children.processors(here, at_a_time)
    self._children.start(run.name, number + 1, entry.devices, processors)
    return True

  def _slots_of(self, entry: HostEntry) -> int:
    return self._slots or entry.slots or default_slots()

  def _keep_record(self, sweep: Sweep) -> None:
    if time.monotonic() - self._beat < min(task_record.HEARTBEAT_SECS, sweep.lost_secs / 10):
      return
    entry = next((entry for entry in sweep.hosts if entry.name == self._host), HostEntry('', ''))
    pid = os.getpid()
    record = {
      'host': self._host,
      'realm': processes.realm(),
      'pid': pid,
      'mark': processes.start_mark(pid),
      'slots': self._slots_of(entry),
      'epoch': sweep.epoch,
      'problem': self._problem,
      'unreached_secs': self._contact.unreached_secs(),
      'is_guarded': self._contact.is_guarded,
      'time': time.time(),
    }
    with contextlib.suppress(OSError):  # On a full disk the runs go on.
      files.write_whole(record_path(self._folder, self._host), json.dumps(record), durable=False)
      self._beat = time.monotonic()


def _say(text: str) -> None:
  with contextlib.suppress(OSError):  # The terminal is gone.
    print(time.strftime('%H:%M:%S'), text, flush=True)


def main(words: list[str]) -> int:
  """Runs with the words after the program's name; returns the exit code."""
  parser = argparse.ArgumentParser(prog='sweep_runner', allow_abbrev=False)
  parser.add_argument('folder', help='of the sweep')
  parser.add_argument('--host', default=socket.gethostname(), help='name of this host')
  parser.add_argument('--slots', type=int, default=0, help='how many runs at a time')
  parser.add_argument('--wait', action='store_true', help='stay while other hosts run')
  options = parser.parse_args(words)
  folder = os.path.abspath(options.folder)
  try:
    return Runner(folder, options.host, options.slots, options.wait).run()
  except (OSError, ValueError) as error:
    print(f'sweep_runner: {error}', file=sys.stderr)
    return 2


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
