"""A Python program at a low priority, which ends with whoever started it.

  python evaluation/low_priority.py LIFELINE PROGRAM [ARGUMENT...]

See `acting.worker_process.die_with_parent`.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from acting.worker_process import die_with_parent

# The kernel weighs it with 45 against 1024: 4% of a processor that another thread wants, all of one
# that nobody wants.
_NICE = 14


def main(lifeline, *command):
  """Becomes the program; the kernel keeps what was asked of it for this process."""
  die_with_parent(int(lifeline))
  # Ctrl-C is the parent's business. No session of its own: where the kernel groups processes by
  # session (sched_autogroup), priorities count within one only.
  os.setpgid(0, 0)
  os.nice(_NICE)
  os.execv(sys.executable, [sys.executable, *command])


if __name__ == '__main__':
  main(*sys.argv[1:])
