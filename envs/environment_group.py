"""The environments of a worker process, with actions and results in shared memory."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from envs.exchange import Exchange
from envs.gym_env import GymEnvironment
from structs import Level, arrays_of

# Time limit for close() of an environment that raised an exception; then it is left alone.
_CLOSE_SECS = 3.0


class EnvironmentGroup:
  """Some of the N environments of a batch, stepped one after the other.

  A failure, as methods return it, is a tuple (index of the environment in the batch, name of the
  exception's type, message, traceback).

  Args:
    exchange: arguments of `Exchange`, the last of which is a file of the batch's process.
    first: index in the batch of the first environment; the others follow.
    seeds: the seed of each environment.
    level: see `GymEnvironment`, like what follows.
    num_action_repeats: see above.
    max_episode_steps: see above.
    masked: see above.
    made_as: see above.
    keeps_generators: whether each environment gets global generators of Python and numpy of its
      own, so that what one of them draws does not change what others get.
  """

  def __init__(
    self,
    exchange: tuple,
    first: int,
    seeds: Sequence[int],
    level: Level,
    num_action_repeats: int,
    max_episode_steps: int,
    masked: bool,
    made_as: Level,
    keeps_generators: bool,
  ):
    self._exchange = Exchange(*exchange)
    self._rows = slice(first, first + len(seeds))
    self._indices = range(first, first + len(seeds))
    # A memoryview, since a number is written faster to it than to an array.
    self._inside = self._exchange.inside.data
    self._make = lambda seed: GymEnvironment(
      level, seed, num_action_repeats, None, max_episode_steps, masked, made_as
    )
    self._generators: dict[int, tuple] | None = {} if keeps_generators else None
    self._environments = [self._call(i, self._make, s) for i, s in zip(self._indices, seeds)]

  def reset(self) -> list[tuple] | None:
    """Restarts all games; returns failures, or None."""
    failures = []
    for i, environment in zip(self._indices, self._environments):
      try:
        self._write(i, self._call(i, environment.reset))
      except BaseException as error:
        failures.append(self._failure(i, error))
    return failures or None

  def wake(self) -> list[tuple] | None:
    """Steps all environments; returns failures, or None. What failed leaves no result."""
    exchange, rows = self._exchange, self._rows
    actions = exchange.action[rows]
    # Elements of a list are read faster than those of an array. The environment may keep an array.
    actions = actions.tolist() if actions.ndim == 1 else actions.copy()
    flags, failures = [], []
    for i, environment, action in zip(self._indices, self._environments, actions):
      try:
        *result, observation = self._call(i, environment.step, action)
        self._write(i, observation)
      except BaseException as error:
        failures.append(self._failure(i, error))
        result = 0.0, True, False
      flags.append(result)
    exchange.reward[rows], exchange.done[rows], exchange.game_over[rows] = zip(*flags)
    return failures or None

  def rebuild(self, i: int, seed: int) -> list[tuple] | None:
    """Replaces environment i of the batch and starts a game; returns [its failure], or None."""
    k = i - self._indices.start
    # It may hang after its exception, and the other environments go on.
    closing = threading.Thread(target=self._environments[k].close, daemon=True)
    closing.start()
    closing.join(_CLOSE_SECS)
    try:
      self._environments[k] = self._call(i, self._make, seed)
      self._write(i, self._call(i, self._environments[k].reset))
    except BaseException as error:
      return [self._failure(i, error)]
    return None

  def states(self) -> list[str]:
    """Returns the JSON state of each environment, see `GymEnvironment.state`."""
    return [json.dumps(self._asked(i, e.state)) for i, e in self._numbered()]

  def set_states(self, states: Sequence[str]) -> None:
    """Sets the states that `states` returned in another group of the same environments."""
    for (i, environment), state in zip(self._numbered(), states, strict=True):
      self._asked(i, environment.set_state, json.loads(state))

  def _numbered(self):
    return list(zip(self._indices, self._environments, strict=True))

  def _asked(self, i, function, *args):
    try:
      return self._call(i, function, *args)
    finally:
      self._inside[i] = 0  # What it raises is no crash.

  def close(self) -> None:
    """Closes all environments."""
    for environment in self._environments:
      environment.close()

  def _write(self, i, observation):
    for array, value in zip(self._exchange.observation, arrays_of(observation)):
      array[i] = value

  def _call(self, i: int, function: Callable, *args: Any) -> Any:
    """Calls a function for environment i, which `inside` names until the function returns.

    If it raises, `inside` stays as it is until `_failure`: whoever started this process then sees
    which environment could not be made.
    """
    self._inside[i] = 1
    if self._generators is None:
      result = function(*args)
    else:
      with _generators_of(self._generators, i):
        result = function(*args)
    self._inside[i] = 0
    return result

  def _failure(self, i, error):
    self._inside[i] = 0
    return i, type(error).__name__, str(error), traceback.format_exc()


@contextlib.contextmanager
def _generators_of(states, i):
  if i in states:
    python, numpy = states[i]
    random.setstate(python)
    np.random.set_state(numpy)
  try:
    yield
  finally:
    states[i] = random.getstate(), np.random.get_state()
