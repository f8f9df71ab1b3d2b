"""How a host is reached over SSH: its configuration, its key and ours, with a real sshd."""

import getpass
import os

from network_fixtures import sshd  # noqa: F401
from ssh_fixtures import code_fixture, failure, opened_fixture, remote_fixture  # noqa: F401


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
