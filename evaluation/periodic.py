"""Evaluates checkpoints while training, one at a time, each in a process of its own.

The process is `experiment.py --mode=test` at a low priority (`nice`), without a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

import config
from evaluation import records
from reporting import csv_files
from runtime.process import RunFailed

if TYPE_CHECKING:
  from runtime.checkpoints import Saved

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PROGRAM = os.path.join(_ROOT, 'experiment.py')
_LOW_PRIORITY = os.path.join(_ROOT, 'evaluation', 'low_priority.py')
# An evaluation that is not yet in its own process group may get the run's signal before the run.
_SIGNAL_SECS = 1.0
_POLL_SECS = 0.2


class PeriodicEvaluator:
  """Evaluates checkpoints of a run that trains. No evaluation outlives this process.

  Args:
    logdir: the run's folder.
    every_frames: environment frames between two evaluations; 0: no evaluations.
    flags: flags of experiment.py for the evaluations.
    on_result: called with each row of `reporting.metrics.EVALUATION_METRICS`.
    log: called with a sentence if an evaluation failed or was dropped.
    should_stop: returns whether the end of the run was requested.
  """

  def __init__(
    self,
    logdir: str,
    every_frames: int,
    flags: Mapping[str, Any],
    on_result: Callable[[dict[str, Any]], None],
    log: Callable[[str], None],
    should_stop: Callable[[], bool],
  ):
    self._logdir, self._every, self._flags = logdir, every_frames, flags
    self._on_result, self._log, self._should_stop = on_result, log, should_stop
    self._lock, self._stopped = threading.Lock(), False
    self._last_frames: int | None = None  # Of the last checkpoint that was evaluated.
    self._evaluating = ''  # Name of the checkpoint that is being evaluated.
    self._process: subprocess.Popen[bytes] | None = None
    self._thread: threading.Thread | None = None

  def begin(self, frames: int) -> None:
    """Starts counting from the environment frames at which the run begins or resumes."""
    if self._last_frames is None:
      self._last_frames = last_evaluated(self._logdir, frames)
    self._last_frames = min(self._last_frames, frames)

  def is_due(self, frames: int) -> bool:
    """Returns whether to evaluate at so many frames; False while another evaluation runs."""
    if not self._every or self._evaluating:
      return False
    return frames // self._every > (self._last_frames or 0) // self._every

  def uses(self, name: str) -> bool:
    """Returns whether the checkpoint of this name is being evaluated and must not be deleted."""
    return name == self._evaluating

  def start(self, saved: Saved) -> None:
    """Starts to evaluate a checkpoint."""
    self._last_frames, self._evaluating = saved.frames, saved.name
    self._thread = threading.Thread(target=self._run, args=(saved,), daemon=True, name='evaluation')
    self._thread.start()

  def finish(self, saved: Saved | None) -> None:
    """Evaluates the last checkpoint and waits for the result, unless asked to stop."""
    if self._wait() and self._every and saved and saved.frames != self._last_frames:
      games = self._flags['test_num_episodes']
      self._log(f'the last checkpoint is played, {games} games; Ctrl-C ends without them')
      self.start(saved)
      self._wait()
    self.stop()

  def _wait(self) -> bool:
    """Waits for the current evaluation; returns False if asked to stop."""
    while self._thread and self._thread.is_alive() and not self._should_stop():
      self._thread.join(_POLL_SECS)
    return not self._should_stop()

  def stop(self) -> None:
    """Kills the current evaluation; no other will start. May be called twice."""
    with self._lock:
      self._stopped = True
      if self._process:
        self._process.kill()
    if self._thread:
      self._thread.join()

  def _run(self, saved: Saved) -> None:
    try:
      self._on_result(self._evaluate(saved))
    except (OSError, ValueError, RunFailed) as e:
      if self._run_is_ending():
        self._log(f'the evaluation at {saved.frames} frames was dropped, for the run ends')
      else:
        self._log(f'the evaluation at {saved.frames} frames failed, training goes on: {e}')
    finally:
      self._evaluating = ''

  def _run_is_ending(self) -> bool:
    """Returns whether an evaluation failed because the run is ending."""
    deadline = time.monotonic() + _SIGNAL_SECS
    while not (self._stopped or self._should_stop()):
      if time.monotonic() > deadline:
        return False
      time.sleep(0.05)
    return True

  def _evaluate(self, saved: Saved) -> dict[str, Any]:
    """Plays all games of an evaluation; returns its row."""
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

  def _exit_code(self, saved: Saved, output: IO[bytes]) -> int:
    """Runs an evaluation to its end; returns the exit code."""
    lifeline, ours = os.pipe()
    flags = {**self._flags, 'logdir': self._logdir, 'checkpoint': saved.frames}
    try:
      with self._lock:
        if self._stopped:
          raise RunFailed('the run ends')
        self._process = subprocess.Popen(
          [sys.executable, _LOW_PRIORITY, str(lifeline), _PROGRAM, '--mode=test', '--threads=1']
          + [config.flag_of(name, value) for name, value in flags.items()],
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


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the row of evaluations.csv for an entry of evaluation.json."""
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
    mean_score=record.get('mean_score'),
    mean_capped_score=record.get('mean_capped_score'),
  )


def last_evaluated(logdir: str, frames: int) -> int:
  """Returns the most environment_frames in evaluations.csv that are at most `frames`, or 0."""
  rows = csv_files.read_evaluations(logdir)
  return max([n for row in rows if (n := int(row['environment_frames'])) <= frames], default=0)
