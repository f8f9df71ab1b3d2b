"""An environment whose state is not in its attributes."""

import gymnasium
import numpy as np


class Hidden(gymnasium.Env):
  """Counts its steps in a closure."""

  def __init__(self):
    self.observation_space = gymnasium.spaces.Box(0, 1e9, (1,), np.float32)
    self.action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def count():
      nonlocal steps
      steps += 1
      return steps

    self._count = count

  def reset(self, *, seed=None, options=None):
    """Starts a game, but counts on."""
    super().reset(seed=seed)
    return np.zeros(1, np.float32), {}

  def step(self, action):
    """Observes the number of steps."""
    return np.array([self._count()], np.float32), 0.0, False, False, {}


gymnasium.register('Hidden-v0', entry_point=Hidden)
