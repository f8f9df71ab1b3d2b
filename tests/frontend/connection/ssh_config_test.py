"""OpenSSH's configuration, asked from ssh itself and read without it."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT
from frontend.connection import ssh, ssh_config
from frontend.errors import HostError
from network_fixtures import tool


@pytest.fixture(name='config')
def config_fixture(tmp_path, monkeypatch):
  """Writes files below ~/.ssh; `without_ssh` takes the ssh program away."""
  tool('ssh')
  monkeypatch.setenv('HOME', str(tmp_path))

  def write(**files):
    for name, text in files.items():
      path = tmp_path / '.ssh' / name.replace('__', '/')
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)

  write.without_ssh = lambda: monkeypatch.setenv('PATH', str(tmp_path))
  return write


@pytest.mark.parametrize('reader', ['ssh', 'paramiko'])
def test_patterns_negations_includes_and_tokens(config, tmp_path, reader):
  config(
    config=f'Include conf.d/*.conf {tmp_path}/more\n'
    'Host gpu* !gpu9\n  Port 2201\n  User dan\nHost *\n  User eve\n'
  )
  config(
    **{'conf.d__a.conf': 'Host gpu?\n  HostName %h.lab.example\n  IdentityFile ~/.ssh/%n_%r\n'}
  )
  (tmp_path / 'more').write_text('Host lone\n  ProxyJump ann@[fd00::1]:2022,second\n')
  if reader == 'paramiko':
    config.without_ssh()
  one = ssh_config.read('gpu1', None, 'bob')
  assert (one.hostname, one.port, one.user) == ('gpu1.lab.example', 2201, 'bob')
  assert one.identity_files == [str(tmp_path / '.ssh/gpu1_bob')]
  nine = ssh_config.read('gpu9')
  assert (nine.hostname, nine.port, nine.user) == ('gpu9.lab.example', 22, 'eve')
  assert ssh_config.read('gpu1', 99).port == 99
  lone = ssh_config.read('lone')
  assert lone.jumps == [('fd00::1', 2022, 'ann'), ('second', None, '')]
  assert lone.known_hosts[0] == str(tmp_path / '.ssh/known_hosts')


def test_match_and_the_rest_of_what_a_connection_needs(config, tmp_path):
  config(
    config='Match host far user ann exec "test -d /"\n'
    '  HostKeyAlias Trainer\n  IdentitiesOnly yes\n  IdentityAgent ~/agent.%n\n'
    '  CertificateFile ~/c_%p\n  UserKnownHostsFile ~/kh_%k /else\n  RevokedHostKeys /revoked\n'
    '  BindAddress 127.0.0.9\n  AddressFamily inet6\n  ConnectTimeout 7\n'
    '  KnownHostsCommand /bin/true %H\n'
    'Match host far\n  ProxyCommand nc -x "a b" %h %p %r %%\n'
  )
  far = ssh_config.read('far', 2222, 'ann')
  assert far.host_key_alias.lower() == 'trainer' and far.identities_only
  assert far.agent == str(tmp_path / 'agent.far')
  assert far.certificate_files == [str(tmp_path / 'c_2222')]
  assert [path.lower() for path in far.known_hosts[:2]] == [f'{tmp_path}/kh_trainer', '/else']
  assert far.revoked == ['/revoked'] and far.bind_address == '127.0.0.9'
  assert (far.family, far.connect_timeout_secs) == (ssh_config.socket.AF_INET6, 7)
  assert far.ignored == ['knownhostscommand']
  assert far.proxy_command == 'nc -x "a b" far 2222 ann %'
  other = ssh_config.read('far', None, 'bob')
  assert (other.host_key_alias, other.identities_only, other.ignored) == ('', False, [])


@pytest.mark.parametrize(
  'text, found',
  [
    ('a', [('a', None, '')]),
    ('u@a:1,b', [('a', 1, 'u'), ('b', None, '')]),
    ('[::1]:22', [('::1', 22, '')]),
    ('u@[fe80::2%eth0]', [('fe80::2%eth0', None, 'u')]),
    ('ssh://u@h.example:7/', [('h.example', 7, 'u')]),
    ('fd00::5', [('fd00::5', None, '')]),
    ('u@corp.example@a', [('a', None, 'u@corp.example')]),
  ],
)
def test_jump_hosts(text, found):
  assert ssh_config.jumps(text) == found


@pytest.mark.parametrize('text', ['[::1', 'a:b', 'a:99999', ',a', '@'])
def test_what_is_no_jump_host(text):
  with pytest.raises(HostError, match="ProxyJump|port '99999'"):
    ssh_config.jumps(text)


def test_a_mistake_is_named_with_its_line(config):
  config(config='Host *\n  Portt 22\n')
  with pytest.raises(HostError, match=r'cannot be read: .*line 2: Bad configuration option: portt'):
    ssh_config.read('any')


def test_jump_hosts_in_a_circle(config):
  config(config='Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n')
  with pytest.raises(HostError, match='more than 10 jump hosts; does one lead to itself'):
    ssh.connect('a', None, '')


def test_a_user_id_without_a_name(tmp_path):
  """Asked of a process that sees an empty /etc/passwd."""
  if os.getuid() != 0:
    pytest.skip('a file system of its own needs root')
  code = (
    f'import sys; sys.path.insert(0, {ROOT!r})\n'
    'from frontend import cluster\nfrom frontend.connection import hosts, ssh_config\n'
    'print(hosts.is_this_machine(cluster.Host("127.0.0.1", None, "", "", "", ())))\n'
    'print(hosts.is_this_machine(cluster.Host("127.0.0.1", None, "ann", "", "", ())))\n'
    'read = ssh_config.read("far"); print(read.hostname, read.port, repr(read.user))\n'
  )
  (tmp_path / '.ssh').mkdir()
  (tmp_path / '.ssh/config').write_text('Host far\n  HostName 192.0.2.5\n  Port 2022\n')
  (tmp_path / 'empty').write_text('')
  (tmp_path / 'nsswitch').write_text('passwd: files\nhosts: files\n')
  told = subprocess.run(
    ['unshare', '-m', 'sh', '-c', 'mount --bind "$1/empty" /etc/passwd && '
     'mount --bind "$1/nsswitch" /etc/nsswitch.conf && H=$1 && shift && '
     'exec env -i HOME="$H" PATH="$PATH" "$@"', 'sh', tmp_path, sys.executable, '-c', code],
    capture_output=True, text=True, check=False)  # fmt: skip
  if 'Operation not permitted' in told.stderr:
    pytest.skip('no namespaces of mounts here')
  assert told.stdout.split('\n')[:3] == ['True', 'False', "192.0.2.5 2022 ''"], told.stderr
