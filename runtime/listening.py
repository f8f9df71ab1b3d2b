"""Who may connect to this task's server: nobody to an actor's, this machine to a run's within it.

TensorFlow's server listens on every interface and asks nobody for a password, and no option changes
either. So its socket is changed after it was made, and before the server answers.
"""

import contextlib
import ipaddress
import socket

from absl import logging

from runtime import peers


def restrict(cluster, port):
  """Closes an actor's port; keeps those of a cluster of one machine to the loopback interface.

  All other ports stay as they are. Where the system does not do it, a warning says so.

  Args:
    cluster: `runtime.cluster.Cluster`.
    port: int, at which this task's server listens.
  """
  if cluster.job == 'actor':
    closed, risk = _change_listeners(port, _close), 'nobody needs to connect to an actor'
  elif all(map(_is_loopback, cluster.ps + cluster.learner)):
    closed, risk = _change_listeners(port, _keep_to_loopback), 'this run is on one machine'
  else:
    return
  if not closed:
    logging.warning('%s: port %d is open to others, though %s', cluster.name, port, risk)


def _close(listener):
  listener.shutdown(socket.SHUT_RDWR)


def _keep_to_loopback(listener):
  listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo\0')


def _change_listeners(port, change):
  """Calls `change` with each listening socket, and ends strangers' connections made before.

  Returns:
    Whether there were such sockets, and all could be changed.
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


def _sockets(stack, port, listening):
  """This process's sockets of TCP at a local port, as copies that `stack` closes."""
  found = []
  for one in map(stack.enter_context, peers.own_sockets()):
    with contextlib.suppress(OSError):
      is_listening = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
      if one.getsockname()[1] == port and bool(is_listening) == listening:
        found.append(one)
  return found


def _is_loopback(address):
  """Whether 'host:port' means this machine wherever it is read."""
  host = address.rpartition(':')[0].strip('[]')
  try:
    ip = ipaddress.ip_address(host)
  except ValueError:
    return host.lower() == 'localhost'
  return (getattr(ip, 'ipv4_mapped', None) or ip).is_loopback
