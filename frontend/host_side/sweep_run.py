"""One run of a sweep: a training in one process under a supervisor, and how it ended.

  python -m frontend.host_side.sweep_run FOLDER RUN CLAIM

The runner of a host starts it once it has claimed the run. It outlives the runner. On SIGTERM the
training saves a checkpoint and ends; the run waits then, and goes on from there under the next
claim.
"""

from __future__ import annotations

import os
import sys
import time

from frontend.host_side import supervisor, sweep_folder, task_record


def run(folder: str, name: str, claim: int) -> int:
  """Trains until the run has ended for good; returns the exit code of the last process.

  Args:
    folder: of the sweep, absolute.
    name: of one of its runs.
    claim: number of the claim by which this process has the run.

  Raises:
    KeyError: the sweep has no such run.
  """
  sweep = sweep_folder.read(folder)
  runs = {run.name: run for run in sweep.runs} if sweep else {}
  tasks = sweep_folder.tasks_folder(folder, name)
  assert sweep is not None
  if sweep_folder.is_stopping(folder):  # Checked here too, as its runner may have been killed.
    return _ended(tasks, claim, 'waiting', 0)
  places = [*sweep_folder.place_arguments(sweep, folder, name), f'--state_dir={tasks}']
  argv = [sys.executable, 'experiment.py', '--task=-1']
  argv += [*sweep_folder.run_arguments(sweep, runs[name]), *places]
  spec = supervisor.Spec(sweep_folder.TASK, argv, {}, 'on-failure', sweep.max_restarts)
  task = supervisor.Supervisor(tasks, spec)
  code = task.run()
  if task.was_asked_to_stop:
    state = 'waiting'
  elif code == 0:
    is_done = not sweep.population or _has_all_frames(os.path.join(folder, name))
    state = 'done' if is_done else 'waiting'
  else:
    state = 'failed'
  return _ended(tasks, claim, state, code)


def _ended(tasks: str, claim: int, state: str, code: int) -> int:
  sweep_folder.write_outcome(tasks, sweep_folder.Outcome(claim, state, code, time.time()))
  return code


def _has_all_frames(logdir: str) -> bool:
  """Returns whether a run's last checkpoint has all its frames, or was only the end of a round."""
  record = task_record.read_json(os.path.join(logdir, 'run.json'))
  saved = task_record.read_json(os.path.join(logdir, 'checkpoints.json'))
  try:
    total = record['settings']['total_environment_frames']
    return saved['checkpoints'][-1]['frames'] >= total
  except (KeyError, IndexError, TypeError):  # Not to be started for ever.
    return True


if __name__ == '__main__':
  sys.exit(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
