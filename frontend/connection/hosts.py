"""One host of the cluster: this machine, or another over SSH. Both answer the same requests.

What a person wrote (workdir, interpreter) reaches the script that a host runs as lines of its
input, and everything else as JSON, so no shell ever reads it.
"""

import contextlib
import os
import socket
import sys

from common import background
from frontend import cluster as cluster_lib
from frontend.connection import conversation, copying, fetching, scripts, ssh, ssh_config, tunnel
from frontend.errors import LOST, HostError

CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REMOTE_WORKDIR = '~/impala'
VENV_PYTHON = '.venv/bin/python'


def is_this_machine(host):
  """Whether a host is this machine: its address is ours, and no SSH cell says otherwise."""
  if host.ssh_port not in (None, 22) or host.ssh_username not in ('', ssh_config.local_user()):
    return False
  if cluster_lib.is_loopback(host.address):
    return True
  with contextlib.suppress(OSError):
    family, kind, protocol, _, address = socket.getaddrinfo(
      host.address, 0, type=socket.SOCK_STREAM
    )[0]
    with socket.socket(family, kind, protocol) as probe:
      probe.bind(address)
      return True
  return False


def workdir_and_python(host):
  """(workdir, python) of a host with the defaults filled in."""
  if not is_this_machine(host):
    return host.workdir or REMOTE_WORKDIR, host.python or VENV_PYTHON
  if not host.workdir:
    return CODE, host.python or sys.executable
  return host.workdir, host.python or VENV_PYTHON


class _Host:
  """What a host here and a host over SSH share; subclasses run scripts, and copy files.

  Attributes:
    host: a Host of frontend/cluster.py.
    name: its address.
    workdir, python: its cells with the defaults filled in.
    makes_venv: bool, whether the interpreter is one that `push` makes.
  """

  def __init__(self, host):
    self.host = host
    self.name = host.address
    self.workdir, self.python = workdir_and_python(host)
    self.makes_venv = self.python == VENV_PYTHON
    self._conversation = conversation.Conversation(
      self._run, self.workdir, self.python, self.makes_venv
    )

  def ask(self, request, timeout_secs=60, **fields):
    """Sends one request to the frontend on the host and returns its reply.

    Raises:
      HostError: no connection, no answer, or the host says why it could not.
    """
    return self._conversation.ask(request, fields, timeout_secs)

  def end_conversation(self, at_once=False):
    """Ends the conversation; the connection stays.

    Args:
      at_once: whether not to wait until the other side has ended.
    """
    self._conversation.close(at_once)

  def put(self, root, names, target=''):
    """Copies files, given relative to `root`, below the workdir; returns how many."""
    with self.folder(target) as folder:
      return folder.put(root, names)

  def make_venv(self, offline, requirements):
    """Makes the virtual environment on the host; see `scripts.make_venv`."""
    scripts.make_venv(self._run, self.workdir, offline, requirements)


class LocalHost(_Host):
  """This machine."""

  def _run(self, script):
    return scripts.LocalScript(script)

  def close(self, at_once=False):
    """Ends the conversation."""
    self.end_conversation(at_once)

  @contextlib.contextmanager
  def folder(self, target=''):
    """The workdir, or a folder below it, to put files into, while the context lasts."""
    base = os.path.expanduser(self.workdir)
    yield copying.LocalFolder(os.path.join(base, target) if target else base)

  @contextlib.contextmanager
  def files(self):
    """What reads files of the host, while the context lasts."""
    yield fetching.LocalFiles()

  @contextlib.contextmanager
  def tunnel(self, port):
    """A port of this machine that leads to one of the host's loopback, while the context lasts."""
    yield port

  def attach_arguments(self, arguments):
    """The command line that runs a program of the host in this terminal."""
    return arguments


