"""reporting on a full or a shared disk: training goes on; and limits on the size of files."""

import io
import math
import os
import random
import subprocess
import sys
import tracemalloc

import pytest
from rows import a_row, an_episode, an_evaluation, rows_of

from conftest import ROOT
from reporting import csv_files, writers

CATCH_GAMES_PER_SEC = 222.0  # Of 2,000 frames/s.
MONTH_SECS = 30 * 86_400


def games(number, frames=0, value=None):
  return [
    dict(
      an_episode(float(i if value is None else value)),
      time=1e9 + i,
      environment_frames=frames + 9 * i,
    )
    for i in range(number)
  ]


def test_rows_for_a_full_disk_are_counted_and_the_others_written(tmp_path):
  for name in ('metrics.csv', 'evaluations.csv'):
    (tmp_path / name).symlink_to('/dev/full')
  screen = io.StringIO()
  writer = writers.open_run(str(tmp_path), 1000, 10, screen, evaluations=True)
  for frames in (100, 200):
    writer.write(a_row(frames))
    writer.write_evaluation(an_evaluation(frames))
  writer.write_episodes(games(3))
  assert writer.trouble == '4 rows not recorded: No space left on device'
  assert len(rows_of(tmp_path, 'episodes.csv')) == 3
  os.remove(tmp_path / 'metrics.csv')  # There is room again.
  writer.write(a_row(300))
  writer.close()
  assert [row['environment_frames'] for row in rows_of(tmp_path, 'metrics.csv')] == ['300']
  said = screen.getvalue()
  full = 'cannot be written: No space left on device; training goes on without its rows'
  assert said.count(f'metrics.csv {full}') == said.count(f'evaluations.csv {full}') == 1
  assert 'metrics.csv is written again; 2 rows are missing' in said
  assert '4 rows not recorded' in said.splitlines()[-1]  # The live line.


LIMITED = f"""
import resource, sys
sys.path[:0] = [{ROOT!r}, {os.path.dirname(__file__)!r}]
import io
from rows import a_row
from reporting import writers
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # As a full disk: half a row still fits.
writer = writers.open_run(sys.argv[1], 1000, 10, io.StringIO())
for frames in range(60):
  writer.write(a_row(frames, total_loss=1000.5 + frames))
print(writer.trouble)
"""


