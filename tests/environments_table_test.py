"""benchmarks/environments_table.py: a run that fails is a row, and earlier rows are kept."""

import json
import os
import sys

import pytest

from child_processes import is_running
from conftest import ROOT, eventually

sys.path.insert(0, os.path.join(ROOT, 'benchmarks'))

import environments_table

ROW = '| package 1.0 | `Some-v0` | {} | | | |'


@pytest.fixture
def program(tmp_path, monkeypatch):
  """Returns a function of code that takes the place of a training; the check succeeds."""

  def write(code):
    (tmp_path / 'experiment.py').write_text(
      'import os, signal, subprocess, sys\n'
      f'sys.argv[-1] == "--only_check_args" and sys.exit()\n{code}\n'
    )
    monkeypatch.setattr(environments_table, 'ROOT', str(tmp_path))

  return write


@pytest.mark.parametrize(
  'code, failed', [('sys.exit("no space left")', 'no space left'), ('os._exit(3)', 'exit code 3')]
)
def test_a_run_that_dies_at_its_start_is_a_row(program, code, failed):
  program(code)
  row = environments_table.trial('Some-v0', [], 1.0)
  assert row == dict(id='Some-v0', flags=[], failed=failed)
  assert environments_table.line('package 1.0', row) == ROW.format(failed)


def test_a_run_that_does_not_end_is_killed_with_its_children(program, monkeypatch, tmp_path):
  pids = tmp_path / 'pids'
  program(
    'signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
    'child = subprocess.Popen(["sleep", "100"])\n'
    'print("hangs", flush=True)\n'
    'print(os.getpid(), child.pid, file=open(sys.argv[1], "w"), flush=True)\n'
    'child.wait()'
  )

  def has_begun():
    return pids.exists() and pids.read_text().endswith('\n')

  monkeypatch.setattr(environments_table, 'END_SECS', 0.2)
  assert environments_table.run([str(pids)], tmp_path, 0.2, has_begun) == (None, 'hangs\n')
  for pid in map(int, pids.read_text().split()):
    eventually(lambda pid=pid: not is_running(pid), 10.0)


def test_results_so_far_are_kept(monkeypatch, tmp_path):
  tried = []

  def trial(name, flags, secs):
    if tried:
      raise KeyboardInterrupt
    tried.append(name)
    return dict(id=name, flags=flags, failed='why')

  monkeypatch.setattr(environments_table, 'trial', trial)
  monkeypatch.setattr(environments_table, 'exit_on_sigterm', lambda: None)
  monkeypatch.setattr(environments_table, 'installed', lambda package: '1.0')
  monkeypatch.setattr(sys, 'argv', ['environments_table.py', '--secs=3', f'--out={tmp_path}'])
  with pytest.raises(KeyboardInterrupt):
    environments_table.main()
  result = json.loads((tmp_path / 'result.json').read_text())
  assert result['secs'] == 3
  assert result['environments'] == {
    'gymnasium 1.0': [dict(id='CartPole-v1', flags=[], failed='why')]
  }
  assert os.listdir(tmp_path) == ['result.json']
