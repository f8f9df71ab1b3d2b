"""Wrappers of OpenAI Gym with the APIs before and since version 0.26, and environments in them.

Each wrapper adds 10 to the rewards, and `Shifts` 20 to observations.
"""

import gym
import gymnasium
from older_gym_worlds import DrawsItsSeed, Older, TakesSeed
from openai_gym_env import OpenAICounting


class OldBoth(gym.Wrapper):
  """The older API in both methods."""

  def reset(self):
    return self.env.reset()

  def step(self, action):
    observation, reward, done, info = self.env.step(action)
    return observation, reward + 10, done, info

  def render(self, mode='human'):
    return self.env.render(mode=mode)


class OldStep(gym.Wrapper):
  """The older API in `step` alone."""

  def step(self, action):
    observation, reward, done, info = self.env.step(action)
    return observation, reward + 10, done, info


class OldKeywords(OldStep):
  """As wrappers of versions 0.22 to 0.25: `reset` passes its keywords, and returns one value."""

  def reset(self, **kwargs):
    observation = self.env.reset(**kwargs)
    assert not isinstance(observation, tuple)
    return observation


class Indexes(gym.Wrapper):
  """Fits either API, since it names only the first results of `step`."""

  def step(self, action):
    observation, reward, *others = self.env.step(action)
    return (observation, reward + 10, *others)


class OldReset(Indexes):
  """The older API in `reset`."""

  def reset(self):
    observation = self.env.reset()
    assert not isinstance(observation, tuple)
    return observation


class OldInfo(Indexes):
  """As wrappers of versions 0.22 to 0.25, with the keyword that they had."""

  def reset(self, *, seed=None, return_info=False, options=None):
    observation = self.env.reset(seed=seed)
    assert not isinstance(observation, tuple)
    return observation


class NewReset(Indexes):
  """The newer API in `reset`."""

  def reset(self, *, seed=None, options=None):
    result = self.env.reset(seed=seed, options=options)
    assert isinstance(result, tuple)
    return result


class NewInfo(Indexes):
  """The newer API in `reset`, which passes its keywords."""

  def reset(self, **kwargs):
    observation, info = self.env.reset(**kwargs)
    return observation, info


class NewBoth(gym.Wrapper):
  """The newer API in both methods."""

  def reset(self, *, seed=None, options=None):
    observation, info = self.env.reset(seed=seed, options=options)
    return observation, info

  def step(self, action):
    observation, reward, terminated, truncated, info = self.env.step(action)
    return observation, reward + 10, terminated, truncated, info


class NewKeywords(NewBoth):
  """The newer API, with a `reset` that passes its keywords."""

  def reset(self, **kwargs):
    return self.env.reset(**kwargs)


class Ten(gym.RewardWrapper):
  """The API of the installed version, by a base class of OpenAI Gym."""

  def reward(self, reward):
    return reward + 10


class TenOldReset(Ten):
  """The API of the installed version in `step`, and a `reset` without arguments."""

  def reset(self):
    return self.env.reset()


class Same(gym.ActionWrapper):
  """Fits either API, since it only passes on."""

  def action(self, action):
    return action


class OldRaises(OldBoth):
  """Raises in each step."""

  def step(self, action):
    raise RuntimeError('no reward')


def old_of_new(env):
  """Returns an environment in a wrapper of each API."""
  return OldBoth(NewBoth(env))


def shimmed(env):
  """Returns an environment of Gymnasium, which holds one of OpenAI Gym."""
  return Shim(env)


class Shim(gymnasium.Env):
  """Plays an environment of OpenAI Gym."""

  def __init__(self, env):
    self.env, self.action_space = env, gymnasium.spaces.Discrete(2)
    self.observation_space = gymnasium.spaces.Box(-1, 100, (2,))

  def reset(self, *, seed=None, options=None):
    return self.env.reset(seed=seed, options=options)

  def step(self, action):
    return self.env.step(action)


WORLDS = {
  'OldBothOfOlder': lambda: OldBoth(Older()),
  'OldStepOfOlder': lambda: OldStep(Older()),
  'OldKeywordsOfOlder': lambda: OldKeywords(Older()),
  'IndexesOfOlder': lambda: Indexes(Older()),
  'OldResetOfOlder': lambda: OldReset(Older()),
  'NewResetOfOlder': lambda: NewReset(Older()),
  'NewInfoOfOlder': lambda: NewInfo(Older()),
  'OldInfoOfTakesSeed': lambda: OldInfo(TakesSeed()),
  'OldKeywordsOfTakesSeed': lambda: OldKeywords(TakesSeed()),
  'NewBothOfOlder': lambda: NewBoth(Older()),
  'NewKeywordsOfOlder': lambda: NewKeywords(Older()),
  'NewBothOfNewer': lambda: NewBoth(OpenAICounting()),
  'NewKeywordsOfNewer': lambda: NewKeywords(OpenAICounting()),
  'TenOfOlder': lambda: Ten(Older()),
  'TenOldResetOfOlder': lambda: TenOldReset(Older()),
  'GymsOfOlder': lambda: gym.wrappers.TransformReward(Older(), lambda reward: reward + 10),
  'OldOfSame': lambda: OldBoth(Same(Older())),
  'SameOfOld': lambda: Same(OldBoth(Older())),
  'OldOfTenOfOld': lambda: OldBoth(Ten(OldBoth(Older()))),
  'OldOfDrawsItsSeed': lambda: OldStep(DrawsItsSeed()),
  'OldRaises': lambda: OldRaises(Older()),
}
for name, make in WORLDS.items():
  gym.register(f'{name}-v0', entry_point=make)
  gym.register(f'{name}Limited-v0', entry_point=make, max_episode_steps=2)
