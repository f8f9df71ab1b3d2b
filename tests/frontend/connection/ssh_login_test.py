"""Keys with and without an agent, jump hosts, and what is offered to an sshd, with real ones."""

import contextlib
import os
import re
import shlex
import subprocess

import paramiko
import pytest

import network_fixtures
from common import background
from frontend.errors import HostError
from network_fixtures import Sshd, sshd  # noqa: F401
from ssh_fixtures import code_fixture, failure, opened_fixture, remote_fixture  # noqa: F401

# Each uses the sshd of its own fixture, and a fresh connection for each thing that is tried.


def key(path, passphrase='', kind='ed25519'):
  bits = ['-b', '2048'] if kind == 'rsa' else []  # Larger ones take seconds to find.
  subprocess.run(
    ['ssh-keygen', '-q', '-t', kind, *bits, '-N', passphrase, '-C', 'test', '-f', path],
    check=True, stdin=subprocess.DEVNULL)  # fmt: skip
  return path


def accept(server, *paths):
  """Lets the sshd accept these keys alone."""
  with open(os.path.join(server.folder, 'authorized_keys'), 'w', encoding='utf-8') as file:
    for path in paths:
      with open(path + '.pub', encoding='utf-8') as public:
        file.write(public.read())


def configure(server, text):
  with open(os.path.join(server.home, '.ssh', 'config'), 'w', encoding='utf-8') as file:
    file.write(text)


@contextlib.contextmanager
def agent(folder, *keys):
  """Path of the socket of an ssh-agent that holds keys (a path, a passphrase)."""
  path = os.path.join(folder, 'agent')
  process = subprocess.Popen(['ssh-agent', '-D', '-a', path], stdout=subprocess.DEVNULL)
  ask = os.path.join(folder, 'ask')
  try:
    network_fixtures.conftest.eventually(lambda: os.path.exists(path))
    for name, passphrase in keys:
      with open(ask, 'w', encoding='utf-8') as file:
        file.write(f'#!/bin/sh\necho {shlex.quote(passphrase)}\n')
      os.chmod(ask, 0o700)
      environment = {'SSH_AUTH_SOCK': path, 'SSH_ASKPASS': ask, 'SSH_ASKPASS_REQUIRE': 'force'}
      subprocess.run(['ssh-add', '-q', name], env=os.environ | environment, check=True,
                     stdin=subprocess.DEVNULL, capture_output=True)  # fmt: skip
    yield path
  finally:
    process.kill()
    process.wait()
    os.remove(path)


def test_a_key_with_a_passphrase(remote, sshd, tmp_path, monkeypatch):  # noqa: F811
  own = os.path.join(sshd.home, '.ssh', 'id_ed25519')
  for suffix in ('', '.pub'):
    os.remove(own + suffix)
  key(own, 'secret')
  accept(sshd, own)
  assert failure(remote()) == (
    'login',
    f'{own} has a passphrase and no ssh-agent runs: eval "$(ssh-agent)"; ssh-add {own} (keys '
    'without one: none found)',
  )
  with agent(str(tmp_path)) as socket:  # An agent that does not hold it.
    monkeypatch.setenv('SSH_AUTH_SOCK', socket)
    stage, text = failure(remote())
    assert stage == 'login'
    assert text.startswith(f'{own} has a passphrase and no agent holds it: ssh-add {own}')
  os.remove(own + '.pub')  # It is known from the file itself.
  with agent(str(tmp_path), (own, 'secret')) as socket:
    monkeypatch.setenv('SSH_AUTH_SOCK', socket)
    remote().connect()
    configure(sshd, 'Host *\n  IdentitiesOnly yes\n')
    remote().connect()


