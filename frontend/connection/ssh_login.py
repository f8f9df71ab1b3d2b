"""Logs in with keys of an agent and of files, in OpenSSH's order; never with a password."""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from frontend.connection import ssh_config
from frontend.errors import HostError

if TYPE_CHECKING:
  import paramiko
  from paramiko.agent import AgentSSH

AGENT_SECS = 60  # Some agents ask the user to confirm.


def log_in(transport: paramiko.Transport, options: ssh_config.Options, add_key: str) -> None:
  """Logs in with the first key that the host accepts.

  Args:
    transport: to the host, whose key has been verified.
    options: of the host.
    add_key: command, for messages, that adds the user's key on the host.

  Raises:
    HostError: no key was accepted; says what to do.
  """
  if not options.user:
    raise HostError(
      'login',
      f'user id {os.getuid()} has no name here, so say who logs in: the column ssh_username, or '
      'User in ~/.ssh/config',
    )
  with _Agent(options.agent) as agent:
    keys = _Keys(options, agent)
    refusal = _try_keys(transport, options.user, keys)
  if refusal is None:
    return
  locked = keys.locked
  if locked:
    holds = 'no agent holds it' if agent.runs else 'no ssh-agent runs'
    start = '' if agent.runs else 'eval "$(ssh-agent)"; '
    raise HostError(
      'login',
      f'{locked[0]} has a passphrase and {holds}: {start}{shlex.join(["ssh-add", *locked])} '
      f'(keys without one: {refusal})',
    )
  damaged = f'; {keys.damaged[0]}' if keys.damaged else ''
  raise HostError(
    'login', f'no key was accepted ({refusal}{damaged}); put yours there with: {add_key}'
  )


def _try_keys(transport: paramiko.Transport, user: str, keys: _Keys) -> str | None:
  """Tries one key after another; returns None when one is accepted, else why none was."""
  import paramiko

  tried = 0
  for key in keys:
    tried += 1
    try:
      more = transport.auth_publickey(user, key)
    except paramiko.BadAuthenticationType as error:
      return f'the host wants {", ".join(map(str, error.allowed_types))}'
    except paramiko.AuthenticationException as error:
      if not transport.is_active():
        return f'the host hung up after {tried} keys ({error}); IdentitiesOnly yes offers fewer'
      continue
    except (paramiko.SSHException, OSError, EOFError) as error:
      if not transport.is_active():
        return f'the host hung up after {tried} keys; IdentitiesOnly yes offers fewer'
      keys.damaged.append(f'a key cannot sign: {error}')
      continue
    if more:
      return f'the host wants {", ".join(map(str, more))} as well'
    return None
  return f'{tried} refused' if tried else 'none found'


class _Keys:
  """Iterates over the keys to offer.

  Attributes:
    locked: paths of keys with a passphrase.
    damaged: sentences about files that cannot be used.
  """

  def __init__(self, options: ssh_config.Options, agent: _Agent) -> None:
    self._options, self._agent = options, agent
    self.locked: list[str] = []
    self.damaged: list[str] = []

  def __iter__(self) -> Iterator[paramiko.PKey]:
    files = [path for path in self._options.identity_files if os.path.exists(path)]
    public = {_public_part(path): path for path in files}
    held = self._agent.keys()
    named = [key for key in held if key.asbytes() in public]
    yield from named
    if not self._options.identities_only:
      yield from (key for key in held if key.asbytes() not in public)
    done = {public[key.asbytes()] for key in named}
    for path in files:
      if path not in done:
        yield from self._of_file(path)

  def _of_file(self, path: str) -> Iterator[paramiko.PKey]:
    """Yields the key in a file, with each of its certificates first."""
    import paramiko

    try:
      key = _load(path)
    except paramiko.PasswordRequiredException:
      self.locked.append(path)
      return
    except (paramiko.SSHException, OSError, ValueError) as error:
      self.damaged.append(f'{path}: {error}')
      return
    if key is None:
      self.damaged.append(f'{path} holds no key of a kind that is known here')
      return
    for certificate in [*self._options.certificate_files, path + '-cert.pub']:
      if os.path.exists(certificate):
        with_certificate = _load(path)
        if with_certificate is None:
          continue
        try:
          with_certificate.load_certificate(certificate)
        except (paramiko.SSHException, ValueError):  # It belongs to another key.
          continue
        yield with_certificate
    yield key


def _load(path: str) -> paramiko.PKey | None:
  """Returns the key in a file, or None for a key of an unknown type.

  Raises:
    paramiko.PasswordRequiredException: it has a passphrase.
  """
  import paramiko

  with open(path, 'rb') as file:
    if b'BEGIN ENCRYPTED PRIVATE KEY' in file.read(200):
      raise paramiko.PasswordRequiredException(path)
  for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
    try:
      return kind.from_private_key_file(path)
    except paramiko.PasswordRequiredException:
      raise
    except (paramiko.SSHException, ValueError):
      continue
  return None


def _public_part(path: str) -> bytes:
  """Returns the public key of a private key file, from PATH.pub or the file itself, or b''."""
  import paramiko

  with contextlib.suppress(OSError, ValueError, IndexError):
    with open(path + '.pub', encoding='utf-8') as file:
      return base64.b64decode(file.read().split()[1])
  with contextlib.suppress(OSError, ValueError, struct.error):
    with open(path, encoding='ascii') as file:
      data = base64.b64decode(''.join(line for line in file if not line.startswith('-')))
    magic = b'openssh-key-v1\0'
    if data.startswith(magic):
      message = paramiko.Message(data[len(magic) :])
      for _ in range(3):  # Cipher, key derivation function and its options.
        message.get_string()
      message.get_int()
      return message.get_string()
  return b''


class _Agent:
  """A context manager for the connection to an ssh-agent.

  Args:
    path: of its socket, or ''.

  Attributes:
    runs: whether the agent answers.
  """

  def __init__(self, path: str) -> None:
    self._path = path
    self._agent: AgentSSH | None = None
    self._socket: socket.socket | None = None
    self.runs = False

  def __enter__(self) -> _Agent:
    from paramiko.agent import AgentSSH

    if self._path:
      self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
      self._socket.settimeout(AGENT_SECS)
      try:
        self._socket.connect(self._path)
        self._agent = AgentSSH()
        self._agent._connect(self._socket)  # pyright: ignore[reportAttributeAccessIssue]
        self.runs = True
      except Exception:  # It is not an agent.
        self._agent = None
    return self

  def keys(self) -> list[paramiko.PKey]:
    """Returns the agent's keys; [] without an agent."""
    return list(self._agent.get_keys()) if self._agent else []

  def __exit__(self, *_: object) -> None:
    if self._socket:
      self._socket.close()
