"""Evaluation while training: a process of its own plays a checkpoint, one at a time.

It is `experiment.py --mode=test` at a low priority (`nice`), on processors only.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time

from evaluation import records
from reporting import csv_files
from runtime.process import RunFailed

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PROGRAM = os.path.join(_ROOT, 'experiment.py')
_LOW_PRIORITY = os.path.join(_ROOT, 'evaluation', 'low_priority.py')
# A signal to a whole process group may end a process that has no group of its own yet before the
# run hears of it.
_MOMENT_SECS = 1.0
_LOOK_SECS = 0.2  # Between two looks whether the run is told to end.


class Evaluations:
  """The evaluations of a run that trains, started one after another; none outlives this process.

  Args:
    logdir: the run's folder.
    every_frames: environment frames between two evaluations; 0: there are none.
    flags: dict, with what flags of experiment.py is played.
    done: function of a row, a dict of `reporting.statistics.EVALUATION_COLUMNS`.
    warn: function of a sentence: one has failed, or was dropped.
    run_ends: function without arguments, whether the run was told to end.
  """

  def __init__(self, logdir, every_frames, flags, done, warn, run_ends):
    self._logdir, self._every, self._flags = logdir, every_frames, flags
    self._done, self._warn, self._run_ends = done, warn, run_ends
    self._lock, self._stopped = threading.Lock(), False
    self._last, self._playing, self._process, self._thread = None, '', None, None

  def begin(self, frames):
    """The run begins, or goes on, with so many environment frames."""
    if self._last is None:
      self._last = last_evaluated(self._logdir, frames)
    self._last = min(self._last, frames)

  def is_due(self, frames):
    """Whether one is to start at so many environment frames; never while another one plays."""
    if not self._every or self._playing:
      return False
    return frames // self._every > self._last // self._every

  def plays(self, name):
    """Whether the checkpoint of this name is being played, so that it may not be deleted."""
    return name == self._playing

  def start(self, saved):
    """Starts to play a checkpoint, a `runtime.checkpoints.Saved`."""
    self._last, self._playing = saved.frames, saved.name
    self._thread = threading.Thread(target=self._run, args=(saved,), daemon=True, name='evaluation')
    self._thread.start()

  def finish(self, saved):
    """The run has its last checkpoint: it is played too, unless the run is told to end meanwhile.

    Args:
      saved: `runtime.checkpoints.Saved`, or None.
    """
    if self._await() and self._every and saved and saved.frames != self._last:
      games = self._flags['test_num_episodes']
      self._warn(f'the last checkpoint is played, {games} games; Ctrl-C ends without them')
      self.start(saved)
      self._await()
    self.stop()

  def _await(self):
    """Waits for the one that plays; False once the run is told to end."""
    while self._thread and self._thread.is_alive() and not self._run_ends():
      self._thread.join(_LOOK_SECS)
    return not self._run_ends()

  def stop(self):
    """Drops the one that plays; no other starts. May be called twice."""
    with self._lock:
      self._stopped = True
      if self._process:
        self._process.kill()
    if self._thread:
      self._thread.join()

  def _run(self, saved):
    try:
      self._done(self._played(saved))
    except (OSError, ValueError, RunFailed) as e:
      if self._the_run_ends():
        self._warn(f'the evaluation at {saved.frames} frames was dropped, for the run ends')
      else:
        self._warn(f'the evaluation at {saved.frames} frames failed, training goes on: {e}')
    finally:
      self._playing = ''

  def _the_run_ends(self):
    """Whether that is why an evaluation came to nothing."""
    deadline = time.monotonic() + _MOMENT_SECS
    while not (self._stopped or self._run_ends()):
      if time.monotonic() > deadline:
        return False
      time.sleep(0.05)
    return True

  def _played(self, saved):
    """The row of an evaluation, once all its games were played."""
    before = [record.get('time') for record in records.read(self._logdir)]
    with tempfile.TemporaryFile() as output:
      code = self._exit_code(saved, output)
      if code:
        output.seek(0)
        lines = output.read().decode('utf-8', 'replace').splitlines()
        raise RunFailed(': '.join([f'exit code {code}', *lines[-1:]]))
    wanted = dict(
      checkpoint=saved.name,
      protocol=self._flags['eval_protocol'],
      num_episodes=self._flags['test_num_episodes'],
    )
    for record in records.read(self._logdir):
      if {**record, **wanted} == record and record.get('time') not in before:
        return row_of(record)
    raise RunFailed('evaluation.json does not have it')

  def _exit_code(self, saved, output):
    lifeline, ours = os.pipe()
    flags = {**self._flags, 'logdir': self._logdir, 'checkpoint': saved.frames}
    try:
      with self._lock:
        if self._stopped:
          raise RunFailed('the run ends')
        self._process = subprocess.Popen(
          [sys.executable, _LOW_PRIORITY, str(lifeline), _PROGRAM, '--mode=test', '--threads=1']
          + [f'--{name}={value}' for name, value in flags.items()],
          stdin=subprocess.DEVNULL,
          stdout=output,
          stderr=output,
          pass_fds=[lifeline],
          env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
        )
      return self._process.wait()
    finally:
      os.close(lifeline)
      os.close(ours)


def row_of(record):
  """The row of evaluations.csv for an entry of evaluation.json."""
  low, high = record['mean_interval_95'] or (None, None)
  return dict(
    time=record['time'],
    environment_frames=record['checkpoint_frames'],
    checkpoint=record['checkpoint'],
    protocol=record['protocol'],
    deterministic=record['deterministic'],
    num_episodes=record['num_episodes'],
    mean_return=record['mean'],
    mean_return_low=low,
    mean_return_high=high,
    median_return=record['median'],
    human_normalised_score=record.get('human_normalised_score'),
  )


def last_evaluated(logdir, frames):
  """Environment frames of the last row of evaluations.csv that has at most so many, or 0."""
  rows = csv_files.read_evaluations(logdir)
  return max([n for row in rows if (n := int(row['environment_frames'])) <= frames], default=0)
