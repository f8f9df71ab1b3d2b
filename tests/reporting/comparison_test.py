"""Comparing runs, and plot_runs.py: numbers worked out by hand, and bad input."""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from compared_runs import COLUMNS, START, a_run, run_main

from conftest import ROOT, commands_of
from reporting import comparison, comparison_report
from reporting.runs import read_runs
from runtime.process import BadInput

EARLIER = os.path.join(ROOT, 'tests', 'data', 'earlier_run')


def test_mean_and_spread_over_seeds_on_a_common_grid(tmp_path):
  one = a_run(tmp_path / 'one', (0, 10, 20))
  two = a_run(tmp_path / 'two', (10, 40), frames=(150, 250), seed=2)
  (group,) = comparison.compare(read_runs([one, two]), ['level_name']).groups
  # 150 to 250 frames: the first goes from 5 to 15, the second from 10 to 40.
  np.testing.assert_allclose(group.grid[[0, -1]], [150, 250])
  np.testing.assert_allclose(group.mean[[0, -1]], [7.5, 27.5])
  np.testing.assert_allclose(group.spread[[0, -1]], [5 / 2**0.5, 25 / 2**0.5])
  np.testing.assert_allclose(np.interp(200, group.grid, group.mean), (10 + 25) / 2)


def test_the_table_and_what_is_said_below_it(tmp_path, capsys):
  a1 = a_run(tmp_path / 'a1', (0, 18, 20), learning_rate=0.1, width=1)
  a2 = a_run(tmp_path / 'a2', (0, 22, 10), learning_rate=0.1, width=2, seed=2)
  b = a_run(tmp_path / 'b', ('', 1, 2), learning_rate=0.2)
  out = tmp_path / 'c.png'
  code, text, _ = run_main(capsys, a1, a2, b, '--by=learning_rate', f'--out={out}', '--score=20')
  assert code == 0 and out.read_bytes()[:4] == b'\x89PNG'
  lines = text.splitlines()
  # Final: 20 and 10; best: 20 and 22; 20 is reached at 300 and at 200 frames.
  row = 'learning_rate=0.1 2 300 15 +- 7.071 21 250 (2 of 2) 20'
  assert lines[1].split() == row.split()
  assert lines[2].split() == 'learning_rate=0.2 1 300 2 2 - (0 of 1) 20'.split()
  assert lines[3].startswith('Warning: learning_rate=0.1: 2 runs; below 5')
  assert lines[4] == 'Warning: learning_rate=0.1: width differs inside of the group: 1, 2.'
  assert lines[5].startswith('Warning: learning_rate=0.2: 1 run; below 5')
  assert lines[6:] == [str(out)]


def test_what_lies_beyond_the_shortest_run_of_a_group_is_told(tmp_path):
  short = a_run(tmp_path / 'short', (1, 2, 3))
  long = a_run(tmp_path / 'long', (1, 2, 3), frames=(100, 200, 30000))
  other = a_run(tmp_path / 'other', (1, 2, 3), frames=(100, 200, 302))
  runs = read_runs([short, long, other])
  told = comparison_report.remarks(comparison.compare(runs, ['level_name']))
  assert (
    told[0] == f'level_name=A-v0: cut off at 300 frames, the end of {short}; {long} has 30,000.'
  )
  alike = comparison_report.remarks(comparison.compare([runs[0], runs[2]], ['level_name']))
  assert not any('cut off' in sentence for sentence in alike)
  hours = comparison.compare(runs, ['level_name'], 'hours')
  assert not any('cut off' in sentence for sentence in comparison_report.remarks(hours))


def test_five_runs_that_differ_in_the_seed_alone_are_not_warned_of(tmp_path):
  folders = [a_run(tmp_path / str(i), (1, 2, 3), seed=i, logdir=str(i)) for i in range(5)]
  assert comparison_report.remarks(comparison.compare(read_runs(folders), ['level_name'])) == []


