"""`status --run_folder`: the tasks of a run as its folder tells, which all hosts share (Slurm)."""

import glob
import os
import time

from common import texts
from frontend.actions import status
from frontend.cluster import JOBS
from frontend.host_side import supervisor, task_record, task_status

# A task writes its state every 2 s; clocks of hosts and a shared file system may be late.
ALIVE_SECS = 20.0


def show(options, out):
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
  return status.show(lambda: task_rows(folder, time.time()), options, out)


def task_rows(folder, now):
  """One dict with `watching.STATUS_KEYS` for each task; parameter servers first, actors last.

  Args:
    folder: with the files of supervisors and tasks.
    now: Unix seconds.
  """
  suffix = '.supervisor.json'
  names = [
    os.path.basename(p)[: -len(suffix)] for p in glob.glob(f'{glob.escape(folder)}/*{suffix}')
  ]
  states = [
    state
    for path in glob.glob(os.path.join(glob.escape(folder), '*.json'))
    if not path.endswith(suffix) and (state := task_record.read_state(path))
  ]
  processes = {(state.get('host'), state.get('pid')): state for state in states}
  placed = []
  for name in names:
    path = supervisor.path_of(folder, name, 'supervisor.json')
    try:
      record = task_record.load(path)
    except ValueError as error:
      placed.append((_place(name, {}), _unreadable_row(name, error)))
      continue
    own = processes.get((record['host'], record['pid']), {})
    placed.append((_place(name, own), _row(folder, name, record, own, now)))
  return [_clean(row) for _, row in sorted(placed, key=lambda pair: pair[0])]


def _clean(row):
  """Names of files and hosts steer no terminal."""
  return {
    key: texts.printable(value) if isinstance(value, str) else value for key, value in row.items()
  }


def _unreadable_row(name, error):
  """One bad file hides no other task."""
  said = {'task': name, 'state': 'no answer', 'restarts': 0, 'last_line': str(error)}
  return dict.fromkeys(status.STATUS_KEYS) | said


def _place(name, own):
  """A key to sort by; who has not said yet what it is comes last."""
  job, number = own.get('job'), name.rpartition('-')[2]
  if job in JOBS:
    return JOBS.index(job), own.get('task', 0), name
  return len(JOBS), int(number) if number.isdecimal() else 0, name


def _row(folder, name, record, own, now):
  silent = record['state'] == 'running' and now - own.get('last_seen', now) > ALIVE_SECS
  row = task_status.status_row(folder, name, record, own, not silent, now)
  if own.get('job') in JOBS and 'task' in own:
    name = f'{own["job"]}-{own["task"]}'
  row.update(task=name, host=record['host'])
  return {key: row[key] for key in status.STATUS_KEYS}