def test_which_keys_are_offered(remote, sshd, tmp_path, monkeypatch):  # noqa: F811
  """Of six keys in an agent none is right, and sshd hangs up after three."""
  sshd.close()
  sshd.more_settings = {'MaxAuthTries': 3, 'LogLevel': 'VERBOSE'}
  sshd.start()
  right = key(str(tmp_path / 'right'), kind='ecdsa')
  accept(sshd, right)
  with agent(str(tmp_path), *((key(str(tmp_path / str(i))), '') for i in range(4))) as socket:
    monkeypatch.setenv('SSH_AUTH_SOCK', socket)
    configure(sshd, f'Host *\n  IdentityFile {right}\n')
    stage, text = failure(remote())
    assert stage == 'login' and 'hung up after' in text and 'IdentitiesOnly yes' in text
    configure(sshd, f'Host *\n  IdentityFile {right}\n  IdentitiesOnly yes\n')
    remote().connect()
    configure(sshd, f'Host *\n  IdentityFile {right}\n  IdentityAgent none\n')
    remote().connect()
  with agent(str(tmp_path), (right, '')) as socket:
    monkeypatch.setenv('SSH_AUTH_SOCK', '/nowhere')
    monkeypatch.setenv('OTHER', socket)
    os.rename(right, right + '.away')
    for value in (socket, '$OTHER'):
      configure(sshd, f'Host *\n  IdentityFile {right}\n  IdentityAgent {value}\n')
      remote().connect()


def test_host_key_alias_hashed_names_and_revoked_keys(remote, sshd):  # noqa: F811
  known = os.path.join(sshd.home, '.ssh', 'known_hosts')
  own_key = ' '.join(sshd.known_hosts_line().split()[1:])
  subprocess.run(['ssh-keygen', '-q', '-H', '-f', known], check=True, capture_output=True)
  os.remove(known + '.old')
  with open(known, encoding='utf-8') as file:
    assert file.read().startswith('|1|')
  remote().connect()
  with open(known, 'a', encoding='utf-8') as file:
    file.write(f'@revoked * {own_key}\n')
  stage, text = failure(remote())
  assert (stage, text.endswith('known_hosts line 2)')) == ('host key', True)
  with open(known, 'w', encoding='utf-8') as file:
    file.write(f'trainer {own_key}\n')
  assert failure(remote())[0] == 'host key'
  configure(sshd, 'Host *\n  HostKeyAlias trainer\n')
  remote().connect()


def certify(server, authority, *words):
  """Gives an sshd a certificate by an authority, a path, and starts it again."""
  public = os.path.join(server.folder, 'host_key.pub')
  subprocess.run(['ssh-keygen', '-q', '-s', authority, '-I', 'test', *words, public], check=True)
  server.close()
  server.more_settings = {'HostCertificate': os.path.join(server.folder, 'host_key-cert.pub')}
  server.start()


def test_an_authority_that_vouches_for_host_keys(remote, sshd, tmp_path):  # noqa: F811
  known = os.path.join(sshd.home, '.ssh', 'known_hosts')
  lines = {}
  for kind in ('ed25519', 'ecdsa', 'rsa'):
    with open(key(str(tmp_path / kind), kind=kind) + '.pub', encoding='utf-8') as file:
      lines[kind] = ' '.join(file.read().split()[:2])

  def says(*entries):
    with open(known, 'w', encoding='utf-8') as file:
      file.writelines(entry + '\n' for entry in entries)
    try:
      remote().connect()
    except HostError as error:
      assert error.stage == 'host key'
      return str(error)
    return ''

  place = f'[{sshd.address}]:{sshd.port}'
  assert 'it shows no certificate' in says(f'@cert-authority * {lines["ed25519"]}')
  for kind in lines:
    certify(sshd, str(tmp_path / kind), '-h', '-n', f'other,{sshd.address}')
    assert says(f'@cert-authority {place} {lines[kind]}') == '', kind
  trusted = f'@cert-authority * {lines["rsa"]}'
  assert 'is not known; compare' in says(f'@cert-authority node7 {lines["rsa"]}')
  assert 'of an authority that known_hosts does not name' in says(
    f'@cert-authority * {lines["ecdsa"]}'
  )
  assert 'is revoked' in says(trusted, f'@revoked * {lines["rsa"]}')
  certify(sshd, str(tmp_path / 'rsa'), '-h', '-n', 'node7')
  assert f'is for node7 and not for {sshd.address}' in says(trusted)
  assert says(trusted, sshd.known_hosts_line()) == ''  # The key itself is known.


