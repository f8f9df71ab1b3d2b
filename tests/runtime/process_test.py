"""Signals ask for the end once; a second one leaves at once, unless it is Slurm that repeats it."""

import subprocess
import sys

import pytest

from conftest import ROOT

_TWICE = """
import os, signal
from runtime.process import Interrupts
interrupts = Interrupts()
for number in (signal.SIGTERM, signal.{second}):
  os.kill(os.getpid(), number)
print(interrupts.reason)
"""


@pytest.mark.parametrize(
  'second, environment, exit_code, printed',
  [
    ('SIGTERM', {}, 1, ''),
    ('SIGTERM', {'SLURM_JOB_ID': '1'}, 0, 'SIGTERM\n'),
    ('SIGINT', {'SLURM_JOB_ID': '1'}, 1, ''),
  ],
)
def test_a_second_signal(second, environment, exit_code, printed):
  done = subprocess.run(
    [sys.executable, '-c', _TWICE.format(second=second)],
    env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip
  assert (done.returncode, done.stdout) == (exit_code, printed)
