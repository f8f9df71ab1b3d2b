"""SSH connections as `~/.ssh/config` says, jump hosts included, to hosts whose key is known.

Keys or agent only, never a password; what goes wrong is a HostError with what to do about it.
"""

import base64
import hashlib
import logging
import os
import shlex
import socket

from frontend.host_error import HostError
from frontend.scripts import CONNECT_SECS

TCP_LEFT_OPEN_SECS = 15


def connect(address, port, username, depth=0):
  """Connects, over jump hosts if `~/.ssh/config` names some.

  Args:
    address: address, host name or alias of `~/.ssh/config`.
    port: int, or None for what the configuration says.
    username: '' for what the configuration says.
    depth: how many jump hosts lie behind.

  Returns:
    List of paramiko clients on the way, the host's own last.

  Raises:
    HostError: with the stage that failed.
  """
  import paramiko

  logging.getLogger('paramiko').setLevel(
    logging.CRITICAL
  )  # It would print tracebacks of its threads.
  options = _ssh_options(address)
  target = options.get('hostname', address)
  port = port or int(options.get('port', 22))
  clients, client = [], paramiko.SSHClient()
  try:
    sock, clients = _first_leg(options, target, port, depth)
    _load_known_hosts(client, options)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
      target,
      port,
      username or options.get('user'),
      sock=sock,
      timeout=CONNECT_SECS,
      banner_timeout=CONNECT_SECS,
      auth_timeout=CONNECT_SECS,
      key_filename=[path for path in options.get('identityfile', []) if os.path.exists(path)]
      or None,
      look_for_keys=options.get('identitiesonly', 'no') != 'yes',
      allow_agent=options.get('identityagent', '') != 'none',
    )
    client.get_transport().set_keepalive(TCP_LEFT_OPEN_SECS)
  except BaseException as error:
    client.close()
    for jump in clients:
      jump.close()
    if isinstance(error, HostError) or not isinstance(error, Exception):
      raise
    raise _explain(error, target, port, username or options.get('user')) from None
  return clients + [Connection(client)]


class Connection:
  """What a connection is used for.

  Args:
    client: a paramiko SSHClient.
  """

  def __init__(self, client):
    self._client = client

  def get_transport(self):
    """The paramiko Transport."""
    return self._client.get_transport()

  def open_sftp(self):
    """A `Client` of frontend/sftp.py."""
    from frontend import sftp

    return sftp.Client.from_transport(self.get_transport())

  def close(self):
    """Ends the connection."""
    self._client.close()


def _ssh_options(address):
  import paramiko

  path = os.path.expanduser('~/.ssh/config')
  if not os.path.exists(path):
    return {}
  try:
    return paramiko.SSHConfig.from_path(path).lookup(address)
  except (OSError, paramiko.ssh_exception.ConfigParseError) as error:
    raise HostError('reachable', f'~/.ssh/config cannot be read: {error}') from None


def _first_leg(options, target, port, depth):
  """(socket to the host's sshd, clients of the jump hosts on the way)."""
  import paramiko

  jump = options.get('proxyjump', 'none').split(',')[-1]
  if jump != 'none' and depth < 5:
    user, _, rest = jump.rpartition('@')
    name, _, jump_port = rest.partition(':')
    clients = connect(name, int(jump_port) if jump_port else None, user, depth + 1)
    channel = (
      clients[-1]
      .get_transport()
      .open_channel('direct-tcpip', (target, port), ('127.0.0.1', 0), timeout=CONNECT_SECS)
    )
    return channel, clients
  if options.get('proxycommand', 'none') != 'none':
    return paramiko.ProxyCommand(options['proxycommand']), []
  return socket.create_connection((target, port), timeout=CONNECT_SECS), []


def _known_hosts_files(options):
  named = options.get('userknownhostsfile', '~/.ssh/known_hosts')
  return [os.path.expanduser(path) for path in named.split()] + ['/etc/ssh/ssh_known_hosts']


def _load_known_hosts(client, options):
  for path in _known_hosts_files(options):
    if os.path.exists(path):
      client.load_system_host_keys(path)


def fingerprint(key):
  """A host key's fingerprint as ssh prints it."""
  digest = hashlib.sha256(key.asbytes()).digest()
  return 'SHA256:' + base64.b64encode(digest).decode().rstrip('=')


def _explain(error, target, port, username):
  """The HostError for what went wrong while connecting."""
  import paramiko

  login = shlex.join(
    ['ssh']
    + (['-p', str(port)] if port != 22 else [])
    + [f'{username}@{target}' if username else target]
  )
  if isinstance(error, paramiko.BadHostKeyException):
    entry = target if port == 22 else f'[{target}]:{port}'
    return HostError(
      'host key',
      (
        f'its host key is now {fingerprint(error.key)} and not the known '
        f'{fingerprint(error.expected_key)}: either the machine was set up anew or somebody is in '
        f'between. Once you know why: {shlex.join(["ssh-keygen", "-R", entry])} and then {login}'
      ),
    )
  if isinstance(error, paramiko.AuthenticationException):
    return HostError(
      'login',
      (
        f'no key was accepted ({error}); put yours there with: '
        + login.replace('ssh', 'ssh-copy-id', 1)
      ),
    )
  if isinstance(error, paramiko.SSHException) and 'not found in known_hosts' in str(error):
    return HostError('host key', f'its host key is not known; compare and add it with: {login}')
  if isinstance(error, paramiko.SSHException):
    return HostError('login', f'no SSH connection to {target} port {port}: {error}')
  reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
  return HostError('reachable', f'cannot reach {target} port {port}: {reason}')
