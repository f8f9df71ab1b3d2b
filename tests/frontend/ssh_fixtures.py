"""Hosts here, and one behind a real sshd, opened for a test and closed after it.

A test that takes `remote` or `broken` imports its fixture, and those that it takes in turn.
"""

import contextlib
import socket
import sys

import psutil
import pytest

import frontend_fixtures
from frontend import cluster
from frontend.connection import hosts
from frontend.errors import HostError
from network_fixtures import sshd  # noqa: F401


@pytest.fixture(name='code')
def code_fixture(tmp_path):
  return frontend_fixtures.copy_code(tmp_path / "a 'code' $(folder)")


@pytest.fixture(name='opened')
def opened_fixture():
  """Opens hosts and closes them after the test."""
  made = []

  def make(address='localhost', port=None, username='', workdir='', python=''):
    made.append(hosts.open_host(cluster.Host(address, port, username, workdir, python, ())))
    return made[-1]

  yield make
  for host in made:
    host.close()


@pytest.fixture(name='remote')
def remote_fixture(opened, sshd, code, monkeypatch):  # noqa: F811
  """Opens the host behind the sshd; its arguments replace what would work."""
  monkeypatch.setenv('HOME', sshd.home)
  monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)

  def make(**changes):
    return opened(
      **{'address': sshd.address, 'port': sshd.port, 'workdir': code, 'python': sys.executable}
      | changes
    )

  return make


@pytest.fixture(name='broken')
def broken_fixture(remote, sshd):  # noqa: F811
  """A host with an agent on a connection that no longer accepts data."""
  host = remote()
  host.ask('hello')
  # A server that sees the end of the data closes the connection, which is noticed before a request.
  servers = [
    child
    for child in psutil.Process(sshd._process.pid).children(recursive=True)
    if child.name().startswith('sshd')
  ]
  for server in servers:
    server.suspend()
  host._clients[-1].get_transport().sock.shutdown(socket.SHUT_WR)
  yield host
  for server in servers:
    with contextlib.suppress(psutil.NoSuchProcess):
      server.resume()


def failure(host):
  """(stage, sentence) of a host that cannot be used."""
  with pytest.raises(HostError) as caught:
    host.ask('hello')
  return caught.value.stage, str(caught.value)
