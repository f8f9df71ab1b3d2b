"""Hosts here and over SSH, with a real sshd."""

import getpass
import os
import socket
import subprocess
import sys
import zipfile

import pytest

import conftest
import frontend_fixtures
from frontend import cluster, hosts
from frontend_fixtures import sshd  # noqa: F401


@pytest.fixture
def code(tmp_path):
  return frontend_fixtures.copy_code(tmp_path / "a 'code' $(folder)")


@pytest.fixture
def opened():
  """Opens hosts and closes them after the test."""
  made = []

  def make(address='localhost', port=None, username='', workdir='', python=''):
    made.append(hosts.open_host(cluster.Host(address, port, username, workdir, python, ())))
    return made[-1]

  yield make
  for host in made:
    host.close()


@pytest.fixture
def remote(opened, sshd, code, monkeypatch):  # noqa: F811
  """Opens the host behind the sshd; its arguments replace what would work."""
  monkeypatch.setenv('HOME', sshd.home)
  monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)

  def make(**changes):
    return opened(
      **{'address': sshd.address, 'port': sshd.port, 'workdir': code, 'python': sys.executable}
      | changes
    )

  return make


def failure(host):
  """(stage, sentence) of a host that cannot be used."""
  with pytest.raises(hosts.HostError) as caught:
    host.ask('hello')
  return caught.value.stage, str(caught.value)


# ---- This machine. -------------------------------------------------------------------------------


def test_which_hosts_are_this_machine():
  def here(address, port=None, username=''):
    return hosts.is_here(cluster.Host(address, port, username, '', '', ()))

  assert here('localhost') and here('127.0.0.1', 22) and here('localhost', None, getpass.getuser())
  assert not here('localhost', 2222)
  assert not here('localhost', None, 'somebody-else')
  assert not here('192.0.2.1')


def test_defaults_of_workdir_and_python():
  def where(address, workdir='', python=''):
    return hosts.where(cluster.Host(address, None, '', workdir, python, ()))

  assert where('localhost') == (hosts.CODE, sys.executable)
  assert where('localhost', '/w') == ('/w', '.venv/bin/python')
  assert where('192.0.2.1') == ('~/impala', '.venv/bin/python')
  assert where('192.0.2.1', '/w', '/p') == ('/w', '/p')


def test_talking_to_this_machine(opened, code):
  host = opened(workdir=code, python=sys.executable)
  assert host.ask('hello') == {'python': sys.executable, 'workdir': code}
  assert host.ask('reach', addresses=[], allow_public=False) == {'problems': []}


def test_a_request_that_the_other_side_does_not_know(opened, code):
  host = opened(workdir=code, python=sys.executable)
  with pytest.raises(hosts.HostError, match='does not know this request .*--action=push'):
    host.ask('dance')
  with pytest.raises(hosts.HostError, match='does not know this request .*--action=push'):
    host.ask('hello', style='slow')
  assert host.ask('hello')


@pytest.mark.parametrize('place', ['here', 'remote'])
def test_a_host_without_the_code_or_the_interpreter(place, opened, remote, tmp_path, code):
  host = remote if place == 'remote' else opened
  good = {'workdir': code, 'python': sys.executable}
  (tmp_path / 'empty').mkdir()
  assert failure(host(**good | {'workdir': '/nowhere'})) == (
    'workdir', 'there is no folder /nowhere; --action=push makes it')  # fmt: skip
  assert failure(host(**good | {'workdir': str(tmp_path / 'empty')})) == (
    'workdir',
    f'{tmp_path}/empty does not hold run_experiment_mm_raw.py; --action=push copies it',
  )
  assert failure(host(**good | {'python': '/nowhere/python'})) == (
    'python', 'there is no program /nowhere/python')  # fmt: skip
  assert failure(host(**good | {'python': ''})) == (
    'python', 'there is no program .venv/bin/python; --action=push makes it')  # fmt: skip
  stage, text = failure(host(**good | {'python': '/bin/false'}))
  assert (stage, text) == (
    'python', '/bin/false cannot run run_experiment_mm_raw.py: it ended with 1')  # fmt: skip


# ---- Over SSH. -----------------------------------------------------------------------------------


def test_talking_over_ssh(remote, code):
  host = remote()
  assert isinstance(host, hosts.SshHost)
  assert host.ask('hello') == {'python': sys.executable, 'workdir': code}


@pytest.fixture
def broken(remote):
  """A host that was talked to, on a connection that takes nothing more."""
  host = remote()
  host.ask('hello')
  host._clients[-1].get_transport().sock.shutdown(socket.SHUT_WR)
  return host


