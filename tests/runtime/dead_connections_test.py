"""Connections to a host that has vanished are closed; those to one that lives never are."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from conftest import ROOT
from network_fixtures import tool
from runtime import peers

sys.path.insert(0, os.path.join(ROOT, 'benchmarks'))

from clusters import ShapedNetwork

PORT = 12_345
SECS = 1.0
# Listens, and says nothing.
_SERVER = """
import socket, time
from runtime import peers
server = socket.create_server(('', {port}))
for option, value in list(peers._KEEPALIVE.items()):  # Sooner.
  peers._KEEPALIVE[option] = 2000 if value > 100 else 1
peers.give_up_lost_clients({port})
print('listens', flush=True)
accepted = [server.accept()[0] for _ in range({clients})]
print('accepted', flush=True)
accepted[0].recv(1)  # The client's first byte.
try:
  accepted[0].recv(1)
except OSError as error:
  print(error.strerror, flush=True)
time.sleep(600)
"""
# Two connections, of which only one has something to send.
_CLIENT = """
import socket, sys, time
from runtime import peers
busy, idle = [socket.create_connection(('{host}', {port})) for _ in range(2)]
busy.send(b'x')
connections = peers.Connections()
began, closed = time.monotonic(), 0
while time.monotonic() < began + {secs} + 0.5:
  closed += connections.close_dead({secs})
print(closed, flush=True)
sys.stdin.readline()
busy.send(b'x')
while not (closed := connections.close_dead({secs})):
  time.sleep(0.1)
print(closed, busy.recv(1), idle.recv(1))
"""


@pytest.fixture
def two_hosts():
  tool('ip')
  if os.getuid() != 0:
    pytest.skip('network namespaces need root: sudo .venv/bin/python -m pytest tests/runtime')
  network = ShapedNetwork(2, None)
  try:
    yield network.start()
  finally:
    network.close()


def _python(prefix, program):
  return subprocess.Popen(
    [*prefix, sys.executable, '-c', program], cwd=ROOT, text=True,
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
  )  # fmt: skip


def test_both_sides_give_up_connections_between_hosts_of_which_one_vanished(two_hosts):
  here, there = two_hosts.inside(0), two_hosts.inside(1)
  program = _CLIENT.format(host=two_hosts.address(1), port=PORT, secs=SECS)
  with _python(there, _SERVER.format(port=PORT, clients=2)) as server:
    try:
      assert server.stdout.readline() == 'listens\n'
      with _python(here, program) as client:
        try:
          assert client.stdout.readline() == '0\n'  # Nothing is wrong, though nobody spoke.
          assert server.stdout.readline() == 'accepted\n'
          two_hosts.set_link(0, up=False)
          client.stdin.write('\n')
          client.stdin.flush()
          assert client.stdout.readline() == "2 b'' b''\n"
          assert server.stdout.readline() in ('Connection timed out\n', 'No route to host\n')
        finally:
          client.kill()
    finally:
      server.kill()


def test_a_suspended_process_keeps_its_connections(free_ports, eventually):
  (port,) = free_ports(1)
  with _python([], _SERVER.format(port=port, clients=1)) as server:
    try:
      assert server.stdout.readline() == 'listens\n'
      with socket.create_connection(('localhost', port)) as connection:
        server.send_signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(server.pid).status() == psutil.STATUS_STOPPED)
        connections, until = peers.Connections(), time.monotonic() + 2 * SECS
        connection.send(b'x')
        while time.monotonic() < until:
          assert connections.close_dead(SECS) == 0
    finally:
      server.kill()
