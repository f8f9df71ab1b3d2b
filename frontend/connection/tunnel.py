"""A port of this machine's loopback interface leads to one of another machine's, over SSH."""

import contextlib
import socket
import threading

from frontend.connection.scripts import CONNECT_SECS
from frontend.errors import LOST, HostError

ADDRESS = '127.0.0.1'


class Tunnel:
  """Passes each connection on until it is closed.

  Args:
    transport: a paramiko Transport.
    far_port: int, port of the loopback interface at the other end, on which somebody listens.

  Attributes:
    port: int, the port here.

  Raises:
    HostError: the other end passes nothing on.
  """

  def __init__(self, transport, far_port):
    import paramiko

    self._lost = (*LOST, paramiko.SSHException)
    self._transport, self._far_port = transport, far_port
    try:
      self._far((ADDRESS, 0)).close()
    except self._lost as error:
      raise HostError(
        '', f'its sshd passes no connection on to port {far_port} (AllowTcpForwarding?): {error}'
      ) from None
    self._listener = socket.create_server((ADDRESS, 0))
    self.port = self._listener.getsockname()[1]
    threading.Thread(target=self._accept, daemon=True).start()

  def close(self):
    """Takes no more connections; those that are there end with the transport."""
    with contextlib.suppress(OSError):
      self._listener.shutdown(socket.SHUT_RDWR)  # Wakes the thread that accepts.
    self._listener.close()

  def _far(self, peer):
    place = (ADDRESS, self._far_port)
    return self._transport.open_channel('direct-tcpip', place, peer, timeout=CONNECT_SECS)

  def _accept(self):
    with contextlib.suppress(OSError):  # The listener is closed.
      while True:
        near, peer = self._listener.accept()
        threading.Thread(target=self._connect, args=(near, peer), daemon=True).start()

  def _connect(self, near, peer):
    with near, contextlib.suppress(*self._lost):  # Whoever came sees that nobody answers.
      with contextlib.closing(self._far(peer)) as far:
        there = threading.Thread(target=_pass_on, args=(near, far), daemon=True)
        there.start()
        _pass_on(far, near)
        there.join()


def _pass_on(source, sink):
  """Copies what comes until it ends, and says so to the other side."""
  with contextlib.suppress(*LOST):
    while data := source.recv(65536):
      sink.sendall(data)
  with contextlib.suppress(*LOST):
    sink.shutdown(socket.SHUT_WR)
