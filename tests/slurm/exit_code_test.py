"""The batch scripts exit with the exit code of srun, whenever it ends; srun is a test script.

Signals have to arrive within milliseconds of the end of srun, which a real Slurm does not allow.
"""

import os
import signal

import psutil
import pytest

from conftest import ROOT, eventually
from network_fixtures import is_alive

SCRIPTS = ['impala', 'actors', 'sweep']


def start(processes, folder, script, srun):
  """Starts a batch script with a `srun` of these lines of bash; scancel and scontrol do nothing."""
  programs = folder / 'bin'
  programs.mkdir()
  lines = {'srun': srun, 'scancel': f'touch {folder}/cancelled', 'scontrol': ''}
  for name, text in lines.items():
    (programs / name).write_text(f'#!/bin/bash\n{text}\n')
    (programs / name).chmod(0o755)
  env = {
    'PATH': f'{programs}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4',
    'LOGDIR': str(folder / 'run'), 'SLURM_ARRAY_TASK_ID': '0',
  }  # fmt: skip
  return processes.start('bash', os.path.join(ROOT, 'slurm', f'{script}.sbatch'), env=env)


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('code', [0, 7])
def test_of_srun_that_ends_at_once(processes, tmp_path, script, code):
  # Long gone when the script looks: each of its own commands is slower.
  assert start(processes, tmp_path, script, f'exit {code}').exit_code(60) == code


@pytest.mark.parametrize(
  'script, number',
  [
    ('impala', signal.SIGUSR1),
    ('impala', signal.SIGTERM),
    ('actors', signal.SIGTERM),
    ('sweep', signal.SIGUSR1),
    ('sweep', signal.SIGTERM),
  ],
)
@pytest.mark.parametrize('code', [0, 9])
def test_of_srun_that_ends_while_a_signal_is_handled(processes, tmp_path, script, number, code):
  srun = f'echo $$ > {tmp_path}/pid; until [ -e {tmp_path}/end ]; do sleep 0.02; done; exit {code}'
  job = start(processes, tmp_path, script, srun)
  pid = eventually(lambda: pid_in(tmp_path / 'pid'), 60, job.output)
  os.kill(job.pid, signal.SIGSTOP)  # The signal and the end of srun are there when it looks.
  eventually(lambda: psutil.Process(job.pid).status() == psutil.STATUS_STOPPED, 60)
  os.kill(job.pid, number)
  (tmp_path / 'end').touch()
  eventually(lambda: not is_alive(pid), 60, job.output)
  os.kill(job.pid, signal.SIGCONT)
  assert job.exit_code(60) == code, job.output()


def pid_in(path):
  text = path.read_text() if path.exists() else ''
  return int(text) if text.endswith('\n') else None


def test_of_srun_that_goes_on_after_signals(processes, tmp_path):
  srun = f'touch {tmp_path}/began; until [ -e {tmp_path}/end ]; do sleep 0.02; done; exit 5'
  job = start(processes, tmp_path, 'impala', srun)
  eventually((tmp_path / 'began').exists, 60, job.output)
  os.kill(job.pid, signal.SIGUSR1)
  eventually((tmp_path / 'cancelled').exists, 60, job.output)
  os.kill(job.pid, signal.SIGTERM)
  assert job.poll() is None
  (tmp_path / 'end').touch()
  assert job.exit_code(60) == 5, job.output()
