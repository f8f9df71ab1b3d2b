"""A host of the cluster, this machine or another one over SSH; both answer the same requests.

Cells of the CSV (workdir, interpreter) reach the script on a host as lines of its input, and
everything else as JSON, so no shell parses them.
"""

from __future__ import annotations

import abc
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from common import background
from frontend import cluster as cluster_lib
from frontend.connection import conversation, copying, fetching, scripts, ssh, ssh_config, tunnel
from frontend.errors import LOST, HostError

if TYPE_CHECKING:
  from frontend.connection import sftp

Result = TypeVar('Result')

CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REMOTE_WORKDIR = '~/impala'
VENV_PYTHON = '.venv/bin/python'


def is_this_machine(host: cluster_lib.Host) -> bool:
  """Returns whether a host has an address of this machine, and its SSH cells fit as well."""
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


def workdir_and_python(host: cluster_lib.Host) -> tuple[str, str]:
  """Returns the `workdir` and `python` cells of a host, or their defaults."""
  if not is_this_machine(host):
    return host.workdir or REMOTE_WORKDIR, host.python or VENV_PYTHON
  if not host.workdir:
    return CODE, host.python or sys.executable
  return host.workdir, host.python or VENV_PYTHON


class _Host(abc.ABC):
  """Base class of hosts. Subclasses run scripts and copy files.

  Args:
    host: of the cluster.

  Attributes:
    host: the argument.
    name: its address.
    workdir: its `workdir` cell, or the default.
    python: its `python` cell, or the default.
    makes_venv: whether `push` makes this interpreter.
  """

  def __init__(self, host: cluster_lib.Host) -> None:
    self.host = host
    self.name = host.address
    self.workdir, self.python = workdir_and_python(host)
    self.makes_venv = self.python == VENV_PYTHON
    self._conversation = conversation.Conversation(
      self._run, self.workdir, self.python, self.makes_venv
    )

  @abc.abstractmethod
  def _run(self, script: str) -> scripts.Script:
    """Starts a script on the host."""

  @abc.abstractmethod
  def folder(self, target: str = '') -> contextlib.AbstractContextManager[copying.LocalFolder]:
    """Yields the workdir, or a folder below it, for copying files into it."""

  def ask(self, request: str, timeout_secs: float = 60, **fields: Any) -> dict[str, Any]:
    """Sends one request to the agent on the host and returns its reply.

    Raises:
      HostError: there is no connection or no valid reply, or the request failed on the host.
    """
    return self._conversation.ask(request, fields, timeout_secs)

  def end_conversation(self, at_once: bool = False) -> None:
    """Ends the agent on the host; the connection stays.

    Args:
      at_once: whether not to wait until the agent has ended.
    """
    self._conversation.close(at_once)

  def put(self, root: str, names: Sequence[str], target: str = '') -> int:
    """Copies files, given relative to `root`, to the folder `target` of the workdir.

    Returns:
      How many files were copied.
    """
    with self.folder(target) as folder:
      return folder.put(root, names)

  def make_venv(self, offline: bool, requirements: str) -> None:
    """Makes the virtual environment on the host; see `scripts.make_venv`."""
    scripts.make_venv(self._run, self.workdir, offline, requirements)


class LocalHost(_Host):
  """This machine."""

  def _run(self, script: str) -> scripts.Script:
    return scripts.LocalScript(script)

  def close(self, at_once: bool = False) -> None:
    """Ends the agent."""
    self.end_conversation(at_once)

  @contextlib.contextmanager
  def folder(self, target: str = '') -> Iterator[copying.LocalFolder]:
    """Yields the workdir, or a folder below it, for copying files into it."""
    base = os.path.expanduser(self.workdir)
    yield copying.LocalFolder(os.path.join(base, target) if target else base)

  @contextlib.contextmanager
  def files(self) -> Iterator[fetching.LocalFiles]:
    """Yields what reads files of the host."""
    yield fetching.LocalFiles()

  @contextlib.contextmanager
  def tunnel(self, port: int) -> Iterator[int]:
    """Yields a port of this machine that is forwarded to the host's loopback interface."""
    yield port

  def attach_arguments(self, arguments: list[str]) -> list[str]:
    """Returns the command line that runs a program of the host in this terminal."""
    return arguments


