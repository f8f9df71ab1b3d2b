"""A host's view of its tasks: rows of the status table, and lines of logs."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Any, BinaryIO

from common import cluster_names, texts
from frontend.host_side import launched, supervisor, task_log, task_record

# A task writes its state every 2 s; with an older state file, it counts as not answering.
STATE_LATE_SECS = 15.0
TAIL_BYTES = 64 * 1024
# For how long `status` shows that a task failed and was restarted.
RECENT_SECS = 3600.0
# Fields of a chief's state file about the training.
TRAINING_KEYS = (
  'environment_frames',
  'mean_return_100',
  'learner_wait_fraction',
  'actor_wait_fraction',
)


def last_lines(path: str, count: int) -> list[str]:
  """Returns the last lines of a file, which may be large, without control characters."""
  try:
    with _opened(path) as file:
      file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
      lines = file.read(TAIL_BYTES).decode(errors='replace').splitlines()
  except OSError:
    return []
  return [texts.printable(line) for line in lines[-count:]] if count else []


def _opened(path: str) -> BinaryIO:
  """Opens a file for reading; raises OSError for a device or a pipe, which may never end."""
  file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb')
  if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
    file.close()
    raise OSError(errno.EINVAL, 'not a file')
  return file


def last_log_line(folder: str, task: str) -> str:
  """Returns the last line of a task's log; a line of the supervisor only if there is no other."""
  lines = [line for line in last_lines(supervisor.path_of(folder, task, 'log'), 20) if line.strip()]
  own = [line for line in lines if not line.startswith(task_log.LINE_MARK)]
  return (own or lines or [''])[-1]


def task_status(session: str, task: str, now: float) -> dict[str, Any]:
  """Returns one task's row of the status table; `now` is Unix seconds of this host's clock."""
  folder = supervisor.run_folder(session)
  own = task_record.read_state(supervisor.path_of(folder, task, 'json'))
  try:
    record = task_record.load(launched.path(session, task))
  except ValueError as error:
    row = status_row(folder, task, {}, own, False, now)
    try:
      age_secs = now - os.path.getmtime(launched.path(session, task))
    except OSError:
      return row  # Never launched here.
    # A supervisor that still runs replaces a damaged record soon.
    left = age_secs < 2 * task_record.HEARTBEAT_SECS
    return row | {'last_line': str(error), 'left': left}
  row = status_row(folder, task, record, own, launched.supervisor_runs(record), now)
  return row | {'left': bool(launched.still_running([record]))}


def status_row(
  folder: str, task: str, record: dict[str, Any], own: dict[str, Any], alive: bool, now: float
) -> dict[str, Any]:
  """Returns a row of the status table.

  Args:
    folder: of the task's log.
    task: name of its files, such as 'learner-0'.
    record: of its supervisor; {} if there is none.
    own: its own state file, which an earlier process may have written; {} if there is none.
    alive: whether its supervisor still runs.
    now: Unix seconds.
  """
  state = record.get('state')
  if state == 'exited':
    state = f'exited {record["exit_code"]}'
  elif not alive:
    state = 'no answer'
  running = state == 'running'
  fresh = own.get('pid') == record.get('pid')
  trouble = [own['trouble']] if running and fresh and own.get('trouble') else []
  return {
    'task': task,
    'state': state,
    'pid': record.get('pid'),
    'exit_code': record.get('exit_code'),
    'seen': running and fresh and bool(own.get('phase')),
    'uptime_secs': round(now - record['started'], 1) if running else None,
    'restarts': record.get('restarts', 0),
    'frames_per_sec': own.get('frames_per_sec') if running and fresh else None,
    'last_seen_secs': max(0.0, round(now - own['last_seen'], 1)) if own.get('last_seen') else None,
    'last_line': ' | '.join([*trouble, last_line(folder, task, record, now)]),
    'training': training_progress(own),
    'no_answer': silent_tasks(own, now) if running and fresh else {},
  }


