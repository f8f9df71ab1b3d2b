"""A Python without the packages of requirements.txt gets one sentence, not a traceback."""

import os
import subprocess
import sys

import absl
import pytest

from common import missing_packages
from conftest import ROOT


def run_bare(program, *arguments, cwd=ROOT, path=''):
  """Runs a program of this project by a Python that knows no installed packages."""
  env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
  return subprocess.run(
    [sys.executable, '-S', os.path.join(ROOT, program), *arguments],
    cwd=cwd, env={**env, 'PYTHONPATH': path}, capture_output=True, text=True, timeout=60,
  )  # fmt: skip


def assert_told(done, program, module):
  assert (done.returncode, done.stdout) == (2, ''), done.stderr
  (line,) = done.stderr.splitlines()
  assert line.startswith(f'{program}: {sys.executable} has no module {module}, ')
  assert '.venv/bin/python' in line


@pytest.mark.parametrize('program, module', [
    ('experiment.py', 'absl'), ('plot_runs.py', 'numpy'), ('run_experiment_mm_raw.py', 'absl'),
])  # fmt: skip
def test_a_python_without_packages_is_told_of(program, module, tmp_path):
  assert_told(run_bare(program, '--help'), program, module)
  assert_told(run_bare(program, cwd=tmp_path), program, module)


def test_a_python_with_some_of_them_is_told_of(tmp_path):
  (tmp_path / 'absl').symlink_to(os.path.dirname(absl.__file__))
  done = run_bare('experiment.py', '--only_check_args', path=str(tmp_path))
  assert_told(done, 'experiment.py', 'gymnasium')


def test_a_module_of_somebody_elses_is_none_of_them():
  for error in (
    ModuleNotFoundError(name='own_env'),
    ModuleNotFoundError('numpy'),
    KeyError('absl'),
  ):
    assert missing_packages.leave(error, 'experiment.py') is None
