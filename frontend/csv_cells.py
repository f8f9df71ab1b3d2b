"""The cells of a cluster's CSV: each reader turns text into a value, or raises UserError."""

import ipaddress
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from common import texts
from frontend import cluster
from frontend.errors import UserError


def not_one_of(value: str, allowed: Sequence[str], what: str) -> str:
  """A sentence that refuses `value` and suggests the closest of those allowed."""
  hint = texts.did_you_mean(value, allowed, "'{}'")
  return f'{value!r} is not {what}' + (f'; {hint}' if hint else '')


def _job(cell: str) -> str:
  if cell not in cluster.JOBS:
    raise UserError(not_one_of(cell, cluster.JOBS, 'a job (ps, learner or actor)'))
  return cell


# Between the dots of a name; a resolver fails on a longer or an empty one.
_LABEL = '[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?'


def _ip(cell: str) -> str:
  no_address = f'{cell!r} is not an address or a host name (the port has its own column)'
  if re.fullmatch(r'[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*', cell):
    try:
      cell = str(ipaddress.IPv6Address(cell))
    except ValueError:
      raise UserError(no_address) from None
  elif not re.fullmatch(rf'{_LABEL}(\.{_LABEL})*', cell):
    raise UserError(no_address)
  if cell in ('0.0.0.0', '::'):
    raise UserError(f'{cell!r} is no address that others can reach')
  return cell


def _port(cell: str) -> int:
  if not re.fullmatch(r'[0-9]{1,5}', cell) or not 1 <= int(cell) <= 65535:
    raise UserError(f'{cell!r} is not a port (1-65535)')
  return int(cell)


def _optional_port(cell: str) -> int | None:
  return _port(cell) if cell else None


def _devices(cell: str) -> str | None:
  if cell in ('-1', 'none'):
    return ''
  if cell and not re.fullmatch(
    r'\d+(,\d+)*|(GPU|MIG)-[\w/-]+(,(GPU|MIG)-[\w/-]+)*', cell, re.ASCII
  ):
    raise UserError(
      f'{cell!r} is not a list of GPUs (for example 0, or "0,1" in quotes; -1 for none)'
    )
  return cell or None


def _username(cell: str) -> str:
  if cell and not re.fullmatch(r'[A-Za-z0-9_][A-Za-z0-9_.@+\\-]*\$?', cell):
    raise UserError(f'{cell!r} is not a user name')
  return cell


def _path(cell: str) -> str:
  if not cell.isprintable() or cell.startswith('-'):
    raise UserError(f'{cell!r} is not a path (no control characters, no "-" in front)')
  return cell


def _flags(cell: str) -> list[str]:
  try:
    arguments = shlex.split(cell)
  except ValueError as error:
    raise UserError(f'{cell!r} cannot be split into flags: {error}') from None
  if arguments and not arguments[0].startswith('-'):
    raise UserError(f'{cell!r} does not start with a flag such as --envs_per_actor=128')
  problem = cluster.placement_problem(arguments)
  if problem:
    raise UserError(problem)
  return arguments


def _cpus(cell: str) -> str:
  if cell and not re.fullmatch(r'\d{1,4}(\.\d{1,3})?|\d{1,7}m', cell, re.ASCII):
    raise UserError(f'{cell!r} is not a number of cores (for example 2, 0.5 or 500m)')
  return cell


def _memory(cell: str) -> str:
  if cell and not re.fullmatch(r'[1-9]\d{0,5}[KMGT]i', cell, re.ASCII):
    raise UserError(f'{cell!r} is not an amount of memory (for example 512Mi or 4Gi)')
  return cell


def _slots(cell: str) -> int:
  if cell and (not re.fullmatch(r'[0-9]{1,4}', cell) or int(cell) == 0):
    raise UserError(f'{cell!r} is not a number of runs at a time')
  return int(cell or 0)


READERS: dict[str, Callable[[str], Any]] = {
  'job': _job,
  'ip': _ip,
  'tf_port': _port,
  'cuda_visible_devices': _devices,
  'ssh_port': _optional_port,
  'ssh_username': _username,
  'workdir': _path,
  'python': _path,
  'flags': _flags,
  'cpus': _cpus,
  'memory': _memory,
  'slots': _slots,
}
COLUMNS = tuple(READERS)
