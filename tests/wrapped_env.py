"""An environment that a function registers and that needs a keyword, and wrappers for it.

The return of a game tells what was applied: `game_steps` rewards of 1, changed by the wrappers.
"""

import gymnasium
import numpy as np


class Steps(gymnasium.Env):
  """A game of `game_steps` steps with a reward of 1 each; actions change nothing."""

  metadata = {'render_modes': ['rgb_array'], 'render_fps': 5}
  observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
  action_space = gymnasium.spaces.Discrete(2)

  def __init__(self, game_steps, render_mode=None):
    self._game_steps, self.render_mode = game_steps, render_mode

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._step = 0
    return np.zeros(1, np.float32), {}

  def step(self, action):
    self._step += 1
    return np.zeros(1, np.float32), 1.0, self._step == self._game_steps, False, {}

  def render(self):
    return np.full((32, 32, 3), self._step, np.uint8)


class Plus(gymnasium.RewardWrapper):
  """Adds `n` to each reward."""

  def __init__(self, env, n=1):
    super().__init__(env)
    self._n = n

  def reward(self, reward):
    return reward + self._n


class Double(gymnasium.RewardWrapper):
  """Doubles each reward."""

  def reward(self, reward):
    return 2 * reward


class Broken(gymnasium.Wrapper):
  """Raises when it is made."""

  def __init__(self, env):
    raise KeyError('out of order')


class Strict(gymnasium.Wrapper):
  """Raises when it is made, without a message."""

  def __init__(self, env):
    assert env is None


class Sum(gymnasium.RewardWrapper):
  """Adds the sum of an array to each reward."""

  def __init__(self, env, numbers):
    super().__init__(env)
    self._sum = numbers.sum()

  def reward(self, reward):
    return reward + self._sum


class Fails(gymnasium.RewardWrapper):
  """Raises in each step."""

  def reward(self, reward):
    raise RuntimeError('no reward')


NOT_CALLABLE = 7


def __getattr__(name):
  """Imports one name late, as Gymnasium's wrappers do."""
  if name == 'Late':
    raise ModuleNotFoundError("No module named 'torch'", name='torch')
  raise AttributeError(name)


def no_wrapper(env):
  """Returns no environment."""
  return 'nothing'


def register():
  """Registers `Steps-v0`, which importing this module does not."""
  gymnasium.register('Steps-v0', Steps)


def fail():
  """Raises."""
  raise RuntimeError('no licence')
