"""reporting.curves: the picture is drawn, without rows that are void."""

import math
import os
import shutil
import tempfile

import pytest
from rows import FULL, a_row, an_episode, an_evaluation, reporting_run

import conftest
import experiment
from reporting import csv_files, curves


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
  curves.plot_learning_curve(one, str(tmp_path / 'one.png'))
  curves.plot_learning_curve([one, two], str(tmp_path / 'both.png'))
  assert min(png_size(tmp_path / 'one.png')) > 500
  assert (tmp_path / 'both.png').read_bytes() != (tmp_path / 'one.png').read_bytes()


def test_evaluations_stand_in_the_picture_also_of_a_single_game(tmp_path):
  with reporting_run(tmp_path, evaluations=True) as writer:
    writer.write(a_row(200, **FULL))
    curves.plot_learning_curve(str(tmp_path), str(tmp_path / 'without.png'))
    writer.write_evaluation(an_evaluation(100))
    single = dict(num_episodes=1, mean_return_low=None, mean_return_high=None, deterministic=True)
    writer.write_evaluation(an_evaluation(200, **single))
  curves.plot_learning_curve(str(tmp_path), str(tmp_path / 'with.png'))
  assert (tmp_path / 'with.png').read_bytes() != (tmp_path / 'without.png').read_bytes()
  kinds = curves._by_kind(csv_files.read_evaluations(str(tmp_path)))
  assert list(kinds) == ['evaluation (training)', 'evaluation (training, likeliest actions)']


def test_a_run_of_several_levels_shows_scores_in_place_of_returns(tmp_path):
  for name, scores in (('a', (0.25, 0.2)), ('b', (0.5, 0.2))):
    folder = tmp_path / name / 'run'  # The picture has the last name.
    with reporting_run(folder) as writer:
      for frames in (100, 200):
        known = dict(mean_score=scores[0], mean_capped_score=scores[1])
        writer.write(a_row(frames, **FULL, **known))
      writer.write_episodes([dict(an_episode(), time=1.0, environment_frames=150)])
    curves.plot_learning_curve(str(folder), str(tmp_path / f'{name}.png'))
  assert (tmp_path / 'a.png').read_bytes() != (tmp_path / 'b.png').read_bytes()


def test_rows_that_a_restart_made_void_are_not_drawn(tmp_path):
  with reporting_run(tmp_path) as writer:
    for frames in (100, 200, 300, 150, 250):
      writer.write(a_row(frames))
  rows = csv_files.read_csv(str(tmp_path / 'metrics.csv'))
  assert [row['environment_frames'] for row in rows] == ['100', '150', '250']
  frames, values = curves._curve(rows, 'total_loss')
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
    curves.plot_learning_curve(str(tmp_path), str(tmp_path / 'a.png'))
  assert not (tmp_path / 'a.png').exists()


def test_a_folder_that_can_only_be_read_is_drawn_here(capsys, monkeypatch):
  with tempfile.TemporaryDirectory() as folder:  # Unlike tmp_path, others may look into it.
    os.chmod(folder, 0o755)
    run, here = os.path.join(folder, 'run'), os.path.join(folder, 'here')
    shutil.copytree(os.path.join(conftest.ROOT, 'tests', 'data', 'earlier_run'), run)
    os.mkdir(here)
    os.chmod(here, 0o777)
    monkeypatch.chdir(here)
    before, user = sorted(os.listdir(run)), os.geteuid()
    codes = []
    os.seteuid(user or 65534)  # Root may write wherever it likes.
    try:
      if user:
        os.chmod(run, 0o555)
      codes.append(experiment.main(['experiment.py', '--mode=plot', f'--logdir={run}']))
      monkeypatch.chdir(run)
      codes.append(experiment.main(['experiment.py', '--mode=plot', f'--logdir={run}']))
    finally:
      os.seteuid(user)
    monkeypatch.undo()
    assert codes == [0, 1]
    out, err = capsys.readouterr()
    path = os.path.join(run, 'learning_curve.png')
    assert out == f'run-learning_curve.png, since {path} cannot be written: Permission denied\n'
    assert 'Permission denied' in err.splitlines()[-1] and 'a bug' not in err
    assert os.path.getsize(os.path.join(here, 'run-learning_curve.png')) > 10_000
    assert os.listdir(here) == ['run-learning_curve.png'] and sorted(os.listdir(run)) == before
