"""A sweep as an array job: each element is a process that takes runs from one shared folder.

All elements are given the same command. The first one writes the list of runs, if the folder has
none. Then each trains one run after another until none is left; claims see to it that no run is
taken twice. An element that the cluster manager starts again goes on with what it left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator

from frontend.console import Console
from frontend.host_side import sweep_folder, task_record
from frontend.host_side.sweep_folder import Sweep
from frontend.host_side.sweep_runner import Runner

# An element that comes back waits so long until runs that it trained on another host, which is
# gone, are known to have ended.
_EARLIER_LIFE_SECS = 1.5 * task_record.DEAD_SECS
_POLL_SECS = 1.0


def run(console: Console, logdir: str, plan: Callable[[Sweep | None], Sweep]) -> int:
  """Trains runs in this process's children until none is left.

  Args:
    console: its option `element` names this element; the same one at each of its starts.
    logdir: of the sweep, on a file system that all elements share.
    plan: returns the sweep that the command asks for, given the one in the folder, or None.

  Returns:
    The exit code: 1 if a run that this element had has failed.
  """
  folder, name = os.path.abspath(os.path.expanduser(logdir)), console.options.element
  sweep = _listed(folder, plan)
  _wait_for_earlier_life(folder, sweep, name)
  code = Runner(folder, name, console.options.slots or 1).run()
  failed = [
    one.name
    for one in sweep.runs
    if _claimed_by(folder, one.name) == name and _state(folder, sweep, one) == 'failed'
  ]
  for one in failed:
    console.say(f'{one} has failed: {sweep_folder.tasks_folder(folder, one)} has its log')
  return code or (1 if failed else 0)


def _listed(folder: str, plan: Callable[[Sweep | None], Sweep]) -> Sweep:
  """Returns the sweep in a folder, which is written first if the command has other runs."""
  os.makedirs(folder, exist_ok=True)
  with _one_at_a_time(folder):
    old = sweep_folder.read(folder)
    asked = plan(old)
    if asked != old:
      asked = asked._replace(epoch=(old.epoch if old else 0) + 1)
      sweep_folder.write(folder, asked)
    sweep_folder.set_stopping(folder, False)
  return asked


@contextlib.contextmanager
def _one_at_a_time(folder: str) -> Iterator[None]:
  """Keeps other elements waiting; without locks on the file system they write the same list."""
  with open(os.path.join(folder, '.list.lock'), 'a', encoding='utf-8') as file:
    with contextlib.suppress(OSError):
      fcntl.lockf(file, fcntl.LOCK_EX)
    yield


def _wait_for_earlier_life(folder: str, sweep: Sweep, name: str) -> None:
  """Waits until no run seems to run that this element claimed before it was started again."""
  deadline = time.monotonic() + _EARLIER_LIFE_SECS
  own = [one for one in sweep.runs if _claimed_by(folder, one.name) == name]
  while time.monotonic() < deadline:
    if all(_state(folder, sweep, one) != 'running' for one in own):
      return
    time.sleep(_POLL_SECS)


def _claimed_by(folder: str, run_name: str) -> str | None:
  _, claim = sweep_folder.last_claim(sweep_folder.tasks_folder(folder, run_name))
  return claim.host if claim else None


def _state(folder: str, sweep: Sweep, one: sweep_folder.Run) -> str:
  return sweep_folder.state(folder, one, '', sweep.epoch)
