"""An environment that is registered with OpenAI Gym only."""

import gym
import numpy as np


class OpenAICounting(gym.Env):
  """Observation and reward are the step; two steps a game."""

  observation_space = gym.spaces.Box(0, 10, (1,), np.float32)
  action_space = gym.spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._step = 0
    return np.float32([0]), {}

  def step(self, action):
    self._step += 1
    # A numpy bool, at which Gym's own checker fails with NumPy 2.
    return np.float32([self._step]), float(self._step), np.bool_(self._step == 2), False, {}


gym.register('OnlyInOpenAIGym-v0', entry_point='openai_gym_env:OpenAICounting')