class SshHost(_Host):
  """Another machine, reached as `~/.ssh/config` and the CSV say (the CSV wins)."""

  def __init__(self, host):
    super().__init__(host)
    self._clients = []

  def connect(self):
    """Connects once; raises HostError with the stage that failed."""
    if not self._clients:
      self._clients = ssh.connect(self.host.address, self.host.ssh_port, self.host.ssh_username)

  def ask(self, request, timeout_secs=60, **fields):
    """As in `_Host`; on a new connection where the last one is dead."""
    if self._clients and not self._clients[-1].get_transport().is_active():
      self.close()
      try:
        self.connect()
      except HostError as error:
        raise HostError(error.stage, f'{error}, after the connection was lost') from None
    return super().ask(request, timeout_secs, **fields)

  def _on_connection(self, function, what):
    """Returns `function(client)`; tries again on a new connection where an older one is dead.

    Args:
      function: opens a channel of the connection.
      what: what it is for, as a person would say.

    Raises:
      HostError: no connection, or the host refuses the channel.
    """
    import paramiko

    while True:
      is_new = not self._clients
      self.connect()
      try:
        return function(self._clients[-1])
      except paramiko.SFTPError as error:
        raise HostError(
          'login',
          f'{what}: what came is not SFTP ({error}). Most likely a login script there prints; '
          f'let {scripts.STARTUP_FILES} print in interactive shells only, or nothing',
        ) from None
      except (*LOST, paramiko.SSHException) as error:
        self._disconnect()
        if is_new:
          reason = str(error) or 'the connection was lost'
          raise HostError('', f'{what}: {reason}') from None

  def _run(self, script):
    return self._on_connection(
      lambda client: scripts.RemoteScript(client.get_transport(), script), 'cannot run a command'
    )

  def _disconnect(self):
    clients, self._clients = self._clients, []
    for client in reversed(clients):
      client.close()

  def close(self, at_once=False):
    """Ends conversation and connection."""
    self.end_conversation(at_once)
    self._disconnect()

  @contextlib.contextmanager
  def folder(self, target=''):
    """The workdir, or a folder below it, to put files into, while the context lasts."""
    base = os.path.join(self.workdir, target) if target else self.workdir
    with contextlib.closing(self._open_sftp('copy')) as client, self._named('copy'):
      yield copying.RemoteFolder(client, base)

  @contextlib.contextmanager
  def files(self):
    """What reads files of the host, while the context lasts; HostError without SFTP there."""
    with contextlib.closing(self._open_sftp('read')) as client:
      yield fetching.RemoteFiles(client)

  def _open_sftp(self, verb):
    """A `sftp.Client`; `verb` is what is done to files with it."""
    return self._on_connection(
      lambda client: background.within(scripts.LOGIN_SECS, client.open_sftp),
      f'cannot {verb} files over SFTP',
    )

  @contextlib.contextmanager
  def _named(self, verb):
    from frontend.connection import sftp

    try:
      yield
    except (*LOST, *sftp.INVALID_ANSWERS) as error:
      reason = str(error) or 'the connection was lost'
      raise HostError('', f'cannot {verb} files over SFTP: {reason}') from None

  @contextlib.contextmanager
  def tunnel(self, port):
    """A port of this machine that leads to one of the host's loopback, while the context lasts."""
    self.connect()  # A conversation over it has just been held.
    with contextlib.closing(tunnel.Tunnel(self._clients[-1].get_transport(), port)) as made:
      yield made.port

  def attach_arguments(self, arguments):
    """The command line that runs a program of the host in this terminal.

    The words come from fixed alphabets (names of sessions, sockets and tasks), none holds a
    quote; they are quoted because zsh expands a leading `=`. The host's cells are arguments of
    the local ssh program.
    """
    words = ['ssh', '-t', '-o', 'StrictHostKeyChecking=yes']
    if self.host.ssh_port:
      words += ['-p', str(self.host.ssh_port)]
    if self.host.ssh_username:
      words += ['-l', self.host.ssh_username]
    return words + [self.host.address, ' '.join(f"'{word}'" for word in arguments)]


def open_host(host):
  """A LocalHost or an SshHost, not connected yet."""
  return LocalHost(host) if is_this_machine(host) else SshHost(host)
