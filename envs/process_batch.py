"""Any environment but Atari, N of them, each in a process of its own, stepped at the same time."""

import functools
import threading

import numpy as np
from absl import logging

import worker_process
from envs.batch import GameTotals, environment_seed
from envs.gym_env import GymEnvironment

# So many crashes of one environment without a game played to its end, and the batch gives up.
MAX_CRASHES_IN_A_ROW = 10


@functools.cache
def probe(level_name):
  """Observation shape, dtype and number of actions, found out in a process of its own.

  Raises:
    ValueError: the level is unknown, cannot be made, or has spaces that no agent here can play.
  """
  worker = worker_process.Worker(GymEnvironment, level_name, 0, 1)
  try:
    worker.start()
    return worker.call('spec')
  except worker_process.WorkerDied as error:
    raise ValueError(f'level_name {level_name!r} cannot be made: {error}') from error
  except worker_process.WorkerError as error:
    raise ValueError(error.message) from error
  finally:
    worker.close()


class ProcessBatch:
  """N environments, each in a process of its own, stepped at the same time.

  One that crashes (its process dies, or it raises an exception) is rebuilt: its game is not counted
  and the others go on.

  Args:
    spec: EnvironmentSpec.
    num_envs: N.
    seed: of the batch.

  Attributes:
    crashes: environments rebuilt so far.

  Raises:
    worker_process.WorkerError: an environment cannot be constructed.
  """

  def __init__(self, spec, num_envs, seed):
    self.num_envs = num_envs
    self.crashes = 0
    self._spec, self._seed = spec, seed
    self._totals = GameTotals(num_envs)
    self._crashes_in_a_row = np.zeros(num_envs, np.int32)
    self._closed = False
    self._lock = threading.Lock()  # Nothing is rebuilt while or after the batch is closed.
    self._workers = [self._worker(i) for i in range(num_envs)]
    worker_process.start_all(self._workers)

  def reset(self):
    """StepOutput of all games from the start; the seeds apply to the first call."""
    results = worker_process.call_all(self._workers, 'reset', [()] * self.num_envs)
    for i, result in enumerate(results):
      if isinstance(result, worker_process.WorkerError):
        results[i] = self._rebuild(i, result)
    return self._totals.first(np.stack(results))

  def step(self, actions):
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

  def close(self):
    """Ends the processes; may be called twice."""
    self._closed = True
    with self._lock:
      worker_process.close_all(self._workers)

  def _worker(self, i, *attempt):
    seed = environment_seed(self._seed, i, *attempt)
    return worker_process.Worker(
      GymEnvironment, self._spec.level_name, seed, self._spec.num_action_repeats
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
        self._workers[i] = self._worker(i, self.crashes)
        try:
          self._workers[i].start()
          return self._workers[i].call('reset')
        except worker_process.WorkerError as next_error:
          error = next_error

  def _count_crash(self, i, error):
    if self._closed:
      return
    self.crashes += 1
    self._crashes_in_a_row[i] += 1
    if self._crashes_in_a_row[i] >= MAX_CRASHES_IN_A_ROW:
      raise RuntimeError(
        f'environment {i} of {self._spec.level_name} crashed {MAX_CRASHES_IN_A_ROW} times in a '
        f'row, the last time because {error}'
      ) from error
    logging.warning(
      'environment %d of %s crashed and is rebuilt, its game is not counted: %s',
      i,
      self._spec.level_name,
      error,
    )
