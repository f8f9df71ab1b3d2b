"""What the tests of the frontend share: tools, copies of the code, real sshds and hosts.

Everything that is started here is ended by process id when its fixture closes.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import pytest

import conftest

ROOT = conftest.ROOT
PACKAGES = {'tmux': 'tmux', 'sshd': 'openssh-server', 'ssh': 'openssh-client', 'ip': 'iproute2'}
_SEARCHED = os.environ['PATH'] + ':/usr/sbin:/sbin'


def tool(name):
  """Path of a program; installs it with CI=true, skips the test with the command elsewhere."""
  path = shutil.which(name, path=_SEARCHED)
  if not path and os.environ.get('CI') == 'true':
    subprocess.run(['apt-get', 'update', '-qq'], check=True)
    environment = dict(os.environ, DEBIAN_FRONTEND='noninteractive')
    subprocess.run(['apt-get', 'install', '-y', '-qq', PACKAGES[name]], check=True, env=environment)
    path = shutil.which(name, path=_SEARCHED)
  if not path:
    pytest.skip(f'{name} is not installed: sudo apt-get install {PACKAGES[name]}')
  return path


def copy_code(folder, experiment=None):
  """Copies the frontend into a new folder, with the text `experiment` as its experiment.py."""
  os.makedirs(folder)
  shutil.copy(os.path.join(ROOT, 'run_experiment_mm_raw.py'), folder)
  shutil.copytree(
    os.path.join(ROOT, 'frontend'),
    os.path.join(folder, 'frontend'),
    ignore=shutil.ignore_patterns('__pycache__'),
  )
  if experiment is not None:
    with open(os.path.join(folder, 'experiment.py'), 'w', encoding='utf-8') as file:
      file.write(experiment)
  return str(folder)


def frontend(words, code=ROOT, prefix=(), timeout=240, **environment):
  """Runs the frontend to its end; returns the CompletedProcess with text output."""
  return subprocess.run(
    [*prefix, sys.executable, os.path.join(code, 'run_experiment_mm_raw.py'), *words],
    capture_output=True,
    text=True,
    timeout=timeout,
    stdin=subprocess.DEVNULL,
    cwd=code,
    env=dict(os.environ, **environment),
    check=False,
  )


def end_processes(pids):
  """Ends processes by id and waits until they are gone."""
  for pid in pids:
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)
  conftest.eventually(lambda: not any(map(is_alive, pids)), 20)


def is_alive(pid):
  """Whether a process runs (a zombie does not)."""
  try:
    with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
      return file.read().rpartition(')')[2].split()[0] != 'Z'
  except OSError:
    return False


def with_argument(text):
  """Ids of the processes that have `text` in their command line, except this one."""
  found = []
  for name in filter(str.isdigit, os.listdir('/proc')):
    with contextlib.suppress(OSError), open(f'/proc/{name}/cmdline', 'rb') as file:
      if text.encode() in file.read() and int(name) != os.getpid() and is_alive(name):
        found.append(int(name))
  return found


class Tmux:
  """A tmux of our own: a socket in a folder of our own, and no configuration but ours."""

  def __init__(self, path):
    self.path = str(path)
    self._program = tool('tmux')

  def __call__(self, *words, check=True):
    """Runs a tmux command; returns its output."""
    environment = {key: value for key, value in os.environ.items() if key != 'TMUX'}
    return subprocess.run(
      [self._program, '-S', self.path, *words],
      capture_output=True,
      text=True,
      check=check,
      env=environment,
    ).stdout

  def sessions(self):
    """Names of the sessions."""
    return self('list-sessions', '-F', '#{session_name}', check=False).split()

  def close(self):
    """Ends the server, by process id when it does not listen."""
    pid = self('display-message', '-p', '#{pid}', check=False).strip()
    self('kill-server', check=False)
    if pid:
      conftest.eventually(lambda: not is_alive(int(pid)), 20)


@pytest.fixture
def own_tmux(tmp_path):
  """A `Tmux` that ends with the test."""
  # A socket's path is short, or the system refuses it.
  import tempfile

  folder = tempfile.mkdtemp(prefix='tmux')
  server = Tmux(os.path.join(folder, 's'))
  yield server
  server.close()
  shutil.rmtree(folder)


class Sshd:
  """A real sshd on a port of its own, with its own keys, and a home folder that knows it.

  Args:
    folder: where keys and configuration go; it must exist wherever the sshd runs.
    home: the HOME of the frontend: `.ssh` below it holds its key, config and known hosts.
    address: on which it listens.
    port: on which it listens.
    prefix: what to put before the command, for example to enter a network namespace.
  """

  def __init__(self, folder, home, address='127.0.0.1', port=None, prefix=()):
    self.folder, self.home = str(folder), str(home)
    self.address, self.port = address, port or conftest.free_ports(1)[0]
    self._prefix, self._process = list(prefix), None
    os.makedirs(self.folder)
    os.makedirs(os.path.join(self.home, '.ssh'), mode=0o700, exist_ok=True)
    self._keygen('host_key')
    self._client_key()

  def _keygen(self, name):
    path = os.path.join(self.folder, name)
    tool('ssh')
    subprocess.run(
      ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', path],
      check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return path

  def _client_key(self):
    """One key for the frontend, however many hosts it has."""
    path = os.path.join(self.home, '.ssh', 'id_ed25519')
    if not os.path.exists(path):
      shutil.move(self._keygen('client_key'), path)
      shutil.move(os.path.join(self.folder, 'client_key.pub'), path + '.pub')
    shutil.copy(path + '.pub', os.path.join(self.folder, 'authorized_keys'))

  def known_hosts_line(self):
    """What ssh-keyscan would say about this sshd."""
    with open(os.path.join(self.folder, 'host_key.pub'), encoding='utf-8') as file:
      return f'[{self.address}]:{self.port} ' + ' '.join(file.read().split()[:2]) + '\n'

  def make_known(self):
    """Adds the host key to the frontend's known hosts."""
    with open(os.path.join(self.home, '.ssh', 'known_hosts'), 'a', encoding='utf-8') as file:
      file.write(self.known_hosts_line())

  def change_host_key(self):
    """Starts again with another host key."""
    self.close()
    for name in ('host_key', 'host_key.pub'):
      os.remove(os.path.join(self.folder, name))
    self._keygen('host_key')
    self.start()

  def start(self):
    """Starts the server and waits until it listens."""
    program = tool('sshd')
    os.makedirs('/run/sshd', exist_ok=True)
    settings = {
      'ListenAddress': self.address, 'Port': self.port, 'PidFile': 'none', 'UsePAM': 'no',
      'HostKey': os.path.join(self.folder, 'host_key'), 'StrictModes': 'no',
      'AuthorizedKeysFile': os.path.join(self.folder, 'authorized_keys'),
      'PasswordAuthentication': 'no', 'PermitRootLogin': 'prohibit-password',
      'Subsystem': 'sftp internal-sftp', 'MaxStartups': 100,
    }  # fmt: skip
    path = os.path.join(self.folder, 'sshd_config')
    with open(path, 'w', encoding='utf-8') as file:
      file.writelines(f'{name} {value}\n' for name, value in settings.items())
    log = os.path.join(self.folder, 'log')
    if os.path.exists(log):
      os.remove(log)
    self._process = conftest.Process([*self._prefix, program, '-D', '-e', '-f', path], log)
    conftest.eventually(
      lambda: self._process.poll() is not None or 'Server listening' in self._process.output(), 30
    )
    assert self._process.poll() is None, self._process.output()
    return self

  @property
  def pid(self):
    """Process id of the listening server."""
    return self._process.pid

  def close(self):
    """Ends the server and the connections that it serves."""
    if self._process and self._process.poll() is None:
      end_processes([self._process.pid, *descendants(self._process.pid)])
      self._process.wait()


def descendants(pid):
  """Ids of the processes that a process started, and those that they started."""
  import psutil

  return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@pytest.fixture
def sshd(tmp_path):
  """A running `Sshd` whose host key the home folder `tmp_path/home` knows."""
  server = Sshd(tmp_path / 'sshd', tmp_path / 'home')
  try:
    server.make_known()
    yield server.start()
  finally:
    server.close()
