"""reporting.writers and reporting.csv_files: the contents of a run's files."""

import io
import os
import subprocess
import sys

import pytest
from rows import a_report, a_row, an_episode, an_evaluation, reporting_run, rows_of

import conftest
from reporting import csv_files, writers
from reporting.metrics import EVALUATION_COLUMNS, METRIC_COLUMNS
from reporting.statistics import RunStatistics


def test_each_row_is_in_the_file_at_once_and_a_resumed_run_appends(tmp_path):
  folder = tmp_path / 'runs' / 'a'
  writer = writers.open_run(str(folder), 1000, 10, io.StringIO())
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
  assert tuple(rows[0]) == METRIC_COLUMNS


def test_evaluations_have_a_file_where_there_will_be_any(tmp_path):
  with reporting_run(tmp_path / 'without'):
    pass
  assert not (tmp_path / 'without' / 'evaluations.csv').exists()
  with reporting_run(tmp_path, evaluations=True) as writer:
    writer.write_evaluation(an_evaluation(100))
  (row,) = rows_of(tmp_path, 'evaluations.csv')
  assert tuple(row) == EVALUATION_COLUMNS
  assert (row['environment_frames'], row['mean_return'], row['mean_return_low']) == (
    '100', '2', '1.5'
  )  # fmt: skip
  (events,) = tmp_path.glob('events.out.tfevents.*')
  assert b'evaluations/training/mean_return' in events.read_bytes()
  assert b'human' not in events.read_bytes()


def test_a_half_written_last_line_is_cut_off(tmp_path):
  with reporting_run(tmp_path) as writer:
    writer.write(a_row(100))
  with open(tmp_path / 'metrics.csv', 'a') as file:
    file.write('1.0,20')
  with reporting_run(tmp_path) as writer:
    writer.write(a_row(200))
  rows = rows_of(tmp_path, 'metrics.csv')
  assert [row['environment_frames'] for row in rows] == ['100', '200']


def test_rows_that_a_resumed_run_makes_again_are_removed(tmp_path):
  path, columns = str(tmp_path / 'metrics.csv'), ('time', 'environment_frames')
  file = csv_files.CsvFile(path, columns)
  file.write(dict(time=1.0, environment_frames=frames) for frames in (10, 20, 20, 30, 40))
  file.cut(25)
  assert file.last_frames == 20 and file.size == os.path.getsize(path)
  file.write([dict(time=2.0, environment_frames=35)])
  assert [line.split(',')[1] for line in open(path).read().split()[1:]] == ['10', '20', '20', '35']
  file.cut(0)
  assert file.last_frames == 0 and open(path).read() == 'time,environment_frames\n'
  file.close()


def test_a_file_with_other_columns_is_not_touched(tmp_path):
  (tmp_path / 'metrics.csv').write_text('a,b\n1,2\n')
  with pytest.raises(ValueError, match='metrics.csv has the columns a,b, but'):
    writers.open_run(str(tmp_path), 1000, 10, io.StringIO())
  assert (tmp_path / 'metrics.csv').read_text() == 'a,b\n1,2\n'


def test_a_file_of_an_earlier_version_gets_the_new_columns_empty(tmp_path):
  with reporting_run(tmp_path) as writer:
    writer.write(a_row(100, entropy_cost=0.5))
  path = tmp_path / 'metrics.csv'
  number = METRIC_COLUMNS.index('entropy_cost')
  earlier = [','.join(line.split(',')[:number]) for line in path.read_text().splitlines()]
  assert earlier[0].endswith(',learning_rate')
  path.write_text('\n'.join(earlier) + '\n')
  with reporting_run(tmp_path) as writer:
    writer.write(a_row(200, entropy_cost=0.25))
  assert path.read_text().splitlines()[1] == earlier[1] + ',' * (len(METRIC_COLUMNS) - number)
  rows = rows_of(tmp_path, 'metrics.csv')
  assert [row['entropy_cost'] for row in rows] == ['', '0.25']
  assert [row['environment_frames'] for row in rows] == ['100', '200']


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
  (episode,) = accumulator.Scalars('1_return/impala/Catch-v0/episode_return')
  assert (episode.step, episode.value) == (150, 5)


