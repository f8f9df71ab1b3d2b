"""What OpenSSH's configuration says about a connection, that of this user and that of the system.

The ssh program itself is asked (`ssh -G`): Include, Match, tokens and whatever comes in later
versions mean here what they mean there. Where it cannot say, paramiko reads the files.
"""

import collections
import glob
import hashlib
import os
import re
import shlex
import socket
import subprocess
import tempfile

from frontend.errors import HostError

SYSTEM_CONFIG = '/etc/ssh/ssh_config'
# `Match exec` and the look-up of canonical names run meanwhile.
ASK_SECS = 60
_SEVERAL = ('identityfile', 'certificatefile')
_KEYS = ('id_rsa', 'id_ecdsa', 'id_ecdsa_sk', 'id_ed25519', 'id_ed25519_sk')
# ssh knows no such user; knows no -G; or will not go over a host to that host, which does no harm.
_NOT_SAID = r'No user exists|(?i:illegal|unknown|invalid) (option|argument)|jumphost loop'
# What the configuration may say and this program does not do: {option: values that change nothing}.
_UNREAD = {
  'knownhostscommand': ('none',),
  'pkcs11provider': ('none',),
  'proxyusefdpass': ('no',),
  'bindinterface': (),
  'verifyhostkeydns': ('no', 'false', 'ask'),
}

# address: what was asked about. hostname, port, user: where to log in, and as whom; user is ''
# where nobody has a name.
# identity_files, certificate_files, known_hosts, revoked: paths. identities_only: bool. agent: path
# of its socket, '' for none. host_key_alias: '' without one. jumps: list of `Jump`, the first hop
# first. proxy_command: for a shell, '' without one. bind_address: '' for any. family: of socket.
# connect_secs: float or None. unread: names of options that this program does not follow.
Options = collections.namedtuple(
  'Options',
  'address hostname port user identity_files certificate_files identities_only agent '
  'host_key_alias known_hosts revoked jumps proxy_command bind_address family connect_secs unread',
)
# A host on the way; port None and user '' for what the configuration says about it.
Jump = collections.namedtuple('Jump', 'host port user')


def local_user():
  """The name of this user, '' for a user id that has none."""
  import getpass

  try:
    return getpass.getuser()
  except (KeyError, OSError, ImportError):
    return ''


def read(address, port=None, username=''):
  """The `Options` of a connection.

  Args:
    address: address, host name or alias.
    port: int, or None for what the configuration says.
    username: '' for what the configuration says.

  Raises:
    HostError: the configuration cannot be used.
  """
  found = raw(address, port, username)
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
    connect_secs=float(timeout) if re.fullmatch(r'\d+', timeout) else None,
    unread=[name for name, idle in _UNREAD.items() if _one(found, name, '') not in ('', *idle)],
  )


def jumps(text):
  """`[user@]host[:port],...` as a list of `Jump`; raises HostError where it is none."""
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


def _port(text):
  if not re.fullmatch(r'\d{1,5}', text) or not 0 < int(text) < 65536:
    raise HostError('reachable', f'the ssh configuration names port {text!r}; ports are 1 to 65535')
  return int(text)


# ---- Reading. ------------------------------------------------------------------------------------


def raw(address, port=None, username=''):
  """{option in small letters: its value as a string, or a list of strings}, as for OpenSSH."""
  return _ask_ssh(address, port, username) or _read_files(address)


def _ask_ssh(address, port, username):
  """As `raw`; None where there is no ssh that could say."""
  words = ['-p', str(port)] if port else []
  words += ['-l', username] if username else []
  with tempfile.NamedTemporaryFile('w', prefix='impala-ssh', encoding='utf-8') as ours:
    account = _home_of_account()
    moved = account and os.path.realpath(account) != os.path.realpath(_home())
    if moved:  # ssh looks into the account's home folder, whatever HOME says.
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
    if re.search(_NOT_SAID, said):
      return None
    lines = [line for line in said.splitlines() if ': line ' in line] or said.splitlines() or ['?']
    raise HostError('reachable', f'the ssh configuration cannot be read: {lines[0]}')
  found = {}
  for line in result.stdout.decode(errors='replace').splitlines():
    name, _, value = line.partition(' ')
    if moved and value.startswith(account + '/'):
      value = ' '.join(
        _home() + word[len(account) :] if word.startswith(account + '/') else word
        for word in value.split(' ')
      )
    name = name.lower()
    if name in _SEVERAL:
      found.setdefault(name, []).append(value)
    else:
      found.setdefault(name, value)
  return found


def _read_files(address):
  import paramiko

  class Config(paramiko.SSHConfig):
    """Leaves tokens to `read`, and does without the user's name where there is none."""

    def _allowed_tokens(self, key):
      return []

    def _does_match(self, match_list, *args, **kwargs):
      try:
        return bool(match_list) and super()._does_match(match_list, *args, **kwargs)
      except (KeyError, OSError):
        return False

  text = _with_includes(os.path.join(_home(), '.ssh', 'config'), 0)
  text += '\nHost *\n' + _with_includes(SYSTEM_CONFIG, 0)
  try:
    return dict(Config.from_text(text).lookup(address))
  except (OSError, ValueError, KeyError, paramiko.SSHException) as error:
    raise HostError('reachable', f'the ssh configuration cannot be read: {error}') from None


def _with_includes(path, depth):
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


def _one(found, name, default, keep_none=False):
  value = found.get(name, default)
  if isinstance(value, list):
    value = ' '.join(value)
  return default if value.lower() == 'none' and not keep_none else value


def _words(text):
  try:
    return shlex.split(text)
  except ValueError:
    return text.split()


def _home():
  return os.path.expanduser('~')


def _home_of_account():
  import pwd

  try:
    return pwd.getpwuid(os.getuid()).pw_dir
  except KeyError:
    return None


def _with_home(path):
  return os.path.expanduser(path) if path.startswith('~') else path


def _with_tokens(text, tokens):
  return re.sub(r'%(.)', lambda match: tokens.get(match[1], match[0]), text)


def _paths(values, tokens):
  """Paths with tokens, `~` and `${VARIABLE}` replaced; without `none`."""
  return [
    os.path.expandvars(_with_home(_with_tokens(value, tokens)))
    for value in values
    if value and value.lower() != 'none'
  ]


def _agent(value, tokens):
  """Path of the agent's socket, '' for none."""
  if value.lower() == 'none':
    return ''
  if value == 'SSH_AUTH_SOCK':
    return os.environ.get('SSH_AUTH_SOCK', '')
  if re.fullmatch(r'\$\w+', value):
    return os.environ.get(value[1:], '')
  return _paths([value], tokens)[0]


def _tokens(address, host, port, user, alias, jump):
  here = socket.gethostname()
  mixed = hashlib.sha1((here + host + port + user + jump).encode()).hexdigest()
  return {
    '%': '%', 'd': _home(), 'h': host, 'n': address, 'p': port, 'r': user, 'u': local_user(),
    'i': str(os.getuid()), 'l': here, 'L': here.partition('.')[0], 'k': alias or host, 'j': jump,
    'C': mixed,
  }  # fmt: skip
