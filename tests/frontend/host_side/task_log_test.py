"""A task's log and terminal: neither a full disk nor a blocked terminal stops or delays a task."""

import os
import pty
import resource
import select

import pytest

from conftest import eventually
from frontend.host_side import task_log


@pytest.fixture(name='terminal')
def terminal_fixture():
  """(the end that a person watches and types at, the end that is written to)."""
  ours, theirs = pty.openpty()
  yield ours, theirs
  os.close(ours)
  os.close(theirs)


@pytest.fixture(name='no_file_grows')
def no_file_grows_fixture():
  """Files of this process may not grow, as on a full disk, while the test has not called this."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))

  def lift():
    resource.setrlimit(resource.RLIMIT_FSIZE, before)

  yield lift
  lift()


def read_all(number, silence_secs=0.2):
  data = b''
  while select.select([number], [], [], silence_secs)[0]:
    data += os.read(number, 65536)
  return data.replace(b'\r\n', b'\n')


def test_a_stopped_terminal_holds_up_nothing_and_is_told_what_it_missed(tmp_path, terminal):
  ours, theirs = terminal
  log = task_log.Log(str(tmp_path / 'log'), terminal=theirs)
  log.write(b'first\n')
  assert read_all(ours) == b'first\n'
  os.write(ours, b'\x13')  # Ctrl-S, which the kernel takes in when it comes to it.
  eventually(lambda: not select.select([], [theirs], [], 0)[1])
  for number in range(5000):
    log.write(b'line %d %s\n' % (number, 100 * b'x'))
  content = (tmp_path / 'log').read_bytes()
  assert content.startswith(b'first\nline 0 ') and b'\nline 4999 ' in content
  assert read_all(ours) == b''
  os.write(ours, b'\x11')  # Ctrl-Q
  seen = []
  eventually(lambda: seen.append(read_all(ours, 0.01)) or log._terminal.flush() == 0)
  shown = b''.join([*seen, read_all(ours)])
  assert b'bytes are left out here; the log has them\n' in shown
  assert shown.endswith(b'\nline 4999 %s\n' % (100 * b'x'))
  assert len(shown) < 2 * task_log.WAITING_BYTES


def test_a_pipe_that_nobody_reads_holds_up_nothing(tmp_path):
  ours, theirs = os.pipe()
  log = task_log.Log(str(tmp_path / 'log'), terminal=theirs)
  log.write(1_000_000 * b'x' + b'\n')
  assert os.path.getsize(tmp_path / 'log') == 1_000_001
  assert os.get_blocking(theirs)  # Others may write to it.
  os.close(ours)
  log.write(b'more\n')  # A reader that is gone is no error.
  os.close(theirs)
  assert (tmp_path / 'log').read_bytes().endswith(b'x\nmore\n')


def test_what_a_full_disk_loses_is_counted_and_said_when_there_is_room(tmp_path, no_file_grows):
  log = task_log.Log(str(tmp_path / 'log'), terminal=-1)
  log.write(b'lost 1\n')
  log.write(b'lost 2\n')
  assert (log.problem, log.lost_bytes, log.last_line) == ('File too large', 14, b'lost 2')
  log.retry()
  assert log.problem == 'File too large'
  no_file_grows()
  log.retry()
  assert log.problem is None and log.lost_bytes == 14
  log.write(b'kept\n')
  lines = (tmp_path / 'log').read_text().splitlines()
  assert lines[-1] == 'kept'
  assert lines[-2].endswith('14 bytes of output are missing here: File too large')


def test_a_folder_that_is_gone_or_a_log_that_is_a_pipe_is_no_end(tmp_path):
  log = task_log.Log(str(tmp_path / 'nowhere' / 'log'), terminal=-1)
  log.write(b'x\n')
  assert log.problem == 'No such file or directory'
  (tmp_path / 'nowhere').mkdir()
  log.write(b'y\n')
  assert log.problem is None and (tmp_path / 'nowhere' / 'log').read_text().endswith('\ny\n')
  os.mkfifo(tmp_path / 'pipe')
  log = task_log.Log(str(tmp_path / 'pipe'), terminal=-1)
  log.write(b'x\n')
  assert log.problem == 'No such device or address'


def test_the_older_part_that_cannot_be_put_aside_does_not_make_the_log_grow(tmp_path):
  (tmp_path / 'log.1').mkdir()
  log = task_log.Log(str(tmp_path / 'log'), limit_bytes=10, terminal=-1)
  for _ in range(5):
    log.write(b'12345678\n')
  assert log.problem == 'Is a directory' and log.lost_bytes == 36
  assert (tmp_path / 'log').read_bytes() == b'12345678\n'
