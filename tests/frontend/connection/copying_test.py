"""Files are copied to hosts here and over SSH, with a real sshd."""

import os

import pytest

from frontend.errors import HostError
from network_fixtures import sshd  # noqa: F401
from ssh_fixtures import broken_fixture, code_fixture, opened_fixture, remote_fixture  # noqa: F401


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


def test_copying_over_a_broken_connection_goes_over_a_new_one(broken, sshd, tmp_path):  # noqa: F811
  (tmp_path / 'run').write_text('y')
  broken.workdir = str(tmp_path / 'target')
  assert broken.put(str(tmp_path), ['run']) == 1
  assert (tmp_path / 'target/run').read_text() == 'y'
  sshd.close()
  with pytest.raises(HostError, match=f'^cannot reach {sshd.address} port {sshd.port}: .'):
    broken.put(str(tmp_path), ['run'])


def test_copying_to_a_host_without_sftp_is_named(remote, sshd, tmp_path):  # noqa: F811
  (tmp_path / 'run').write_text('y')
  sshd.close()
  sshd.more_settings = {'Subsystem': 'sftp /bin/false'}
  sshd.start()
  with pytest.raises(HostError, match='^cannot copy files over SFTP: .'):
    remote(workdir=str(tmp_path / 'target')).put(str(tmp_path), ['run'])
