"""What a host tells of its tasks: rows of the status table, and lines of logs."""

import errno
import os
import stat
import time

from common import texts
from frontend.host_side import launched, supervisor, task_log, task_record

# A task writes its state every 2 s, and does not answer where that is older.
STATE_LATE_SECS = 15.0
TAIL_BYTES = 64 * 1024
# How long `status` tells of a run that failed and was started again.
RECENT_SECS = 3600.0
# What a chief's state file tells of the training.
TRAINING_KEYS = (
  'environment_frames',
  'mean_return_100',
  'learner_wait_fraction',
  'actor_wait_fraction',
)


def last_lines(path, count):
  """The last lines of a file that may be large, as text without control characters."""
  try:
    with _opened(path) as file:
      file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
      lines = file.read(TAIL_BYTES).decode(errors='replace').splitlines()
  except OSError:
    return []
  return [texts.printable(line) for line in lines[-count:]] if count else []


def _opened(path):
  """The file, to read; OSError where it is none that ends, such as a device or a pipe."""
  file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb')
  if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
    file.close()
    raise OSError(errno.EINVAL, 'not a file')
  return file


def last_log_line(folder, task):
  """The last line of a log; the supervisor's own lines only where there is no other."""
  lines = [line for line in last_lines(supervisor.path_of(folder, task, 'log'), 20) if line.strip()]
  own = [line for line in lines if not line.startswith(task_log.LINE_MARK)]
  return (own or lines or [''])[-1]


def task_status(session, task, now):
  """One task's row of the status table; ages in seconds by this host's clock."""
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
    # A supervisor that still runs writes its record again before long.
    left = age_secs < 2 * task_record.HEARTBEAT_SECS
    return row | {'last_line': str(error), 'left': left}
  row = status_row(folder, task, record, own, launched.supervisor_runs(record), now)
  return row | {'left': bool(launched.still_running([record]))}


def status_row(folder, task, record, own, alive, now):
  """A row of the status table, a dict.

  Args:
    folder: with the task's log.
    task: name of its files.
    record: of its supervisor, {} without one.
    own: its own state file, {} without one; may be that of a process before.
    alive: whether the record is still kept, should the task not have ended.
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
    'training': training_of(own),
    'no_answer': silent_of(own, now) if running and fresh else {},
  }


def last_line(folder, task, record, now):
  """What a person should read of a task: its last words, after what goes wrong beside it."""
  if not record:
    return 'not launched'
  words = last_log_line(folder, task)
  if record['problem']:
    return record['problem']  # The last line of the log is an old one.
  notes = []
  failure = record['failure']
  if failure and record['state'] == 'running' and now - failure['time'] < RECENT_SECS:
    times = f'{record["restarts"]} times, last ' if record['restarts'] > 1 else ''
    ago = texts.duration(max(0, now - failure['time']))
    how = supervisor.describe_exit(failure['exit_code'])
    # What ends by a signal has not said why.
    why = f': {failure["line"]}' if failure['exit_code'] > 0 else ''
    notes.append(f'failed {times}{ago} ago ({how}){why}')
  if record['gap']:
    notes.append(record['gap'])
  return ' | '.join([*notes, words])


def silent_of(state, now):
  """{task: seconds since when it does not answer}, as the state file of another one tells."""
  if now - state.get('last_seen', now) > STATE_LATE_SECS:
    return {}  # What it said before it fell silent itself.
  return {
    texts.printable(name).replace(':', '-'): round(max(0.0, now - since), 1)
    for name, since in state.get('no_answer', {}).items()
  }


def training_of(state):
  """What a task's state file tells of the training, a dict; None where it is not the chief's."""
  return {name: state.get(name) for name in TRAINING_KEYS} if 'logdir' in state else None


def status(session, tasks):
  """The status of the named tasks."""
  now = time.time()
  return {'tasks': [task_status(session, task, now) for task in tasks]}


def logs(session, task, lines, offset):
  """Log of one task.

  Args:
    session: name of the session.
    task: name of the task.
    lines: how many of the last lines, when `offset` is None.
    offset: None, or the position in the file that the last reply ended at.

  Returns:
    {'lines': list of str, 'offset': where to go on}.
  """
  path = supervisor.path_of(supervisor.run_folder(session), task, 'log')
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


def _whole_lines(data):
  """The bytes up to the last end of a line; all of them where one line fills the reading."""
  if b'\n' in data:
    return data[: data.rfind(b'\n') + 1]
  return data if len(data) == TAIL_BYTES else b''


def _lines(data):
  return list(map(texts.printable, data.decode(errors='replace').splitlines()))


# {path of a log: which file it was when it was last read}, for as long as this conversation lasts.
_followed = {}


def _identity(path):
  """(what tells a file from the next of the same name, its size); (None, 0) without one."""
  try:
    found = os.stat(path)
  except OSError:
    return None, 0
  return (found.st_dev, found.st_ino), found.st_size


def _read(path, offset):
  try:
    with _opened(path) as file:
      file.seek(offset)
      return file.read(TAIL_BYTES)
  except OSError:
    return b''