class SshHost(_Host):
  """Another machine, over SSH; cells of the CSV take precedence over `~/.ssh/config`."""

  def __init__(self, host: cluster_lib.Host) -> None:
    super().__init__(host)
    # Connections to jump hosts, and to the host itself at the end.
    self._clients: list[ssh.Connection] = []

  def connect(self) -> None:
    """Connects, unless connected; raises HostError with the stage that failed."""
    if not self._clients:
      self._clients = ssh.connect(self.host.address, self.host.ssh_port, self.host.ssh_username)

  def ask(self, request: str, timeout_secs: float = 60, **fields: Any) -> dict[str, Any]:
    """Sends one request as `_Host.ask`; connects again if the connection was lost."""
    if self._clients and not self._clients[-1].get_transport().is_active():
      self.close()
      try:
        self.connect()
      except HostError as error:
        raise HostError(error.stage, f'{error}, after the connection was lost') from None
    return super().ask(request, timeout_secs, **fields)

  def _on_connection(self, function: Callable[[ssh.Connection], Result], what: str) -> Result:
    """Returns `function(connection)`; connects again if the connection was lost.

    Args:
      function: opens a channel of the connection.
      what: beginning of the error message.

    Raises:
      HostError: there is no connection, or the host refuses the channel.
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

  def _run(self, script: str) -> scripts.Script:
    return self._on_connection(
      lambda client: scripts.RemoteScript(client.get_transport(), script), 'cannot run a command'
    )

  def _disconnect(self) -> None:
    clients, self._clients = self._clients, []
    for client in reversed(clients):
      client.close()

  def close(self, at_once: bool = False) -> None:
    """Ends the agent and the connection."""
    self.end_conversation(at_once)
    self._disconnect()

  @contextlib.contextmanager
  def folder(self, target: str = '') -> Iterator[copying.LocalFolder]:
    """Yields the workdir, or a folder below it, for copying files into it."""
    base = os.path.join(self.workdir, target) if target else self.workdir
    with contextlib.closing(self._open_sftp('copy')) as client, self._named('copy'):
      yield copying.RemoteFolder(client, base)

  @contextlib.contextmanager
  def files(self) -> Iterator[fetching.LocalFiles]:
    """Yields what reads files of the host; raises HostError if it has no SFTP."""
    with contextlib.closing(self._open_sftp('read')) as client:
      yield fetching.RemoteFiles(client)

  def _open_sftp(self, verb: str) -> sftp.Client:
    """Returns an SFTP client; `verb`, for messages, is what is done to files."""
    return self._on_connection(
      lambda client: background.within(scripts.LOGIN_SECS, client.open_sftp),
      f'cannot {verb} files over SFTP',
    )

  @contextlib.contextmanager
  def _named(self, verb: str) -> Iterator[None]:
    from frontend.connection import sftp

    try:
      yield
    except (*LOST, *sftp.INVALID_ANSWERS) as error:
      reason = str(error) or 'the connection was lost'
      raise HostError('', f'cannot {verb} files over SFTP: {reason}') from None

  @contextlib.contextmanager
  def tunnel(self, port: int) -> Iterator[int]:
    """Yields a port of this machine that is forwarded to the host's loopback interface."""
    self.connect()
    with contextlib.closing(tunnel.Tunnel(self._clients[-1].get_transport(), port)) as made:
      yield made.port

  def attach_arguments(self, arguments: list[str]) -> list[str]:
    """Returns the command line that runs a program of the host in this terminal.

    The arguments (names of sessions, sockets and tasks) contain no quote by construction. They are
    quoted because zsh expands a leading `=`. Cells of the host are arguments of the local ssh.
    """
    words = ['ssh', '-t', '-o', 'StrictHostKeyChecking=yes']
    if self.host.ssh_port:
      words += ['-p', str(self.host.ssh_port)]
    if self.host.ssh_username:
      words += ['-l', self.host.ssh_username]
    return words + [self.host.address, ' '.join(f"'{word}'" for word in arguments)]


def open_host(host: cluster_lib.Host) -> LocalHost | SshHost:
  """Returns the LocalHost or SshHost of a host, not connected yet."""
  return LocalHost(host) if is_this_machine(host) else SshHost(host)
