"""Rows of metrics: what they sum up, and what then stands in the terminal and in the files."""

import csv
import io
import json
import math
import os
import pty
import re
import subprocess
import sys
import threading
import time

import pytest

import conftest
import reporting


class Clock:
  """A clock that tests move by hand."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def an_update(**changes):
  return dict(
    dict(
      total_loss=3.0,
      policy_loss=1.0,
      baseline_loss=2.0,
      entropy_loss=-0.5,
      gradient_norm=40.0,
      policy_lag_mean=1.0,
      policy_lag_max=2.0,
    ),
    **changes,
  )


def a_report(task=0, **changes):
  return dict(
    dict(task=task, frames=800, wait_secs=1.0, busy_secs=3.0, crashes=0, pid=10, episodes=[]),
    **changes,
  )


def an_episode(episode_return=5.0, **changes):
  return dict(
    dict(
      level_name='impala/Catch-v0',
      episode_return=episode_return,
      clipped_return=1.0,
      episode_frames=9,
    ),
    **changes,
  )


def a_row(frames=12_300_000, **changes):
  row = dict.fromkeys(reporting.METRIC_COLUMNS)
  row.update(
    time=1e9,
    environment_frames=frames,
    updates=4000,
    frames_per_sec=7012.0,
    learning_rate=1e-4,
    queue_depth=None,
    connected_actors=0,
    actor_restarts=0,
    environment_crashes=0,
    frames_per_sec_by_actor={},
  )
  return dict(row, **changes)


FULL = {
  'mean_return_100': 14.2,
  'policy_lag_mean': 4.2,
  'total_loss': 3.1,
  'learner_wait_fraction': 0.12,
  'actor_wait_fraction': 0.35,
}


def rows_of(folder, name):
  with open(os.path.join(folder, name), newline='') as file:
    return list(csv.DictReader(file))


# Statistics.


def test_the_first_row_knows_only_the_counters():
  row = reporting.RunStatistics().row(0, 0, 6e-4)
  unknown = {name for name in reporting.METRIC_COLUMNS if row[name] is None}
  assert unknown == set(reporting.METRIC_COLUMNS) - {
    'time',
    'environment_frames',
    'updates',
    'frames_per_sec',
    'learning_rate',
  }


def test_a_row_sums_up_its_interval_only():
  clock = Clock()
  statistics = reporting.RunStatistics(clock=clock)
  statistics.start(1000)
  clock.now += 10
  statistics.add_update(an_update(total_loss=2.0, policy_lag_max=7.0), wait_secs=1.0, busy_secs=2.0)
  statistics.add_update(
    an_update(total_loss=4.0, policy_lag_mean=3.0), wait_secs=1.0, busy_secs=4.0
  )
  row = statistics.row(3000, 2, 6e-4)
  assert row['frames_per_sec'] == 200.0
  assert (row['total_loss'], row['policy_lag_mean'], row['policy_lag_max']) == (3.0, 2.0, 7.0)
  assert row['learner_wait_fraction'] == 0.25
  assert row['time'] == pytest.approx(time.time(), abs=60)
  clock.now += 5
  row = statistics.row(3500, 2, 6e-4)
  assert row['frames_per_sec'] == 100.0
  assert row['total_loss'] is row['policy_lag_max'] is row['learner_wait_fraction'] is None


def test_all_learners_waits_count():
  statistics = reporting.RunStatistics()
  statistics.add_update(an_update(), wait_secs=1.0, busy_secs=3.0)
  statistics.add_learner_wait(wait_secs=3.0, busy_secs=1.0)
  assert statistics.row(0, 1, 1.0)['learner_wait_fraction'] == 0.5
  assert statistics.row(0, 1, 1.0)['learner_wait_fraction'] is None


def test_frames_that_step_back_are_no_negative_speed():
  clock = Clock()
  statistics = reporting.RunStatistics(clock=clock)
  statistics.start(1000)
  clock.now += 10
  assert statistics.row(400, 1, 1.0)['frames_per_sec'] == 0
  clock.now += 10
  assert statistics.row(600, 1, 1.0)['frames_per_sec'] == 20


def test_the_mean_return_is_that_of_the_window():
  statistics = reporting.RunStatistics(window=3)
  for value in (100.0, 1.0, 2.0, 6.0):
    statistics.add_actor_report(a_report(episodes=[an_episode(value)]))
  assert statistics.row(0, 0, 1.0)['mean_return_100'] == 3.0
  assert statistics.row(0, 0, 1.0)['mean_return_100'] == 3.0  # Stays until new games end.


def test_a_resumed_run_goes_on_from_its_last_games(tmp_path):
  assert reporting.last_returns(tmp_path, 1000) == []
  writer = reporting.open_run(str(tmp_path), 1000, 10, io.StringIO(), tensorboard=False)
  statistics = reporting.RunStatistics(window=3)
  # Of 300 frames those beyond 200 are lost; 250 comes after the run resumed at 200.
  for value, frames in ((100.0, 0), (1.0, 100), (2.0, 200), (50.0, 300), (6.0, 250)):
    statistics.add_actor_report(a_report(episodes=[an_episode(value)]))
    writer.write_episodes(statistics.pop_episodes(frames))
  writer.close()
  assert reporting.last_returns(tmp_path, 200) == [100.0, 1.0, 2.0]
  assert reporting.last_returns(tmp_path, 250, window=3) == [1.0, 2.0, 6.0]
  statistics.start(250, [1.0, 2.0, 6.0])
  assert statistics.row(250, 0, 1.0)['mean_return_100'] == 3.0


def test_actor_figures():
  clock = Clock()
  statistics = reporting.RunStatistics(clock=clock)
  clock.now += 10
  statistics.add_actor_report(a_report(0, frames=1000, crashes=2, pid=10))
  statistics.add_actor_report(a_report(0, frames=1000, crashes=3, pid=10))
  statistics.add_actor_report(a_report(0, frames=1000, crashes=1, pid=11))  # Restarted.
  statistics.add_actor_report(a_report(1, frames=500, wait_secs=5.0, busy_secs=3.0, pid=12))
  row = statistics.row(0, 0, 1.0, queue_depth=4)
  assert row['frames_per_sec_by_actor'] == {0: 300.0, 1: 50.0}
  assert row['actor_wait_fraction'] == 0.4
  assert (row['connected_actors'], row['actor_restarts'], row['environment_crashes']) == (2, 1, 4)
  assert row['queue_depth'] == 4
  assert reporting.cluster_line(row) == (
    'frames/s by actor: 0: 300, 1: 50  connected 2  restarts 1  environment crashes 4'
  )


def test_a_silent_actor_does_not_count_as_connected():
  clock = Clock()
  statistics = reporting.RunStatistics(clock=clock)
  statistics.add_actor_report(a_report(0))
  clock.now += 61
  statistics.add_actor_report(a_report(1))
  row = statistics.row(0, 0, 1.0)
  assert row['connected_actors'] == 1
  assert list(row['frames_per_sec_by_actor']) == [1]


def test_episodes_are_handed_out_once():
  statistics = reporting.RunStatistics()
  statistics.add_actor_report(a_report(episodes=[an_episode(5.0), an_episode(6.0)]))
  episodes = statistics.pop_episodes(77)
  assert [episode['episode_return'] for episode in episodes] == [5.0, 6.0]
  assert all(set(episode) == set(reporting.EPISODE_COLUMNS) for episode in episodes)
  assert all(episode['environment_frames'] == 77 for episode in episodes)
  assert statistics.pop_episodes(78) == []


def test_no_report_of_many_threads_is_lost():
  clock = Clock()
  statistics = reporting.RunStatistics(clock=clock)
  popped = []

  def report():
    for _ in range(10_000):
      statistics.add_actor_report(a_report(frames=1, episodes=[an_episode()]))

  threads = [threading.Thread(target=report) for _ in range(8)]
  interval = sys.getswitchinterval()
  sys.setswitchinterval(1e-6)
  try:
    for thread in threads:
      thread.start()
    while any(thread.is_alive() for thread in threads):
      popped += statistics.pop_episodes(0)
  finally:
    sys.setswitchinterval(interval)
  popped += statistics.pop_episodes(0)
  clock.now += 1
  assert len(popped) == 8 * 10_000
  assert statistics.row(0, 0, 1.0)['frames_per_sec_by_actor'] == {0: 8 * 10_000}


# Verdict.


@pytest.mark.parametrize(
  'learner, actor, num_actors, expected',
  [
    (None, 0.5, 3, ''),
    (0.71, 0.0, 5, 'learners wait 71% of the time for data: about 12 more actors would feed them'),
    (0.12, None, 3, 'learners wait 12% of the time for data: about 1 more actor would feed them'),
    (1.0, 0.0, 1, 'learners wait 100% of the time for data: about 99 more actors would feed them'),
    (0.5, 0.05, 0, 'learners wait 50% of the time for data: no actor is connected'),
    (0.02, 0.4, 3, 'actors wait 40% of the time: the learner is the limit'),
    (0.03, 0.04, 3, 'balanced: learners wait 3% and actors 4% of the time'),
    (
      0.5,
      0.6,
      3,
      'learners wait 50% and actors 60% of the time: what lies between them is the limit '
      '(network, parameter servers, weights)',
    ),
  ],
)
def test_verdict(learner, actor, num_actors, expected):
  assert reporting.verdict(learner, actor, num_actors) == expected


# Files.


def test_columns_are_the_documented_ones():
  assert ','.join(reporting.METRIC_COLUMNS) == (
    'time,environment_frames,updates,frames_per_sec,mean_return_100,policy_lag_mean,'
    'policy_lag_max,learner_wait_fraction,actor_wait_fraction,total_loss,policy_loss,'
    'baseline_loss,entropy_loss,gradient_norm,learning_rate'
  )
  assert ','.join(reporting.EPISODE_COLUMNS) == (
    'time,environment_frames,level_name,episode_return,clipped_return,episode_frames'
  )


def test_each_row_is_in_the_file_at_once_and_a_resumed_run_appends(tmp_path):
  folder = tmp_path / 'runs' / 'a'
  writer = reporting.open_run(str(folder), 1000, 10, io.StringIO())
  writer.write(a_row(100, total_loss=1.5))
  writer.write_episodes([dict(an_episode(5.0), time=2.5, environment_frames=100)])
  assert [row['total_loss'] for row in rows_of(folder, 'metrics.csv')] == ['1.5']
  assert rows_of(folder, 'episodes.csv') == [
    {
      'time': '2.500',
      'environment_frames': '100',
      'level_name': 'impala/Catch-v0',
      'episode_return': '5',
      'clipped_return': '1',
      'episode_frames': '9',
    }
  ]
  writer.close()
  writer.close()
  with reporting_run(folder) as writer:
    writer.write(a_row(200))
  rows = rows_of(folder, 'metrics.csv')
  assert [row['environment_frames'] for row in rows] == ['100', '200']
  assert rows[1]['total_loss'] == ''
  assert tuple(rows[0]) == reporting.METRIC_COLUMNS


class reporting_run:
  """`open_run` into memory as a context."""

  def __init__(self, folder, **kwargs):
    self._writer = reporting.open_run(folder and str(folder), 1000, 10, io.StringIO(), **kwargs)

  def __enter__(self):
    return self._writer

  def __exit__(self, *unused_error):
    self._writer.close()


def test_a_half_written_last_line_is_cut_off(tmp_path):
  with reporting_run(tmp_path) as writer:
    writer.write(a_row(100))
  with open(tmp_path / 'metrics.csv', 'a') as file:
    file.write('1.0,20')
  with reporting_run(tmp_path) as writer:
    writer.write(a_row(200))
  rows = rows_of(tmp_path, 'metrics.csv')
  assert [row['environment_frames'] for row in rows] == ['100', '200']


def test_a_file_with_other_columns_is_not_touched(tmp_path):
  (tmp_path / 'metrics.csv').write_text('a,b\n1,2\n')
  with pytest.raises(ValueError, match='metrics.csv has the columns a,b, but'):
    reporting.open_run(str(tmp_path), 1000, 10, io.StringIO())
  assert (tmp_path / 'metrics.csv').read_text() == 'a,b\n1,2\n'


def test_writing_nowhere_is_valid(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with reporting_run(None) as writer:
    writer.write(a_row(100))
    writer.write_episodes([dict(an_episode(), time=1.0, environment_frames=1)])
    writer.message('hello')
  assert os.listdir(tmp_path) == []


def test_tensorboard_reads_the_events_back(tmp_path):
  from tensorboard.backend.event_processing import event_accumulator

  with reporting_run(tmp_path) as writer:
    writer.write(a_row(100, total_loss=1.5, queue_depth=3, frames_per_sec_by_actor={2: 50.0}))
    writer.write(a_row(200, total_loss=2.5))
    writer.write_episodes([dict(an_episode(5.0), time=1.0, environment_frames=150)])
  accumulator = event_accumulator.EventAccumulator(str(tmp_path))
  accumulator.Reload()
  losses = accumulator.Scalars('metrics/total_loss')
  assert [(event.step, event.value) for event in losses] == [(100, 1.5), (200, 2.5)]
  assert accumulator.Scalars('cluster/queue_depth')[0].value == 3
  assert accumulator.Scalars('cluster/frames_per_sec_by_actor/2')[0].value == 50
  (episode,) = accumulator.Scalars('episodes/impala/Catch-v0/episode_return')
  assert (episode.step, episode.value) == (150, 5)


def test_tensorboard_can_be_left_out(tmp_path):
  with reporting_run(tmp_path, tensorboard=False) as writer:
    writer.write(a_row(100))
  assert sorted(os.listdir(tmp_path)) == ['episodes.csv', 'metrics.csv']


def test_no_part_of_reporting_imports_tensorflow(tmp_path):
  program = f"""
