"""`status`: a table of all tasks, from a cluster's hosts or a run's folder, once or refreshed."""

import glob
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from common import texts
from common.texts import duration, layout, spark
from frontend.actions import task_rows
from frontend.actions.task_rows import STATUS_KEYS, Row
from frontend.cluster import JOBS
from frontend.console import Console
from frontend.errors import UserError
from frontend.host_side import supervisor, task_record, task_status

WATCH_SECS = 2.0
# A task is up if its state file is younger. Tasks write it every 2 s, but under Slurm clocks of
# hosts differ, and a shared file system shows writes late.
ALIVE_SECS = 20.0
# What absl puts before a message: level, date, time, thread, file and line.
_LOG_PREFIX = r'^[IWEF]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] '


def run(console: Console) -> int:
  """Prints the table, repeatedly with --watch; returns the exit code, 1 if a task has no answer."""
  return _show(lambda: task_rows.all_rows(console), console.options, console.out)


def run_on_folder(options: Any, out: TextIO) -> int:
  """As `run`, for the run of slurm/impala.sbatch in `options.run_folder`; asks no host.

  Args:
    options: the frontend's flags, as attributes.
    out: where to print.

  Raises:
    UserError: it is not the folder of such a run.
  """
  folder = os.path.join(options.run_folder, 'tasks')
  if not os.path.isdir(folder):
    raise UserError(
      f'--run_folder={options.run_folder}: there is no folder tasks in it, as slurm/impala.sbatch '
      'makes one'
    )
  return _show(lambda: folder_rows(folder, time.time()), options, out)


def _show(read_rows: Callable[[], list[Row]], options: Any, out: TextIO) -> int:
  curve = Curve(out.encoding)
  while True:
    rows = read_rows()
    if options.json:
      text = json.dumps([{key: row[key] for key in STATUS_KEYS} for row in rows], indent=2)
    else:
      width = shutil.get_terminal_size((160, 24)).columns
      curve.add(rows)
      silent = [line[:width] for line in silent_lines(rows, time.time())]
      text = '\n'.join(filter(None, [status_table(rows, width), *silent, curve.line(width)]))
    if options.watch and out.isatty():
      text = '\x1b[H\x1b[2J' + text
    print(text, file=out, flush=True)
    if not options.watch:
      return 1 if any(row['state'] == 'no answer' for row in rows) else 0
    time.sleep(WATCH_SECS)


# ---- Text. ---------------------------------------------------------------------------------------


def status_table(rows: Sequence[Row], width: int) -> str:
  """Returns the rows as a table whose lines are cut to `width` characters."""
  cells = [['task', 'host', 'state', 'uptime', 'restarts', 'frames/s', 'seen', 'last line']]
  for row in rows:
    speed = row['frames_per_sec']
    seen = row['last_seen_secs']
    cells.append(
      [
        row['task'],
        row['host'],
        row['state'],
        duration(row['uptime_secs']),
        str(row['restarts']),
        '-' if speed is None else f'{speed:,.0f}',
        '-' if seen is None else f'{duration(seen)} ago',
        re.sub(_LOG_PREFIX, '', row['last_line'] or ''),
      ]
    )
  cells = [[texts.printable(cell) for cell in row] for row in cells]
  return '\n'.join(line[:width] for line in layout(cells).splitlines())


def silent_lines(rows: Sequence[Row], now: float) -> list[str]:
  """Returns a line for each task that does not answer, with since when and who noticed.

  A task has noticed it of another one, or its own state file is late though its process runs.

  Args:
    rows: rows of `status`.
    now: Unix seconds.
  """
  noticed = {}
  for row in rows:
    if row['state'] == 'running' and (row['last_seen_secs'] or 0) > task_status.STATE_LATE_SECS:
      noticed.setdefault(row['task'], []).append((row['last_seen_secs'], 'its own state file'))
    for name, secs in (row['no_answer'] or {}).items():
      noticed.setdefault(name, []).append((secs, row['task']))
  lines = []
  for name, witnesses in noticed.items():
    secs = max(secs for secs, _ in witnesses)
    clock = time.strftime('%H:%M:%S', time.localtime(now - secs))
    by = ', '.join(witness for _, witness in witnesses)
    lines.append(f'{name} does not answer since {clock} ({duration(secs)} ago), says {by}')
  return lines


class Curve:
  """A sparkline of the mean return since `status --watch` began, and the waits, as one line.

  Args:
    encoding: the terminal's encoding, None for UTF-8.
  """

  def __init__(self, encoding: str | None):
    self._encoding = encoding
    self._points: dict[int, dict[str, Any]] = {}

  def add(self, rows: Sequence[Row]) -> None:
    """Adds a point from the chief's row, once per row of metrics."""
    for row in rows:
      training = row['training'] or {}
      if training.get('mean_return_100') is not None:
        self._points[training['environment_frames']] = training

  def line(self, width: int) -> str:
    """Returns the line, at most `width` characters; '' until a game has ended."""
    if not self._points:
      return ''
    last = [*self._points.values()][-1]
    waits = [f'{who} {last[f"{who}_wait_fraction"] or 0:.0%}' for who in ('learner', 'actor')]
    text = f' {last["mean_return_100"]:.2f}  waits: {waits[0]} {waits[1]}'
    returns = [point['mean_return_100'] for point in self._points.values()]
    if len(returns) == 1:  # A curve needs two points.
      return 'mean return' + text
    return 'mean return ' + spark(returns[-max(1, width - len(text) - 12) :], self._encoding) + text


# ---- Rows from the folder of a run under Slurm, which all hosts share. ---------------------------


def folder_rows(folder: str, now: float) -> list[Row]:
  """Returns a row with STATUS_KEYS for each task; parameter servers first, actors last.

  Args:
    folder: folder with the files of supervisors and tasks.
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
      placed.append((_sort_key(name, {}), _unreadable_row(name, error)))
      continue
    own = processes.get((record['host'], record['pid']), {})
    placed.append((_sort_key(name, own), _folder_row(folder, name, record, own, now)))
  return [_printable(row) for _, row in sorted(placed, key=lambda pair: pair[0])]


def _printable(row: Row) -> Row:
  """The row without control characters, which names of files and hosts may hold."""
  return {
    key: texts.printable(value) if isinstance(value, str) else value for key, value in row.items()
  }


def _unreadable_row(name: str, error: ValueError) -> Row:
  """The row of a task whose record cannot be read, so that the others are still shown."""
  reported = {'task': name, 'state': 'no answer', 'restarts': 0, 'last_line': str(error)}
  return dict.fromkeys(STATUS_KEYS) | reported


def _sort_key(name: str, own: Row) -> tuple[int, int, str]:
  """Sorts by job and index; a task that has not written its own state yet comes last."""
  job, number = own.get('job'), name.rpartition('-')[2]
  if job in JOBS:
    return JOBS.index(job), own.get('task', 0), name
  return len(JOBS), int(number) if number.isdecimal() else 0, name


def _folder_row(folder: str, name: str, record: Row, own: Row, now: float) -> Row:
  """`record` is the supervisor's, `own` the task's state file or {}."""
  silent = record['state'] == 'running' and now - own.get('last_seen', now) > ALIVE_SECS
  row = task_status.status_row(folder, name, record, own, not silent, now)
  if own.get('job') in JOBS and 'task' in own:
    name = f'{own["job"]}-{own["task"]}'
  row.update(task=name, host=record['host'])
  return {key: row[key] for key in STATUS_KEYS}