def test_a_broken_connection_is_closed_without_an_error(broken):
  broken.close()
  assert broken.ask('hello')  # On a new one.


def test_a_connection_that_breaks_is_named(broken):
  assert failure(broken) == ('', 'the connection was lost')


def test_copying_files(remote, opened, tmp_path):
  source = tmp_path / 'source'
  (source / 'deep/er').mkdir(parents=True)
  (source / 'deep/er/$(a) b').write_text('x')
  (source / 'run').write_text('y')
  (source / 'run').chmod(0o755)
  for number, host in enumerate([remote, opened]):
    target = tmp_path / f'target {number};'
    assert host(workdir=str(target)).put(str(source), ['deep/er/$(a) b', 'run']) == 2
    assert (target / 'deep/er/$(a) b').read_text() == 'x'
    assert os.access(target / 'run', os.X_OK)
    assert sorted(os.listdir(target)) == ['deep', 'run']
  assert opened(workdir=str(source)).put(str(source), ['run']) == 0


def test_copying_over_a_connection_that_breaks_is_named(broken, tmp_path):
  (tmp_path / 'run').write_text('y')
  with pytest.raises(hosts.HostError, match='^cannot copy files over SFTP: .'):
    broken.put(str(tmp_path), ['run'])


def test_copying_to_a_host_without_sftp_is_named(remote, sshd, tmp_path):  # noqa: F811
  (tmp_path / 'run').write_text('y')
  sshd.close()
  sshd.more_settings = {'Subsystem': 'sftp /bin/false'}
  sshd.start()
  with pytest.raises(hosts.HostError, match='^cannot copy files over SFTP: .'):
    remote(workdir=str(tmp_path / 'target')).put(str(tmp_path), ['run'])


def test_ssh_config_is_honoured(remote, sshd, code):  # noqa: F811
  with open(os.path.join(sshd.home, '.ssh', 'config'), 'w', encoding='utf-8') as file:
    file.write(
      f'Host trainer\n  HostName {sshd.address}\n  Port {sshd.port}\n  User {getpass.getuser()}\n'
    )
  assert remote(address='trainer', port=None).ask('hello')['workdir'] == code


def test_a_jump_host_of_the_ssh_config(remote, sshd, code):  # noqa: F811
  with open(os.path.join(sshd.home, '.ssh', 'config'), 'w', encoding='utf-8') as file:
    file.write(
      f'Host inner\n  HostName {sshd.address}\n  Port {sshd.port}\n'
      f'  ProxyJump {getpass.getuser()}@{sshd.address}:{sshd.port}\n'
    )
  assert remote(address='inner', port=None).ask('hello')['workdir'] == code
  with open(os.path.join(sshd.folder, 'log'), encoding='utf-8') as file:
    assert file.read().count('Accepted publickey') == 2


def test_an_unknown_host_key_is_refused(remote, sshd):  # noqa: F811
  known = os.path.join(sshd.home, '.ssh', 'known_hosts')
  os.remove(known)
  stage, text = failure(remote())
  assert stage == 'host key'
  assert text == (
    f'its host key is not known; compare and add it with: ssh -p {sshd.port} {sshd.address}'
  )
  assert not os.path.exists(known)


def test_a_changed_host_key_is_refused(remote, sshd):  # noqa: F811
  sshd.change_host_key()
  stage, text = failure(remote())
  assert stage == 'host key'
  assert text.startswith('its host key is now SHA256:')
  assert f"ssh-keygen -R '[{sshd.address}]:{sshd.port}'" in text


def test_a_key_that_the_host_does_not_accept(remote, sshd):  # noqa: F811
  open(os.path.join(sshd.folder, 'authorized_keys'), 'w').close()
  stage, text = failure(remote())
  assert stage == 'login'
  assert text.endswith(f'put yours there with: ssh-copy-id -p {sshd.port} {sshd.address}')


def test_a_host_that_is_down(remote, sshd):  # noqa: F811
  sshd.close()
  assert failure(remote()) == (
    'reachable', f'cannot reach {sshd.address} port {sshd.port}: Connection refused')  # fmt: skip


def test_a_host_that_goes_away_in_the_middle(remote, sshd):  # noqa: F811
  host = remote()
  host.ask('hello')
  sshd.close()
  with pytest.raises(hosts.HostError, match='the connection was lost'):
    host.ask('hello', timeout_secs=20)


