"""Who waits for whom, as a run in one process says it."""

import os
import sys

import throttled_env
from conftest import ROOT, eventually

LIMIT_SECS = 240.0
FLAGS = (
    '--task=-1', '--level_name=throttled_env:ThrottledCatch-v0', '--metrics_secs=0.5',
    '--num_actors=1', '--envs_per_actor=4', '--batch_size=4', '--unroll_length=2',
    '--total_environment_frames=1000000',
)  # fmt: skip


def test_where_the_processors_are_busy_no_more_actors_are_asked_for(processes, tmp_path):
  env = {
    'PYTHONPATH': os.path.join(ROOT, 'tests'),
    throttled_env.OPEN: str(tmp_path / 'never'),
  }
  # The run has one processor, and something else of lowest priority keeps that one busy.
  only = ['taskset', '--cpu-list', str(min(os.sched_getaffinity(0)))]
  processes.start(*only, 'nice', '-n', '19', sys.executable, '-c', 'while True: pass')
  run = processes.start(
    *only, sys.executable, 'experiment.py', *FLAGS, f'--logdir={tmp_path}/run', env=env
  )
  assert eventually(lambda: 'this machine is the limit' in run.output(), LIMIT_SECS, run.output)
  assert 'would feed them' not in run.output()
