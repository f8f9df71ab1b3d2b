"""The schema of the reply to each request; any other reply is an error of the host.

A host may run other code, or lie. Code that reads a checked reply can rely on its fields and their
types, and can print its strings: they are one line without control characters. Only a `_text` keeps
its lines, and a `_path` is unchanged.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from typing import Any

from common import texts
from frontend.errors import HostError

MOST_LETTERS = 1 << 16
MOST_ENTRIES = 100_000
MOST_INT = 1 << 63

# ---- Schemas: functions that return a checked value, or raise _Invalid. --------------------------

Schema = Callable[[Any], Any]


class _Invalid(Exception):
  """A value that does not fit its schema; the message says where."""


def _line(value: Any) -> str:
  return texts.printable(_string(value)[:MOST_LETTERS])


def _text(value: Any) -> str:
  return texts.printable_lines(_string(value))


def _path(value: Any) -> str:
  if '\0' in _string(value):
    raise _Invalid('not a path')
  return value


def _string(value: Any) -> str:
  if not isinstance(value, str):
    raise _Invalid('not a string')
  return value


def _bool(value: Any) -> bool:
  if not isinstance(value, bool):
    raise _Invalid('not true or false')
  return value


def _int(value: Any) -> int:
  if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= MOST_INT:
    raise _Invalid('not a whole number')
  return value


def _number(value: Any) -> float | None:
  if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) >= 1e300:
    raise _Invalid('not a number')
  return value if math.isfinite(value) else None


def _or_none(schema: Schema) -> Schema:
  return lambda value: None if value is None else schema(value)


def _list(schema: Schema) -> Schema:
  def check(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MOST_ENTRIES:
      raise _Invalid('not a list')
    return [schema(entry) for entry in value]

  return check


def _lines(count: int) -> Schema:
  """A list of `count` strings."""

  def check(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) != count:
      raise _Invalid(f'not {count} strings')
    return list(map(_line, value))

  return check


def _named(schema: Schema) -> Schema:
  """An object with any names, whose values fit the schema."""

  def check(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MOST_ENTRIES:
      raise _Invalid('not an object')
    return {_line(name): schema(entry) for name, entry in value.items()}

  return check


def _fields(optional: dict[str, Schema] | None = None, /, **required: Schema) -> Schema:
  """An object with these fields; strings of other fields are made printable."""

  def check(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
      raise _Invalid('not an object')
    found = {}
    for name in required:
      if name not in value:
        raise _Invalid(f'no {name}')
    for name, entry in value.items():
      schema = required.get(name) or (optional or {}).get(name) or _clean
      try:
        found[name] = schema(entry)
      except _Invalid as error:
        raise _Invalid(f'{name}: {error}') from None
    return found

  return check


def _clean(value: Any) -> Any:
  """Any value, with printable strings."""
  if isinstance(value, str):
    return _text(value)
  if isinstance(value, list):
    return [_clean(entry) for entry in value]
  if isinstance(value, dict):
    return {_line(name): _clean(entry) for name, entry in value.items()}
  return value


def _outcome(value: Any) -> list[Any]:
  """[whether a check passed, a sentence]."""
  if not isinstance(value, list) or len(value) != 2:
    raise _Invalid('not a pair')
  return [_or_none(_bool)(value[0]), _line(value[1])]


def _address(value: Any) -> str:
  try:
    return str(ipaddress.ip_address(_string(value)))
  except ValueError:
    raise _Invalid('not an address') from None


def _addresses(value: Any) -> str | list[str]:
  """The addresses of a host name, or a sentence that says why there are none."""
  return _line(value) if isinstance(value, str) else _list(_address)(value)


# ---- The replies. --------------------------------------------------------------------------------

_TRAINING = _fields(
  environment_frames=_or_none(_number),
  mean_return_100=_or_none(_number),
  learner_wait_fraction=_or_none(_number),
  actor_wait_fraction=_or_none(_number),
)
_TASK = _fields(
  {
    'pid': _or_none(_int),
    'exit_code': _or_none(_int),
    'seen': _bool,
    'left': _bool,
    'uptime_secs': _or_none(_number),
    'restarts': _int,
    'frames_per_sec': _or_none(_number),
    'last_seen_secs': _or_none(_number),
    'last_line': _line,
    'training': _or_none(_TRAINING),
  },
  task=_line,
  state=_line,
)
_DONE = _fields()
_RUN = _fields(
  run=_line,
  state=_line,
  host=_line,
  frames=_or_none(_number),
  total_frames=_or_none(_number),
  mean_return=_or_none(_number),
  frames_per_sec=_or_none(_number),
  hours_left=_or_none(_number),
  secs=_or_none(_number),
  starts=_int,
  restarts=_int,
  last_line=_line,
)
_RUNNER = _fields(
  {'problem': _line, 'slots': _int, 'unreached_secs': _named(_number), 'is_guarded': _bool}
)

# {request of frontend/host_side/agent.py: schema of its reply}
SCHEMAS: dict[str, Schema] = {
  'hello': _fields({'python': _line, 'workdir': _line, 'numbered': _bool}),
  'has_session': _fields(there=_bool),
  'check': _fields(items=_named(_outcome), versions=_named(_or_none(_line))),
  'listen': _DONE,
  'reach': _fields(problems=_list(_line)),
  'unlisten': _DONE,
  'launch': _DONE,
  'status': _fields(tasks=_list(_TASK)),
  'logs': _fields(lines=_list(_line), offset=_int),
  'running': _fields({'elsewhere': _list(_lines(2))}, tasks=_list(_line)),
  'logdir': _fields(logdir=_or_none(_path)),
  'start_tensorboard': _fields(pid=_int, mark=_or_none(_line)),
  'tensorboard': _fields(running=_bool, port=_or_none(_int), last_line=_or_none(_line)),
  'end_tensorboard': _fields(gone=_bool),
  'hold': _fields({'firewall': _bool}, launched=_bool),
  'ask': _fields(asked=_bool),
  'end': _fields({'unreadable': _list(_line)}, ended=_list(_line)),
  'addresses': _fields(
    found=_named(_addresses), own=_list(_address), user_id=_int, ssh_port=_or_none(_int)
  ),
  'try_table': _fields(reason=_or_none(_line)),
  'keep_table': _DONE,
  'end_trial': _DONE,
  'open_ports': _fields(removed=_bool, reason=_or_none(_line)),
  'firewall_state': _fields(good=_bool, text=_line),
  'sweep_look': _fields(
    folder=_path,
    sweep=_or_none(_fields()),
    rows=_list(_RUN),
    slots=_int,
    runner=_or_none(_RUNNER),
    tmux=_bool,
    seen=_fields(time=_number, states=_named(_line), guarded=_list(_line)),
  ),
  'sweep_share': _fields(marks=_list(_line)),
  'sweep_marks': _fields(marks=_list(_line)),
  'sweep_unmark': _DONE,
  'sweep_write': _DONE,
  'sweep_seen': _DONE,
  'sweep_release': _fields(released=_list(_line)),
  'sweep_start': _fields(started=_bool),
  'sweep_stop': _fields(ended=_list(_line)),
  'sweep_logs': _fields(lines=_list(_line), offset=_int),
}


def checked(request: str, reply: Any) -> dict[str, Any]:
  """Returns a reply with printable strings.

  Args:
    request: name of the request.
    reply: the result of json.loads.

  Raises:
    HostError: the reply does not fit its schema, or is an error message of the host.
  """
  if isinstance(reply, dict) and 'error' in reply:
    raise HostError('', str(reply['error'])[:MOST_LETTERS])
  try:
    return SCHEMAS.get(request, _fields())(reply)
  except (_Invalid, RecursionError) as error:
    raise HostError(
      '', f'its answer to {request!r} is not what was asked for ({error}); --action=push copies '
      'the code of this machine'
    ) from None  # fmt: skip
