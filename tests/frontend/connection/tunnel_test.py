"""A port of this machine is forwarded to one behind a real sshd."""

import contextlib
import socket
import threading

import pytest

import conftest
from frontend.errors import HostError
from network_fixtures import sshd  # noqa: F401
from ssh_fixtures import code_fixture, opened_fixture, remote_fixture  # noqa: F401

MANY_BYTES = 5_000_000


@pytest.fixture(name='echo')
def echo_fixture():
  """The port of a server that reads to the end, and then gives all of it back."""
  server = socket.create_server(('127.0.0.1', 0))

  def answer(connection):
    with connection:
      data = b''.join(iter(lambda: connection.recv(65536), b''))
      connection.sendall(data)

  def serve():
    with contextlib.suppress(OSError):
      while True:
        threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()

  threading.Thread(target=serve, daemon=True).start()
  yield server.getsockname()[1]
  server.shutdown(socket.SHUT_RDWR)
  server.close()


def test_connections_are_passed_on_whole(remote, echo):
  with remote().tunnel(echo) as port:
    first, second = (socket.create_connection(('127.0.0.1', port), 60) for _ in range(2))
    with first, second:
      second.sendall(b'short')
      second.shutdown(socket.SHUT_WR)
      assert second.recv(100) == b'short' and second.recv(100) == b''
      first.sendall(MANY_BYTES * b'x')
      first.shutdown(socket.SHUT_WR)
      data = b''.join(iter(lambda: first.recv(65536), b''))
  assert data == MANY_BYTES * b'x'
  with pytest.raises(ConnectionRefusedError):
    socket.create_connection(('127.0.0.1', port), 60)


def test_only_this_machine_reaches_it(remote, echo):
  with remote().tunnel(echo) as port, pytest.raises(ConnectionRefusedError):
    socket.create_connection(('127.0.0.2', port), 60)


def test_a_connection_that_is_lost_closes_what_it_carried(remote, echo, sshd):  # noqa: F811
  with remote().tunnel(echo) as port, socket.create_connection(('127.0.0.1', port), 60) as near:
    near.sendall(b'x')
    sshd.close()
    with contextlib.suppress(ConnectionResetError):  # Closed with or without what was in flight.
      assert near.recv(100) == b''


def test_an_sshd_that_passes_nothing_on_is_named(remote, echo, sshd):  # noqa: F811
  sshd.close()
  sshd.more_settings = {'AllowTcpForwarding': 'no'}
  sshd.start()
  with pytest.raises(HostError, match=f'^its sshd does not forward connections to port {echo} '):
    with remote().tunnel(echo):
      pass


def test_here_it_is_the_port_itself(opened):
  (port,) = conftest.free_ports(1)
  with opened().tunnel(port) as found:
    assert found == port
