"""Real sshds, and hosts in a network of their own.

Everything that is started here is ended by process id when its fixture closes.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

import conftest

ROOT = conftest.ROOT
PACKAGES = {
  'tmux': 'tmux',
  'sshd': 'openssh-server',
  'ssh': 'openssh-client',
  'ip': 'iproute2',
  'nft': 'nftables',
  'sudo': 'sudo',
  'munged': 'munge',
  'slurmctld': 'slurm-wlm',
  'slurmd': 'slurm-wlm',
  'sbatch': 'slurm-wlm',
}
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
    self.more_settings = {}
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
      name = self.address if self.port == 22 else f'[{self.address}]:{self.port}'
      return f'{name} ' + ' '.join(file.read().split()[:2]) + '\n'

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
    settings.update(self.more_settings)
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


# ---- A network of hosts. -------------------------------------------------------------------------
# What a person types once for each host: the password of root there, and its hash in /etc/shadow.
PASSWORD = 'impala'
PASSWORD_HASH = (
  '$6$impalatest$L001BQe8ZngSI/SFM3Pm0GHHiERu1a/IVdhMMHeuiq3rgf'
  '3HZk5tfiLySeubQQq5Y0OFRMdGDQPEMDZHPEUpv0'
)


def own_mounts(shadow):
  """Shell lines for a mount namespace: own /tmp, /run, ~/.ssh, and `shadow` as /etc/shadow.

  What the tests themselves need from /tmp (a checkout, an interpreter) stays visible.
  """
  ssh = os.path.expanduser('~/.ssh')
  os.makedirs(ssh, mode=0o700, exist_ok=True)
  kept = {path for path in (ROOT, sys.prefix, sys.base_prefix) if path.startswith('/tmp/')}
  before, after = [], []
  for number, path in enumerate(sorted(kept, key=len)):
    place = f'/run/impala-kept-{number}'
    before += [f'mkdir -p {place}', f'mount --rbind {shlex.quote(path)} {place}']
    after += [f'mkdir -p {shlex.quote(path)}', f'mount --move {place} {shlex.quote(path)}']
  own = [
    f'mount --bind {shlex.quote(shadow)} /etc/shadow',
    'mount -t tmpfs none /tmp',
    f'mount -t tmpfs -o mode=700 none {shlex.quote(ssh)}',
  ]
  run = ['mount -t tmpfs none /run', 'mkdir /run/sshd']
  return ' && '.join(['set -e; :', *run, *before, *own, *after])


class Network:
  """Hosts in network namespaces, each with its own address, sshd, /tmp, /run and ~/.ssh.

  Host 0 is where the frontend runs; the others have an sshd on port 22. A folder outside
  /tmp holds what they share: keys, and a copy of the code for the frontend.

  Args:
    num_hosts: how many beside host 0, up to 6.
  """

  ADDRESSES = ('10.0.0.1', *(f'10.0.0.{10 + number}' for number in range(1, 7)))

  def __init__(self, num_hosts=3):
    self.ADDRESSES = self.ADDRESSES[: num_hosts + 1]
    self._ip = tool('ip')
    for name in ('tmux', 'sshd', 'ssh', 'nft'):
      tool(name)
    if os.getuid() != 0:
      pytest.skip('network namespaces need root: sudo .venv/bin/python -m pytest tests/frontend')
    self.folder = tempfile.mkdtemp(prefix='impala', dir='/var/tmp')
    self.home = os.path.join(self.folder, 'home')
    with open(os.path.join(self.folder, 'shadow'), 'w', encoding='utf-8') as file:
      file.write(f'root:{PASSWORD_HASH}:19000:0:99999:7:::\n')
    self._names = [f'impala{os.getpid()}-{number}' for number in range(num_hosts + 1)]
    self._holder = None
    self.sshds = {}

  def _run(self, *words):
    subprocess.run([self._ip, *words], check=True, capture_output=True)

  def ip(self, *words):
    """Runs `ip` with arguments, outside of all hosts."""
    self._run(*words)

  def name_of(self, number):
    """The name of a host's namespace."""
    return self._names[number]

  def _make_namespace(self, name):
    try:
      self._run('netns', 'add', name)
    except subprocess.CalledProcessError as error:
      if os.environ.get('CI') == 'true':
        raise
      reason = error.stderr.decode().strip()
      pytest.skip(f'no network namespaces here ({reason}); a container needs --privileged')

  def start(self):
    """Makes the network and starts the sshds."""
    for name in self._names:
      self._make_namespace(name)
      self._run('-n', name, 'link', 'set', 'lo', 'up')
    center = self._names[0]
    self._run('-n', center, 'link', 'add', 'br0', 'type', 'bridge')
    self._run('-n', center, 'addr', 'add', self.ADDRESSES[0] + '/24', 'dev', 'br0')
    self._run('-n', center, 'link', 'set', 'br0', 'up')
    for number, name in list(enumerate(self._names))[1:]:
      peer = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', name]
      self._run('-n', center, 'link', 'add', f'v{number}', *peer)
      self._run('-n', center, 'link', 'set', f'v{number}', 'master', 'br0', 'up')
      self._run('-n', name, 'addr', 'add', self.ADDRESSES[number] + '/24', 'dev', 'eth0')
      self._run('-n', name, 'link', 'set', 'eth0', 'up')
    log = os.path.join(self.folder, 'holder')
    self._holder = conftest.Process([*self._entering(0), 'sleep', 'infinity'], log)
    conftest.eventually(lambda: self._in_mounts(self._holder.pid), 20)
    for number in range(1, len(self._names)):
      self.sshds[number] = Sshd(
        os.path.join(self.folder, f'sshd{number}'), self.home, self.ADDRESSES[number], 22,
        self._entering(number))  # fmt: skip
      keys = os.path.join(self.folder, f'sshd{number}', 'authorized_keys')
      self.sshds[number].more_settings = {
        'AuthorizedKeysFile': keys + ' .ssh/authorized_keys',
        'PasswordAuthentication': 'yes',
        'PermitRootLogin': 'yes',
      }
      self.sshds[number].start()
    return self

  def _entering(self, number):
    script = own_mounts(os.path.join(self.folder, 'shadow')) + ' && exec "$@"'
    name = self._names[number]
    return [self._ip, 'netns', 'exec', name, 'unshare', '-m', 'sh', '-c', script, 'sh']

  @staticmethod
  def _in_mounts(pid):
    with open(f'/proc/{pid}/cmdline', 'rb') as file:
      return file.read().startswith(b'sleep')

  def pid(self, number):
    """Id of a process on a host, as long as it is there."""
    return self._holder.pid if number == 0 else self.sshds[number].pid

  def inside(self, number, folder='/'):
    """What to put before a command line to run it on a host."""
    return [
      'nsenter',
      '-t',
      str(self.pid(number)),
      '-m',
      '-n',
      '--',
      'sh',
      '-c',
      'cd "$0" && exec "$@"',
      folder,
    ]

  def path(self, number, path):
    """Where this process sees a file of a host."""
    return f'/proc/{self.pid(number)}/root{path}'

  def pids(self, number):
    """Ids of the processes on a host, without those of its sshd."""
    listing = subprocess.run(
      [self._ip, 'netns', 'pids', self._names[number]], check=True, capture_output=True, text=True
    )
    base = self.pid(number)
    ours = {base, *descendants_of_sshd(base)}
    return {int(pid) for pid in listing.stdout.split()} - ours

  def command(self, number, *words, check=True):
    """Runs a program on a host; returns its output."""
    return subprocess.run(
      [*self.inside(number), *words], check=check, capture_output=True, text=True
    ).stdout

  def pull_plug(self, number):
    """Takes a host off the network; its processes stay."""
    self._run('-n', self._names[number], 'link', 'set', 'eth0', 'down')

  def plug_in(self, number):
    """Undoes `pull_plug`."""
    self._run('-n', self._names[number], 'link', 'set', 'eth0', 'up')

  def block(self, number, other):
    """Makes one host unable to reach another."""
    self._run('-n', self._names[number], 'route', 'add', 'unreachable', self.ADDRESSES[other])

  def unblock(self, number, other):
    """Undoes `block`."""
    self._run('-n', self._names[number], 'route', 'del', 'unreachable', self.ADDRESSES[other])

  def close(self):
    """Ends every process on the hosts, by id, and removes the network."""
    for name in self._names:
      with contextlib.suppress(subprocess.CalledProcessError):
        listing = subprocess.run(
          [self._ip, 'netns', 'pids', name], check=True, capture_output=True, text=True
        )
        end_processes([int(pid) for pid in listing.stdout.split()])
        self._run('netns', 'del', name)
    for process in [self._holder, *(sshd._process for sshd in self.sshds.values())]:
      if process:
        process.wait()
    shutil.rmtree(self.folder)


def descendants_of_sshd(pid):
  """Ids of an sshd's children that are sshd themselves: connections, not what runs in them."""
  import psutil

  children = psutil.Process(pid).children(recursive=True)
  return [child.pid for child in children if child.name().startswith('sshd')]


@pytest.fixture(scope='module')
def network():
  """A running `Network`, one for all tests of a module."""
  made = Network()
  try:
    yield made.start()
  finally:
    made.close()
