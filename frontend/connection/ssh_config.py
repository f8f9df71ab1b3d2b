"""OpenSSH's configuration of a connection, of this user and of the system.

The ssh program itself is asked (`ssh -G`), so Include, Match, tokens and features of later versions
have the same meaning here. If that fails, paramiko reads the files.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from frontend.errors import HostError

SYSTEM_CONFIG = '/etc/ssh/ssh_config'
# `ssh -G` runs the commands of `Match exec` and looks up canonical names.
ASK_SECS = 60
_LISTS = ('identityfile', 'certificatefile')
_KEYS = ('id_rsa', 'id_ecdsa', 'id_ecdsa_sk', 'id_ed25519', 'id_ed25519_sk')
# Errors after which paramiko reads the files: this user id has no name; an ssh without -G; a jump
# host that leads to itself, which does no harm.
_CANNOT_ANSWER = r'No user exists|(?i:illegal|unknown|invalid) (option|argument)|jumphost loop'
# Options that are ignored here: {option: values with which it has no effect}.
_IGNORED = {
  'knownhostscommand': ('none',),
  'pkcs11provider': ('none',),
  'proxyusefdpass': ('no',),
  'bindinterface': (),
  'verifyhostkeydns': ('no', 'false', 'ask'),
}


class Jump(NamedTuple):
  """A jump host.

  Attributes:
    host: its address or alias.
    port: None for the port of its own configuration.
    user: '' for the user of its own configuration.
  """

  host: str
  port: int | None
  user: str


class Options(NamedTuple):
  """The options of a connection.

  Attributes:
    address: for which the configuration was read.
    hostname: to connect to.
    port: to connect to.
    user: to log in as; '' if this user id has no name and none is configured.
    identity_files: paths of private keys.
    certificate_files: paths of certificates.
    identities_only: whether the agent's other keys are not offered.
    agent: path of the agent's socket, or ''.
    host_key_alias: HostKeyAlias, or ''.
    known_hosts: paths of known_hosts files.
    revoked: paths of RevokedHostKeys files.
    jumps: the jump hosts in the order of the hops.
    proxy_command: for a shell, or ''.
    bind_address: local address, or ''.
    family: address family of the socket.
    connect_timeout_secs: ConnectTimeout, or None.
    ignored: names of options that are set and ignored here.
  """

  address: str
  hostname: str
  port: int
  user: str
  identity_files: list[str]
  certificate_files: list[str]
  identities_only: bool
  agent: str
  host_key_alias: str
  known_hosts: list[str]
  revoked: list[str]
  jumps: list[Jump]
  proxy_command: str
  bind_address: str
  family: int
  connect_timeout_secs: float | None
  ignored: list[str]


def local_user() -> str:
  """Returns the name of this user, or '' for a user id without a name."""
  import getpass

  try:
    return getpass.getuser()
  except (KeyError, OSError, ImportError):
    return ''


def read(address: str, port: int | None = None, username: str = '') -> Options:
  """Returns the options of a connection.

  Args:
    address: address, host name or alias.
    port: None for the port of the configuration.
    username: '' for the user of the configuration.

  Raises:
    HostError: the configuration cannot be read, or is not valid.
  """
  found = _configured(address, port, username)
  host = _with_tokens(_one(found, 'hostname', address), {'h': address, '%': '%'})
  place = str(port or _one(found, 'port', '22'))
  user = username or _one(found, 'user', '') or local_user()
  alias = _one(found, 'hostkeyalias', '')
  tokens = _tokens(address, host, place, user, alias, _one(found, 'proxyjump', ''))
  known = _one(found, 'userknownhostsfile', '~/.ssh/known_hosts ~/.ssh/known_hosts2')
  known += ' ' + _one(found, 'globalknownhostsfile', '/etc/ssh/ssh_known_hosts')
  keys = found.get('identityfile') or [f'~/.ssh/{name}' for name in _KEYS]
  timeout = _one(found, 'connecttimeout', '')
  jump, command = _one(found, 'proxyjump', ''), _one(found, 'proxycommand', '')
  return Options(
    address=address,
    hostname=host,
    port=_port(place),
    user=user,
    identity_files=_paths(keys, tokens),
    certificate_files=_paths(found.get('certificatefile', []), tokens),
    identities_only=_one(found, 'identitiesonly', 'no') in ('yes', 'true'),
    agent=_agent(_one(found, 'identityagent', 'SSH_AUTH_SOCK', keep_none=True), tokens),
    host_key_alias=alias,
    known_hosts=_paths(_words(known), tokens),
    revoked=_paths(_words(_one(found, 'revokedhostkeys', '')), tokens),
    jumps=jumps(jump) if jump else [],
    proxy_command=_with_tokens(command, tokens),
    bind_address=_one(found, 'bindaddress', ''),
    family={'inet': socket.AF_INET, 'inet6': socket.AF_INET6}.get(
      _one(found, 'addressfamily', 'any'), socket.AF_UNSPEC
    ),
    connect_timeout_secs=float(timeout) if re.fullmatch(r'\d+', timeout) else None,
    ignored=[name for name, idle in _IGNORED.items() if _one(found, name, '') not in ('', *idle)],
  )


def jumps(text: str) -> list[Jump]:
  """Parses a ProxyJump, `[user@]host[:port],...`; raises HostError if it is not valid."""
  found = []
  for word in text.split(','):
    match = re.fullmatch(
      r'(?:ssh://)?(?:(.+)@)?(?:\[([^\]]+)\](?::(\d+))?|([^:\[\]@]+)(?::(\d+))?|([^\[\]@]*:[^\[\]@]*:[^\[\]@]*))/?',
      word.strip(),
    )  # fmt: skip
    if not match:
      raise HostError('reachable', f'ProxyJump {text}: {word!r} is not [user@]host[:port]')
    user, bracketed, port_there, name, port, bare = match.groups()
    port = port_there or port
    found.append(Jump(bracketed or name or bare, _port(port) if port else None, user or ''))
  return found


def _port(text: str) -> int:
  if not re.fullmatch(r'\d{1,5}', text) or not 0 < int(text) < 65536:
    raise HostError('reachable', f'the ssh configuration names port {text!r}; ports are 1 to 65535')
  return int(text)


# ---- Reading. ------------------------------------------------------------------------------------


Values = dict[str, Any]


def _configured(address: str, port: int | None, username: str) -> Values:
  """Returns {option in lower case: its value, a string, or a list of strings for _LISTS}."""
  return _ask_ssh(address, port, username) or _read_files(address)


def _ask_ssh(address: str, port: int | None, username: str) -> Values | None:
  """Asks the ssh program for the configuration; returns None if there is none, or it cannot."""
  words = ['-p', str(port)] if port else []
  words += ['-l', username] if username else []
  with tempfile.NamedTemporaryFile('w', prefix='impala-ssh', encoding='utf-8') as ours:
    account = _home_of_account()
    moved = account and os.path.realpath(account) != os.path.realpath(_home())
    if account and moved:  # ssh ignores HOME and uses the home folder of the account.
      ours.write(
        f'Include "{_home()}/.ssh/config"\nMatch all\nInclude {SYSTEM_CONFIG}\nMatch all\n'
        f'UserKnownHostsFile "{_home()}/.ssh/known_hosts" "{_home()}/.ssh/known_hosts2"\n'
      )
      ours.flush()
      words += ['-F', ours.name]
    try:
      result = subprocess.run(
        ['ssh', '-G', *words, '--', address],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_SECS, check=False,
      )  # fmt: skip
    except FileNotFoundError:
      return None
    except subprocess.TimeoutExpired:
      raise HostError('reachable', f'`ssh -G {address}` gave no answer in {ASK_SECS} s') from None
  if result.returncode:
    said = result.stderr.decode(errors='replace')
    if re.search(_CANNOT_ANSWER, said):
      return None
    lines = [line for line in said.splitlines() if ': line ' in line] or said.splitlines() or ['?']
    raise HostError('reachable', f'the ssh configuration cannot be read: {lines[0]}')
  found: Values = {}
  for line in result.stdout.decode(errors='replace').splitlines():
    name, _, value = line.partition(' ')
    if account and moved and value.startswith(account + '/'):
      value = ' '.join(
        _home() + word[len(account) :] if word.startswith(account + '/') else word
        for word in value.split(' ')
      )
    name = name.lower()
    if name in _LISTS:
      found.setdefault(name, []).append(value)
    else:
      found.setdefault(name, value)
  return found


def _read_files(address: str) -> Values:
  """Reads the configuration with paramiko."""
  import paramiko

  class Config(paramiko.SSHConfig):
    """Leaves tokens to `read`, and accepts a user id without a name."""

    def _allowed_tokens(self, key: str) -> list[str]:
      return []

    def _does_match(self, match_list: Any, *args: Any, **kwargs: Any) -> bool:
      try:
        # Its type stubs leave out private methods.
        matches = super()._does_match  # pyright: ignore[reportAttributeAccessIssue]
        return bool(match_list) and matches(match_list, *args, **kwargs)
      except (KeyError, OSError):
        return False

  text = _with_includes(os.path.join(_home(), '.ssh', 'config'), 0)
  text += '\nHost *\n' + _with_includes(SYSTEM_CONFIG, 0)
  try:
    return dict(Config.from_text(text).lookup(address))
  except (OSError, ValueError, KeyError, paramiko.SSHException) as error:
    raise HostError('reachable', f'the ssh configuration cannot be read: {error}') from None


def _with_includes(path: str, depth: int) -> str:
  try:
    with open(path, encoding='utf-8', errors='replace') as file:
      lines = file.read().splitlines()
  except FileNotFoundError:
    return ''
  except OSError as error:
    raise HostError('reachable', f'{path} cannot be read: {error.strerror}') from None
  found = []
  for line in lines:
    named = re.match(r'\s*include[\s=]+(.*)', line, re.IGNORECASE)
    if not named or depth >= 16:
      found.append(line)
      continue
    folder = '/etc/ssh' if path.startswith('/etc/ssh/') else os.path.join(_home(), '.ssh')
    for pattern in _words(named[1]):
      for name in sorted(glob.glob(os.path.join(folder, _with_home(pattern)))):
        found.append(_with_includes(name, depth + 1))
  return '\n'.join(found)


# ---- Values. -------------------------------------------------------------------------------------


def _one(found: Values, name: str, default: str, keep_none: bool = False) -> str:
  value = found.get(name, default)
  if isinstance(value, list):
    value = ' '.join(value)
  return default if value.lower() == 'none' and not keep_none else value


def _words(text: str) -> list[str]:
  try:
    return shlex.split(text)
  except ValueError:
    return text.split()


def _home() -> str:
  return os.path.expanduser('~')


def _home_of_account() -> str | None:
  import pwd

  try:
    return pwd.getpwuid(os.getuid()).pw_dir
  except KeyError:
    return None


def _with_home(path: str) -> str:
  return os.path.expanduser(path) if path.startswith('~') else path


def _with_tokens(text: str, tokens: Mapping[str, str]) -> str:
  return re.sub(r'%(.)', lambda match: tokens.get(match[1], match[0]), text)


def _paths(values: Sequence[str], tokens: Mapping[str, str]) -> list[str]:
  """Returns paths with tokens, `~` and `${VARIABLE}` replaced, without `none`."""
  return [
    os.path.expandvars(_with_home(_with_tokens(value, tokens)))
    for value in values
    if value and value.lower() != 'none'
  ]


def _agent(value: str, tokens: Mapping[str, str]) -> str:
  """Returns the path of the agent's socket, or ''."""
  if value.lower() == 'none':
    return ''
  if value == 'SSH_AUTH_SOCK':
    return os.environ.get('SSH_AUTH_SOCK', '')
  if re.fullmatch(r'\$\w+', value):
    return os.environ.get(value[1:], '')
  return _paths([value], tokens)[0]


def _tokens(address: str, host: str, port: str, user: str, alias: str, jump: str) -> dict[str, str]:
  here = socket.gethostname()
  mixed = hashlib.sha1((here + host + port + user + jump).encode()).hexdigest()
  return {
    '%': '%', 'd': _home(), 'h': host, 'n': address, 'p': port, 'r': user, 'u': local_user(),
    'i': str(os.getuid()), 'l': here, 'L': here.partition('.')[0], 'k': alias or host, 'j': jump,
    'C': mixed,
  }  # fmt: skip
