"""Tries out whether the state of an environment can be captured and set in another one."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np

from acting import worker_process
from envs import actions
from envs.captured_state import CannotCapture
from envs.gym_env import GymEnvironment
from structs import action_dtype, action_shape

# Steps before a state is captured, in the other environment before it is set, and after that.
_STEPS_BEFORE, _OTHER_STEPS, _STEPS_COMPARED = 30, 10, 200
_COMPARED_SECS = 2.0  # No further steps are compared after this time.
_LIMIT_SECS = 60.0
MOST_BYTES = 1 << 20  # Of a state.


def why_not_set(*environment: Any) -> str:
  """Returns why the state of an environment cannot be set in another one, or ''.

  Args:
    *environment: the arguments of `GymEnvironment` after `seed`, with `level` before them.
  """
  worker = worker_process.Worker(_Trial, *environment)
  limit = threading.Timer(_LIMIT_SECS, worker.close)
  limit.start()
  try:
    worker.start()
    return worker.call('why_not_set')
  except worker_process.WorkerError as error:
    return error.message
  finally:
    limit.cancel()
    worker.close()


class _Trial:
  """Runs in a process of its own; the arguments are those of `why_not_set`."""

  def __init__(self, level: Any, *others: Any):
    self._level, self._others = level, others

  def why_not_set(self) -> str:
    """See the function of this name."""
    one, other = self._started(0), self._started(1)
    _play(one, _STEPS_BEFORE)
    _play(other, _OTHER_STEPS)
    try:
      text = json.dumps(one.state())
      if len(text) > MOST_BYTES:
        return f'its state takes {len(text)} bytes, more than {MOST_BYTES}'
      results = _play(one, _STEPS_COMPARED, _COMPARED_SECS)
      after = json.dumps(one.state())
      other.set_state(json.loads(text))
    except CannotCapture as error:
      return str(error)
    if _play(other, len(results)) != results or json.dumps(other.state()) != after:
      return 'it plays differently after its state was set'
    return ''

  def _started(self, seed):
    environment = GymEnvironment(self._level, seed, *self._others)
    environment.reset()
    return environment


def _play(environment: GymEnvironment, steps: int, secs: float = np.inf) -> list[Any]:
  """Plays steps with actions that are the same at each call; returns what they gave."""
  parts, random = environment.action_parts, np.random.default_rng(0)
  observation, results, start = None, [], time.monotonic()
  while len(results) < steps and time.monotonic() - start < secs:
    mask = observation[-1] if environment.masked and observation is not None else None
    action = _action(parts, random, mask)
    *flags, observation = environment.step(action)
    arrays = observation if isinstance(observation, tuple) else (observation,)
    results.append((flags, [np.asarray(array).tobytes() for array in arrays]))
  return results


def _action(parts, random, mask):
  if mask is not None or random.random() < 0.1:
    return actions.first_action(parts, mask)
  drawn = [
    random.integers(part.size, size=1)
    if part.kind == 'discrete'
    else random.integers(2, size=part.size)
    if part.kind == 'binary'
    else random.normal(size=part.size)
    for part in parts
  ]
  return np.concatenate(drawn).astype(action_dtype(parts)).reshape(action_shape(parts))
