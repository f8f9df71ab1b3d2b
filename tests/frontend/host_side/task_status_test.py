"""Lines of a log: each is sent once, even if the file is rotated meanwhile."""

import os

import pytest

from frontend.host_side import supervisor, task_status


@pytest.fixture(name='path')
def path_fixture(tmp_path, monkeypatch):
  """Path of the log of ps-0; nothing of it was read so far."""
  monkeypatch.setattr(supervisor, 'run_folder', lambda session: str(tmp_path))
  monkeypatch.setattr(task_status, '_followed', {})
  return str(tmp_path / 'ps-0.log')


def follow(offset):
  reply = task_status.logs('s', 'ps-0', 10, offset)
  return reply['lines'], reply['offset']


@pytest.mark.parametrize('size', [5, 500])
def test_lines_before_a_new_file_was_begun_are_followed_too(path, size):
  """Whether the new file is shorter or longer than the old one was when it was last read."""
  with open(path, 'wb') as file:
    file.write(b'first\n')
  lines, offset = follow(None)
  assert lines == ['first']
  with open(path, 'ab') as file:
    file.write(b'third\n')  # Written, and not looked at before the new file came.
  os.replace(path, path + '.1')
  with open(path, 'wb') as file:
    file.write(b'4th\n' + size * b'y' + b'\n')
  lines, offset = follow(offset)
  assert lines == ['third', '4th', size * 'y']
  assert follow(offset)[0] == []


def test_a_long_rest_of_the_old_file_comes_in_parts_before_the_new_one(path):
  with open(path, 'wb') as file:
    file.write(b'first\n')
  offset = follow(None)[1]
  old = [f'line {number} ' + 90 * 'x' for number in range(2000)]
  with open(path, 'ab') as file:
    file.write('\n'.join(old).encode() + b'\n')
  os.replace(path, path + '.1')
  with open(path, 'wb') as file:
    file.write(b'new\n')
  found = []
  for _ in range(10):
    lines, offset = follow(offset)
    found += lines
  assert found == [*old, 'new']


def test_a_log_that_is_a_device_or_a_pipe_is_not_read_for_ever(path, tmp_path):
  os.symlink('/dev/zero', path)
  assert task_status.last_log_line(str(tmp_path), 'ps-0') == ''
  assert follow(None)[0] == []
  os.remove(path)
  os.mkfifo(path)
  assert task_status.last_log_line(str(tmp_path), 'ps-0') == ''


def test_a_task_whose_record_was_just_emptied_is_not_called_ended(path, tmp_path):
  record = tmp_path / 'ps-0.supervisor.json'
  (absent,) = task_status.status('s', ['ps-0'])['tasks']
  assert absent['last_line'] == 'not launched' and not absent.get('left')
  record.write_text('')
  (emptied,) = task_status.status('s', ['ps-0'])['tasks']
  assert (emptied['last_line'], emptied['left']) == ('ps-0.supervisor.json is empty', True)
  os.utime(record, (1, 1))
  assert not task_status.status('s', ['ps-0'])['tasks'][0]['left']
