"""What each request to a host is answered with; a reply of another shape is the host's error.

A host may run other code, or lie: whatever reads a reply may rely on its fields and their types,
and print its strings. Strings come out as one line without what steers a terminal, but for a
`_text`, which keeps its lines, and a `_path`, which is used as it is.
"""

import ipaddress
import math

from common import texts
from frontend.errors import HostError

MOST_LETTERS = 1 << 16
MOST_ENTRIES = 100_000
MOST_DIGITS = 1 << 63

# ---- The parts of a shape: functions of a value that return it, or raise _Wrong. -----------------


class _Wrong(Exception):
  """A value that is not of its shape; the text says where."""


def _line(value):
  return texts.printable(_string(value)[:MOST_LETTERS])


def _text(value):
  return texts.printable_lines(_string(value))


def _path(value):
  if '\0' in _string(value):
    raise _Wrong('not a path')
  return value


def _string(value):
  if not isinstance(value, str):
    raise _Wrong('not a string')
  return value


def _bool(value):
  if not isinstance(value, bool):
    raise _Wrong('not true or false')
  return value


def _int(value):
  if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= MOST_DIGITS:
    raise _Wrong('not a whole number')
  return value


def _number(value):
  if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) >= 1e300:
    raise _Wrong('not a number')
  return value if math.isfinite(value) else None


def _or_none(shape):
  return lambda value: None if value is None else shape(value)


def _list(shape):
  def check(value):
    if not isinstance(value, list) or len(value) > MOST_ENTRIES:
      raise _Wrong('not a list')
    return [shape(entry) for entry in value]

  return check


def _lines(count):
  """A list of so many strings."""

  def check(value):
    if not isinstance(value, list) or len(value) != count:
      raise _Wrong(f'not {count} strings')
    return list(map(_line, value))

  return check


def _named(shape):
  """A dict of any names."""

  def check(value):
    if not isinstance(value, dict) or len(value) > MOST_ENTRIES:
      raise _Wrong('not an object')
    return {_line(name): shape(entry) for name, entry in value.items()}

  return check


def _fields(_may=None, **must):
  """A dict with these fields; those in `_may` may be absent, and others are let through clean."""

  def check(value):
    if not isinstance(value, dict):
      raise _Wrong('not an object')
    found = {}
    for name in must:
      if name not in value:
        raise _Wrong(f'no {name}')
    for name, entry in value.items():
      shape = must.get(name) or (_may or {}).get(name) or _clean
      try:
        found[name] = shape(entry)
      except _Wrong as wrong:
        raise _Wrong(f'{name}: {wrong}') from None
    return found

  return check


def _clean(value):
  """A value of any shape, its strings without what steers a terminal."""
  if isinstance(value, str):
    return _text(value)
  if isinstance(value, list):
    return [_clean(entry) for entry in value]
  if isinstance(value, dict):
    return {_line(name): _clean(entry) for name, entry in value.items()}
  return value


def _outcome(value):
  """[whether a check passed, a sentence]."""
  if not isinstance(value, list) or len(value) != 2:
    raise _Wrong('not a pair')
  return [_or_none(_bool)(value[0]), _line(value[1])]


def _address(value):
  try:
    return str(ipaddress.ip_address(_string(value)))
  except ValueError:
    raise _Wrong('not an address') from None


def _addresses(value):
  """The addresses of a name, or a sentence that says why there are none."""
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

# Name of a request of frontend/host_side/agent.py: the shape of its reply.
SHAPES = {
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
}


def checked(request, reply):
  """The reply with clean strings.

  Args:
    request: name of the request.
    reply: what came, as json.loads gives it.

  Raises:
    HostError: it is of another shape, or says why the host could not.
  """
  if isinstance(reply, dict) and 'error' in reply:
    raise HostError('', str(reply['error'])[:MOST_LETTERS])
  try:
    return SHAPES.get(request, _fields())(reply)
  except (_Wrong, RecursionError) as wrong:
    raise HostError(
      '', f'its answer to {request!r} is not what was asked for ({wrong}); --action=push copies '
      'the code of this machine'
    ) from None  # fmt: skip
