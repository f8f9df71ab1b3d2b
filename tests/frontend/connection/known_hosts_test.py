"""Host keys: hashed names, patterns, revoked keys, authorities."""

import base64
import hashlib
import hmac

import pytest

from frontend.connection import known_hosts
from frontend.errors import HostError

KEYS = [b'\0\0\0\x0bssh-ed25519' + bytes([number]) * 32 for number in range(3)]
COMMANDS = ('ssh-keygen -R h', 'ssh h')


def b64(key):
  return base64.b64encode(key).decode()


def hashed(name):
  salt = b'12345678901234567890'
  digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
  return f'|1|{b64(salt)}|{b64(digest)}'


@pytest.fixture(name='verdict')
def verdict_fixture(tmp_path):
  """What is said of key number `key` of a host, '' where it is accepted."""

  def judge(*lines, key=0, host='node7', port=22, alias='', revoked=()):
    path = tmp_path / 'known'
    path.write_text('\n'.join(lines) + '\n')
    entries = known_hosts.read([str(tmp_path / 'none'), str(path)])
    found = known_hosts.entries_of(entries, host, port, alias)
    try:
      known_hosts.verify(found, revoked, KEYS[key], 'ssh-ed25519', COMMANDS)
    except HostError as error:
      assert error.stage == 'host key'
      return str(error)
    return ''

  return judge


def line(names, key=0):
  return f'{names} ssh-ed25519 {b64(KEYS[key])}'


@pytest.mark.parametrize(
  'names, place',
  [
    ('node7', {}), ('a,NODE7,b', {'host': 'Node7'}), ('node?', {}), ('*', {}),
    (hashed('node7'), {}),
    ('[node7]:2222', {'port': 2222}), (hashed('[node7]:2222'), {'port': 2222}),
    ('node7', {'port': 2222}), ('trainer', {'alias': 'Trainer', 'port': 2222}),
    ('*.lab,!b.lab', {'host': 'a.lab'}), ('fd00::1', {'host': 'fd00::1'}),
  ],
)  # fmt: skip
def test_known(verdict, names, place):
  assert verdict('# a comment', '', line(names), **place) == ''


@pytest.mark.parametrize(
  'names, place',
  [
    ('node8', {}), ('node', {}), (hashed('node8'), {}), ('[node7]:2222', {}),
    ('node7', {'alias': 'trainer'}), ('*.lab,!a.lab', {'host': 'a.lab'}), ('[n]ode7', {}),
    ('node7,', {'host': 'node77'}), ('|1|x|y', {}),
  ],
)  # fmt: skip
def test_unknown(verdict, names, place):
  said = verdict(line(names), **place)
  assert said == 'its host key is not known; compare and add it with: ssh h'


def test_changed_revoked_and_vouched_for(verdict, tmp_path):
  said = verdict(line('node7', 1))
  assert said.startswith('its host key is now SHA256:') and 'ssh-keygen -R h and then ssh h' in said
  assert verdict(line('node7', 1), line('node7')) == ''  # One of two.
  said = verdict(line('node7'), '@revoked ' + line('*'))
  assert 'is revoked' in said and said.endswith('known line 2)')
  assert verdict(line('node7'), '@revoked ' + line('*', 1)) == ''
  assert verdict(line('node7'), '@revoked ' + line('node8')) == ''
  said = verdict('@cert-authority ' + line('*.lab,node*', 2))
  assert 'it shows no certificate, though' in said
  assert 'line 1 trusts an authority (@cert-authority)' in said
  assert verdict('@cert-authority ' + line('*', 2), line('node7')) == ''
  # An authority's key is no host's.
  assert 'is not known' in verdict('@cert-authority ' + line('*'))
  revoked = tmp_path / 'revoked'
  revoked.write_text(line('', 0).strip() + ' comment\n')
  assert 'is revoked' in verdict(line('node7'), revoked=[str(revoked)])
  assert verdict(line('node7', 1), key=1, revoked=[str(revoked)]) == ''
  revoked.write_bytes(b'SSHKRL\n\0')
  assert 'key revocation list, which is not read' in verdict(line('node7'), revoked=[str(revoked)])
  assert 'cannot be read: No such file' in verdict(line('node7'), revoked=[str(tmp_path / 'gone')])


def test_the_kind_that_is_known_is_asked_for_first(tmp_path):
  path = tmp_path / 'known'
  path.write_text(f'h ssh-rsa {b64(KEYS[0])}\n@revoked h ssh-ed25519 {b64(KEYS[1])}\n')
  kinds = ('ssh-ed25519', 'ecdsa-sha2-nistp256', 'rsa-sha2-512', 'rsa-sha2-256')
  entries = known_hosts.entries_of(known_hosts.read([str(path)]), 'h', 22, '')
  assert known_hosts.preferred_algorithms(entries, kinds) == [
    kinds[2],
    kinds[3],
    kinds[0],
    kinds[1],
  ]
