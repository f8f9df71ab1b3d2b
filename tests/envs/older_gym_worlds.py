"""Environments with the APIs that OpenAI Gym had before version 0.26."""

import gym
import numpy as np


class Older(gym.Env):
  """Observes (step, a number by the seed); rewards are the step; ends after `length` steps."""

  observation_space = gym.spaces.Box(-1, 100, (2,), np.float32)
  action_space = gym.spaces.Discrete(2)
  metadata = {'render.modes': ['human', 'rgb_array']}

  def __init__(self, length=4, truncates=False):
    self._length, self._truncates, self._seed = length, truncates, -1

  def seed(self, seed=None):
    self._seed = seed
    return [seed]

  def reset(self):
    self._step = 0
    return np.float32([0, self._seed])

  def step(self, action):
    self._step += 1
    done = self._step == self._length
    info = {'TimeLimit.truncated': True} if done and self._truncates else {}
    return np.float32([self._step, self._seed]), float(self._step), done, info

  def render(self, mode='human'):
    return np.full((2, 3, 3), self._step, np.uint8) if mode == 'rgb_array' else None


class DrawsItsSeed(gym.Env):
  """Like Crafter: it draws its own seed, and `render` returns a picture."""

  observation_space = gym.spaces.Box(0, 1 << 30, (1,), np.float32)
  action_space = gym.spaces.Discrete(2)

  def __init__(self):
    self._drawn = np.random.randint(1 << 20)

  def reset(self):
    return np.float32([self._drawn])

  def step(self, action):
    return np.float32([self._drawn]), 1.0, True, {}

  def render(self, size=None):
    return np.full((2, 3, 3), 7, np.uint8)


class TakesSeed(Older):
  """The API of versions 0.22 to 0.25: `reset` takes a seed and returns the observation."""

  def reset(self, *, seed=None, return_info=False, options=None):
    self._seed = -1 if seed is None else seed
    return super().reset()


class TakesNoSeed(Older):
  """Like the environments of gym3, such as Procgen: a method `seed` that takes none."""

  def seed(self):
    raise AssertionError('called')


gym.register('Older-v0', entry_point='older_gym_worlds:Older')
gym.register('OlderLimited-v0', entry_point='older_gym_worlds:Older', max_episode_steps=2)
gym.register(
  'OlderTruncates-v0', entry_point='older_gym_worlds:Older', kwargs=dict(length=2, truncates=True)
)
gym.register('DrawsItsSeed-v0', entry_point='older_gym_worlds:DrawsItsSeed')
gym.register('TakesSeed-v0', entry_point='older_gym_worlds:TakesSeed', kwargs=dict(length=2))
gym.register('TakesNoSeed-v0', entry_point='older_gym_worlds:TakesNoSeed')
