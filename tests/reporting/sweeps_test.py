"""Comparing the runs of a sweep: what is grouped, in which order, and the numbers, by hand."""

import os

import numpy as np
import pytest
from compared_runs import a_run, run_main

from conftest import commands_of
from reporting import comparison, comparison_report, sweeps
from reporting.runs import read_runs

PAGE = 'docs/many_runs.md'


def a_sweep(folder, finals, **flags):
  """A folder of runs: {(learning rate, seed): final return}, and what beside runs lies there."""
  folder.mkdir(parents=True)
  (folder / 'sweep.json').write_text('{}')
  (folder / 'learning_rate=9,seed=1').mkdir()  # Not started.
  for (rate, seed), final in finals.items():
    name = f'learning_rate={rate},seed={seed}'
    a_run(folder / name, (0, 1, final), learning_rate=rate, seed=seed, logdir=name, **flags)
  return str(folder)


def test_a_folder_of_runs_is_grouped_by_what_differs_over_seeds(tmp_path, capsys):
  finals = {(0.1, 1): 4, (0.1, 2): 4, (0.2, 1): 7, (0.2, 2): 7, (0.2, 10): 7}
  folder = a_sweep(tmp_path / 'sweep1', finals)
  out, page = tmp_path / 'c.png', tmp_path / 'best.md'
  code, text, err = run_main(capsys, folder, f'--out={out}', f'--page={page}', '--score=4')
  assert (code, err) == (0, '') and out.read_bytes()[:4] == b'\x89PNG'
  lines = text.splitlines()
  # The best first. Equal seeds leave no doubt.
  assert lines[1].split() == 'learning_rate=0.2 3 300 7 (7 to 7) 7 300 (3 of 3) 20'.split()
  assert lines[2].split() == 'learning_rate=0.1 2 300 4 (4 to 4) 4 300 (2 of 2) 20'.split()
  assert 'interquartile mean over the runs' in lines[3]
  assert lines[-2:] == [str(out), str(page)]
  written = page.read_text()
  assert '![final returns](c.png)' in written and '--learning_rate=0.2\n' in written
  assert '| learning_rate=0.1 | 2 | 300 | 4 (4 to 4) |' in written
  assert '--learning_rate=0.1' not in written


def test_runs_are_found_in_the_order_of_their_numbers(tmp_path):
  for name in ('rate=3e-4,seed=1', 'rate=1e-3,seed=10', 'rate=1e-3,seed=2', 'tasks'):
    (tmp_path / name).mkdir()
    if name != 'tasks':
      (tmp_path / name / 'run.json').write_text('{}')
  names = [os.path.basename(path) for path in sweeps.runs_below(str(tmp_path))]
  assert names == ['rate=3e-4,seed=1', 'rate=1e-3,seed=2', 'rate=1e-3,seed=10']
  assert sweeps.runs_below(str(tmp_path / 'rate=3e-4,seed=1')) == []
  assert sweeps.runs_below(str(tmp_path / 'nowhere')) == []


def test_what_follows_from_another_setting_makes_no_group(tmp_path):
  def differing(*options):
    folders = [a_run(tmp_path / str(i), (1, 2, 3), **flags) for i, flags in enumerate(options)]
    names = sweeps.differing(read_runs(folders))
    for folder in folders:
      os.rename(folder, f'{folder}-{"-".join(names)}-{len(os.listdir(tmp_path))}')
    return names

  follows = [dict(batch_size=b, queue_capacity=2 * b, seed=b) for b in (2, 4)]
  assert differing(*follows) == ['batch_size']
  # Swept itself: both differ on their own.
  assert differing(*follows, dict(batch_size=2, queue_capacity=9)) == [
    'queue_capacity',
    'batch_size',
  ]
  # A run without a record of a setting has the default, 0.99.
  assert differing(dict(discounting=0.99), {}) == []
  assert differing(dict(discounting=0.9), {}) == ['discounting']
  assert differing(dict(test_num_episodes=1), dict(seed=2)) == []


def test_the_iqm_of_a_curve_at_each_point(tmp_path):
  folders = [
    a_run(tmp_path / str(i), (0, i, 2 * value), seed=i) for i, value in enumerate((0, 1, 2, 9))
  ]
  runs = read_runs(folders)
  compared = comparison.compare(runs, ['level_name'], statistic='iqm')
  (group,) = compared.groups
  # The middle two of 0, 1, 2, 3 and of 0, 2, 4, 18.
  at = [np.interp(frames, group.grid, group.iqm[0]) for frames in (100, 200, 300)]
  np.testing.assert_allclose(at, [0, 1.5, 3], atol=0.02)
  one, low, high = comparison.interquartile_mean([np.array([0, 2.0, 4, 18])])
  np.testing.assert_allclose(group.iqm[:, -1], [one, low, high])
  assert low < 3 < high
  # A sample has as many runs as there are: its middle half is neither the least nor the greatest.
  _, low, high = comparison.interquartile_mean([np.arange(8.0)])
  assert 0 < low < 3.5 < high < 7
  # The same seeds are drawn at all points: of curves apart by 1, the band is 1 wide throughout.
  apart = [np.arange(3.0), np.arange(3.0) + 1]
  _, low, high = comparison.interquartile_means([np.array(apart)])
  np.testing.assert_allclose(high - low, 1)
  # One run has no interval.
  (single,) = comparison.compare(runs[:1], ['level_name'], statistic='iqm').groups
  assert single.iqm[0, -1] == 0 and np.isnan(single.iqm[1:]).all()


