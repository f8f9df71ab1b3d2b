"""Ports and peers: whether a port is free, who listens, and waiting for those who do not yet."""

import glob
import os
import socket
import time

from absl import logging

from runtime.process import POLL_SECS, WAITING_SECS, BadInput, RunFailed

LAST_UPDATES_SECS = 10.0  # For asynchronous learners to leave, before the last checkpoint.


def check_resolves(flag, address):
  """Refuses an address whose host name does not resolve here.

  Raises:
    BadInput: naming the flag.
  """
  host = address.rpartition(':')[0].strip('[]')
  try:
    socket.getaddrinfo(host, None)
  except OSError as e:
    raise BadInput(
      f'{flag}: the host name of {address!r} does not resolve ({e.strerror})'
    ) from None


def check_port(address):
  """Refuses a port of this host that is taken.

  Raises:
    BadInput: somebody listens there; the message names the process where the system tells.
  """
  port = int(address.rsplit(':', 1)[1])
  with _listening_socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('', port))
    except OSError as e:
      if e.errno != 98:  # EADDRINUSE
        return
      raise BadInput(f'port {port} of {address} is in use{_port_owner(port)}') from None


def _listening_socket():
  """A socket of the family that servers here listen with: IPv6 where the kernel has it."""
  try:
    return socket.socket(socket.AF_INET6)
  except OSError:  # ipv6.disable=1; `socket.has_ipv6` only tells how Python was built.
    return socket.socket(socket.AF_INET)


def _port_owner(port):
  """' by process 123 (python)', or '' where the system does not tell."""
  inodes = set()
  for table in ('/proc/net/tcp', '/proc/net/tcp6'):
    try:
      with open(table) as f:
        rows = [line.split() for line in f.readlines()[1:]]
    except OSError:
      continue
    inodes |= {r[9] for r in rows if r[3] == '0A' and int(r[1].rsplit(':', 1)[1], 16) == port}
  for link in glob.glob('/proc/[0-9]*/fd/*'):
    try:
      if os.readlink(link)[8:-1] in inodes:
        pid = link.split('/')[2]
        with open(f'/proc/{pid}/comm') as f:
          return f' by process {pid} ({f.read().strip()})'
    except OSError:
      continue
  return ''


def is_up(address, timeout_secs=2.0):
  """Whether somebody listens at 'host:port'."""
  host, port = address.rsplit(':', 1)
  try:
    with socket.create_connection((host.strip('[]'), int(port)), timeout_secs):
      return True
  except OSError:
    return False


def missing_peers(cluster, names):
  """Those of the named tasks at whose address nobody listens, as 'ps:0 at localhost:8000'."""
  return _peers(cluster, names, up=False)


def _peers(cluster, names, up):
  return [f'{n} at {cluster.address(n)}' for n in names if is_up(cluster.address(n)) == up]


def wait_until_gone(cluster, names):
  """Returns once none of the named tasks listens any more, or after LAST_UPDATES_SECS.

  Returns:
    Those that still listen, as 'learner:1 at localhost:8001'.
  """
  deadline, told = time.monotonic() + LAST_UPDATES_SECS, False
  while True:
    there = _peers(cluster, names, up=True)
    if not there or time.monotonic() > deadline:
      return there
    if not told:
      logging.info('%s waits for %s to leave', cluster.name, ', '.join(there))
      told = True
    time.sleep(POLL_SECS)


def wait_for_peers(cluster, names, wait_secs, should_stop):
  """Returns once all of the named tasks listen, or when told to stop.

  Args:
    cluster: `Cluster`.
    names: tasks such as 'ps:0'.
    wait_secs: limit; 0 waits for ever.
    should_stop: function without arguments.

  Raises:
    RunFailed: they did not come in time.
  """
  began = said = time.monotonic()
  first = True
  while not should_stop():
    missing = missing_peers(cluster, names)
    if not missing:
      return
    now = time.monotonic()
    if first or now - said >= WAITING_SECS:
      logging.info('%s is waiting for %s', cluster.name, ', '.join(missing))
      said, first = now, False
    if wait_secs and now - began > wait_secs:
      raise RunFailed(
        f'{cluster.name} waited {wait_secs} s (--wait_secs) in vain for {", ".join(missing)}'
      )
    time.sleep(POLL_SECS)