def test_what_a_full_disk_cuts_off_leaves_whole_rows_and_whole_records(tmp_path):
  from tensorboard.backend.event_processing import event_accumulator

  done = subprocess.run(
    [sys.executable, '-c', LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=100
  )
  assert done.stdout.endswith('rows not recorded: File too large\n'), done.stderr
  text = (tmp_path / 'metrics.csv').read_text()
  written = rows_of(tmp_path, 'metrics.csv')
  assert 2800 < len(text) <= 3000 and text.endswith('\n')
  assert [int(row['environment_frames']) for row in written] == list(range(len(written)))
  accumulator = event_accumulator.EventAccumulator(str(tmp_path))
  accumulator.Reload()
  losses = [event.step for event in accumulator.Scalars('metrics/total_loss')]
  assert losses == list(range(len(losses))) and len(losses) > 3


def test_a_link_that_somebody_else_may_have_put_there_is_not_followed(tmp_path):
  (tmp_path / 'victim').write_text('precious')
  folder = tmp_path / 'shared'
  folder.mkdir()
  folder.chmod(0o777)
  (folder / 'episodes.csv').symlink_to(tmp_path / 'victim')
  writer = writers.open_run(str(folder), 1000, 10, io.StringIO())
  writer.write_episodes(games(2))
  writer.write(a_row(100))
  assert '2 rows not recorded: Too many levels of symbolic links' in writer.trouble
  writer.close()
  assert (tmp_path / 'victim').read_text() == 'precious'
  assert len(rows_of(folder, 'metrics.csv')) == 1


# Games of nine steps.


def test_a_month_of_games_of_nine_steps_fits_on_a_disk():
  for games_per_sec, most in ((CATCH_GAMES_PER_SEC, 80e6), (0.5, 60e6)):
    size, bytes_a_row, written = 0.0, 60, 0.0
    for _ in range(MONTH_SECS // 600):
      share = csv_files.share_of_games(size)
      written += share * games_per_sec * 600
      size += share * games_per_sec * 600 * bytes_a_row
    assert size < most
    assert 70 * written / 1e6 > 7  # And it is not a handful.
  # Of a game every two seconds as of Atari, none is left out in three days.
  assert csv_files.share_of_games(0.5 * 3 * 86_400 * 60) == 1.0
  # A file of an earlier version, ten gigabytes long, still gets some.
  assert csv_files.share_of_games(10e9) * CATCH_GAMES_PER_SEC * 3600 > 100


def test_games_that_come_too_fast_are_drawn_evenly(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_files, 'ALL_GAMES_BYTES', 10_000)
  monkeypatch.setattr(csv_files, 'STEP_BYTES', 5_000)
  writer = writers.open_run(str(tmp_path), 1e9, 10, io.StringIO())
  # The games of one environment of eight are all won: an even draw keeps its share.
  number, batch = 20_000, 100
  for begin in range(0, number, batch):
    writer.write_episodes(
      [
        dict(an_episode(float(i % 8 == 0)), time=1.0, environment_frames=9 * i)
        for i in range(begin, begin + batch)
      ]
    )
  writer.close()
  rows = rows_of(tmp_path, 'episodes.csv')
  size = (tmp_path / 'episodes.csv').stat().st_size
  (events,) = tmp_path.glob('events.*')
  doublings = math.log2(number * 45 / 10_000)
  assert 10_000 < size < 10_000 + 5_000 * (doublings + 2)
  assert events.stat().st_size < 20 * size
  won = sum(float(row['episode_return']) for row in rows) / len(rows)
  assert abs(won - 1 / 8) < 0.06  # Five deviations.
  assert len(csv_files.last_games(str(tmp_path), 10**9)) == 100


def test_of_a_very_long_file_only_a_part_is_held(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_files, 'MOST_ROWS', 500)
  monkeypatch.setattr(csv_files, 'MOST_BYTES', 1 << 18)
  monkeypatch.setattr(csv_files, '_BLOCK', 1 << 12)
  path = tmp_path / 'episodes.csv'
  columns = ('time', 'environment_frames', 'level_name', 'episode_return', 'clipped_return',
             'episode_frames')  # fmt: skip
  file = csv_files.CsvFile(str(path), columns)
  for begin in range(0, 30_000, 10_000):
    file.write(games(10_000, frames=9 * begin, value=begin))
  file.write(games(10, frames=9 * 25_000, value=-1))  # From an earlier checkpoint on.
  file.close()
  assert path.stat().st_size > 3 * csv_files.MOST_BYTES
  tracemalloc.start()
  rows = csv_files.read_games(tmp_path)
  returns = [value for _, value in csv_files.last_games(tmp_path, 10**9)]
  _, most = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert most < 2_000_000
  assert 150 < len(rows) <= 500
  frames = [int(row['environment_frames']) for row in rows]
  assert frames == sorted(frames) and frames[-1] == 9 * 25_009
  assert returns == [20_000.0] * 90 + [-1.0] * 10
  # Drawn evenly: a tenth of the rows for each tenth of the frames.
  tenths = [sum(low <= f / 9 / 2_501 < low + 1 for f in frames) / len(frames) for low in range(10)]
  assert all(0.02 < share < 0.25 for share in tenths), tenths


def test_a_short_file_is_read_as_it_always_was(tmp_path):
  drawn = random.Random(1)
  path = tmp_path / 'episodes.csv'
  frames = [drawn.randrange(1000) for _ in range(200)]
  path.write_text(
    'environment_frames,episode_return\n' + ''.join(f'{f},{i}\n' for i, f in enumerate(frames)) +
    ',7\n' + '400'
  )  # fmt: skip
  kept, limit = [], math.inf
  for i, f in reversed(list(enumerate(frames))):
    if f <= limit:
      kept.append((str(f), str(i)))
      limit = f
  rows = csv_files.read_games(tmp_path)
  assert [(r['environment_frames'], r['episode_return']) for r in rows] == kept[::-1]


@pytest.mark.parametrize('tail', [b'', b'1.0,20', b'\0' * 200_000, b'x' * 200_000])
def test_the_end_that_a_power_cut_leaves_is_cut_off(tail, tmp_path):
  path = tmp_path / 'episodes.csv'
  path.write_bytes(b'environment_frames,episode_return\n5,1.5\n' + tail)
  assert csv_files.last_games(tmp_path, 10) == [('', 1.5)]
  file = csv_files.CsvFile(str(path), ('environment_frames', 'episode_return'))
  file.write([dict(environment_frames=6, episode_return=2.0)])
  file.close()
  assert path.read_bytes() == b'environment_frames,episode_return\n5,1.5\n6,2\n'
