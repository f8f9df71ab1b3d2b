"""Processes by id and start time, so that a recycled process id is never taken for ours."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time


def _stat(pid):
  """The fields of /proc/PID/stat after the name, or None."""
  try:
    with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
      return file.read().rpartition(')')[2].split()
  except OSError:
    return None


def start_mark(pid):
  """A string that tells this process from a later one with the same id; None if it does not run.

  A zombie has ended: it does not count as running.
  """
  if os.path.isdir('/proc/self'):
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != 'Z' else None
  result = subprocess.run(
    ['ps', '-o', 'lstart=', '-p', str(pid)], capture_output=True, text=True, check=False
  )
  return result.stdout.strip() or None


def is_running(pid, mark):
  """Whether the process with this id is still the one that had this start mark."""
  return bool(pid and mark) and start_mark(pid) == mark


def send(pid, mark, signal_number):
  """Sends a signal to the process if it is still the same one; returns whether it was."""
  if not is_running(pid, mark):
    return False
  with contextlib.suppress(ProcessLookupError):
    os.kill(pid, signal_number)
  return True


def group_members(group):
  """Ids of the processes in a process group that have not ended."""
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


def kill_group(group):
  """Kills what is left of a process group."""
  if group_members(group):
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(group, signal.SIGKILL)


def end_with_parent():
  """In a child, before it runs: SIGTERM when its parent dies, where the system has that (Linux)."""
  with contextlib.suppress(OSError, AttributeError):
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def wait_until(condition, limit_secs, pause_secs=0.1):
  """Asks `condition()` again and again; returns its first true value, or its last at the limit."""
  deadline = time.monotonic() + limit_secs
  while True:
    value = condition()
    if value or time.monotonic() >= deadline:
      return value
    time.sleep(pause_secs)


def realm():
  """What process ids of now mean: this boot of this machine, or of this container; '' if unknown.

  Two hosts that share a folder never have the same, nor does one host after it was started again.
  """
  with contextlib.suppress(OSError):
    with open('/proc/sys/kernel/random/boot_id', encoding='utf-8') as file:
      return f'{file.read().strip()} {os.readlink("/proc/self/ns/pid")}'
  return ''
