"""Restricts which hosts can connect to a task's server.

TensorFlow's server listens on every interface without authentication, and has no option to change
that. So its socket is changed after creation, before the server answers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable

from absl import logging

from runtime import peers
from runtime.cluster import Cluster


def restrict(cluster: Cluster, port: int) -> None:
  """Closes an actor's port; limits a cluster on one machine to the loopback interface.

  Other ports are unchanged. Logs a warning if the system refuses the change.

  Args:
    cluster: the cluster and this task's index in it.
    port: port of this task's server.
  """
  if cluster.job == 'actor':
    closed, risk = _change_listeners(port, _close), 'nobody needs to connect to an actor'
  elif all(map(_is_loopback, cluster.ps + cluster.learner)):
    closed, risk = _change_listeners(port, _keep_to_loopback), 'this run is on one machine'
  else:
    return
  if not closed:
    logging.warning('%s: port %d is open to others, though %s', cluster.name, port, risk)


def _close(listener: socket.socket) -> None:
  listener.shutdown(socket.SHUT_RDWR)


def _keep_to_loopback(listener: socket.socket) -> None:
  listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo\0')


def _change_listeners(port: int, change: Callable[[socket.socket], None]) -> bool:
  """Calls `change` with each listening socket, then closes connections that other hosts have made.

  Returns:
    True if there were listening sockets and all could be changed.
  """
  done = []
  with contextlib.ExitStack() as stack:
    for listener in _sockets(stack, port, listening=True):
      try:
        change(listener)
        done.append(True)
      except OSError:
        done.append(False)
    for early in _sockets(stack, port, listening=False):
      with contextlib.suppress(OSError):
        if not _is_loopback(f'[{early.getpeername()[0]}]:0'):
          early.shutdown(socket.SHUT_RDWR)
  return bool(done) and all(done)


def _sockets(stack: contextlib.ExitStack, port: int, listening: bool) -> list[socket.socket]:
  """Returns duplicates of this process's TCP sockets at a local port; `stack` closes them."""
  found = []
  for one in map(stack.enter_context, peers.own_sockets()):
    with contextlib.suppress(OSError):
      is_listening = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
      if one.getsockname()[1] == port and bool(is_listening) == listening:
        found.append(one)
  return found


def _is_loopback(address: str) -> bool:
  """Returns whether 'host:port' is a loopback address."""
  host = address.rpartition(':')[0].strip('[]')
  try:
    ip = ipaddress.ip_address(host)
  except ValueError:
    return host.lower() == 'localhost'
  return (getattr(ip, 'ipv4_mapped', None) or ip).is_loopback
