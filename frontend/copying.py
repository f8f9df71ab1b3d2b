"""One host of the cluster: this machine, or another over SSH. Both run the same constant script.

What a person wrote (workdir, interpreter) reaches that script as lines of its input, and
everything else as JSON, so no shell ever reads it. Keys or agent only; a host key must be known.
"""

import base64
import contextlib
import hashlib
import json
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile

from frontend import cluster as cluster_lib
from frontend import on_host

PROGRAM = 'run_experiment_mm_raw.py'
CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REMOTE_WORKDIR = '~/impala'
VENV_PYTHON = '.venv/bin/python'
WHEELHOUSE = '.wheelhouse'
CONNECT_SECS = 10
# Longest silence while pip installs TensorFlow over a slow line.
INSTALL_SECS = 3600
TCP_LEFT_OPEN_SECS = 15

_ENTER = r"""
IFS= read -r workdir; IFS= read -r python
case $workdir in "~") workdir=$HOME;; "~/"*) workdir=$HOME/${workdir#"~/"};; esac
case $python in "~/"*) python=$HOME/${python#"~/"};; esac
CDPATH= cd -- "$workdir" 2>/dev/null || exit 91
"""
# Becomes the frontend on that host; exit codes 91 to 94 say what is missing.
TALK = (
  _ENTER
  + r"""
test -f run_experiment_mm_raw.py || exit 93
command -v "$python" >/dev/null 2>&1 || exit 92
exec "$python" run_experiment_mm_raw.py --action=on_host
"""
)
# Makes the interpreter that an empty `python` cell means; the second line of input is `online`,
# or the folder that --wheelhouse was copied to.
MAKE_VENV = (
  _ENTER
  + r"""
exec 2>&1
test -x .venv/bin/python || python3 -m venv .venv || exit 94
if test "$python" = online; then set --; else set -- --no-index --find-links "$python"; fi
exec .venv/bin/python -m pip install --no-input -q "$@" -r requirements.txt
"""
)

# What a failure to get as far as the first reply is called in the table of `check`.
STAGES = ('address', 'reachable', 'host key', 'login', 'workdir', 'python')


class HostError(Exception):
  """A host that cannot be used; `stage` is one of STAGES, or '' once it had answered."""

  def __init__(self, stage, text):
    super().__init__(text)
    self.stage = stage


def is_here(host):
  """Whether a host is this machine: its address is ours, and no SSH cell says otherwise."""
  import getpass

  if host.ssh_port not in (None, 22) or host.ssh_username not in ('', getpass.getuser()):
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


def where(host):
  """(workdir, python) of a host with the defaults filled in."""
  if not is_here(host):
    return host.workdir or REMOTE_WORKDIR, host.python or VENV_PYTHON
  if not host.workdir:
    return CODE, host.python or sys.executable
  return host.workdir, host.python or VENV_PYTHON


def makes_venv(host):
  """Whether the interpreter is one that `push` makes."""
  return where(host)[1] == VENV_PYTHON


LOST = (OSError, EOFError)  # What sending on a broken connection raises; the second is paramiko's.


# ---- Ways to run a constant script: both give an object with the methods of a socket. ----------


class _LocalScript:
  """The script as a process here."""

  def __init__(self, script):
    self._errors = tempfile.TemporaryFile()
    self.channel, theirs = socket.socketpair()
    self._process = subprocess.Popen(
      ['/bin/sh', '-c', script], stdin=theirs, stdout=theirs, stderr=self._errors
    )
    theirs.close()

  def exit_code(self):
    return self._process.wait(timeout=CONNECT_SECS)

  def errors(self):
    self._errors.seek(0)
    return self._errors.read().decode(errors='replace')

  def close(self):
    self.channel.close()
    try:
      self._process.wait(timeout=CONNECT_SECS)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._errors.close()


class _RemoteScript:
  """The script over SSH. The shell that sshd starts gets one constant word-quoted script."""

  def __init__(self, client, script):
    self.channel = client.get_transport().open_session(timeout=CONNECT_SECS)
    self.channel.exec_command('exec /bin/sh -c ' + shlex.quote(script))

  def exit_code(self):
    self.channel.status_event.wait(CONNECT_SECS)
    return self.channel.exit_status if self.channel.exit_status_ready() else None

  def errors(self):
    self.channel.settimeout(1.0)
    data = b''
    with contextlib.suppress(OSError):
      while more := self.channel.recv_stderr(65536):
        data += more
    return data.decode(errors='replace')

  def close(self):
    with contextlib.suppress(*LOST):  # Nobody is left to be told.
      self.channel.close()


