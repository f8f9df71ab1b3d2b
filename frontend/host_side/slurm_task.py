"""One task of a Slurm step under the supervisor: it is started again when it dies.

  srun python -m frontend.host_side.slurm_task LOGDIR [flags of experiment.py]

Slurm itself starts no task again. Logs and state files lie in LOGDIR/tasks, by the task's rank, or
where it is an actor that joins the run there (--cluster=run) by its number in an array of jobs.
Exit code: 0 after a normal end, and when it was told to stop, so that srun --kill-on-bad-exit ends
the others only where a task cannot go on.
"""

import contextlib
import os
import sys

from frontend.host_side import supervisor

MAX_RESTARTS = 20  # In any hour, as in the frontend.
# Of an actor that joined: it holds its node, and its run may be gone for good.
MAX_RESTARTS_JOINED = 3


def supervise(logdir, name, max_restarts, flags):
  """Runs a task to its end in this process; returns the exit code."""
  folder = os.path.join(logdir, 'tasks')
  os.makedirs(folder, exist_ok=True)
  # Command lines and logs are nobody else's; a folder of before, or of another umask, too.
  with contextlib.suppress(OSError):
    os.chmod(folder, 0o700)
  places = [f'--logdir={logdir}', f'--state_dir={folder}']
  argv = [sys.executable, 'experiment.py', '--cluster=slurm', *places, *flags]
  spec = supervisor.Spec(name, argv, {}, 'on-failure', max_restarts)
  task = supervisor.Supervisor(folder, spec)
  exit_code = task.run()
  return 0 if task.was_told_to_stop else exit_code


def main(words):
  """Runs the command line after the program's name; returns the exit code."""
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
