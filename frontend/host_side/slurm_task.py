"""Runs one task of a Slurm step under a supervisor, which restarts it when it fails.

  srun python -m frontend.host_side.slurm_task LOGDIR [flags of experiment.py]

Slurm does not restart single tasks. Logs and state files are in LOGDIR/tasks. They are named after
the task's rank; those of an actor that joins a run (--cluster=run) after its number in the job
array. The exit code is 0 after a normal end or a requested stop, so `srun --kill-on-bad-exit` ends
the other tasks only if this one cannot go on.
"""

from __future__ import annotations

import contextlib
import os
import sys

from frontend.host_side import supervisor

MAX_RESTARTS = 20  # Within an hour, as in the frontend.
# An actor that has joined a run occupies a node, and its run may be over.
MAX_RESTARTS_JOINED = 3


def supervise(logdir: str, name: str, max_restarts: int, flags: list[str]) -> int:
  """Supervises a task in this process until it has ended for good; returns the exit code."""
  folder = os.path.join(logdir, 'tasks')
  os.makedirs(folder, exist_ok=True)
  # Other users must not read command lines and logs. The folder may exist with another mode.
  with contextlib.suppress(OSError):
    os.chmod(folder, 0o700)
  places = [f'--logdir={logdir}', f'--state_dir={folder}']
  argv = [sys.executable, 'experiment.py', '--cluster=slurm', *places, *flags]
  spec = supervisor.Spec(name, argv, {}, 'on-failure', max_restarts)
  task = supervisor.Supervisor(folder, spec)
  exit_code = task.run()
  return 0 if task.was_asked_to_stop else exit_code


def main(words: list[str]) -> int:
  """Runs with the command line's words after the program's name; returns the exit code."""
  rank = os.environ.get('SLURM_PROCID')
  if not words or words[0].startswith('-') or not rank:
    wrong = 'the folder of the run comes first' if rank else 'SLURM_PROCID is missing'
    print(
      f'slurm_task: {wrong}: srun python -m frontend.host_side.slurm_task LOGDIR [flags]',
      file=sys.stderr,
    )
    return 2
  try:
    if '--cluster=run' in words:
      number = os.environ.get('SLURM_ARRAY_TASK_ID', rank)
      return supervise(words[0], f'spare-{number}', MAX_RESTARTS_JOINED, words[1:])
    return supervise(words[0], f'task-{rank}', MAX_RESTARTS, words[1:])
  except OSError as error:
    print(f'slurm_task: {words[0]} cannot be written: {error.strerror}', file=sys.stderr)
    return 2


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