import sys, reporting
lazy = ('tensorflow', 'tensorboard', 'matplotlib')
assert not any(name in sys.modules for name in lazy)
writer = reporting.open_run({str(tmp_path)!r}, 1000, 10)
row = reporting.RunStatistics().row(5, 1, 1e-4)
writer.write(row)
writer.close()
reporting.write_run_json({str(tmp_path)!r}, {{}}, {{}})
reporting.plot_learning_curve({str(tmp_path)!r}, {str(tmp_path / 'a.png')!r})
assert 'tensorflow' not in sys.modules and 'matplotlib.pyplot' not in sys.modules
"""
  subprocess.run([sys.executable, '-c', program], cwd=conftest.ROOT, check=True, timeout=120)


def test_run_json_keeps_earlier_starts(tmp_path, monkeypatch):
  monkeypatch.setenv('A_SECRET', 'hunter2')
  folder = tmp_path / 'run'
  for seed in (1, 2, 3):
    reporting.write_run_json(str(folder), {'seed': seed}, {'environment_frames': 10 * seed})
  text = (folder / 'run.json').read_text()
  record = json.loads(text)
  assert (record['flags'], record['environment_frames']) == ({'seed': 3}, 30)
  assert [start['flags']['seed'] for start in record['starts']] == [1, 2]
  assert 'starts' not in record['starts'][0]
  assert record['versions']['python'] == '.'.join(map(str, sys.version_info[:3]))
  assert record['versions']['numpy']
  assert re.fullmatch('[0-9a-f]{40}(-dirty)?|None', str(record['git_commit']))
  assert record['machine']['cores'] >= 1 and record['machine']['memory_bytes'] > 1e8
  assert 'hunter2' not in text and 'A_SECRET' not in text
  assert os.listdir(folder) == ['run.json']


def test_an_unreadable_run_json_is_moved_aside(tmp_path):
  (tmp_path / 'run.json').write_text('{"flags": ')
  reporting.write_run_json(str(tmp_path), {'seed': 1}, {})
  assert json.loads((tmp_path / 'run.json').read_text())['starts'] == []
  assert (tmp_path / 'run.json.unreadable').read_text() == '{"flags": '


# Picture.


def png_size(path):
  with open(path, 'rb') as file:
    head = file.read(24)
  assert head[:8] == b'\x89PNG\r\n\x1a\n'
  return int.from_bytes(head[16:20], 'big'), int.from_bytes(head[20:24], 'big')


def test_the_picture_of_one_and_of_two_runs(tmp_path):
  for name in ('one', 'two'):
    with reporting_run(tmp_path / name) as writer:
      writer.write(a_row(100))  # Most is not known yet.
      writer.write(a_row(200, **FULL))
      writer.write_episodes([dict(an_episode(), time=1.0, environment_frames=150)])
  one, two = str(tmp_path / 'one'), str(tmp_path / 'two')
  reporting.plot_learning_curve(one, str(tmp_path / 'one.png'))
  reporting.plot_learning_curve([one, two], str(tmp_path / 'both.png'))
  assert min(png_size(tmp_path / 'one.png')) > 500
  assert (tmp_path / 'both.png').read_bytes() != (tmp_path / 'one.png').read_bytes()


def test_rows_that_a_restart_made_void_are_not_drawn(tmp_path):
  with reporting_run(tmp_path) as writer:
    for frames in (100, 200, 300, 150, 250):
      writer.write(a_row(frames))
  rows = reporting._read_csv(str(tmp_path / 'metrics.csv'))
  assert [row['environment_frames'] for row in rows] == ['100', '150', '250']
  frames, values = reporting._curve(rows, 'total_loss')
  assert frames == [1e-4, 1.5e-4, 2.5e-4] and all(map(math.isnan, values))


@pytest.mark.parametrize(
  'opened, expected',
  [
    (False, 'metrics.csv does not exist: nothing to plot.'),
    (True, 'metrics.csv has no rows yet: nothing to plot.'),
  ],
)
def test_nothing_to_plot_is_one_sentence(tmp_path, opened, expected):
  if opened:
    with reporting_run(tmp_path):
      pass
  with pytest.raises(ValueError, match=expected):
    reporting.plot_learning_curve(str(tmp_path), str(tmp_path / 'a.png'))
  assert not (tmp_path / 'a.png').exists()


# Terminal.


def shown_on(stream, *rows, total=40_000_000, message=None):
  writer = reporting.open_run(None, total, 10, stream)
  for row in rows:
    writer.write(row)
  if message:
    writer.message(message)
  writer.close()


def test_the_line():
  stream = io.StringIO()
  shown_on(stream, a_row(**FULL))
  assert stream.getvalue() == (
    '12.3M/40.0M frames  7012 frames/s  1h05m left  return(100) 14.2  loss 3.1  lag 4.2  '
    'waits: learner 12% actors 35%\n'
  )


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
  monkeypatch.setattr(reporting.time, 'monotonic', clock)
  stream = io.StringIO()
  writer = reporting.open_run(None, 1000, 10, stream)
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
  writer = reporting.open_run(None, 1000, 10, terminal.stream)
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


def test_a_closed_stream_does_not_end_training(tmp_path):
  stream = io.StringIO()
  stream.close()
  writer = reporting.open_run(str(tmp_path), 1000, 10, stream, tensorboard=False)
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
import reporting
writer = reporting.open_run({str(tmp_path)!r}, 1000, 10, tensorboard=False)
row = reporting.RunStatistics().row(5, 1, 1e-4)
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
  assert reporting._duration(secs) == expected


@pytest.mark.parametrize(
  'number, expected',
  [(999, '999'), (1000, '1.0k'), (12_300_000, '12.3M'), (10_000_000_000, '10.0G')],
)
def test_counts(number, expected):
  assert reporting._count(number) == expected
