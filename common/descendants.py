"""Kills all descendants of workers when a worker or the whole program ends (Linux only).

A simulator may start programs in sessions of their own. Descendants are recognised by the session
of their worker and by an environment variable.

Run as a program (python common/descendants.py LIFELINE MARK), this file waits until its parent has
ended and then kills the parent's descendants.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

# All descendants of a worker have this variable: the mark of the program, ':' and a number.
VARIABLE = 'IMPALA_WORKER'

_lock = threading.Lock()
# {process id: (mark, our end of the lifeline)}; a forked process needs a mark of its own.
_watched: dict[int, tuple[str, int]] = {}


def mark() -> str:
  """Returns the mark of this program; the first call starts the process that waits for its end."""
  with _lock:
    if os.getpid() not in _watched:
      _watched.clear()
      _watched[os.getpid()] = _watch()
    return _watched[os.getpid()][0]


def _watch() -> tuple[str, int]:
  own = f'{os.getpid()}-{os.urandom(8).hex()}'
  lifeline, our_end = os.pipe()  # Nothing is written to it; it closes when this process ends.
  try:
    # It forks, so that this process need not wait for it.
    subprocess.run(
      [sys.executable, '-I', '-S', os.path.abspath(__file__), str(lifeline), own],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      pass_fds=[lifeline],
      start_new_session=True,
      check=False,
    )
  finally:
    os.close(lifeline)
  return own, our_end


def end(sessions: set[int], marks: set[str]) -> None:
  """Kills all processes in one of the sessions or with one of the marks, except this process.

  Args:
    sessions: session ids.
    marks: values of `VARIABLE`, or prefixes of them that end with ':'.
  """
  # Each round finds processes started during the previous one.
  for _ in range(10):
    found = [pid for pid in _all_pids() if _belongs(pid, sessions, marks)]
    for pid in found:
      with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    if not found:
      return


def _all_pids() -> list[int]:
  return [int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()]


def _belongs(pid: int, sessions: set[int], marks: set[str]) -> bool:
  try:
    with open(f'/proc/{pid}/stat', 'rb') as file:
      # pid (command) state parent group session ...; the command may contain any character.
      state, _, _, session = file.read().rpartition(b')')[2].split()[:4]
    if state in (b'Z', b'X'):
      return False
    if int(session) in sessions:
      return True
    with open(f'/proc/{pid}/environ', 'rb') as file:
      variables = file.read().split(b'\0')
  except (OSError, ValueError):  # It has ended, or belongs to another user.
    return False
  prefix = f'{VARIABLE}='.encode()
  values = [os.fsdecode(v[len(prefix) :]) for v in variables if v.startswith(prefix)]
  return any(v == m or (m.endswith(':') and v.startswith(m)) for v in values for m in marks)


def _main(lifeline: str, own: str) -> None:
  if os.fork():
    return
  os.read(int(lifeline), 1)  # Returns when the last writing end has closed.
  end(set(), {f'{own}:'})


if __name__ == '__main__':
  _main(*sys.argv[1:])
