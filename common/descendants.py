"""What the processes of workers start ends with them, and with the program that has the workers.

A simulator may start programs of its own, in sessions of their own. They are told by the session of
their worker, and by a variable in their environment. Linux only.

As a program, it waits until the one that started it has gone, and then ends what that one left:
python common/descendants.py LIFELINE MARK.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

# Whoever descends from a worker has this variable: the mark of the program, ':' and a number.
VARIABLE = 'IMPALA_WORKER'

_lock = threading.Lock()
_watched = {}  # Process id (a forked program is another one) -> (mark, our end of the lifeline).


def mark():
  """The mark of this program; from the first call on, a process waits for this one's end."""
  with _lock:
    if os.getpid() not in _watched:
      _watched.clear()
      _watched[os.getpid()] = _watch()
    return _watched[os.getpid()][0]


def _watch():
  own = f'{os.getpid()}-{os.urandom(8).hex()}'
  lifeline, our_end = os.pipe()  # Nobody writes to it. It closes with this process.
  try:
    # It is a grandchild: nobody here has to wait for its end.
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


def end(sessions, marks):
  """Kills all processes of sessions, and all whose environment has one of the marks, but this one.

  Args:
    sessions: set of session ids.
    marks: set of values of `VARIABLE`, or beginnings that end with ':'.
  """
  # What they start meanwhile is found by the next look.
  for _ in range(10):
    found = [pid for pid in _all_pids() if _belongs(pid, sessions, marks)]
    for pid in found:
      with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    if not found:
      return


def _all_pids():
  return [int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()]


def _belongs(pid, sessions, marks):
  try:
    with open(f'/proc/{pid}/stat', 'rb') as file:
      # pid (command) state parent group session ...; the command may have any character.
      state, _, _, session = file.read().rpartition(b')')[2].split()[:4]
    if state in (b'Z', b'X'):
      return False
    if int(session) in sessions:
      return True
    with open(f'/proc/{pid}/environ', 'rb') as file:
      variables = file.read().split(b'\0')
  except (OSError, ValueError):  # It has gone, or is another user's.
    return False
  prefix = f'{VARIABLE}='.encode()
  values = [os.fsdecode(v[len(prefix) :]) for v in variables if v.startswith(prefix)]
  return any(v == m or (m.endswith(':') and v.startswith(m)) for v in values for m in marks)


def _main(lifeline, own):
  if os.fork():
    return
  os.read(int(lifeline), 1)  # Returns when the last writing end has closed.
  end(set(), {f'{own}:'})


if __name__ == '__main__':
  _main(*sys.argv[1:])
