"""Forwards a port of this machine's loopback interface to one of another machine, over SSH."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from frontend.connection.scripts import CONNECT_SECS
from frontend.errors import LOST, HostError

if TYPE_CHECKING:
  import paramiko

ADDRESS = '127.0.0.1'


class Tunnel:
  """Forwards each connection until the tunnel is closed.

  Args:
    transport: connection to the other machine.
    far_port: port of its loopback interface, on which a program listens.

  Attributes:
    port: int, the port on this machine.

  Raises:
    HostError: the other machine's sshd does not forward connections.
  """

  def __init__(self, transport: paramiko.Transport, far_port: int) -> None:
    import paramiko

    self._lost = (*LOST, paramiko.SSHException)
    self._transport, self._far_port = transport, far_port
    try:
      self._far((ADDRESS, 0)).close()
    except self._lost as error:
      raise HostError(
        '',
        f'its sshd does not forward connections to port {far_port} (AllowTcpForwarding?): {error}',
      ) from None
    self._listener = socket.create_server((ADDRESS, 0))
    self.port: int = self._listener.getsockname()[1]
    threading.Thread(target=self._accept, daemon=True).start()

  def close(self) -> None:
    """Accepts no more connections; existing ones end with the transport."""
    with contextlib.suppress(OSError):
      self._listener.shutdown(socket.SHUT_RDWR)  # Wakes the thread that accepts.
    self._listener.close()

  def _far(self, peer: tuple[str, int]) -> paramiko.Channel:
    place = (ADDRESS, self._far_port)
    return self._transport.open_channel('direct-tcpip', place, peer, timeout=CONNECT_SECS)

  def _accept(self) -> None:
    with contextlib.suppress(OSError):  # The listener is closed.
      while True:
        near, peer = self._listener.accept()
        threading.Thread(target=self._connect, args=(near, peer), daemon=True).start()

  def _connect(self, near: socket.socket, peer: tuple[str, int]) -> None:
    with near, contextlib.suppress(*self._lost):  # The client sees a closed connection.
      with contextlib.closing(self._far(peer)) as far:
        there = threading.Thread(target=_pass_on, args=(near, far), daemon=True)
        there.start()
        _pass_on(far, near)
        there.join()


def _pass_on(
  source: socket.socket | paramiko.Channel, sink: socket.socket | paramiko.Channel
) -> None:
  """Copies data until the source ends, and then shuts down the sink for writing."""
  with contextlib.suppress(*LOST):
    while data := source.recv(65536):
      sink.sendall(data)
  with contextlib.suppress(*LOST):
    sink.shutdown(socket.SHUT_WR)
