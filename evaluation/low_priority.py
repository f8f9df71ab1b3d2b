"""Runs a Python program at a low priority; it is killed if its parent dies.

  python evaluation/low_priority.py LIFELINE PROGRAM [ARGUMENT...]

LIFELINE is the file descriptor of `acting.worker_program.die_with_parent`. `evaluation.periodic`
starts this file, which is a program of its own since it has to start within milliseconds.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from acting.worker_program import die_with_parent

# A kernel weight of 45 against 1024: 4% of a busy processor, all of an idle one.
_NICE = 14


def main(lifeline: str, *command: str) -> None:
  """Replaces this process by the program, which keeps the priority and the death signal."""
  die_with_parent(int(lifeline))
  # A process group of its own: Ctrl-C concerns the parent only. No session of its own: under
  # sched_autogroup, priorities are compared within a session only.
  os.setpgid(0, 0)
  os.nice(_NICE)
  os.execv(sys.executable, [sys.executable, *command])


if __name__ == '__main__':
  main(*sys.argv[1:])