def test_long_numbers_are_rounded_where_groups_stay_apart(tmp_path):
  rates = (0.000123456789, 0.000123456, 0.5)
  folders = [a_run(tmp_path / str(i), (1, 2, 3), learning_rate=r) for i, r in enumerate(rates)]
  runs = read_runs(folders)
  label = lambda runs: [g.label for g in comparison.compare(runs, ['learning_rate']).groups]  # noqa: E731
  assert label(runs[1:]) == ['learning_rate=0.0001235', 'learning_rate=0.5']
  assert label(runs[:2]) == ['learning_rate=0.000123456789', 'learning_rate=0.000123456']


def test_many_groups_give_one_warning_and_a_picture_of_the_best(tmp_path, capsys):
  finals = {(i / 8, 1): i for i in range(1, 13)}
  folder = a_sweep(tmp_path / 'many', finals)
  out = tmp_path / 'c.svg'
  code, text, _ = run_main(capsys, folder, f'--out={out}')
  assert code == 0 and text.count('Warning') == 1
  assert 'Warning: 12 of 12 groups: 1 run; below 5' in text
  drawn = out.read_text()
  assert '<!-- learning_rate=1.5 (n=1) -->' in drawn and '<!-- the 4 others -->' in drawn
  assert 'learning_rate=0.5 (n=1)' not in drawn  # The fifth from below.


def test_groups_of_unequal_length_are_told(tmp_path):
  a = a_run(tmp_path / 'a', (1, 2, 3), learning_rate=1.0)
  b = a_run(tmp_path / 'b', (1, 2), frames=(100, 200), learning_rate=2.0)
  compared = comparison.compare(read_runs([a, b]), ['learning_rate'], statistic='iqm')
  told = comparison_report.remarks(compared)
  assert any('the groups end at 200 to 300 frames' in sentence for sentence in told)


def test_a_run_that_has_just_begun_does_not_keep_the_others_from_being_compared(tmp_path, capsys):
  folder = a_sweep(tmp_path / 'sweep1', {(0.1, 1): 4, (0.1, 2): 8})
  late = a_run(tmp_path / 'sweep1' / 'z', (9,), frames=(50,), learning_rate=0.1, seed=3)
  out = f'--out={tmp_path / "c.png"}'
  code, text, _ = run_main(capsys, folder, out)
  assert code == 0 and text.splitlines()[1].split()[2:5] == ['2', '300', '6']
  assert f'{late} is left out: it ends before another one has games.' in text
  code, _, err = run_main(capsys, folder, out, '--statistic=mean')
  assert code == 2 and 'no frames in common' in err


def test_sorted_scores_have_a_line_for_each_folder(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'runs').mkdir()
  finals = {(0.1, 1): 4, (0.2, 1): 7, (0.3, 1): 9}
  for word in ('runs/sweep1', 'runs/sweep2'):
    a_sweep(tmp_path / word, finals, queue_capacity=int(word[-1]))
    finals = {key: value - 1 for key, value in list(finals.items())[:2]}
  drawn = {}
  monkeypatch.setattr(
    'reporting.comparison_pictures.save', lambda figure, path: drawn.update({path: figure})
  )
  code, text, _ = run_main(
    capsys, 'runs/sweep1', 'runs/sweep2', '--sorted_scores', '--out=sorted.png'
  )
  assert code == 0 and text.count('\nqueue_capacity=1 learning_rate=') == 3
  lines = {line.get_label(): line.get_ydata() for line in drawn['sorted.png'].axes[0].get_lines()}
  assert {label: list(y) for label, y in lines.items()} == {
    'runs/sweep1 (n=3)': [9, 7, 4],
    'runs/sweep2 (n=2)': [6, 3],
  }


def test_the_commands_of_the_documentation(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'runs').mkdir()
  for name in ('sweep1', 'sweep2'):
    a_sweep(tmp_path / 'runs' / name, {(0.1, 1): 4, (0.2, 1): 7})
  commands = commands_of(PAGE, 'Comparing runs')
  assert len(commands) == 3
  for python, program, *words in commands:
    assert (python, program) == ('python', 'plot_runs.py')
    code, _, err = run_main(capsys, *words)
    assert code == 0, err
  assert (tmp_path / 'best.md').exists() and (tmp_path / 'sorted.png').exists()


@pytest.mark.parametrize('words, told', [
  (['--page=best.txt'], 'has to end in .md'),
  (['--page=no/such/best.md'], 'no/such is no folder'),
  (['--statistic=median'], 'argument --statistic: invalid choice'),
])  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, words, told):
  monkeypatch.chdir(tmp_path)
  code, out, err = run_main(capsys, a_sweep(tmp_path / 's', {(0.1, 1): 4}), *words)
  assert (code, out) == (2, '') and told in err and err.count('\n') == 1
  assert os.listdir(tmp_path) == ['s']


def test_a_folder_without_runs_is_named(tmp_path, capsys):
  (tmp_path / 'empty' / 'sub').mkdir(parents=True)
  code, _, err = run_main(capsys, tmp_path / 'empty')
  assert code == 2 and 'no folder of a run' in err