def test_over_two_jump_hosts_each_by_its_own_settings(remote, sshd, tmp_path):  # noqa: F811
  """Loopback addresses that the others' sshds alone lead to, as far as the test can tell."""
  outer, inner = (Sshd(tmp_path / name, sshd.home, address)
                  for name, address in (('outer', '::1'), ('inner', '127.0.0.7')))  # fmt: skip
  try:
    for server in (outer, inner):
      server.make_known()
      server.start()
    second = key(str(tmp_path / 'second'))
    accept(inner, second)
    configure(
      sshd,
      f'Host target\n  HostName {sshd.address}\n  Port {sshd.port}\n'
      f'  ProxyJump root@[::1]:{outer.port},middle\n'
      f'Host middle\n  HostName 127.0.0.7\n  Port {inner.port}\n  User root\n'
      f'  IdentityFile {second}\n  IdentitiesOnly yes\n  ProxyJump nowhere.invalid\n',
    )
    assert remote(address='target', port=None).ask('hello')
    logs = [open(os.path.join(server.folder, 'log'), encoding='utf-8').read()
            for server in (outer, inner, sshd)]  # fmt: skip
    assert [log.count('Accepted publickey') for log in logs] == [1, 1, 1]
    assert 'from 127.0.0.1' in logs[1] or 'from ::1' in logs[1]
    accept(inner)
    stage, text = failure(remote(address='target', port=None))
    assert (stage, text.startswith('jump host middle: no key was accepted')) == ('login', True)
    inner.close()
    stage, text = failure(remote(address='target', port=None))
    assert stage == 'reachable'
    assert re.match(r'jump host ::1 cannot reach 127.0.0.7 port \d+: Connect', text)
  finally:
    outer.close()
    inner.close()


def test_an_sshd_that_hangs_up_on_some_of_many(remote, sshd):  # noqa: F811
  """A jump host lets in two at a time; errors do not blame the host behind it."""
  sshd.close()
  sshd.more_settings = {'MaxStartups': '2:100:2'}
  sshd.start()
  hosts = [remote() for _ in range(6)]
  background.on_each(lambda host: host.connect(), hosts)
  with open(os.path.join(sshd.folder, 'log'), encoding='utf-8') as file:
    assert 'MaxStartups' in file.read()  # Else nothing was tried.


def test_a_proxy_command(remote, sshd, tmp_path):  # noqa: F811
  program = tmp_path / 'pass it on'
  program.write_text(
    'import socket, sys, threading, os\n'
    'there = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n'
    'def copy(read, write):\n  while data := read(): write(data)\n  os._exit(0)\n'
    'back = (lambda: there.recv(9999), lambda data: os.write(1, data))\n'
    'threading.Thread(target=copy, args=back).start()\n'
    'copy(lambda: os.read(0, 9999), there.sendall)\n'
  )
  configure(
    sshd,
    f'Host far\n  HostName {sshd.address}\n  Port {sshd.port}\n  HostKeyAlias far\n'
    f'  ProxyCommand {os.sys.executable} "{program}" %h %p 2>/dev/null\n',
  )
  with open(os.path.join(sshd.home, '.ssh', 'known_hosts'), 'w', encoding='utf-8') as file:
    file.write('far ' + ' '.join(sshd.known_hosts_line().split()[1:]) + '\n')
  assert remote(address='far', port=None).ask('hello')
  configure(sshd, 'Host far\n  ProxyCommand false\n')
  assert failure(remote(address='far', port=None))[0] == 'login'


def test_old_algorithms_are_not_offered(remote, sshd):  # noqa: F811
  host = remote()
  host.ask('hello')
  transport = host._clients[-1].get_transport()
  for names in (transport.preferred_ciphers, transport.preferred_macs, transport.preferred_kex,
                transport.preferred_keys, transport.preferred_pubkeys):  # fmt: skip
    assert names and not re.search('cbc|3des|md5|sha1|-96|dss|ssh-rsa', ' '.join(names))
  assert (
    'aes128-cbc' in paramiko.Transport._preferred_ciphers
  )  # Else there is nothing to leave out.
  sshd.close()
  sshd.more_settings = {'Ciphers': 'aes128-cbc,3des-cbc'}
  sshd.start()
  stage, text = failure(remote())
  assert stage == 'login' and 'offers old algorithms only' in text
  sshd.close()
  sshd.more_settings = {'Ciphers': 'aes128-ctr', 'MACs': 'hmac-sha1,hmac-md5'}
  sshd.start()
  with pytest.raises(HostError, match='offers old algorithms only'):
    remote().connect()
