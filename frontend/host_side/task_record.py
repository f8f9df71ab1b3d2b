"""What a supervisor records of its task, and what a task says of itself.

A record may be empty, of an earlier version or of another host; a state file may be anything. What
has not the right shape is left out, and is never a traceback.
"""

import collections
import json
import math
import os
import tempfile
import time

from common import files
from frontend.host_side import processes

# How often a supervisor shows that it is there, by the time of its record; and after how long
# without that, by the clock of the file system, hosts that share the folder take it for gone.
BEAT_SECS = 10.0
GONE_SECS = 60.0
# A record that cannot be written is tried again this often.
_RETRY_SECS = 1.0
_MOST_BYTES = 1024 * 1024
# A record of this size can be written over in place where a full disk has no room for another.
_PADDED_BYTES = 4000

STATES = ('running', 'restarting', 'exited')

# task: name; state: one of STATES; exit_code: of the last run, negative for a signal; pid, mark:
# the task's process and its start mark (its process group has the same id); supervisor_pid,
# supervisor_mark: the supervisor; started: Unix seconds of the last start; host: name of this host;
# realm: what the process ids mean (`processes.realm`); problem: what cannot be written now; gap:
# what could not be written before; failure: of the last run that failed, a dict of exit_code, time
# (Unix seconds) and line (the last of its output). The last three are None where all is well.
Record = collections.namedtuple(
  'Record',
  'task state exit_code pid mark supervisor_pid supervisor_mark started restarts host realm '
  'problem gap failure',
)


class RecordFile:
  """Keeps a record on the disk; where that cannot be, tries again and says so afterwards.

  Args:
    path: the file.
  """

  def __init__(self, path):
    self._path = path
    self._record = None
    self._is_written = True
    self._tried_at = -math.inf
    self._failed_since = None
    self._gap = None

  def write(self, record):
    """Replaces the file, now or as soon as that is possible; never raises OSError."""
    self._record = record
    self._try()

  def keep(self):
    """Writes what could not be written, and shows that the supervisor is there."""
    past_secs = time.monotonic() - self._tried_at
    if self._record is None or past_secs < (BEAT_SECS if self._is_written else _RETRY_SECS):
      return
    try:
      if self._is_written and os.path.getsize(self._path):
        os.utime(self._path)
        self._tried_at = time.monotonic()
        return
    except OSError:  # Removed, or on a disk that has gone.
      pass
    self._try()

  def _try(self):
    self._tried_at = time.monotonic()
    gaps = [gap for gap in (self._gap, self._record.gap) if gap]
    record = self._record._replace(gap='; '.join(gaps) or None)
    try:
      data = json.dumps(record._asdict()).ljust(_PADDED_BYTES).encode()
      _replace_or_overwrite(self._path, data)
      self._is_written, self._failed_since = True, None
    except OSError as error:
      self._is_written = False
      self._failed_since = self._failed_since or time.strftime('%H:%M:%S')
      reason = error.strerror or error
      self._gap = f'its record could not be written at {self._failed_since}: {reason}'


def _replace_or_overwrite(path, data):
  try:
    with files.replacing(path) as file:
      file.write(data)
  except OSError as error:
    if not _overwritten(path, data):
      raise error from None


def _overwritten(path, data):
  """Whether a file of the same size could be written over, which needs no room on the disk."""
  try:
    number = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
      return os.fstat(number).st_size == len(data) == os.pwrite(number, data, 0)
    finally:
      os.close(number)
  except OSError:
    return False


# ---- Reading. ----------------------------------------------------------------------------------


def read_json(path):
  """The value in a JSON file, or None when it is not there or not whole."""
  try:
    with open(path, 'rb') as file:
      return json.loads(file.read(_MOST_BYTES))
  except (OSError, ValueError, RecursionError):
    return None


def load(path):
  """The record in a file as a dict with the fields of `Record`.

  Raises:
    ValueError: there is none, or what is there is no record of a supervisor; says which.
  """
  value = read_json(path)
  name = os.path.basename(path)
  if not isinstance(value, dict):
    what = 'is empty' if _is_empty(path) else 'is no record of a supervisor'
    raise ValueError(f'{name} {what}')
  record = dict.fromkeys(Record._fields) | {'restarts': 0}
  record |= {field: value[field] for field in Record._fields if value.get(field) is not None}
  for field, fits in _RECORD_SHAPES.items():
    if not fits(record[field]):
      raise ValueError(f'{name} is no record of a supervisor: its {field} is of another kind')
  if record['state'] == 'exited' and record['exit_code'] is None:
    raise ValueError(f'{name} is no record of a supervisor: it lacks the exit code')
  record['task'] = name.removesuffix('.supervisor.json')
  return record


def _is_empty(path):
  try:
    return os.path.getsize(path) == 0
  except OSError:
    return False


def read(path):
  """The record in a file, or None where there is none."""
  try:
    return load(path)
  except ValueError:
    return None


def read_state(path):
  """What a task says of itself, a dict without what has not the right shape; {} without any."""
  value = read_json(path)
  if not isinstance(value, dict):
    return {}
  return {
    field: content
    for field, content in value.items()
    if content is not None and _STATE_SHAPES.get(field, _is_anything)(content)
  }


def _is_anything(value):
  return True


def _is_number(value):
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value):
  return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_text(value):
  return isinstance(value, str)


def _or_none(fits):
  return lambda value: value is None or fits(value)


_RECORD_SHAPES = {
  'state': lambda value: value in STATES,
  'exit_code': _or_none(lambda value: _is_number(value) and abs(value) < 1000),
  'pid': _or_none(_is_count),
  'mark': _or_none(_is_text),
  'supervisor_pid': _or_none(_is_count),
  'supervisor_mark': _or_none(_is_text),
  'started': _is_number,
  'restarts': _is_count,
  'host': _or_none(_is_text),
  'realm': _or_none(_is_text),
  'problem': _or_none(_is_text),
  'gap': _or_none(_is_text),
  'failure': _or_none(
    lambda value: (
      isinstance(value, dict)
      and _is_number(value.get('exit_code'))
      and _is_number(value.get('time'))
      and _is_text(value.get('line'))
    )
  ),
}
_STATE_SHAPES = {
  'pid': _is_count,
  'task': _is_count,
  'job': _is_text,
  'host': _is_text,
  'phase': _is_text,
  'logdir': _is_text,
  'trouble': _is_text,
  'last_seen': _is_number,
  'frames_per_sec': _is_number,
  'environment_frames': _is_number,
  'mean_return_100': _is_number,
  'learner_wait_fraction': _is_number,
  'actor_wait_fraction': _is_number,
  'no_answer': lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
}


# ---- Whose processes a record tells of. --------------------------------------------------------


def is_ours(record):
  """Whether the process ids in a record are those of this host, and of this boot of it."""
  return not record['realm'] or record['realm'] == processes.realm()


def beats_elsewhere(record, path):
  """Whether a record of another host is still kept there.

  Its process ids say nothing here. So the time of its file counts, which its supervisor renews, by
  the clock of the file system itself: that of a file which is written now.
  """
  if is_ours(record) or record['state'] == 'exited':
    return False
  try:
    with tempfile.TemporaryFile(dir=os.path.dirname(path)) as probe:
      probe.write(b'x')
      probe.flush()
      os.fsync(probe.fileno())
      now = os.fstat(probe.fileno()).st_mtime
    return now - os.stat(path).st_mtime < GONE_SECS
  except OSError:
    return True  # In doubt nothing of others is touched.
