"""SSH connections as OpenSSH's configuration says, over its jump hosts, to hosts with known keys.

Keys or agent only, never a password; what goes wrong is a HostError with what to do about it.
"""

import contextlib
import logging
import random
import shlex
import socket
import subprocess
import time

from frontend.connection import known_hosts, scripts, ssh_config, ssh_login
from frontend.connection.scripts import CONNECT_SECS
from frontend.errors import HostError

TCP_LEFT_OPEN_SECS = 15
# As many as ssh would follow before it ran out of something; a loop of jump hosts ends here.
MOST_HOPS = 10
# An sshd that many connect to at once, such as that of a jump host, hangs up on some (MaxStartups).
ATTEMPTS = 4
# Parts of the names of algorithms that are not offered, though paramiko knows them.
_OLD = ('cbc', '3des', 'arcfour', 'blowfish', 'md5', 'sha1', 'ssh-dss', 'group1-', '-96')


def connect(address, port, username, depth=0, over=None):
  """Connects, over jump hosts if the configuration names some.

  Args:
    address: address, host name or alias of `~/.ssh/config`.
    port: int, or None for what the configuration says.
    username: '' for what the configuration says.
    depth: how many jump hosts lie behind.
    over: list of ssh_config.Jump in place of what the configuration says, or None.

  Returns:
    List of `Connection` on the way, the host's own last.

  Raises:
    HostError: with the stage that failed.
  """
  # It would print tracebacks of its threads.
  logging.getLogger('paramiko').setLevel(logging.CRITICAL)
  options = ssh_config.read(address, port, username)
  for attempt in range(ATTEMPTS):
    connections = []
    try:
      sock, connections = _first_leg(options, depth, over)
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


def _ssh_options(address):
  """Name and value of each option that the configuration has for a host."""
  return ssh_config.raw(address)


def _first_leg(options, depth, over):
  """(socket to the host's sshd, connections to the jump hosts on the way)."""
  jumps = options.jumps if over is None else over
  if jumps:
    if depth >= MOST_HOPS:
      raise HostError('reachable', f'more than {MOST_HOPS} jump hosts; does one lead to itself?')
    return _over_jumps(options, depth, jumps)
  if options.proxy_command:
    return _Command(options.proxy_command), []
  if options.family == socket.AF_UNSPEC and not options.bind_address:
    place = (options.hostname, options.port)
    return socket.create_connection(place, timeout=options.connect_secs or CONNECT_SECS), []
  return _connected(options), []