def test_the_frames_to_a_score_are_a_median_in_which_never_is_infinite(tmp_path):
  runs = read_runs(
    [
      a_run(tmp_path / str(i), returns)
      for i, returns in enumerate([(9, 9, 9), (0, 9, 9), (0, 0, 0)])
    ]
  )
  assert comparison.frames_to_score(runs, 9) == (200, 2)
  assert comparison.frames_to_score(runs[1:], 9) == (np.inf, 1)


def test_hours_leave_out_the_break_before_a_second_start(tmp_path):
  folder = a_run(
    tmp_path / 'r', (1, 2, 3), starts=(START, '1970-01-01T10:00:00+00:00'),
    times=(1800, 3600, 36000 + 900),
  )  # fmt: skip
  (run,) = read_runs([folder])
  np.testing.assert_allclose(run.hours, [0.5, 1, 1.25])
  compared = comparison.compare([run], ['agent_name'], 'hours')
  assert compared.groups[0].grid[-1] == 1.25


def test_the_interquartile_mean():
  assert comparison.interquartile_mean([np.arange(4.0), np.arange(4.0, 8)])[0] == 3.5
  # The samples are drawn game by game: with equal runs in each game, none differs.
  assert comparison.interquartile_mean([np.full(4, 1.0), np.full(4, 3.0)]) == (2, 2, 2)
  # One game, one run 0 and one run 1: a sample's mean is 0, .5 or 1, the ends a quarter each.
  assert comparison.interquartile_mean([np.array([0.0, 1.0])]) == (0.5, 0, 1)


def test_several_games_in_a_group_are_human_normalised(tmp_path, capsys):
  # Random play and a person: Pong -20.7 and 14.6, Breakout 1.7 and 30.5.
  pong = a_run(tmp_path / 'p', (-20.7, -20.7, 14.6), level_name='PongNoFrameskip-v4')
  breakout = a_run(tmp_path / 'b', (1.7, 1.7, 59.3), level_name='ALE/Breakout-v5')
  out = tmp_path / 'c.svg'
  code, text, _ = run_main(capsys, pong, breakout, '--by=agent_name', f'--out={out}')
  assert code == 0 and b'<svg' in out.read_bytes()
  assert text.splitlines()[1].split()[:6] == 'agent_name=MLPAgent 2 300 1.5 +- 0.7071'.split()
  assert 'agent_name=MLPAgent: IQM 1.5, no interval: that takes two runs of each level.' in text
  assert '1 run of a level; below 5' in text
  again = [
    a_run(tmp_path / 'p2', (-20.7, -20.7, -20.7), level_name='PongNoFrameskip-v4'),
    a_run(tmp_path / 'b2', (1.7, 1.7, 1.7), level_name='ALE/Breakout-v5'),
  ]
  code, text, _ = run_main(capsys, pong, breakout, *again, '--by=agent_name', f'--out={out}')
  # Returns 1 and 0, 2 and 0: the middle half of the four is 0 and 1.
  assert code == 0 and 'IQM 0.5, 95% interval 0 to 1.5 (stratified bootstrap, 2 levels)' in text
  other = a_run(tmp_path / 'o', (1, 2, 3))
  code, text, err = run_main(capsys, pong, other, '--by=agent_name', f'--out={tmp_path / "d.png"}')
  assert (code, text) == (2, '') and 'A-v0 has no known human score' in err
  assert not (tmp_path / 'd.png').exists()


