"""reporting.terminal: the live line, messages, and closed or broken streams."""

import io
import os
import pty
import re
import resource
import subprocess
import sys

import pytest
from rows import FULL, Clock, a_row, rows_of, shown_on

import conftest
from reporting import terminal, writers


def test_the_line():
  stream = io.StringIO()
  shown_on(stream, a_row(**FULL))
  assert stream.getvalue() == (
    '12.3M/40.0M frames  7012 frames/s  1h05m left  return(100) 14.2  loss 3.1  lag 4.2  '
    'waits: learner 12% actors 35%\n'
  )


def test_the_line_has_the_lag_of_each_pass_over_a_batch():
  stream = io.StringIO()
  shown_on(stream, a_row(**FULL, policy_lag_by_pass={1: 3.7, 2: 4.7}))
  assert '  lag 3.7/4.7  ' in stream.getvalue()


def test_the_line_names_who_does_not_answer():
  stream = io.StringIO()
  shown_on(stream, a_row(**FULL, no_answer='actor:1 43 s, ps:0 21 s'))
  assert '  7012 frames/s  no answer: actor:1 43 s, ps:0 21 s  1h05m left' in stream.getvalue()


def test_what_is_not_known_is_left_out_of_the_line():
  stream = io.StringIO()
  shown_on(stream, a_row(0, frames_per_sec=0.0))
  assert stream.getvalue() == '0/40.0M frames  0 frames/s\n'


def test_without_a_terminal_lines_are_rare_but_the_last_one_is_printed():
  stream = io.StringIO()
  shown_on(stream, *(a_row(frames) for frames in (100, 200, 300)))
  lines = stream.getvalue().splitlines()
  assert [line.split('/')[0] for line in lines] == ['100', '300']


def test_without_a_terminal_a_line_every_30_seconds(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(terminal.time, 'monotonic', clock)
  stream = io.StringIO()
  writer = writers.open_run(None, 1000, 10, stream)
  for frames in range(100, 800, 100):
    writer.write(a_row(frames))
    clock.now += 10
  assert [line.split('/')[0] for line in stream.getvalue().splitlines()] == ['100', '400', '700']


class Pty:
  """A terminal of its own with a given width; `text` is what was printed to it."""

  def __init__(self, columns, encoding='utf-8'):
    self._main, other = pty.openpty()
    subprocess.run(['stty', 'columns', str(columns)], stdin=other, check=True)
    self.stream = os.fdopen(other, 'w', encoding=encoding)

  def text(self):
    self.stream.close()
    data = b''
    try:
      while chunk := os.read(self._main, 65536):
        data += chunk
    except OSError:  # Linux says so at the end of what was written.
      pass
    os.close(self._main)
    return data


@pytest.fixture
def plain_term(monkeypatch):
  monkeypatch.setenv('TERM', 'xterm')


@pytest.mark.parametrize('columns', [200, 80, 20])
def test_on_a_terminal_one_line_is_rewritten_and_fits(plain_term, columns):
  terminal = Pty(columns)
  shown_on(terminal.stream, *(a_row(frames, **FULL) for frames in (12_100_000, 12_300_000)))
  text = terminal.text().decode()
  assert text.count('\n') == 1 and text.endswith('\n')
  lines = re.findall(r'\r([^\r\n\x1b]+)\x1b\[K', text)
  assert [line[:5] for line in lines] == ['12.1M', '12.3M']
  assert all(len(line) < columns for line in lines)
  if columns >= 80:  # All that matters is there, in short words if need be.
    for part in ('7012', '1h05m left', '14.2', 'loss 3.1', 'lag 4.2', '12%', '35%'):
      assert part in lines[1]


def test_a_message_stands_on_a_line_of_its_own(plain_term):
  terminal = Pty(200)
  writer = writers.open_run(None, 1000, 10, terminal.stream)
  writer.write(a_row(100))
  writer.message('actor 3 came back')
  writer.write(a_row(200))
  writer.close()
  assert b'\r\x1b[Kactor 3 came back\r\n\r200/' in terminal.text()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
  monkeypatch.setenv('TERM', 'dumb')
  terminal = Pty(200)
  shown_on(terminal.stream, a_row())
  assert b'\x1b' not in terminal.text()


def test_other_encodings_than_utf8(plain_term):
  terminal = Pty(200, encoding='ascii')
  shown_on(terminal.stream, a_row(), message='r\u00e9sum\u00e9 \U0001f3ae')
  assert b'r?sum? ?' in terminal.text()


def test_a_log_on_a_full_disk_loses_lines_and_goes_on_later(tmp_path):
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  with open(tmp_path / 'log', 'w') as stream:
    screen = terminal.Terminal(stream)
    screen.print('first')
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, before[1]))  # Bytes; the disk of this process.
    try:
      screen.print('second')
      screen.print('third')
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)
    screen.print('fourth')
  text = (tmp_path / 'log').read_text()
  assert text.startswith('first\n') and text.endswith('fourth\n')


def test_a_closed_stream_does_not_end_training(tmp_path):
  stream = io.StringIO()
  stream.close()
  writer = writers.open_run(str(tmp_path), 1000, 10, stream, tensorboard=False)
  writer.write(a_row(7))
  writer.message('hello')
  writer.write(a_row(8))
  writer.close()
  header, *rows = (tmp_path / 'metrics.csv').read_text(encoding='utf-8').splitlines()
  place = header.split(',').index('environment_frames')
  assert [row.split(',')[place] for row in rows] == ['7', '8']


@pytest.mark.parametrize('redirect', ['>&-', '| true'])
def test_nobody_reads_standard_output(tmp_path, redirect):
  program = f"""
import sys
sys.path.insert(0, {conftest.ROOT!r})
from reporting import statistics, writers
writer = writers.open_run({str(tmp_path)!r}, 1000, 10, tensorboard=False)
row = statistics.RunStatistics().row(5, 1, 1e-4)
for _ in range(2000):
  writer.write(row)
  writer.message('x' * 500)
writer.close()
"""
  result = subprocess.run(
    ['bash', '-c', f'set -o pipefail; "$0" -c "$1" {redirect}', sys.executable, program],
    env={name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'},
    timeout=120,
    capture_output=True,
    text=True,
  )
  assert (result.returncode, result.stderr) == (0, '')
  assert len(rows_of(tmp_path, 'metrics.csv')) == 2000


@pytest.mark.parametrize(
  'secs, expected',
  [(0, '0s'), (59.9, '59s'), (61, '1m01s'), (3900, '1h05m'), (2 * 86400 + 3 * 3600, '2d03h')],
)
def test_durations(secs, expected):
  assert terminal._duration(secs) == expected


@pytest.mark.parametrize(
  'number, expected',
  [(999, '999'), (1000, '1.0k'), (12_300_000, '12.3M'), (10_000_000_000, '10.0G')],
)
def test_counts(number, expected):
  assert terminal._count(number) == expected
