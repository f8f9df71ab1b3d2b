"""The cells of a cluster's CSV: one's text becomes a value, or a ValueError with what is wrong.

Cells never meet a shell; still, what could not be meant is refused here.
"""

import ipaddress
import re
import shlex

from common import texts
from frontend import cluster


def one_of(value, allowed, what):
  """A sentence that refuses a value, with the one of those allowed that may have been meant."""
  hint = texts.did_you_mean(value, allowed, "'{}'")
  return f'{value!r} is not {what}' + (f'; {hint}' if hint else '')


def _job(cell):
  if cell not in cluster.JOBS:
    raise ValueError(one_of(cell, cluster.JOBS, 'a job (ps, learner or actor)'))
  return cell


def _ip(cell):
  if re.fullmatch(r'[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*', cell):
    try:
      cell = str(ipaddress.IPv6Address(cell))
    except ValueError:
      raise _no_address(cell) from None
  elif not re.fullmatch(r'[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?', cell):
    raise _no_address(cell)
  if cell in ('0.0.0.0', '::'):
    raise ValueError(f'{cell!r} is no address that others can reach')
  return cell


def _no_address(cell):
  return ValueError(f'{cell!r} is not an address or a host name (the port has its own column)')


def _port(cell):
  if not re.fullmatch(r'[0-9]{1,5}', cell) or not 1 <= int(cell) <= 65535:
    raise ValueError(f'{cell!r} is not a port (1-65535)')
  return int(cell)


def _optional_port(cell):
  return _port(cell) if cell else None


def _devices(cell):
  if cell in ('-1', 'none'):
    return ''
  if cell and not re.fullmatch(
    r'\d+(,\d+)*|(GPU|MIG)-[\w/-]+(,(GPU|MIG)-[\w/-]+)*', cell, re.ASCII
  ):
    raise ValueError(
      f'{cell!r} is not a list of GPUs (for example 0, or "0,1" in quotes; -1 for none)'
    )
  return cell or None


def _username(cell):
  if cell and not re.fullmatch(r'[A-Za-z0-9_][A-Za-z0-9_.@+\\-]*\$?', cell):
    raise ValueError(f'{cell!r} is not a user name')
  return cell


def _path(cell):
  if not cell.isprintable() or cell.startswith('-'):
    raise ValueError(f'{cell!r} is not a path (no control characters, no "-" in front)')
  return cell


def _flags(cell):
  try:
    arguments = shlex.split(cell)
  except ValueError as error:
    raise ValueError(f'{cell!r} cannot be split into flags: {error}') from None
  if arguments and not arguments[0].startswith('-'):
    raise ValueError(f'{cell!r} does not start with a flag such as --envs_per_actor=128')
  problem = cluster.placement_problem(arguments)
  if problem:
    raise ValueError(problem)
  return arguments


def _cpus(cell):
  if cell and not re.fullmatch(r'\d{1,4}(\.\d{1,3})?|\d{1,7}m', cell, re.ASCII):
    raise ValueError(f'{cell!r} is not a number of cores (for example 2, 0.5 or 500m)')
  return cell


def _memory(cell):
  if cell and not re.fullmatch(r'[1-9]\d{0,5}[KMGT]i', cell, re.ASCII):
    raise ValueError(f'{cell!r} is not an amount of memory (for example 512Mi or 4Gi)')
  return cell


# What each column holds: {name: function of the text in a cell}.
READERS = {
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
}
