"""An environment that stops answering, for the test of the watchdog."""

import threading

import gymnasium
import numpy as np


class Hanging(gymnasium.Env):
  """Hangs for ever in its 20th step."""

  observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
  action_space = gymnasium.spaces.Discrete(2)

  def __init__(self):
    self._steps = 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    return np.zeros(2, np.float32), {}

  def step(self, action):
    self._steps += 1
    if self._steps == 20:
      threading.Event().wait()
    return np.zeros(2, np.float32), 0.0, False, False, {}


gymnasium.register('Hanging-v0', entry_point=Hanging)
