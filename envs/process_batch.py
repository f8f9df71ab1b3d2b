"""Any environment but Atari, N of them, each in a process of its own, stepped at the same time."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import signal
import threading
from typing import Any

import numpy as np
from absl import logging

from acting import worker_process
from envs import faults
from envs.batch import GameTotals, environment_seed
from envs.gym_env import GymEnvironment
from structs import StepOutput

# So many crashes of one environment without a game played to its end, and the batch gives up.
MAX_CRASHES_IN_A_ROW = 10
# A simulator may need as long for its first game; it is played unchecked then.
CHECK_SECS = 20.0
_LOOK_SECS = 0.1  # Between two looks whether a rebuild is over, while the batch is closed.


@functools.cache
def probe(level_name: str) -> tuple[tuple[int, ...], str, int]:
  """Observation shape, dtype and number of actions, found out in a process of its own.

  One reset and one step are played there, and what a user should know of it is said.

  Raises:
    faults.UnfitLevel: the level is unknown, cannot be made, has spaces that no agent here can play,
      or does not keep what they promise.
  """
  try:
    try:
      spec, (problems, notes) = _checked(level_name, 0)
    except worker_process.WorkerDied as error:
      # As in training, where it would be rebuilt: another seed may do.
      logging.warning('%s crashed while it was checked, and is tried again: %s', level_name, error)
      spec, (problems, notes) = _checked(level_name, 1)
  except worker_process.WorkerDied as error:
    raise faults.UnfitLevel(level_name, f'its process {error.message}, twice') from error
  except worker_process.WorkerError as error:
    raise faults.UnfitLevel(level_name, error.message) from error
  if problems:
    raise faults.UnfitLevel(level_name, '; '.join(problems))
  for note in notes:
    logging.warning('%s: %s', level_name, note)
  return spec


def _checked(level_name: str, seed: int) -> Any:
  """What `spec` and `check` of a `GymEnvironment` give; no problems where it takes too long."""
  worker = worker_process.Worker(GymEnvironment, level_name, seed, 1)
  limit = threading.Timer(CHECK_SECS, worker.close)
  try:
    worker.start()
    spec = worker.call('spec')
    limit.start()
    return spec, worker.call('check')
  except worker_process.WorkerDied:
    if not limit.finished.is_set():
      raise
    note = f'one reset and one step take more than {CHECK_SECS:g} s, and were not checked'
    return spec, ([], [note])
  finally:
    limit.cancel()
    worker.close()


class ProcessBatch:
  """N environments, each in a process of its own, stepped at the same time.

  One that crashes (its process dies, or it raises an exception) is rebuilt: its game is not counted
  and the others go on.

  Args:
    spec: EnvironmentSpec.
    num_envs: N.
    seed: of the batch.
    max_episode_steps: agent steps after which a game is cut off; 0: never.

  Attributes:
    crashes: environments rebuilt so far.

  Raises:
    faults.EnvironmentFault: an environment cannot be constructed.
  """

  def __init__(self, spec: Any, num_envs: int, seed: int, max_episode_steps: int = 0):
    self.num_envs = num_envs
    self.crashes = 0
    self._spec, self._seed, self._max_episode_steps = spec, seed, max_episode_steps
    self._totals = GameTotals(num_envs)
    self._crashes_in_a_row = np.zeros(num_envs, np.int32)
    self._closed, self._rebuilt = False, None
    self._lock = threading.Lock()  # Nothing is rebuilt while or after the batch is closed.
    self._workers = [self._worker(i) for i in range(num_envs)]
    try:
      worker_process.start_all(self._workers)
    except worker_process.WorkerError as error:
      raise faults.EnvironmentFault(f'{spec.level_name}: {_reason(error)}') from error

  def reset(self) -> StepOutput:
    """StepOutput of all games from the start; the seeds apply to the first call."""
    results = worker_process.call_all(self._workers, 'reset', [()] * self.num_envs)
    for i, result in enumerate(results):
      if isinstance(result, worker_process.WorkerError):
        results[i] = self._rebuild(i, result)
    return self._totals.first(np.stack(results))

  def step(self, actions: np.ndarray) -> StepOutput:
    """StepOutput after int32 [N] actions."""
    results = worker_process.call_all(self._workers, 'step', [(int(a),) for a in actions])
    for i, result in enumerate(results):
      if isinstance(result, worker_process.WorkerError):
        results[i] = 0.0, True, False, self._rebuild(i, result)
    reward, done, game_over, observation = zip(*results)
    done, game_over = np.array(done), np.array(game_over)
    self._crashes_in_a_row[game_over] = 0
    anew = done & ~game_over  # After a crash or a time limit.
    return self._totals.next(
      np.array(reward, np.float32), done, game_over, anew, np.stack(observation)
    )

  def close(self) -> None:
    """Ends the processes, one that is being rebuilt at once; may be called twice."""
    self._closed = True
    while not self._lock.acquire(timeout=_LOOK_SECS):  # The new one may never answer.
      if (worker := self._rebuilt) and (pid := worker.pid):
        with contextlib.suppress(ProcessLookupError):
          os.kill(pid, signal.SIGKILL)
    try:
      worker_process.close_all(self._workers)
    finally:
      self._lock.release()

  def _worker(self, i, *attempt):
    seed = environment_seed(self._seed, i, *attempt)
    return worker_process.Worker(
      GymEnvironment,
      self._spec.level_name,
      seed,
      self._spec.num_action_repeats,
      max_episode_steps=self._max_episode_steps,
    )

  def _rebuild(self, i, error):
    """Replaces environment i until one starts; returns its first observation."""
    while True:
      self._count_crash(i, error)
      with self._lock:
        if self._closed:
          raise RuntimeError(f'the environments of {self._spec.level_name} are closed') from error
        self._workers[i].close()
        # Another seed than before, or the same game might crash the same way.
        self._workers[i] = self._rebuilt = self._worker(i, self.crashes)
        try:
          self._rebuilt.start()
          return self._rebuilt.call('reset')
        except worker_process.WorkerError as next_error:
          error = next_error

  def _count_crash(self, i, error):
    if self._closed:
      return
    which = f'environment {i} of {self._spec.level_name}'
    if error.type_name == faults.BrokenPromise.__name__:
      raise faults.EnvironmentFault(f'{which}: {error.message}')
    reason = _reason(error)
    self.crashes += 1
    self._crashes_in_a_row[i] += 1
    if self._crashes_in_a_row[i] >= MAX_CRASHES_IN_A_ROW:
      raise faults.EnvironmentFault(
        f'{reason}; {which} crashed {MAX_CRASHES_IN_A_ROW} times in a row'
      )
    _tell(f'{which} crashed and is rebuilt, its game is not counted', reason, error)


def _reason(error):
  died = isinstance(error, worker_process.WorkerDied)
  return f'its process {error.message}' if died else error.message


_told = collections.Counter()  # How often a reason was given for a crash, in all of this process.


def _tell(what, reason, error):
  """Logs a crash: the first time for a reason with its traceback, then ever more rarely."""
  _told[reason] += 1
  times = _told[reason]
  if times == 1:
    # Its own traceback, without how the exception came here.
    text = str(error).partition('\n\nThe above exception was')[0].partition('Traceback (')
    logging.warning('%s: %s\n%s', what, reason, ''.join(text[1:]))
  elif times in (10, 100) or times % 1000 == 0:
    logging.warning('%s: %s (%d times so far)', what, reason, times)
