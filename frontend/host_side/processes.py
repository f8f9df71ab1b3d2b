"""Processes by id and start time, so that a reused process id is never mistaken for ours."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar('Value')


def _stat(pid: int | str) -> list[str] | None:
  """Returns the fields of /proc/PID/stat after the name, or None."""
  try:
    with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
      return file.read().rpartition(')')[2].split()
  except OSError:
    return None


def start_mark(pid: int) -> str | None:
  """Returns when a process was started, which tells it from a later one with the same id.

  The string has no unit. None if no such process runs; a zombie does not run.
  """
  if os.path.isdir('/proc/self'):
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != 'Z' else None
  result = subprocess.run(
    ['ps', '-o', 'lstart=', '-p', str(pid)], capture_output=True, text=True, check=False
  )
  return result.stdout.strip() or None


def is_running(pid: int | None, mark: str | None) -> bool:
  """Returns whether the process with this id and start mark still runs."""
  return pid is not None and bool(pid and mark) and start_mark(pid) == mark


def send(pid: int | None, mark: str | None, signal_number: int) -> bool:
  """Sends a signal to the process with this id and start mark; returns whether it was running."""
  if pid is None or not is_running(pid, mark):
    return False
  with contextlib.suppress(ProcessLookupError):
    os.kill(pid, signal_number)
  return True


def group_members(group: int) -> list[int]:
  """Returns the ids of the running processes in a process group."""
  if not os.path.isdir('/proc/self'):
    result = subprocess.run(
      ['ps', '-A', '-o', 'pid=,pgid='], capture_output=True, text=True, check=False
    )
    pairs = (line.split() for line in result.stdout.splitlines())
    return [int(pid) for pid, pgid in pairs if int(pgid) == group]
  members = []
  for name in os.listdir('/proc'):
    fields = _stat(name) if name.isdigit() else None
    if fields and int(fields[2]) == group and fields[0] != 'Z':
      members.append(int(name))
  return members


def kill_group(group: int) -> None:
  """Sends SIGKILL to a process group, if any of its processes runs."""
  if group_members(group):
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(group, signal.SIGKILL)


def end_with_parent() -> None:
  """A `preexec_fn`: the child gets SIGTERM when its parent dies (on Linux only)."""
  with contextlib.suppress(OSError, AttributeError):
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def wait_until(condition: Callable[[], Value], limit_secs: float, pause_secs: float = 0.1) -> Value:
  """Polls `condition()`; returns its first true value, or its last value at the limit."""
  deadline = time.monotonic() + limit_secs
  while True:
    value = condition()
    if value or time.monotonic() >= deadline:
      return value
    time.sleep(pause_secs)


def realm() -> str:
  """Returns an id of this boot of this machine and of its PID namespace; '' if unknown.

  Process ids mean something within one realm only. Two hosts never have the same realm, nor does a
  host after a reboot.
  """
  with contextlib.suppress(OSError):
    with open('/proc/sys/kernel/random/boot_id', encoding='utf-8') as file:
      return f'{file.read().strip()} {os.readlink("/proc/self/ns/pid")}'
  return ''
