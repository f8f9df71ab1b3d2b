"""The picture of a population: whose line is whose, what is drawn, and what is no population."""

import numpy as np
from compared_runs import a_run, run_main

from conftest import commands_of
from reporting import lineage, lineage_picture
from reporting.lineage import Comparison


def began(rate):
  return Comparison(0.0, 0, dict(learning_rate=rate))


def copied(time, frames, rate, other, other_frames):
  return Comparison(
    time, frames, dict(learning_rate=rate), 0.1, 0.1, other, other_frames, 0.9, 0.9, True
  )


# At 100 frames b copied a; then a copied c; then c copied b, which descends from a's first weights.
MEMBERS = {
  'a': [began(0.1), copied(2.0, 100, 0.36, 'c', 90)],
  'b': [began(0.2), copied(1.0, 100, 0.12, 'a', 110)],
  'c': [began(0.3), copied(3.0, 200, 0.144, 'b', 220)],
}


def test_a_line_begins_where_the_copied_weights_began():
  assert lineage_picture.ancestors(MEMBERS) == {'a': 'c', 'b': 'a', 'c': 'a'}
  # Of b, d copied a checkpoint from before b copied a.
  late = {**MEMBERS, 'd': [began(0.4), copied(9.0, 80, 0.2, 'b', 90)]}
  assert lineage_picture.ancestors(late)['d'] == 'b'
  # A member whose folder is gone is an ancestor by name.
  assert lineage_picture.ancestors({'c': MEMBERS['c']}) == {'c': 'b'}


def test_members_settings_and_copies_are_drawn(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'population1').mkdir()
  for place, (name, history) in enumerate(MEMBERS.items()):
    folder = a_run(tmp_path / 'runs' / 'population1' / name, (0, 1, place))
    lineage.write(folder, history)
  drawn = {}
  monkeypatch.setattr(
    'reporting.comparison_pictures.save', lambda figure, path: drawn.update({path: figure})
  )
  python, program, *words = commands_of('docs/many_runs.md', 'Populations')[1]
  assert (python, program) == ('python', 'plot_runs.py')
  code, text, err = run_main(capsys, *words)
  assert (code, err) == (0, '')
  rows = [line.split() for line in text.splitlines()]
  assert rows[0] == ['member', 'frames', 'return', 'copied', 'began', 'as', 'learning_rate']
  assert rows[1:] == [
    ['c', '300', '2', '1', 'a', '0.144'],
    ['b', '300', '1', '1', 'a', '0.12'],
    ['a', '300', '0', '1', 'c', '0.36'],
    ['lineage.png'],
  ]
  returns, lines, rates = drawn['lineage.png'].axes
  assert [line.get_label() for line in returns.get_lines()] == ['a', 'b', 'c']
  of_a = rates.get_lines()[0]
  np.testing.assert_allclose(of_a.get_xdata() * 1e6, [0, 100, 300])
  np.testing.assert_allclose(of_a.get_ydata(), [0.1, 0.36, 0.36])
  # Rows 0, 1 and 2: until and from the copy, in the colour of the member that the line began as.
  rows = [(*(line.get_xdata() * 1e6), line.get_ydata()[0]) for line in lines.get_lines()]
  expected = [(0, 100, 0), (100, 300, 0), (0, 100, 1), (100, 300, 1), (0, 200, 2), (200, 300, 2)]
  np.testing.assert_allclose(rows, expected)
  assert [line.get_color() for line in lines.get_lines()] == ['C0', 'C2', 'C1', 'C0', 'C2', 'C0']
  arrows = {(a.xyann[0] * 1e6, a.xyann[1], a.xy[0] * 1e6, a.xy[1]) for a in lines.texts}
  expected = {(90, 2, 100, 0), (110, 0, 100, 1), (220, 1, 200, 2)}
  np.testing.assert_allclose(sorted(arrows), sorted(expected))


def test_runs_that_are_no_members_are_named(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  code, out, err = run_main(capsys, a_run(tmp_path / 'run', (1, 2, 3)), '--lineage')
  assert (code, out) == (2, '') and 'is a member of a population' in err
