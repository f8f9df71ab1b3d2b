"""Ports and peers: checks of a port, waiting for tasks to listen, and closing dead connections."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import termios
import time
from collections.abc import Callable, Iterable

from common import ports
from runtime.cluster import Cluster
from runtime.process import BadInput
from runtime.waiting import WaitTimedOut, wait_for

# With these options the server cancels the calls of a client whose host vanished, as it does for a
# killed client. Otherwise such a call, waiting for a token or for gradients, would take the ones
# meant for the client's next connection.
_KEEPALIVE = {
  (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
  (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 4,
  (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 2,
  (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 3,
  (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 10_000,
}
LAST_UPDATES_SECS = 10.0  # Time for the other learners to leave before the last checkpoint.


def check_resolves(flag: str, address: str) -> None:
  """Checks that the host name in 'host:port' resolves on this machine.

  Raises:
    BadInput: the name does not resolve; the message names the flag.
  """
  host = address.rpartition(':')[0].strip('[]')
  try:
    socket.getaddrinfo(host, None)
  except OSError as e:
    raise BadInput(
      f'{flag}: the host name of {address!r} does not resolve ({e.strerror})'
    ) from None


def check_port(address: str) -> None:
  """Checks that a port of this machine is free.

  Raises:
    BadInput: a process listens on it; the message names the process if known.
  """
  port = int(address.rsplit(':', 1)[1])
  try:
    ports.bound_socket(port).close()
  except OSError as e:
    if e.errno != errno.EADDRINUSE:
      return
    owner = ports.listener(port)
    by = f' by process {owner[0]} ({owner[1]})' if owner else ''
    raise BadInput(f'port {port} of {address} is in use{by}') from None


def give_up_lost_clients(port: int) -> None:
  """Makes connections accepted at a port end when the client's host vanishes."""
  for listener in own_sockets():
    is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if is_listening and listener.getsockname()[1] == port:
      for (level, name), value in _KEEPALIVE.items():
        listener.setsockopt(level, name, value)  # Accepted sockets inherit it.


class Connections:
  """The TCP connections of this process, including connections opened by libraries.

  By default TCP gives up on a vanished host after up to 20 minutes. Until then its retransmissions
  become rare (up to half the time since the loss), even if the host has returned. TCP_USER_TIMEOUT
  acts late if this host itself is off the network (35 s with Linux 6.18).
  """

  def __init__(self):
    self._looked = time.monotonic()
    # Inode of a socket -> time since which data that it sent is unacknowledged.
    self._waits: dict[int, float] = {}

  def close_dead(self, secs: float) -> int:
    """Closes connections to hosts that have not acknowledged sent data for `secs`.

    The host of a suspended process still acknowledges. Must be called more often than every `secs`.

    Returns:
      The number of closed connections.
    """
    now, waits, lost = time.monotonic(), {}, set()
    if now - self._looked > secs:  # This process was suspended, and may just have sent data.
      self._waits = {}
    self._looked = now
    connected = [(_peer_of(s), s) for s in own_sockets()]
    for peer, connection in connected:
      if peer and _unacknowledged_bytes(connection):
        inode = os.fstat(connection.fileno()).st_ino
        waits[inode] = max(self._waits.get(inode, now), now - _quiet_secs(connection))
        if now - waits[inode] > secs:
          lost.add(peer)
    self._waits = waits
    dead = [s for peer, s in connected if peer in lost and _quiet_secs(s) > secs]
    for connection in dead:
      with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    return len(dead)


def own_sockets() -> list[socket.socket]:
  """Returns duplicates of this process's TCP sockets; the caller closes them."""
  found: list[socket.socket] = []
  for fd in map(int, os.listdir('/proc/self/fd')):
    with contextlib.suppress(OSError):
      if fd in [s.fileno() for s in found] or not stat.S_ISSOCK(os.fstat(fd).st_mode):
        continue
      duplicate = _as_socket(os.dup(fd))
      if duplicate.type == socket.SOCK_STREAM and duplicate.family != socket.AF_UNIX:
        found.append(duplicate)
  return found


def _as_socket(fd: int) -> socket.socket:
  """Wraps a file descriptor as a socket; if it is not one, closes it and raises OSError."""
  try:
    return socket.socket(fileno=fd)
  except OSError:
    os.close(fd)
    raise


def _peer_of(connection: socket.socket) -> tuple[str, int] | None:
  """Returns (IP address, port) of the other end, or None if it is not connected."""
  try:
    host, port = connection.getpeername()[:2]
  except OSError:
    return None
  return host.removeprefix('::ffff:'), port


def _quiet_secs(connection: socket.socket) -> float:
  """Returns the seconds since the other end's last acknowledgement (tcpi_last_ack_recv)."""
  info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
  return struct.unpack_from('I', info, 56)[0] / 1000


def _unacknowledged_bytes(connection: socket.socket) -> int:
  return struct.unpack('i', fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]


def is_up(address: str, timeout_secs: float = 2.0) -> bool:
  """Returns whether a process listens at 'host:port'."""
  host, port = address.rsplit(':', 1)
  return ports.accepts(host.strip('[]'), int(port), timeout_secs)


def missing_peers(cluster: Cluster, names: Iterable[str]) -> list[str]:
  """Returns the named tasks that do not listen, as texts such as 'ps:0 at localhost:8000'."""
  return _peers(cluster, names, up=False)


def _peers(cluster: Cluster, names: Iterable[str], up: bool) -> list[str]:
  return [f'{n} at {cluster.address(n)}' for n in names if is_up(cluster.address(n)) == up]


def wait_until_gone(cluster: Cluster, names: Iterable[str]) -> list[str]:
  """Waits until the named tasks have stopped listening, for at most LAST_UPDATES_SECS.

  Returns:
    The tasks that still listen, as texts such as 'learner:1 at localhost:8001'.
  """
  present: list[str] = []

  def gone() -> bool:
    present[:] = _peers(cluster, names, up=True)
    return not present

  with contextlib.suppress(WaitTimedOut):
    wait_for(
      gone,
      lambda: f'{", ".join(present)} to leave',
      cluster.name,
      limit_secs=LAST_UPDATES_SECS,
    )
  return present


def wait_for_peers(
  cluster: Cluster, names: Iterable[str], wait_secs: float, should_stop: Callable[[], bool]
) -> None:
  """Waits until all named tasks listen, or until `should_stop`.

  Args:
    cluster: the cluster and this task's index in it.
    names: tasks such as 'ps:0'.
    wait_secs: time limit; 0 = no limit.
    should_stop: returns whether to stop waiting.

  Raises:
    RunFailed: a task did not listen within the limit.
  """
  missing: list[str] = []

  def all_up() -> bool:
    missing[:] = missing_peers(cluster, names)
    return not missing

  wait_for(all_up, lambda: ', '.join(missing), cluster.name, should_stop, wait_secs)
