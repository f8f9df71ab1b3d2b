"""Which processes run below this one; those that have ended and wait for their parent do not."""

import psutil

import forked_interpreters


def is_running(pid):
  """Whether a process of that id runs."""
  try:
    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


def children():
  """The psutil.Process of every process that a test has started here and that runs."""
  return [
    process
    for process in psutil.Process().children()
    if process.pid not in forked_interpreters.pids and is_running(process.pid)
  ]
