"""Tests of signals that arrive before a program listens to them."""

import os
import signal
import subprocess
import sys

import pytest

from conftest import ROOT

# Runs a program that gets a signal after the first piece of text that it writes to standard error.
PROGRAM = """
import os, signal, sys
import {module} as program
from common import early_signals

class Errors:
  def __getattr__(self, name):
    return getattr(sys.__stderr__, name)

  def write(self, text):
    sys.__stderr__.write(text)
    os.kill(os.getpid(), signal.{name})

early_signals.install()
sys.stderr = Errors()
sys.exit(program.main(sys.argv{words}))
"""


def run(module: str, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
  words = '' if module == 'experiment' else '[1:]'
  program = PROGRAM.format(module=module, name=name, words=words)
  return subprocess.run(
    [sys.executable, '-c', program, *flags], cwd=ROOT, capture_output=True, text=True, timeout=60
  )


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP', 'SIGINT'])
def test_a_signal_does_not_cut_the_reason_of_bad_input(name):
  result = run('experiment', name, '--learning_rate=-1')
  assert result.stderr == 'experiment.py: --learning_rate=-1 is not a positive number\n'
  assert result.returncode == 2


def test_a_signal_does_not_cut_the_reason_of_the_frontend(tmp_path):
  result = run('run_experiment_mm_raw', 'SIGTERM', f'--cluster_csv_path={tmp_path}/none.csv')
  assert result.stderr.startswith('run_experiment_mm_raw.py: ') and result.stderr.endswith('\n')
  assert 'none.csv' in result.stderr and result.stderr.count('\n') == 1
  assert result.returncode == 2


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
def test_a_signal_before_training_ends_the_program(name):
  program = (
    'import os, signal, sys, experiment\n'
    'from common import early_signals\n'
    f'experiment.parse_args = lambda argv: os.kill(os.getpid(), signal.{name})\n'
    'early_signals.install()\n'
    'sys.exit(experiment.main(sys.argv))\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=60
  )
  assert (result.returncode, result.stderr) == (1, f'experiment.py: ended by {name}\n')


@pytest.mark.parametrize('program', ['experiment.py', 'run_experiment_mm_raw.py'])
def test_ctrl_c_during_the_imports_leaves_no_traceback(program, tmp_path):
  (tmp_path / 'absl.py').write_text('import os, signal; os.kill(os.getpid(), signal.SIGINT)')
  result = subprocess.run(
    [sys.executable, program], cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    capture_output=True, text=True, timeout=60,
  )  # fmt: skip
  assert (result.returncode, result.stderr) == (-signal.SIGINT, '')