class _Host:
  """What a host here and a host over SSH share; subclasses connect, and copy files."""

  def __init__(self, host):
    self.host = host
    self.name = host.address
    self.workdir, self.python = where(host)
    self._script = None
    self._received = b''

  def ask(self, request, timeout_secs=60, **fields):
    """Sends one request to the frontend on the host and returns its reply.

    Raises:
      HostError: no connection, no answer, or the host says why it could not.
    """
    if self._script is None:
      self._script = self._begin(TALK, self.python)
      self.ask('hello')
    try:
      self._script.channel.settimeout(timeout_secs)
      self._script.channel.sendall(json.dumps({'request': request, **fields}).encode() + b'\n')
      reply = self._read_reply()
    except TimeoutError:
      raise HostError('', f'no answer to {request!r} within {timeout_secs} s') from None
    except LOST:
      raise self._ended() from None
    if 'error' in reply:
      raise HostError('', reply['error'])
    return reply

  def _begin(self, script, second_line):
    self.connect()
    begun = self._run(script)
    with contextlib.suppress(*LOST):
      begun.channel.sendall(f'{self.workdir}\n{second_line}\n'.encode())
    return begun

  def _read_reply(self):
    mark = on_host.REPLY_MARK.encode()
    while True:
      line, newline, rest = self._received.partition(b'\n')
      if newline:
        self._received = rest
        if line.startswith(mark):
          return json.loads(line[len(mark) :])
      else:
        data = self._script.channel.recv(65536)
        if not data:
          raise self._ended()
        self._received += data

  def _ended(self):
    code, errors = self._script.exit_code(), self._script.errors().strip().splitlines()
    self.close_script()
    if code in (None, -1):  # -1: the channel closed without an exit status.
      return HostError('', 'the connection was lost')
    if code == 91:
      return HostError('workdir', f'there is no folder {self.workdir}; --action=push makes it')
    if code == 92:
      hint = '; --action=push makes it' if makes_venv(self.host) else ''
      return HostError('python', f'there is no program {self.python}{hint}')
    if code == 93:
      return HostError(
        'workdir', f'{self.workdir} does not hold {PROGRAM}; --action=push copies it'
      )
    reason = on_host.printable(errors[-1]) if errors else f'it ended with {code}'
    return HostError('python', f'{self.python} cannot run {PROGRAM}: {reason}')

  def close_script(self):
    """Ends the conversation; the connection stays."""
    if self._script is not None:
      self._script.close()
      self._script = None
      self._received = b''

  def make_venv(self, offline):
    """Makes the virtual environment on the host and installs requirements.txt into it."""
    script = self._begin(MAKE_VENV, WHEELHOUSE if offline else 'online')
    try:
      script.channel.settimeout(INSTALL_SECS)
      output = b''
      while data := script.channel.recv(65536):
        output = (output + data)[-4000:]
      code = script.exit_code()
    finally:
      script.close()
    if code:
      lines = output.decode(errors='replace').strip().splitlines() or [f'exit {code}']
      raise HostError(
        'python',
        'the virtual environment could not be made: ' + on_host.printable(' / '.join(lines[-3:])),
      )


class LocalHost(_Host):
  """This machine."""

  def connect(self):
    """Nothing to do."""

  def _run(self, script):
    return _LocalScript(script)

  def close(self):
    """Ends the conversation."""
    self.close_script()

  def put(self, root, names, target=''):
    """Copies files, given relative to `root`, below the workdir; returns how many."""
    base = os.path.join(os.path.expanduser(self.workdir), target)
    os.makedirs(base, exist_ok=True)
    if os.path.samefile(root, base):
      return 0
    for name in names:
      path = os.path.join(base, name)
      os.makedirs(os.path.dirname(path), exist_ok=True)
      shutil.copy2(os.path.join(root, name), path)
    return len(names)

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
      self._clients = _connect(self.host.address, self.host.ssh_port, self.host.ssh_username)

  def _run(self, script):
    import paramiko

    try:
      return _RemoteScript(self._clients[-1], script)
    except (*LOST, paramiko.SSHException) as error:
      raise HostError('', f'the connection was lost: {error}') from None

  def close(self):
    """Ends conversation and connection."""
    self.close_script()
    for client in reversed(self._clients):
      client.close()
    self._clients = []

  def put(self, root, names, target=''):
    """Copies files, given relative to `root`, below the workdir; returns how many."""
    import paramiko

    self.connect()
    try:
      with self._clients[-1].open_sftp() as sftp:
        self._put_files(sftp, root, names, target)
    except (*LOST, paramiko.SSHException) as error:
      reason = str(error) or 'the connection was lost'
      raise HostError('', f'cannot copy files over SFTP: {reason}') from None
    return len(names)

  def _put_files(self, sftp, root, names, target):
    base = self.workdir
    if base == '~' or base.startswith('~/'):
      base = '.' + base[1:]  # SFTP begins in the home folder.
    base = os.path.join(base, target) if target else base
    made = set()
    for name in names:
      path = os.path.join(base, name)
      _make_folders(sftp, os.path.dirname(path), made)
      try:
        _put_file(sftp, os.path.join(root, name), path)
      except OSError as error:
        raise HostError('workdir', f'cannot write {path}: {error}') from None

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
  return LocalHost(host) if is_here(host) else SshHost(host)


def _make_folders(sftp, path, made):
  if not path or path == '/' or path in made:
    return
  made.add(path)
  try:
    sftp.stat(path)
  except FileNotFoundError:
    _make_folders(sftp, os.path.dirname(path), made)
    try:
      sftp.mkdir(path)
    except OSError as error:
      raise HostError('workdir', f'cannot make the folder {path}: {error}') from None


def _put_file(sftp, source, path):
  """Copies under another name first: a program that runs never sees half of a file."""
  temporary = path + '.push'
  sftp.put(source, temporary)
  sftp.chmod(temporary, os.stat(source).st_mode & 0o777)
  sftp.posix_rename(temporary, path)


# ---- SSH connections. --------------------------------------------------------------------------


def _connect(address, port, username, depth=0):
  """Connects, over jump hosts if `~/.ssh/config` names some; returns clients, the host's last."""
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
  return clients + [client]


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
    clients = _connect(name, int(jump_port) if jump_port else None, user, depth + 1)
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
