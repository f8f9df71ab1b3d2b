"""`status --run_folder`: the tasks of a run as its folder tells, which all hosts share (Slurm)."""

import glob
import os
import time

from frontend import on_host, supervisor, watching
from frontend.cluster import JOBS

# A task writes its state every 2 s; clocks of hosts and a shared file system may be late.
ALIVE_SECS = 20.0


def status(options, out):
  """Prints the table, once or again and again; returns the exit code.

  Args:
    options: the frontend's own flags, as attributes.
    out: where to print.

  Raises:
    ValueError: it is not the folder of such a run.
  """
  folder = os.path.join(options.run_folder, 'tasks')
  if not os.path.isdir(folder):
    raise ValueError(
      f'--run_folder={options.run_folder}: there is no folder tasks in it, as slurm/impala.sbatch '
      'makes one'
    )
  return watching.show(lambda: task_rows(folder, time.time()), options, out)


def task_rows(folder, now):
  """One dict with `watching.STATUS_KEYS` for each task; parameter servers first, actors last.

  Args:
    folder: with the files of supervisors and tasks.
    now: Unix seconds.
  """
  suffix = '.supervisor.json'
  names = [os.path.basename(p)[: -len(suffix)] for p in glob.glob(f'{folder}/*{suffix}')]
  states = [
    state
    for path in glob.glob(os.path.join(folder, '*.json'))
    if not path.endswith(suffix) and (state := supervisor.read_json(path))
  ]
  processes = {(state.get('host'), state.get('pid')): state for state in states}
  placed = []
  for name in names:
    # None where a supervisor has just been started, or is being replaced.
    record = supervisor.read_json(supervisor.path_of(folder, name, 'supervisor.json'))
    if record:
      own = processes.get((record.get('host'), record['pid']), {})
      placed.append((_place(name, own), _row(folder, name, record, own, now)))
  return [row for _, row in sorted(placed, key=lambda pair: pair[0])]


def _place(name, own):
  """A key to sort by; who has not said yet what it is comes last."""
  job = own.get('job')
  number = own['task'] if job in JOBS else int(name.rpartition('-')[2])
  return JOBS.index(job) if job in JOBS else len(JOBS), number, name


def _row(folder, name, record, own, now):
  silent = record['state'] == 'running' and now - own.get('last_seen', now) > ALIVE_SECS
  row = on_host.status_row(folder, name, record, own, not silent, now)
  row.update(task=f'{own["job"]}-{own["task"]}' if own else name, host=record.get('host'))
  return {key: row[key] for key in watching.STATUS_KEYS}
