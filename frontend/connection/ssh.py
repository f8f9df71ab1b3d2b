"""SSH connections that follow OpenSSH's configuration, with jump hosts and known_hosts files.

Logs in with keys or an agent, never with a password. Every failure is a HostError that says what to
do about it.
"""

from __future__ import annotations

import contextlib
import logging
import random
import shlex
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from frontend.connection import known_hosts, scripts, ssh_config, ssh_login
from frontend.connection.scripts import CONNECT_SECS
from frontend.errors import HostError

if TYPE_CHECKING:
  import paramiko

  from frontend.connection import sftp

TCP_LEFT_OPEN_SECS = 15
# Most jump hosts on the way to a host; ends a loop of jump hosts.
MOST_HOPS = 10
# An sshd with many new connections at once, such as a jump host's, closes some (MaxStartups).
ATTEMPTS = 4
# Algorithms of paramiko with these in their names are not offered.
_OLD = ('cbc', '3des', 'arcfour', 'blowfish', 'md5', 'sha1', 'ssh-dss', 'group1-', '-96')


def connect(
  address: str,
  port: int | None,
  username: str,
  depth: int = 0,
  over: list[ssh_config.Jump] | None = None,
) -> list[Connection]:
  """Connects to a host, over the jump hosts of the configuration.

  Args:
    address: address, host name or alias of `~/.ssh/config`.
    port: None for the port of the configuration.
    username: '' for the user of the configuration.
    depth: number of jump hosts that have been resolved so far.
    over: jump hosts to use instead of those of the configuration, or None.

  Returns:
    The connections to the jump hosts, and to the host itself at the end.

  Raises:
    HostError: with the stage that failed.
  """
  # paramiko would print tracebacks of its threads.
  logging.getLogger('paramiko').setLevel(logging.CRITICAL)
  options = ssh_config.read(address, port, username)
  for attempt in range(ATTEMPTS):
    connections: list[Connection] = []
    try:
      sock, connections = _socket_to(options, depth, over)
      connections.append(Connection(sock, options))
      connections[-1].open()
      return connections
    except BaseException as error:
      refused = bool(connections) and connections[-1].was_refused(error)
      for connection in reversed(connections):
        connection.close()
      if isinstance(error, HostError) or not isinstance(error, Exception):
        raise
      if not refused or attempt + 1 == ATTEMPTS:
        raise _explain(error, options) from None
    time.sleep(random.uniform(0.5, 1.5) * 2**attempt)
  raise AssertionError('the last attempt returns or raises')


def _socket_to(
  options: ssh_config.Options, depth: int, over: list[ssh_config.Jump] | None
) -> tuple[Any, list[Connection]]:
  """Returns (socket to the host's sshd, connections to the jump hosts on the way)."""
  jumps = options.jumps if over is None else over
  if jumps:
    if depth >= MOST_HOPS:
      raise HostError('reachable', f'more than {MOST_HOPS} jump hosts; does one lead to itself?')
    return _over_jumps(options, depth, jumps)
  if options.proxy_command:
    return _ProxyCommand(options.proxy_command), []
  if options.family == socket.AF_UNSPEC and not options.bind_address:
    place = (options.hostname, options.port)
    return socket.create_connection(place, timeout=options.connect_timeout_secs or CONNECT_SECS), []
  return _connected(options), []


def _over_jumps(
  options: ssh_config.Options, depth: int, jumps: list[ssh_config.Jump]
) -> tuple[paramiko.Channel, list[Connection]]:
  """Connects over jump hosts like ssh: each hop is reached over those before it."""
  jump = jumps[-1]
  try:
    connections = connect(jump.host, jump.port, jump.user, depth + 1, jumps[:-1] or None)
  except HostError as error:
    text = str(error) if str(error).startswith('jump host') else f'jump host {jump.host}: {error}'
    raise HostError(error.stage, text) from None
  try:
    transport, place = connections[-1].get_transport(), (options.hostname, options.port)
    channel = transport.open_channel(
      'direct-tcpip', place, ('127.0.0.1', 0), timeout=options.connect_timeout_secs or CONNECT_SECS
    )
  except Exception as error:
    for connection in reversed(connections):
      connection.close()
    raise HostError(
      'reachable',
      f'jump host {jump.host} cannot reach {options.hostname} port {options.port}: '
      f'{getattr(error, "text", None) or error}',
    ) from None
  return channel, connections


def _connected(options: ssh_config.Options) -> socket.socket:
  """Returns a socket of the configured address family that is bound to the configured address."""
  failure = OSError('no address of that family')
  for family, kind, protocol, _, place in socket.getaddrinfo(
    options.hostname, options.port, options.family, socket.SOCK_STREAM
  ):
    made = socket.socket(family, kind, protocol)
    try:
      made.settimeout(options.connect_timeout_secs or CONNECT_SECS)
      if options.bind_address:
        made.bind((options.bind_address, 0))
      made.connect(place)
      return made
    except OSError as error:
      made.close()
      failure = error
  raise failure