def test_the_other_side_ends_with_the_connection(remote, code):
  host = remote()
  host.ask('hello')
  assert len(frontend_fixtures.with_argument('--action=on_host')) >= 1
  host.close()
  pids = [
    pid
    for pid in frontend_fixtures.with_argument('--action=on_host')
    if os.path.realpath(f'/proc/{pid}/cwd') == code
  ]
  conftest.eventually(lambda: not any(map(frontend_fixtures.is_alive, pids)), 20)


@pytest.mark.parametrize('column', ['workdir', 'python'])
@pytest.mark.parametrize(
  'cell', ['$(touch {})', '`touch {}`', '; touch {}', '/bin/sh -c "touch {}"', "' ; touch {} '"]
)
def test_cells_are_never_run(remote, opened, tmp_path, column, cell):
  ran = tmp_path / 'ran'
  for host in (
    remote(**{column: cell.format(ran)}),
    opened(**{'workdir': hosts.CODE, column: cell.format(ran)}),
  ):
    assert failure(host)[0] == column
  assert not ran.exists()


def test_the_command_that_attaches_a_terminal():
  host = hosts.SshHost(cluster.Host('10.0.0.1', 2222, 'ann', '', '', ()))
  assert host.attach_arguments(['tmux', 'attach-session', '-t', '=s:=ps-0']) == [
    'ssh', '-t', '-o', 'StrictHostKeyChecking=yes', '-p', '2222', '-l', 'ann', '10.0.0.1',
    "'tmux' 'attach-session' '-t' '=s:=ps-0'"]  # fmt: skip


# ---- What push makes. ----------------------------------------------------------------------------


def make_wheel(folder):
  """A wheel of a package `tiny`, made by hand."""
  folder.mkdir()
  with zipfile.ZipFile(folder / 'tiny-1-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('tiny.py', 'x = 1\n')
    wheel.writestr('tiny-1.dist-info/METADATA', 'Metadata-Version: 2.1\nName: tiny\nVersion: 1\n')
    wheel.writestr(
      'tiny-1.dist-info/WHEEL',
      ('Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n'),
    )
    wheel.writestr('tiny-1.dist-info/RECORD', 'tiny.py,,\n')


@pytest.fixture
def checkout(tmp_path):
  """A small checkout: the frontend, one required package, and a file that git does not track."""
  folder = frontend_fixtures.copy_code(tmp_path / 'checkout')
  with open(os.path.join(folder, 'requirements.txt'), 'w', encoding='utf-8') as file:
    file.write('tiny\n')
  subprocess.run(['git', 'init', '-q', folder], check=True)
  subprocess.run(['git', '-C', folder, 'add', '-A'], check=True)
  open(os.path.join(folder, 'scratch.py'), 'w').close()
  return folder


def test_push_copies_the_code_and_makes_a_virtual_environment(remote, sshd, checkout, tmp_path):  # noqa: F811
  make_wheel(tmp_path / 'wheels')
  target = tmp_path / 'new' / 'impala'
  rows = [f'{job},{sshd.address},{port},{sshd.port},{target}'
          for port, job in enumerate(('ps', 'learner', 'actor'), 1)]  # fmt: skip
  path = tmp_path / 'c.csv'
  path.write_text('\n'.join(['job,ip,tf_port,ssh_port,workdir', *rows]))
  words = [f'--cluster_csv_path={path}', '--action=push', f'--wheelhouse={tmp_path}/wheels']
  pushed = frontend_fixtures.frontend(words, checkout)
  assert pushed.returncode == 0, pushed.stdout + pushed.stderr
  assert f'.venv/bin/python with requirements.txt in {target}' in pushed.stdout
  assert (target / 'frontend' / 'cluster.py').exists() and not (target / 'scratch.py').exists()
  python = [target / '.venv/bin/python', '-c', 'import tiny']
  assert subprocess.run(python, check=False).returncode == 0
  # What cannot be installed is said with pip's own words.
  with open(os.path.join(checkout, 'requirements.txt'), 'w', encoding='utf-8') as file:
    file.write('not-there\n')
  pushed = frontend_fixtures.frontend(words, checkout)
  assert pushed.returncode == 1
  assert 'could not be made: ' in pushed.stdout and 'not-there' in pushed.stdout


def test_push_from_what_is_no_checkout(tmp_path):
  folder = frontend_fixtures.copy_code(tmp_path / 'code')
  path = os.path.join(conftest.ROOT, 'local_cluster_example.csv')
  pushed = frontend_fixtures.frontend([f'--cluster_csv_path={path}', '--action=push'], folder)
  assert pushed.returncode == 2
  assert 'is no git checkout' in pushed.stderr
