"""TCP ports: checks whether a port is free, which process listens, and whether it is reachable."""

from __future__ import annotations

import contextlib
import os
import socket


def listening_socket(port: int) -> socket.socket:
  """Returns a socket that listens on a port on all interfaces, as TensorFlow's server does.

  Raises:
    OSError: the port is taken.
  """
  bound = bound_socket(port)
  try:
    bound.listen(64)
  except OSError:
    bound.close()
    raise
  return bound


def bound_socket(port: int) -> socket.socket:
  """Returns a socket bound to a port on all interfaces that does not accept connections.

  Raises:
    OSError: the port is taken.
  """
  # `socket.has_ipv6` says only how Python was built; the kernel may run with ipv6.disable=1.
  dual_stack = socket.has_dualstack_ipv6()
  bound = socket.socket(socket.AF_INET6 if dual_stack else socket.AF_INET)
  try:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if dual_stack:
      bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    bound.bind(('', port))
  except OSError:
    bound.close()
    raise
  return bound


def listener(port: int) -> tuple[int, str] | None:
  """Returns (process id, program) of the process that listens on a port of this machine.

  Returns None if no process listens, or if /proc hides it from this user.
  """
  inodes = set()
  for table in ('/proc/net/tcp', '/proc/net/tcp6'):
    with contextlib.suppress(OSError), open(table, encoding='ascii') as file:
      for fields in map(str.split, file.readlines()[1:]):
        if fields[3] == '0A' and int(fields[1].rpartition(':')[2], 16) == port:
          inodes.add(f'socket:[{fields[9]}]')
  for pid in filter(str.isdigit, os.listdir('/proc') if inodes else ()):
    if _has_socket(pid, inodes):
      return int(pid), _program(pid)
  return None


def _has_socket(pid: str, inodes: set[str]) -> bool:
  folder = f'/proc/{pid}/fd'
  with contextlib.suppress(OSError):
    for name in os.listdir(folder):
      with contextlib.suppress(OSError):  # Closed meanwhile.
        if os.readlink(os.path.join(folder, name)) in inodes:
          return True
  return False


def _program(pid: str) -> str:
  with contextlib.suppress(OSError), open(f'/proc/{pid}/cmdline', 'rb') as file:
    return os.path.basename(file.read().split(b'\0')[0].decode(errors='replace'))
  return '?'


def accepts(address: str, port: int, timeout_secs: float = 2.0) -> bool:
  """Returns whether this machine can connect to a port of a host (name or IP address)."""
  with contextlib.suppress(OSError):
    socket.create_connection((address, port), timeout=timeout_secs).close()
    return True
  return False
