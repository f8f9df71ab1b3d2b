"""Certificates of host keys made by ssh-keygen, valid and tampered with."""

import base64
import subprocess

import pytest

from frontend.connection import host_certificates
from network_fixtures import tool


def blob(path):
  """The bytes in a file of one public key or certificate."""
  return base64.b64decode(path.read_text().split()[1])


@pytest.fixture(name='certify')
def certify_fixture(tmp_path):
  """Returns (bytes of a certificate, bytes of the authority's key)."""
  tool('ssh')

  def make(*words, kind='ed25519'):
    for name in ('authority', 'host'):
      if not (tmp_path / name).exists():
        bits = ['-b', '2048'] if kind == 'rsa' else []  # Larger ones take seconds to find.
        subprocess.run(['ssh-keygen', '-q', '-t', kind, *bits, '-N', '', '-f', tmp_path / name],
                       check=True, stdin=subprocess.DEVNULL)  # fmt: skip
    subprocess.run(['ssh-keygen', '-q', '-s', tmp_path / 'authority', '-I', 'x', *words,
                    tmp_path / 'host.pub'], check=True)  # fmt: skip
    return blob(tmp_path / 'host-cert.pub'), blob(tmp_path / 'authority.pub')

  return make


def judge(data, authority, name):
  return host_certificates.problem(host_certificates.read(data), [authority], name)


@pytest.mark.parametrize('kind', ['ed25519', 'rsa', 'ecdsa'])
def test_a_changed_certificate_is_worth_nothing(certify, kind):
  data, authority = certify('-h', '-n', 'node7,trainer', kind=kind)
  assert judge(data, authority, 'Node7') is None and judge(data, authority, 'trainer') is None
  assert 'is for node7, trainer and not for node8' in judge(data, authority, 'node8')
  forged = data.replace(b'node7', b'node8')
  assert judge(forged, authority, 'node8') == 'the signature of its certificate is wrong'
  for length in range(0, len(data), 7):
    with pytest.raises(ValueError, match='a certificate'):
      host_certificates.read(data[:length])


def test_certificates_for_something_else(certify):
  data, authority = certify('-n', 'node7')
  assert judge(data, authority, 'node7') == 'its certificate is not for a host'
  data, authority = certify('-h', '-n', 'node7', '-V', '+1d:+2d')
  assert 'not yet' in judge(data, authority, 'node7')
  data, authority = certify('-h', '-n', 'node7', '-O', 'critical:new@example.org=1')
  assert judge(data, authority, 'node7') == 'its certificate has options that are not supported'
  assert 'that known_hosts does not name' in judge(data, authority + b'x', 'node7')