def _over_jumps(options, depth, jumps):
  """As ssh: the last hop is reached over those before it, the first as its own settings say."""
  jump = jumps[-1]
  try:
    connections = connect(jump.host, jump.port, jump.user, depth + 1, jumps[:-1] or None)
  except HostError as error:
    text = str(error) if str(error).startswith('jump host') else f'jump host {jump.host}: {error}'
    raise HostError(error.stage, text) from None
  try:
    transport, place = connections[-1].get_transport(), (options.hostname, options.port)
    channel = transport.open_channel(
      'direct-tcpip', place, ('127.0.0.1', 0), timeout=options.connect_secs or CONNECT_SECS
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


def _connected(options):
  """A socket of the family and from the address that the configuration names."""
  failure = OSError('no address of that family')
  for family, kind, protocol, _, place in socket.getaddrinfo(
    options.hostname, options.port, options.family, socket.SOCK_STREAM
  ):
    made = socket.socket(family, kind, protocol)
    try:
      made.settimeout(options.connect_secs or CONNECT_SECS)
      if options.bind_address:
        made.bind((options.bind_address, 0))
      made.connect(place)
      return made
    except OSError as error:
      made.close()
      failure = error
  raise failure


class _Command:
  """The input and output of a ProxyCommand, as a socket; the user's shell runs it, as with ssh."""

  def __init__(self, command):
    self._socket, theirs = socket.socketpair()
    with theirs:
      self._process = subprocess.Popen(
        ['/bin/sh', '-c', f'exec {command}'],
        stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, start_new_session=True,
      )  # fmt: skip

  def __getattr__(self, name):
    return getattr(self._socket, name)

  def close(self):
    """Ends the command, with its input first."""
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
    sock: a socket, or what looks like one, that leads to the host's sshd.
    options: Options of frontend/connection/ssh_config.py.
  """

  def __init__(self, sock, options):
    self._sock, self._options, self._transport = sock, options, None
    self._has_begun, self._since = False, time.monotonic()

  def open(self):
    """Exchanges keys, looks at the host's and logs in; raises HostError, or what paramiko does."""
    import paramiko

    options = self._options
    entries = known_hosts.entries_of(
      known_hosts.read(options.known_hosts),
      options.hostname, options.port, options.host_key_alias,
    )  # fmt: skip
    transport = self._transport = paramiko.Transport(
      self._sock,
      disabled_algorithms={
        kind: [name for name in names if any(old in name for old in _OLD)]
        for kind, names in (
          ('ciphers', paramiko.Transport._preferred_ciphers),
          ('macs', paramiko.Transport._preferred_macs),
          ('kex', paramiko.Transport._preferred_kex),
          ('keys', paramiko.Transport._preferred_keys),
          ('pubkeys', paramiko.Transport._preferred_pubkeys),
        )
      },
    )
    transport.banner_timeout = transport.auth_timeout = CONNECT_SECS
    offered = transport.get_security_options()
    offered.key_types = tuple(known_hosts.preferred_algorithms(entries, offered.key_types))
    transport.start_client(timeout=CONNECT_SECS)
    self._has_begun = True
    if not transport.initial_kex_done:  # paramiko says nothing at the limit.
      raise TimeoutError(f'no SSH connection within {CONNECT_SECS} s')
    key = transport.get_remote_server_key()
    login = _login(options)
    known_hosts.verify(
      entries, options.revoked, key.asbytes(), key.get_name(),
      (shlex.join(['ssh-keygen', '-R', _entry(options)]), login),
      options.host_key_alias or options.hostname, getattr(key.public_blob, 'key_blob', None),
    )  # fmt: skip
    ssh_login.log_in(transport, options, login.replace('ssh', 'ssh-copy-id', 1))
    transport.set_keepalive(TCP_LEFT_OPEN_SECS)

  def was_refused(self, error):
    """Whether the sshd hung up before it said anything, as it does while too many log in."""
    import paramiko

    if self._has_begun or not self._transport or self._transport.remote_version:
      return False
    # The end of a command says nothing; and silence is no refusal.
    if isinstance(self._sock, _Command) or time.monotonic() - self._since > CONNECT_SECS / 2:
      return False
    return isinstance(error, (paramiko.SSHException, EOFError, ConnectionError))

  def get_transport(self):
    """The paramiko Transport."""
    return self._transport

  def open_sftp(self):
    """A `Client` of `sftp`; where a login script prints, by a server of our own start."""
    import paramiko

    from frontend.connection import sftp

    try:
      return sftp.Client.from_transport(self._transport)
    except paramiko.SFTPError as noise:
      script = scripts.RemoteScript(self.get_transport(), scripts.SFTP)
      try:
        return sftp.Client(script.channel)
      except (OSError, EOFError, paramiko.SFTPError):
        script.close()
        raise noise from None

  def close(self):
    """Ends the connection."""
    if self._transport:
      self._transport.close()
    self._sock.close()


def _entry(options):
  return known_hosts.name_of(options.hostname, options.port, options.host_key_alias)


def _login(options):
  """The command that logs in and shows the host's key, for a person to type."""
  given_user = options.user and options.user != ssh_config.local_user()
  target = f'{options.user}@{options.address}' if given_user else options.address
  return shlex.join(['ssh'] + (['-p', str(options.port)] if options.port != 22 else []) + [target])


def _explain(error, options):
  """The HostError for what went wrong while connecting."""
  import paramiko

  place = f'{options.hostname} port {options.port}'
  unread = ', '.join(options.unread)
  hint = f' (the ssh configuration has {unread}, which is not followed here)' if unread else ''
  if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
    return HostError(
      'login', f'the sshd at {place} offers old algorithms only, which are not used: {error}{hint}'
    )
  if isinstance(error, (paramiko.SSHException, EOFError)):
    return HostError('login', f'no SSH connection to {place}: {error or "it hung up"}{hint}')
  reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
  return HostError('reachable', f'cannot reach {place}: {reason}{hint}')