class _ProxyCommand:
  """The input and output of a ProxyCommand as a socket; a shell runs the command, as with ssh."""

  def __init__(self, command: str) -> None:
    self._socket, theirs = socket.socketpair()
    with theirs:
      self._process = subprocess.Popen(
        ['/bin/sh', '-c', f'exec {command}'],
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
      )

  def __getattr__(self, name: str) -> Any:
    return getattr(self._socket, name)

  def close(self) -> None:
    """Closes the command's input, and ends it if it does not end by itself."""
    self._socket.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(0.5)
      return
    self._process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(0.5)
      return
    self._process.kill()
    self._process.wait()


class Connection:
  """A connection to one host.

  Args:
    sock: socket, paramiko Channel or `_ProxyCommand` that leads to the host's sshd.
    options: of the host.
  """

  def __init__(self, sock: Any, options: ssh_config.Options) -> None:
    self._sock, self._options = sock, options
    self._transport: paramiko.Transport | None = None
    self._has_begun, self._since = False, time.monotonic()

  def open(self) -> None:
    """Exchanges keys, verifies the host's key and logs in.

    Raises:
      HostError: the host's key is not known, or the host accepts none of the keys.
      paramiko.SSHException, OSError, EOFError: the connection failed.
    """
    import paramiko

    options = self._options
    entries = known_hosts.entries_of(
      known_hosts.read(options.known_hosts),
      options.hostname, options.port, options.host_key_alias,
    )  # fmt: skip
    transport = self._transport = paramiko.Transport(
      self._sock,
      disabled_algorithms={
        kind: [
          name
          for name in getattr(paramiko.Transport, f'_preferred_{kind}')
          if any(old in name for old in _OLD)
        ]
        for kind in ('ciphers', 'macs', 'kex', 'keys', 'pubkeys')
      },
    )
    transport.banner_timeout = transport.auth_timeout = CONNECT_SECS
    offered = transport.get_security_options()
    offered.key_types = tuple(known_hosts.preferred_algorithms(entries, offered.key_types))
    transport.start_client(timeout=CONNECT_SECS)
    self._has_begun = True
    if not transport.initial_kex_done:  # After a timeout, paramiko raises nothing.
      raise TimeoutError(f'no SSH connection within {CONNECT_SECS} s')
    key = transport.get_remote_server_key()
    login = _login_command(options)
    known_hosts.verify(
      entries, options.revoked, key.asbytes(), key.get_name(),
      (shlex.join(['ssh-keygen', '-R', _known_name(options)]), login),
      options.host_key_alias or options.hostname, getattr(key.public_blob, 'key_blob', None),
    )  # fmt: skip
    ssh_login.log_in(transport, options, login.replace('ssh', 'ssh-copy-id', 1))
    transport.set_keepalive(TCP_LEFT_OPEN_SECS)

  def was_refused(self, error: BaseException) -> bool:
    """Returns whether the sshd closed the connection at once, as it does while too many log in."""
    import paramiko

    if self._has_begun or not self._transport or self._transport.remote_version:
      return False
    # The end of a ProxyCommand has other reasons, and so has a long silence.
    if isinstance(self._sock, _ProxyCommand) or time.monotonic() - self._since > CONNECT_SECS / 2:
      return False
    return isinstance(error, (paramiko.SSHException, EOFError, ConnectionError))

  def get_transport(self) -> paramiko.Transport:
    """Returns the transport of an open connection."""
    assert self._transport is not None, 'the connection has not been opened'
    return self._transport

  def open_sftp(self) -> sftp.Client:
    """Returns an SFTP client; if a login script prints, a script starts the SFTP server."""
    import paramiko

    from frontend.connection import sftp

    try:
      client = sftp.Client.from_transport(self.get_transport())
      assert client is not None
      return client
    except paramiko.SFTPError as noise:
      script = scripts.RemoteScript(self.get_transport(), scripts.SFTP)
      try:
        return sftp.Client(script.channel)
      except (OSError, EOFError, paramiko.SFTPError):
        script.close()
        raise noise from None

  def close(self) -> None:
    """Ends the connection."""
    if self._transport:
      self._transport.close()
    self._sock.close()


def _known_name(options: ssh_config.Options) -> str:
  return known_hosts.name_of(options.hostname, options.port, options.host_key_alias)


def _login_command(options: ssh_config.Options) -> str:
  """Returns the ssh command, for messages, that logs in and shows the host's key."""
  given_user = options.user and options.user != ssh_config.local_user()
  target = f'{options.user}@{options.address}' if given_user else options.address
  return shlex.join(['ssh'] + (['-p', str(options.port)] if options.port != 22 else []) + [target])


def _explain(error: Exception, options: ssh_config.Options) -> HostError:
  """Returns the HostError for a failed connection."""
  import paramiko
  from paramiko.ssh_exception import IncompatiblePeer

  place = f'{options.hostname} port {options.port}'
  ignored = ', '.join(options.ignored)
  hint = f' (the ssh configuration has {ignored}, which is not followed here)' if ignored else ''
  if isinstance(error, IncompatiblePeer):
    return HostError(
      'login', f'the sshd at {place} offers old algorithms only, which are not used: {error}{hint}'
    )
  if isinstance(error, (paramiko.SSHException, EOFError)):
    return HostError('login', f'no SSH connection to {place}: {error or "it hung up"}{hint}')
  reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
  return HostError('reachable', f'cannot reach {place}: {reason}{hint}')
