"""The end of a run in one process: whatever comes at that moment, nothing is lost."""

import os
import signal

from conftest import eventually, updates_of_checkpoint

LIMIT_SECS = 240.0
FLAGS = (
    '--level_name=impala/Catch-v0', '--num_actors=1', '--envs_per_actor=2', '--batch_size=2',
    '--unroll_length=5', '--metrics_secs=0.5', '--save_checkpoint_secs=600',
)  # fmt: skip


def test_half_an_update_is_never_saved_however_long_it_takes_and_however_often_it_is_told(
  processes, tmp_path
):
  late, folder = tmp_path / 'late', tmp_path / 'run'
  program = 'tests/altered_experiment.py', f'late={late}'
  run = processes.start(*program, *FLAGS, f'--logdir={folder}')
  eventually(lambda: 'update ends' in run.output(), LIMIT_SECS, run.output)
  late.write_text('7')
  begun = run.output().count('update begins')
  eventually(lambda: run.output().count('update begins') > begun + 1, LIMIT_SECS, run.output)
  os.kill(run.pid, signal.SIGHUP)
  said = 'SIGHUP: saving a checkpoint; Ctrl-C leaves without it'
  eventually(lambda: said in run.output(), LIMIT_SECS, run.output)
  os.kill(run.pid, signal.SIGTERM)
  os.kill(run.pid, signal.SIGHUP)
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  begun, ended = (run.output().count(f'update {what}') for what in ('begins', 'ends'))
  assert begun == ended == updates_of_checkpoint(folder) > 0, run.output()
