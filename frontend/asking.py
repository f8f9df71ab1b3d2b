"""experiment.py is asked something on this machine, with the flags that its tasks would get."""

import subprocess
import sys

from frontend.connection import hosts


def experiment(arguments):
  """Runs experiment.py to its end.

  Returns:
    (exit code, what it printed, the last line of what it said on stderr; '' where it said nothing).
  """
  result = subprocess.run(
    [sys.executable, 'experiment.py', *arguments],
    cwd=hosts.CODE,
    capture_output=True,
    text=True,
    stdin=subprocess.DEVNULL,
    check=False,
  )
  lines = result.stderr.strip().splitlines()
  return result.returncode, result.stdout, lines[-1] if lines else ''