def test_tensorboard_hears_of_a_restart_and_forgets_what_it_made_void(tmp_path):
  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.plugins.hparams import plugin_data_pb2

  settings = {'learning_rate': 0.5, 'sync_learners': False, 'optimizer': 'adam', 'shape': (3, 4)}
  with reporting_run(tmp_path) as writer:
    writer.begin(0, settings)
    for frames in (100, 200, 300):
      writer.write(a_row(frames, mean_return_100=frames))
      writer.write_episodes([dict(an_episode(frames), time=1.0, environment_frames=frames)])
    writer.begin(250, settings)  # The chief connected again.
    writer.write(a_row(350, mean_return_100=350))
  with reporting_run(tmp_path) as writer:  # A new process.
    writer.begin(150, settings)
    writer.write(a_row(180, mean_return_100=7, total_loss=1.0))
  accumulator = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
  curve = accumulator.Scalars('1_return/mean_return_100')
  assert [(event.step, event.value) for event in curve] == [(100, 100), (180, 7)]
  games = accumulator.Scalars('1_return/impala/Catch-v0/episode_return')
  assert [event.step for event in games] == [100]
  # The first groups of the page, which sorts them, are of returns.
  groups = sorted({tag.split('/')[0] for tag in accumulator.Tags()['scalars']})
  assert groups == ['1_return', 'cluster', 'episodes', 'metrics']
  content = accumulator.PluginTagToContent('hparams')['_hparams_/session_start_info']
  session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
  shown = {name: value.WhichOneof('kind') for name, value in session.hparams.items()}
  assert shown == {
    'learning_rate': 'number_value', 'sync_learners': 'bool_value', 'optimizer': 'string_value',
    'shape': 'string_value',
  }  # fmt: skip


def test_tensorboard_can_be_left_out(tmp_path):
  with reporting_run(tmp_path, tensorboard=False) as writer:
    writer.write(a_row(100))
  assert sorted(os.listdir(tmp_path)) == ['episodes.csv', 'metrics.csv']


def test_no_part_of_reporting_imports_tensorflow(tmp_path):
  program = f"""
import sys
from reporting import curves, run_record, statistics, terminal, writers
lazy = ('tensorflow', 'tensorboard', 'matplotlib')
assert not any(name in sys.modules for name in lazy)
writer = writers.open_run({str(tmp_path)!r}, 1000, 10)
writer.begin(0, {{'seed': 1}})
row = statistics.RunStatistics().row(5, 1, 1e-4)
writer.write(row)
writer.close()
run_record.write_run_json({str(tmp_path)!r}, {{}}, {{}})
curves.plot_learning_curve({str(tmp_path)!r}, {str(tmp_path / 'a.png')!r})
assert 'tensorflow' not in sys.modules and 'matplotlib.pyplot' not in sys.modules
"""
  subprocess.run([sys.executable, '-c', program], cwd=conftest.ROOT, check=True, timeout=120)


def test_a_resumed_run_goes_on_from_its_last_games(tmp_path):
  assert csv_files.last_games(tmp_path, 1000) == []
  writer = writers.open_run(str(tmp_path), 1000, 10, io.StringIO(), tensorboard=False)
  statistics = RunStatistics(window=3)
  # Of 300 frames those beyond 200 are lost; 250 comes after the run resumed at 200.
  for value, frames in ((100.0, 0), (1.0, 100), (2.0, 200), (50.0, 300), (6.0, 250)):
    statistics.add_actor_report(a_report(episodes=[an_episode(value)]))
    writer.write_episodes(statistics.pop_episodes(frames))
  writer.close()
  games = csv_files.last_games(tmp_path, 200)
  assert [value for _, value in games] == [100.0, 1.0, 2.0]
  games = csv_files.last_games(tmp_path, 250, window=3)
  assert games == [('impala/Catch-v0', value) for value in (1.0, 2.0, 6.0)]
  statistics.start(250, games)
  assert statistics.row(250, 0, 1.0)['mean_return_100'] == 3.0


@pytest.mark.parametrize(
  'rates, left',
  [
    ([0, 0, 0], ''),
    ([0, 0, 12], '5m00s left'),  # A part of the first interval with frames.
    ([0, 0, 12, 36], '1m40s left'),  # And none of it from the first whole one on.
    ([12, 36, 36, 36, 36, 36, 36, 36, 36], '1m40s left'),
    ([36, 36, 24], '2m00s left'),
    ([36] * 30 + [0], '2m00s left'),  # Slower, since nothing came for a sixth of the last minute.
  ],
)
def test_the_time_left_is_that_of_the_speed_since_frames_came(rates, left):
  stream = io.StringIO()
  writer = writers.open_run(None, 4600, 10, stream)
  for rate in rates:
    writer.write(a_row(1000, frames_per_sec=rate))
  writer.close()
  last = stream.getvalue().splitlines()[-1]
  assert left in last if left else 'left' not in last
