"""Measures what a step of an environment costs, and says how many environments share a process."""

from __future__ import annotations

import math
import os
import random
import time
from typing import Any, NamedTuple

import numpy as np

from envs.actions import first_action
from envs.gym_env import GymEnvironment

# A step that takes as long is worth a process of its own: what its worker costs hardly counts.
HEAVY_SECS = 1e-3
# What a worker costs the batch's process in each step: to wake it, and to hear from it.
_WORKER_SECS = 2e-5


class StepCost(NamedTuple):
  """What is known of the steps of an environment.

  Attributes:
    secs: mean time of an agent step without action repeats, in seconds; inf if it was too slow or
      too faulty to be measured.
    draws: whether the environment draws from the global generators of Python or numpy.
  """

  secs: float
  draws: bool


def envs_per_worker(num_envs: int, cost: StepCost, processors: int | None = None) -> int:
  """Returns how many environments should share a worker process.

  Workers beyond the number of processors gain nothing, and each costs the batch a wake-up per step:
  with W workers, a step of N environments takes about N * secs / W + W * `_WORKER_SECS`. Heavy
  environments get a process each, which keeps crashes apart, and so do those that draw from the
  global generators of their process.

  Args:
    num_envs: N.
    cost: of one environment.
    processors: number of processors; None means those that this process may use.
  """
  if cost.secs >= HEAVY_SECS or cost.draws:
    return 1
  most = len(os.sched_getaffinity(0)) if processors is None else processors
  workers = round(math.sqrt(num_envs * cost.secs / _WORKER_SECS))
  return -(-num_envs // max(1, min(workers, most, num_envs)))


class MeasuredEnvironment(GymEnvironment):
  """An environment whose steps can be measured; the arguments are those of `GymEnvironment`."""

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self._generators = _global_generators()

  def measure(self, secs: float, masked: bool) -> tuple[float, bool]:
    """Plays steps with the same (allowed) action for about `secs` seconds, but at least one.

    Args:
      secs: see above.
      masked: whether each observation ends with an action mask.

    Returns:
      (mean seconds per step, without those in which other processes had the processor; whether
      Python's or numpy's global generators were drawn from since this environment was made).
    """
    self._games.masked = masked
    observation, steps = self.reset(), 0
    start, waited = time.perf_counter(), _waited_secs()
    while not steps or time.perf_counter() - start < secs:
      action = first_action(self._actions.parts, observation[-1] if masked else None)
      *_, observation = self.step(action)
      steps += 1
    mean = (time.perf_counter() - start - (_waited_secs() - waited)) / steps
    return mean, self._generators != _global_generators()


def _waited_secs():
  """Returns the time in which this thread could have run, but on no free processor, in seconds."""
  try:
    with open('/proc/thread-self/schedstat', encoding='ascii') as file:
      return int(file.read().split()[1]) / 1e9
  except (OSError, IndexError, ValueError):  # The kernel does not count it.
    return 0.0


def _global_generators():
  """Returns a value that changes with each draw from the global generators."""
  _, words, *others = np.random.get_state(legacy=True)
  return random.getstate(), np.asarray(words).tobytes(), others