def last_line(folder: str, task: str, record: dict[str, Any], now: float) -> str:
  """Returns the status table's last column: the last line of the log, after recent problems."""
  if not record:
    return 'not launched'
  if record['problem']:
    return record['problem']  # The log is not up to date.
  notes = []
  failure = record['failure']
  if failure and record['state'] == 'running' and now - failure['time'] < RECENT_SECS:
    times = f'{record["restarts"]} times, last ' if record['restarts'] > 1 else ''
    ago = texts.duration(max(0, now - failure['time']))
    how = supervisor.describe_exit(failure['exit_code'])
    # A task that was ended by a signal has not logged why.
    why = f': {failure["line"]}' if failure['exit_code'] > 0 else ''
    notes.append(f'failed {times}{ago} ago ({how}){why}')
  if record['gap']:
    notes.append(record['gap'])
  return ' | '.join([*notes, last_log_line(folder, task)])


def silent_tasks(state: dict[str, Any], now: float) -> dict[str, float]:
  """Returns {name of a task: seconds since its last answer} from the state file of another task."""
  if now - state.get('last_seen', now) > STATE_LATE_SECS:
    return {}  # This task itself does not answer, so its state file is out of date.
  return {
    cluster_names.file_name(texts.printable(name)): round(max(0.0, now - since), 1)
    for name, since in state.get('no_answer', {}).items()
  }


def training_progress(state: dict[str, Any]) -> dict[str, Any] | None:
  """Returns the TRAINING_KEYS of a chief's state file; None for the state file of another task."""
  return {name: state.get(name) for name in TRAINING_KEYS} if 'logdir' in state else None


def status(session: str, tasks: list[str]) -> dict[str, Any]:
  """A request: {'tasks': rows of the status table for the named tasks}."""
  now = time.time()
  return {'tasks': [task_status(session, task, now) for task in tasks]}


def logs(session: str, task: str, lines: int, offset: int | None) -> dict[str, Any]:
  """A request: lines of a task's log.

  Args:
    session: name of the session.
    task: name of the task.
    lines: number of last lines to return if `offset` is None.
    offset: the 'offset' of the last reply, to get what was written since; or None.

  Returns:
    {'lines': list of str, 'offset': position in the file after these lines}.
  """
  return log_lines(supervisor.path_of(supervisor.run_folder(session), task, 'log'), lines, offset)


def log_lines(path: str, lines: int, offset: int | None) -> dict[str, Any]:
  """Returns lines of the log at `path`; the other arguments and the result are those of `logs`."""
  if offset is None:
    found = last_lines(path, lines)
    if len(found) < lines:
      found = last_lines(path + '.1', lines - len(found)) + found if found else []
    _followed[path], size = _identity(path)
    return {'lines': found, 'offset': size}
  text = []
  identity, size = _identity(path)
  before, old_size = _identity(path + '.1')
  if size < offset or _followed.get(path, identity) != identity:  # A new file was begun.
    if before == _followed.get(path, before) and offset < old_size:
      data = _read(path + '.1', offset)
      if offset + len(data) < old_size:
        data = _whole_lines(data)
        return {'lines': _lines(data), 'offset': offset + len(data)}
      text = _lines(data)
    offset = 0
  _followed[path] = identity
  data = _whole_lines(_read(path, offset))
  return {'lines': text + _lines(data), 'offset': offset + len(data)}


def _whole_lines(data: bytes) -> bytes:
  """Returns the bytes up to the last newline; all of them if one line fills the buffer."""
  if b'\n' in data:
    return data[: data.rfind(b'\n') + 1]
  return data if len(data) == TAIL_BYTES else b''


def _lines(data: bytes) -> list[str]:
  return list(map(texts.printable, data.decode(errors='replace').splitlines()))


_Identity = tuple[int, int] | None
# {path of a log: identity of the file that was last read there}, while this process runs.
_followed: dict[str, _Identity] = {}


def _identity(path: str) -> tuple[_Identity, int]:
  """Returns ((device, inode), size) of a file, or (None, 0); a rotated log has another inode."""
  try:
    found = os.stat(path)
  except OSError:
    return None, 0
  return (found.st_dev, found.st_ino), found.st_size


def _read(path: str, offset: int) -> bytes:
  try:
    with _opened(path) as file:
      file.seek(offset)
      return file.read(TAIL_BYTES)
  except OSError:
    return b''
