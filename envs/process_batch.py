"""Batches of environments other than Atari, each in a process of its own, stepped in parallel."""

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
from envs import actions, atari_ids, faults
from envs.batch import GameTotals, environment_seed
from envs.gym_env import GymEnvironment
from structs import (
  ACTION_MASK,
  ActionPart,
  ArraySpec,
  Level,
  StepOutput,
  arrays_of,
  as_observation,
  is_masked,
)

# The batch fails after this many crashes of one environment without a completed game in between.
MAX_CRASHES_IN_A_ROW = 10
# Time limit for the check of one reset and one step; a slower environment is used unchecked.
CHECK_SECS = 20.0
_LOOK_SECS = 0.1  # While closing, the interval between checks whether a rebuild is over.


@functools.cache
def probe(
  level: Level, made_as: Level | None = None
) -> tuple[tuple[ArraySpec, ...], tuple[ActionPart, ...]]:
  """Returns the arrays of an observation, and the parts of an action, of a level.

  Plays one reset and one step in a worker process and logs what the user should know about them.

  Args:
    level: the level.
    made_as: what is made for it, if that differs.

  Raises:
    faults.UnfitLevel: the level is unknown, cannot be made, has spaces that no agent supports, or
      returns values outside its spaces.
  """
  try:
    try:
      spaces, (problems, notes, masked) = _checked(level, made_as, 0)
    except worker_process.WorkerDied as error:
      # Training would rebuild it with another seed, so the check tries another seed too.
      logging.warning('%s crashed while it was checked, and is tried again: %s', level.name, error)
      spaces, (problems, notes, masked) = _checked(level, made_as, 1)
  except worker_process.WorkerDied as error:
    raise faults.UnfitLevel(level.name, f'its process {error.message}, twice') from error
  except worker_process.WorkerError as error:
    raise faults.UnfitLevel(level.name, error.message) from error
  if problems:
    raise faults.UnfitLevel(level.name, '; '.join(problems))
  wraps = made_as.env_wrappers != level.env_wrappers if made_as else False
  for note in [] if wraps else notes:  # Those of this program's own wrappers are known.
    logging.warning('%s: %s', level.name, note)
  arrays = tuple(ArraySpec(*fields) for fields in spaces[0])
  parts = tuple(ActionPart(*fields) for fields in spaces[1])
  if masked:
    arrays = (*arrays, ArraySpec(ACTION_MASK, (actions.num_choices(parts),), 'bool'))
  return arrays, parts


def _checked(level: Level, made_as: Level | None, seed: int) -> Any:
  """Returns the results of `GymEnvironment.spaces` and `check`; a timeout becomes a note."""
  worker = worker_process.Worker(GymEnvironment, level, seed, 1, made_as=made_as)
  limit = threading.Timer(CHECK_SECS, worker.close)
  try:
    worker.start()
    spaces = worker.call('spaces')
    limit.start()
    return spaces, worker.call('check')
  except worker_process.WorkerDied:
    if not limit.finished.is_set():
      raise
    note = f'one reset and one step take more than {CHECK_SECS:g} s, and were not checked'
    return spaces, ([], [note], level.action_masks == 'true')
  finally:
    limit.cancel()
    worker.close()


