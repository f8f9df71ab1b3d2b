"""benchmarks/peers/clock.py: the rows of TASK.csv, and that no process is left."""

import os
import sys
from typing import NamedTuple

import pytest

from child_processes import is_running
from conftest import ROOT, eventually

sys.path.insert(0, os.path.join(ROOT, 'benchmarks', 'peers'))

import clock

GOAL = 475.0


def long_curve(num_rows, reached=range(1003, 1007)):
  """A curve of a row per second that is at the goal in these rows only."""
  return [(float(i), GOAL if i in reached else 400.0) for i in range(num_rows)]


@pytest.mark.parametrize('num_rows', [1, 399, 400, 401, 402, 799, 4000, 4001, 100_003])
def test_a_thinned_curve_keeps_its_ends_and_the_time_to_the_goal(num_rows):
  curve = long_curve(num_rows)
  rows = clock.thinned(curve, GOAL)
  assert len(rows) <= clock.ROWS
  assert len(rows) > clock.ROWS / 2 or rows == curve
  assert (rows[0], rows[-1]) == (curve[0], curve[-1])
  assert clock.secs_to(rows, GOAL) == clock.secs_to(curve, GOAL)
  assert clock.thinned(rows, GOAL) == rows


def test_a_table_that_is_read_and_written_again_stays_as_it_is(tmp_path):
  path = tmp_path / 'cartpole.csv'
  curves = {
    (clock.OURS, 1): long_curve(4000),
    (clock.OURS, 2): long_curve(4000, reached=range(0)),
    ('peer', 1): [(0.25, 474.996), (1.5, 475.001)],
  }
  clock.write(path, curves, GOAL)
  read, text = clock.read(path), path.read_text()
  for key, curve in curves.items():
    assert clock.secs_to(read[key], GOAL) == clock.secs_to(curve, GOAL)
  clock.write(path, read, GOAL)
  assert path.read_text() == text


class Script(NamedTuple):
  """A program that leaves the pid of a child of its own in a file."""

  file: str
  ends: bool
  curve_of_it: list

  def command(self, python, seed, folder):
    code = (
      'import subprocess, sys; child = subprocess.Popen(["sleep", "100"]); '
      f'open({self.file!r}, "w").write(str(child.pid)); ' + ('' if self.ends else 'child.wait()')
    )
    return [python, '-c', code]

  def curve(self, folder):
    with open(self.file, encoding='utf-8') as file:
      return self.curve_of_it if file.read() else []


@pytest.mark.parametrize('ends', [True, False], ids=['it ends by itself', 'it is ended'])
def test_no_child_of_a_program_stays(tmp_path, monkeypatch, ends):
  monkeypatch.setattr(clock, 'LOOK_SECS', 0.1)
  pid = tmp_path / 'pid'
  pid.touch()
  program = Script(str(pid), ends, [(0.0, GOAL)])
  task = clock.Task(GOAL, program, program, ends_there=not ends)
  assert [value for _, value in clock.run(task, program, sys.executable, 1)] == [GOAL]
  eventually(lambda: not is_running(int(pid.read_text())), 10.0)


def test_a_program_that_never_reaches_the_goal_is_ended(tmp_path, monkeypatch):
  monkeypatch.setattr(clock, 'LOOK_SECS', 0.1)
  pid = tmp_path / 'pid'
  pid.touch()
  program = Script(str(pid), False, [(0.0, GOAL - 1)])
  task = clock.Task(GOAL, program, program, ends_there=True)
  curve = clock.run(task, program, sys.executable, 1, most_secs=1.0)
  assert [value for _, value in curve] == [GOAL - 1]
  eventually(lambda: not is_running(int(pid.read_text())), 10.0)
