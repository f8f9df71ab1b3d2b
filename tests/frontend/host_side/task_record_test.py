"""A supervisor's record: the host of its process ids, and writing it on a full disk."""

import json
import os
import resource
import subprocess

import pytest

from conftest import eventually
from frontend.host_side import processes, task_record


def record(**changes):
  values = dict.fromkeys(task_record.Record._fields) | {
    'task': 'ps-0', 'state': 'running', 'pid': os.getpid(), 'started': 1.0, 'restarts': 0,
    'mark': processes.start_mark(os.getpid()), 'host': 'a', 'realm': processes.realm(),
  }  # fmt: skip
  return task_record.Record(**values | changes)


@pytest.fixture(name='small_disk')
def small_disk_fixture(tmp_path):
  """A file system of two pages."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', str(folder)]
  if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
    pytest.skip('only root mounts a small disk')
  yield folder
  subprocess.run(['umount', str(folder)], check=True)


def test_on_a_full_disk_a_record_is_written_over(small_disk):
  path = small_disk / 'ps-0.supervisor.json'
  file = task_record.RecordFile(str(path))
  file.write(record())
  with pytest.raises(OSError):
    (small_disk / 'rest').write_bytes(8192 * b'x')
  file.write(record(state='exited', exit_code=3))
  found = task_record.load(path)
  assert (found['exit_code'], found['gap']) == (3, None)
  assert sorted(os.listdir(small_disk)) == [path.name, 'rest']


def test_a_record_that_cannot_be_written_says_so_later(tmp_path):
  path = tmp_path / 'ps-0.supervisor.json'
  file = task_record.RecordFile(str(path))
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
  try:
    file.write(record(restarts=1))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert os.listdir(tmp_path) == []
  eventually(lambda: file.keep() or path.exists())
  found = task_record.load(path)
  assert found['restarts'] == 1
  assert found['gap'].startswith('its record could not be written at ')
  assert found['gap'].endswith(': File too large')


def test_a_record_that_somebody_emptied_or_removed_comes_back(tmp_path, monkeypatch):
  monkeypatch.setattr(task_record, 'HEARTBEAT_SECS', 0.0)
  path = tmp_path / 'ps-0.supervisor.json'
  file = task_record.RecordFile(str(path))
  file.write(record(restarts=4))
  for harm in (lambda: path.write_text(''), path.unlink, lambda: os.utime(path, (1, 1))):
    harm()
    file.keep()
    assert task_record.load(path)['restarts'] == 4 and os.stat(path).st_mtime > 1


def test_a_link_in_the_place_of_a_record_is_replaced_and_not_followed(tmp_path):
  (tmp_path / 'mine').write_text('precious')
  path = tmp_path / 'ps-0.supervisor.json'
  path.symlink_to(tmp_path / 'mine')
  task_record.RecordFile(str(path)).write(record())
  assert (tmp_path / 'mine').read_text() == 'precious' and not path.is_symlink()


def test_a_record_of_another_host_counts_as_long_as_its_supervisor_renews_it(tmp_path):
  path = tmp_path / 'ps-0.supervisor.json'
  for state, realm, age_secs, beats in (
    ('running', 'another boot pid:[1]', 0, True),
    ('restarting', 'another boot pid:[1]', 50, True),
    ('running', 'another boot pid:[1]', 100, False),
    ('exited', 'another boot pid:[1]', 0, False),
    ('running', processes.realm(), 0, False),
    ('running', None, 0, False),
  ):
    path.write_text(json.dumps(record(state=state, realm=realm, exit_code=0)._asdict()))
    now = os.stat(path).st_mtime
    os.utime(path, (now - age_secs, now - age_secs))
    found = task_record.load(path)
    assert task_record.runs_elsewhere(found, str(path)) == beats, (state, realm, age_secs)
  assert os.listdir(tmp_path) == [path.name]
