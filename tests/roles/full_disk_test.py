"""A trainer whose disk takes no checkpoint: it goes on, says so, and does not end as if it had one.

A limit on the size of files stands for the full disk: no other process notices it.
"""

import json
import os
import resource
import signal

from runtime.checkpoint_folder import look

NO_ROOM, ROOM = (20_000, resource.RLIM_INFINITY), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def trainer(processes, folder):
  return processes.start(
    'experiment.py', '--level_name=impala/Catch-v0', f'--logdir={folder}',
     '--num_actors=1', '--envs_per_actor=2', '--batch_size=2', '--unroll_length=10', '--threads=1',
     '--total_environment_frames=100000000', '--save_checkpoint_secs=0.5', '--metrics_secs=0.5',
     '--keep_checkpoints=2', f'--state_dir={folder}-state',
  )  # fmt: skip


LIMIT_SECS = 180.0


def trouble(folder):
  try:
    with open(f'{folder}-state/local-0.json') as file:
      return json.load(file).get('trouble', '')
  except FileNotFoundError:
    return ''


def test_training_goes_on_without_checkpoints_and_ends_with_1(processes, eventually, tmp_path):
  folder = str(tmp_path / 'run')
  run = trainer(processes, folder)
  eventually(lambda: look(folder).whole, LIMIT_SECS, run.output)
  resource.prlimit(run.pid, resource.RLIMIT_FSIZE, NO_ROOM)
  eventually(lambda: 'NOT SAVED since' in trouble(folder), LIMIT_SECS, run.output)
  assert 'File too large' in trouble(folder)
  before = look(folder)
  resource.prlimit(run.pid, resource.RLIMIT_FSIZE, ROOM)
  eventually(lambda: 'a checkpoint could be written again' in run.output(), LIMIT_SECS, run.output)
  eventually(
    lambda: look(folder).written[-1].updates > before.written[-1].updates, LIMIT_SECS, run.output
  )
  eventually(lambda: 'NOT SAVED' not in trouble(folder), LIMIT_SECS, run.output)

  resource.prlimit(run.pid, resource.RLIMIT_FSIZE, NO_ROOM)
  eventually(lambda: 'NOT SAVED' in trouble(folder), LIMIT_SECS, run.output)
  last = look(folder).written[-1]
  run.send_signal(signal.SIGINT)
  assert run.exit_code(LIMIT_SECS) == 1, run.output()
  log = run.output()
  assert 'no checkpoint could be written: File too large; training goes on' in log
  assert 'the last checkpoint could not be written (File too large)' in log.splitlines()[-1]
  assert 'Traceback' not in log and 'a bug' not in log
  assert 'no checkpoint of it: File too large' in log and 'checkpoint in' not in log
  assert look(folder).whole and look(folder).written[-1].updates >= last.updates
  assert not [name for name in os.listdir(folder) if name.startswith(('.saving', 'damaged'))]
