"""A supervisor's record of its task, and the task's own state file.

A record may be empty, of an earlier version or of another host; a state file may hold anything.
Fields of the wrong type are left out and never cause a traceback.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from common import files
from frontend.host_side import processes

# A supervisor updates the modification time of its record this often. Other hosts that share the
# folder take it for dead when the record, by the clock of the file system, is older than DEAD_SECS.
HEARTBEAT_SECS = 10.0
DEAD_SECS = 60.0
# Pause before the next attempt to write a record that could not be written.
_RETRY_SECS = 1.0
_MOST_BYTES = 1024 * 1024
# Records are padded to this size, so that each can be overwritten in place on a full disk.
_PADDED_BYTES = 4000

STATES = ('running', 'restarting', 'exited')


class Record(NamedTuple):
  """What a supervisor records of its task.

  Attributes:
    task: name, such as 'learner-0'.
    state: one of STATES.
    exit_code: of the last run, negative for a signal.
    pid: of the task's process; its process group has the same id.
    mark: its start mark, see `processes.start_mark`.
    supervisor_pid: of the supervisor.
    supervisor_mark: its start mark.
    started: Unix seconds of the last start.
    restarts: how often the task was restarted.
    host: name of this host.
    realm: where the process ids are valid, see `processes.realm`.
    problem: which file cannot be written now, and why; or None.
    gap: what could not be written before; or None.
    failure: of the last run that failed: {'exit_code', 'time': Unix seconds, 'line': the last line
      of its output}; or None.
  """

  task: str
  state: str
  exit_code: int | None
  pid: int | None
  mark: str | None
  supervisor_pid: int | None
  supervisor_mark: str | None
  started: float
  restarts: int
  host: str | None
  realm: str | None
  problem: str | None
  gap: str | None
  failure: dict[str, Any] | None


class RecordFile:
  """Keeps a record on the disk. A record that cannot be written is retried, and the gap noted.

  Args:
    path: the file.
  """

  def __init__(self, path: str) -> None:
    self._path = path
    self._record: Record | None = None
    self._is_written = True
    self._tried_at = -math.inf
    self._failed_since: str | None = None
    self._gap: str | None = None

  def write(self, record: Record) -> None:
    """Replaces the file, now or as soon as that is possible; never raises OSError."""
    self._record = record
    self._try(record)

  def keep(self) -> None:
    """Retries a failed `write`, or updates the modification time as a sign of life."""
    past_secs = time.monotonic() - self._tried_at
    if self._record is None or past_secs < (HEARTBEAT_SECS if self._is_written else _RETRY_SECS):
      return
    try:
      if self._is_written and os.path.getsize(self._path):
        os.utime(self._path)
        self._tried_at = time.monotonic()
        return
    except OSError:  # The file was removed, or its disk.
      pass
    self._try(self._record)

  def _try(self, record: Record) -> None:
    self._tried_at = time.monotonic()
    gaps = [gap for gap in (self._gap, record.gap) if gap]
    record = record._replace(gap='; '.join(gaps) or None)
    try:
      data = json.dumps(record._asdict()).ljust(_PADDED_BYTES).encode()
      _replace_or_overwrite(self._path, data)
      self._is_written, self._failed_since = True, None
    except OSError as error:
      self._is_written = False
      self._failed_since = self._failed_since or time.strftime('%H:%M:%S')
      reason = error.strerror or error
      self._gap = f'its record could not be written at {self._failed_since}: {reason}'


def _replace_or_overwrite(path: str, data: bytes) -> None:
  try:
    with files.replacing(path) as file:
      file.write(data)
  except OSError as error:
    if not _overwritten(path, data):
      raise error from None


def _overwritten(path: str, data: bytes) -> bool:
  """Overwrites a file of the same size, which needs no free space; returns whether it could."""
  try:
    number = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
      return os.fstat(number).st_size == len(data) == os.pwrite(number, data, 0)
    finally:
      os.close(number)
  except OSError:
    return False


# ---- Reading. ----------------------------------------------------------------------------------


def read_json(path: str) -> Any:
  """Returns the value in a JSON file; None if the file is missing or not valid."""
  try:
    with open(path, 'rb') as file:
      return json.loads(file.read(_MOST_BYTES))
  except (OSError, ValueError, RecursionError):
    return None


def load(path: str) -> dict[str, Any]:
  """Returns the record in a file as a dict with the fields of `Record`.

  Raises:
    ValueError: the file is missing, empty or not a record of a supervisor; the message says which.
  """
  value = read_json(path)
  name = os.path.basename(path)
  if not isinstance(value, dict):
    what = 'is empty' if _is_empty(path) else 'is not a record of a supervisor'
    raise ValueError(f'{name} {what}')
  record = dict.fromkeys(Record._fields) | {'restarts': 0}
  record |= {field: value[field] for field in Record._fields if value.get(field) is not None}
  for field, is_valid in _RECORD_CHECKS.items():
    if not is_valid(record[field]):
      raise ValueError(f'{name} is not a record of a supervisor: its {field} is not valid')
  if record['state'] == 'exited' and record['exit_code'] is None:
    raise ValueError(f'{name} is not a record of a supervisor: it lacks the exit code')
  record['task'] = name.removesuffix('.supervisor.json')
  return record


def _is_empty(path: str) -> bool:
  try:
    return os.path.getsize(path) == 0
  except OSError:
    return False


def read(path: str) -> dict[str, Any] | None:
  """Returns the record in a file like `load`, or None if there is no valid one."""
  try:
    return load(path)
  except ValueError:
    return None


def read_state(path: str) -> dict[str, Any]:
  """Returns a task's own state file without fields of the wrong type; {} if there is none."""
  value = read_json(path)
  if not isinstance(value, dict):
    return {}
  return {
    field: content
    for field, content in value.items()
    if content is not None and _STATE_CHECKS.get(field, _is_anything)(content)
  }


def _is_anything(value: Any) -> bool:
  return True


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _or_none(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
  return lambda value: value is None or is_valid(value)


_RECORD_CHECKS: dict[str, Callable[[Any], bool]] = {
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
_STATE_CHECKS: dict[str, Callable[[Any], bool]] = {
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


# ---- The host of a record. ---------------------------------------------------------------------


def is_of_this_host(record: dict[str, Any]) -> bool:
  """Returns whether the process ids in a record are of this host, since its last boot."""
  return not record['realm'] or record['realm'] == processes.realm()


def runs_elsewhere(record: dict[str, Any], path: str) -> bool:
  """Returns whether another host's supervisor, which shares the folder, still keeps a record.

  Its process ids mean nothing here, so the modification time of the file decides.
  """
  if is_of_this_host(record) or record['state'] == 'exited':
    return False
  age = age_secs(path)
  return age is None or age < DEAD_SECS  # In doubt, the files of other hosts are not touched.


def age_secs(path: str) -> float | None:
  """Returns seconds since a file was modified, by the clock of its file system; None if unknown."""
  try:
    return _file_system_time(os.path.dirname(path)) - os.stat(path).st_mtime
  except OSError:
    return None


def _file_system_time(folder: str) -> float:
  """Returns Unix seconds by the clock of a file system, taken from a nameless new file."""
  with tempfile.TemporaryFile(dir=folder) as probe:
    probe.write(b'x')
    probe.flush()
    os.fsync(probe.fileno())
    return os.fstat(probe.fileno()).st_mtime