def test_a_run_of_an_earlier_version_from_the_command_line_without_tensorflow(tmp_path):
  program = (
    'import sys, plot_runs; code = plot_runs.main(sys.argv[1:]); '
    'sys.exit(code or ("tensorflow" in sys.modules) * 9)'
  )
  result = subprocess.run(
    [sys.executable, '-c', program, EARLIER, '--out=c.png', '--by=agent_name,batch_size'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': ROOT},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert result.returncode == 0, result.stderr
  row = 'agent_name=MLPAgent batch_size=4 1 3,072 22.92 22.92 466'.split()
  assert result.stdout.splitlines()[1].split() == row
  assert sorted(os.listdir(tmp_path)) == ['c.png']


@pytest.mark.parametrize(
  'spoil, arguments, told',
  [
    ('run.json', [], 'run.json does not exist'),
    ('metrics.csv', [], 'metrics.csv does not exist'),
    ('', ['--by=learnin_rate'], 'did you mean learning_rate?'),
    ('', ['--by=xyzzy'], 'run.json lists what there is'),
    ('', ['--out=no/such/c.png'], 'no/such is no folder'),
    ('', ['--out=c.gif'], 'has to end in .jpg'),
    ('', ['--x=days'], 'argument --x: invalid choice'),
    ('', ['--score=nan'], '--score=nan is no mean return that a run can reach'),
    ('', ['--score=inf'], '--score=inf is no mean return'),
    ('', ['--score=high'], "argument --score: invalid float value: 'high'"),
  ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, spoil, arguments, told):
  monkeypatch.chdir(tmp_path)
  folder = a_run(tmp_path / 'run', (1, 2, 3), learning_rate=0.1)
  if spoil:
    os.remove(os.path.join(folder, spoil))
  code, out, err = run_main(capsys, folder, *arguments)
  assert (code, out) == (2, '') and told in err and err.count('\n') == 1
  assert os.listdir(tmp_path) == ['run']


def test_runs_that_cannot_be_compared(tmp_path):
  one = a_run(tmp_path / 'one', (1, 2, 3))
  with pytest.raises(BadInput, match='given twice'):
    read_runs([one, one + '/'])
  with pytest.raises(BadInput, match='has no games yet'):
    read_runs([a_run(tmp_path / 'none', ('', '', ''))])
  late = a_run(tmp_path / 'late', (1, 2, 3), frames=(400, 500, 600))
  with pytest.raises(BadInput, match='no frames in common'):
    comparison.compare(read_runs([one, late]), ['level_name'])
  (tmp_path / 'late' / 'run.json').write_text('{')
  with pytest.raises(BadInput, match='run.json cannot be read'):
    read_runs([late])
  assert (tmp_path / 'late' / 'run.json').exists()


@pytest.mark.parametrize('text', ['', 'x,y\n1,2\n', COLUMNS + '\n1,2,3,many\n'])
def test_a_metrics_csv_that_is_none_is_one_sentence(tmp_path, text):
  folder = a_run(tmp_path / 'one', (1, 2, 3))
  (tmp_path / 'one' / 'metrics.csv').write_text(text)
  with pytest.raises(BadInput, match='is no metrics.csv|has no games yet'):
    read_runs([folder])


def _spoilt(folder, how):
  """A run's folder that cannot be read, in one of several ways; its path."""
  path = a_run(folder, (1, 2, 3))
  metrics, record = folder / 'metrics.csv', folder / 'run.json'
  if how == 'cut run.json':
    record.write_bytes(record.read_bytes()[:-9])
  elif how == 'cut metrics.csv':
    metrics.write_text(metrics.read_text()[:20])
  elif how == 'binary':
    metrics.write_bytes(bytes(range(256)) * 9)
  elif how == 'zeros after a power cut':
    metrics.write_bytes(metrics.read_bytes() + bytes(4096) + b'\n' + bytes(10) + b',1,1,1\n')
  elif how == 'columns of another program':
    metrics.write_text('step,loss\n1,2\n')
  elif how == 'no frames that are a number':
    metrics.write_text(COLUMNS + '\n1,inf,1,5\n2,inf,1,6\n')
  elif how == 'starts that are none':
    record.write_text(json.dumps({**json.loads(record.read_text()), 'starts': ['then']}))
  elif how == 'a folder for a file':
    metrics.unlink()
    metrics.mkdir()
  elif how == 'a pipe that nobody writes to':
    record.unlink()
    os.mkfifo(record)
  elif how == 'a link to itself':
    metrics.unlink()
    metrics.symlink_to(metrics)
  return path


def test_what_cannot_be_read_is_left_out_and_named(tmp_path, capsys):
  good = [a_run(tmp_path / f'good{i}', (0, 10 * i, 20), seed=i) for i in range(2)]
  ways = (
    'cut run.json', 'cut metrics.csv', 'binary', 'zeros after a power cut',
    'columns of another program', 'no frames that are a number', 'starts that are none',
    'a folder for a file', 'a pipe that nobody writes to', 'a link to itself',
  )  # fmt: skip
  bad = [_spoilt(tmp_path / f'bad{i}', how) for i, how in enumerate(ways)]
  (tmp_path / 'again').symlink_to(good[0])
  bad += [str(tmp_path / name) for name in ('nowhere', 'again')]
  out = tmp_path / 'c.png'
  code, text, err = run_main(capsys, *bad[:3], *good, *bad[3:], f'--out={out}')
  assert code == 0 and out.read_bytes()[:4] == b'\x89PNG'
  assert text.splitlines()[1].split()[2:4] == ['2', '300']
  lines = err.splitlines()
  assert len(lines) == len(bad)
  for folder, line in zip(bad, lines, strict=True):
    assert line.startswith(f'plot_runs.py: left out: {folder}'), line
  assert f'{good[0]} under another name' in lines[-1]
  code, text, err = run_main(capsys, *bad[:-1], f'--out={out}')
  assert code == 2 and not text and f'None of the other {len(bad) - 2} can be read' in err


def test_what_this_user_may_not_read_is_left_out_and_named():
  told = []
  with tempfile.TemporaryDirectory() as folder:  # Unlike tmp_path, others may look into it.
    os.chmod(folder, 0o755)
    good, *locked = [a_run(pathlib.Path(folder, name), (1, 2, 3)) for name in 'abc']
    os.chmod(os.path.join(locked[0], 'metrics.csv'), 0)
    os.chmod(os.path.join(locked[1], 'run.json'), 0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # Root may read whatever there is.
    try:
      runs = read_runs([*locked, good], told.append)
    finally:
      os.seteuid(user)
  assert [run.folder for run in runs] == [good]
  assert [sentence.partition(' cannot be read: ')[2] for sentence in told] == [
    'Permission denied.'
  ] * 2


def test_a_disk_without_room_leaves_no_half_of_a_picture(tmp_path):
  result = subprocess.run(
    [sys.executable, os.path.join(ROOT, 'plot_runs.py'), EARLIER, '--out=c.png'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=60,
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
  )
  assert result.returncode == 1 and 'File too large' in result.stderr.splitlines()[-1]
  assert 'Traceback' not in result.stderr and os.listdir(tmp_path) == []


def test_the_command_of_the_documentation(tmp_path, monkeypatch, capsys):
  ((python, program, *arguments),) = commands_of('docs/after_training.md', 'Compare runs')
  assert (python, program) == ('python', 'plot_runs.py')
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'runs').mkdir()
  for folder in (word for word in arguments if word[:2] != '--'):
    a_run(tmp_path / folder, (0, 18, 20), learning_rate=1.0 if '/a' in folder else 2.0)
  code, text, _ = run_main(capsys, *arguments)
  assert code == 0 and (tmp_path / 'compare.png').exists()
  assert '200 (2 of 2)' in text and text.count('agent_name=MLPAgent learning_rate=1.0') == 2


def test_a_run_json_without_settings_is_refused_in_a_sentence(tmp_path):
  folder = a_run(tmp_path / 'a', (1, 2))
  record = json.loads((tmp_path / 'a' / 'run.json').read_text())
  (tmp_path / 'a' / 'run.json').write_text(json.dumps({**record, 'settings': None}))
  with pytest.raises(BadInput, match='run.json cannot be read'):
    read_runs([folder])