class ProcessBatch:
  """N environments, each in a process of its own, stepped in parallel.

  An environment crashes when its process dies or when it raises an exception. The batch rebuilds
  it and does not count its unfinished game; the other environments continue.

  Args:
    spec: EnvironmentSpec.
    num_envs: N.
    seed: int >= 0; environment i derives its own seed from (seed, i).
    max_episode_steps: agent steps after which a game is truncated; 0 means never.

  Attributes:
    num_envs: N.
    crashes: number of environments rebuilt so far.

  Raises:
    faults.EnvironmentFault: an environment cannot be constructed.
  """

  def __init__(self, spec: Any, num_envs: int, seed: int, max_episode_steps: int = 0):
    self.num_envs = num_envs
    self.crashes = 0
    self._spec, self._seed, self._max_episode_steps = spec, seed, max_episode_steps
    self._totals = GameTotals(num_envs)
    self._made_as, self._repeats = atari_ids.made_as(spec)
    self._crashes_in_a_row = np.zeros(num_envs, np.int32)
    self._closed, self._rebuilt = False, None
    self._lock = threading.Lock()  # Held by `_rebuild` and by `close`, which exclude each other.
    self._workers = [self._worker(i) for i in range(num_envs)]
    try:
      worker_process.start_all(self._workers)
    except worker_process.WorkerError as error:
      raise faults.EnvironmentFault(f'{spec.level.name}: {_reason(error)}') from error

  def reset(self) -> StepOutput:
    """Restarts all games and returns their first StepOutput; only the first call is seeded."""
    results = worker_process.call_all(self._workers, 'reset', [()] * self.num_envs)
    for i, result in enumerate(results):
      if isinstance(result, worker_process.WorkerError):
        results[i] = self._rebuild(i, result)
    return self._totals.first(_stacked(results))

  def step(self, actions: np.ndarray) -> StepOutput:
    """Returns the StepOutput after `actions`, [N] or [N, K], see `AgentOutput`.

    Raises:
      faults.EnvironmentFault: an environment broke its spaces or Gymnasium's API, or it crashed
        `MAX_CRASHES_IN_A_ROW` times without completing a game.
    """
    results = worker_process.call_all(self._workers, 'step', [(action,) for action in actions])
    for i, result in enumerate(results):
      if isinstance(result, worker_process.WorkerError):
        results[i] = 0.0, True, False, self._rebuild(i, result)
    reward, done, game_over, observation = zip(*results)
    done, game_over = np.array(done), np.array(game_over)
    self._crashes_in_a_row[game_over] = 0
    anew = done & ~game_over  # A crash in this step or a time limit in the last.
    return self._totals.next(
      np.array(reward, np.float32), done, game_over, anew, _stacked(observation)
    )

  def close(self) -> None:
    """Ends the processes, and kills one that is being rebuilt; may be called twice."""
    self._closed = True
    while not self._lock.acquire(timeout=_LOOK_SECS):  # The rebuilt process may never answer.
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
      self._spec.level,
      seed,
      self._repeats,
      max_episode_steps=self._max_episode_steps,
      masked=is_masked(self._spec.observation),
      made_as=self._made_as,
    )

  def _rebuild(self, i, error):
    """Replaces environment i, repeatedly if needed; returns the first observation."""
    while True:
      self._count_crash(i, error)
      with self._lock:
        if self._closed:
          raise RuntimeError(f'the environments of {self._spec.level.name} are closed') from error
        self._workers[i].close()
        # With the same seed, the same game might crash in the same way.
        self._workers[i] = self._rebuilt = self._worker(i, self.crashes)
        try:
          self._rebuilt.start()
          return self._rebuilt.call('reset')
        except worker_process.WorkerError as next_error:
          error = next_error

  def _count_crash(self, i, error):
    if self._closed:
      return
    which = f'environment {i} of {self._spec.level.name}'
    if error.type_name == faults.BrokenPromise.__name__:
      raise faults.EnvironmentFault(f'{which}: {error.message}')
    reason = _reason(error)
    self.crashes += 1
    self._crashes_in_a_row[i] += 1
    if self._crashes_in_a_row[i] >= MAX_CRASHES_IN_A_ROW:
      raise faults.EnvironmentFault(
        f'{reason}; {which} crashed {MAX_CRASHES_IN_A_ROW} times in a row'
      )
    _log_crash(f'{which} crashed and is rebuilt, its game is not counted', reason, error)


def _stacked(observations):
  """[N observations] -> an observation of [N, ...]."""
  columns = zip(*(arrays_of(observation) for observation in observations), strict=True)
  return as_observation([np.stack(column) for column in columns])


def _reason(error):
  died = isinstance(error, worker_process.WorkerDied)
  return f'its process {error.message}' if died else error.message


_told = collections.Counter()  # Number of crashes per reason, over all batches in this process.


def _log_crash(what, reason, error):
  """Logs the first crash for a reason with its traceback, and later ones less and less often."""
  _told[reason] += 1
  times = _told[reason]
  if times == 1:
    # Keeps the worker's traceback and drops the part about this process.
    text = str(error).partition('\n\nThe above exception was')[0].partition('Traceback (')
    logging.warning('%s: %s\n%s', what, reason, ''.join(text[1:]))
  elif times in (10, 100) or times % 1000 == 0:
    logging.warning('%s: %s (%d times so far)', what, reason, times)
