"""envs.faults: who is said to have raised an exception, the environment or a wrapper."""

import functools
import math

import gym
import gymnasium
import numpy as np
import pytest

from envs import actions, checks, faults, nests, older_gym
from envs.games import Games

DISCRETE = gymnasium.spaces.Discrete(2)


class World(gymnasium.Env):
  """Steps without an end."""

  observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,)), DISCRETE

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    return np.zeros(1, np.float32), {}

  def step(self, action):
    return np.zeros(1, np.float32), 1.0, False, False, {}


class This(World):
  def step(this, action):
    raise KeyError('this')


class Static(World):
  @staticmethod
  def step(action):
    raise KeyError('static')


class OfClass(World):
  @classmethod
  def step(cls, action):
    raise KeyError('class')


class NoAction(World):
  def step(self):  # The environment's.
    return super().step(0)


class Assigned(World):
  def __init__(self):
    self.chosen = lambda action: {}['assigned']

  @property
  def step(self):
    return self.chosen


def timed(method):
  def outer(*args):
    return method(*args)

  return outer


def wrapped(method):
  @functools.wraps(method)
  def outer(*args):
    raise KeyError('outer')

  return outer


class Decorated(World):
  @timed
  def step(this, action):
    raise KeyError('decorated')


class Wrapped(World):
  @wrapped
  def step(self, action):
    return super().step(action)


def helper(env):
  raise KeyError('helper')


class Helped(World):
  def step(this, action):
    return helper(this)


class Attribute(World):
  @property
  def length(this):
    raise KeyError('attribute')

  def step(self, action):
    return self.length


class Compiled(World):
  step = math.log


class ThreeValues(World):
  def step(self, action):
    return np.zeros(1, np.float32), 1.0, False


class Slots(World):
  __slots__ = ('count',)

  def step(this, action):
    return this.count


class Reads(gymnasium.Wrapper):
  def step(self, action):
    return self.unwrapped.length


class Passes(gymnasium.Wrapper):
  def step(self, action):
    return self.env.step(action)


class Raises(gymnasium.Wrapper):
  def step(this, action):
    raise KeyError('wrapper')


class RaisesInHelper(gymnasium.RewardWrapper):
  def reward(this, reward):
    return helper(this)


class TakesNoAction(gymnasium.Wrapper):
  def step(self):  # The wrapper's.
    return self.env.step(0)


def fails(reward):
  raise KeyError('function')


def made(env):
  """The environment in the wrappers of `gymnasium.make`."""
  checked = gymnasium.wrappers.PassiveEnvChecker(env)
  return gymnasium.wrappers.TimeLimit(gymnasium.wrappers.OrderEnforcing(checked), 9)


def said(env):
  """What is said of a step, in training and at the start, which have to agree."""
  sentence = said_in_training(env)
  nest = nests.Nest(World.observation_space)
  (problem,), _, _ = checks.check(env, nest, actions.view_of(DISCRETE), 'auto', 1)
  assert problem == sentence
  return sentence


def said_in_training(env):
  nest = nests.Nest(World.observation_space)
  games = Games(env, nest, actions.view_of(DISCRETE), 1, 1, 0, False)
  games.reset()
  with pytest.raises(faults.EnvironmentRaised) as info:
    games.step(np.array([0]))
  return str(info.value)


def place_of(text):
  """The first line of this file that has `text`, as a sentence has it."""
  with open(__file__, encoding='utf-8') as file:
    return f'(faults_test.py:{next(i for i, line in enumerate(file, 1) if text in line)})'


WORLDS = [
  (This, "KeyError('this')"), (Static, "KeyError('static')"), (OfClass, "KeyError('class')"),
  (NoAction, "# The environment's"), (Assigned, "{}['assigned']"), (Wrapped, "KeyError('outer')"),
  (Decorated, "KeyError('decorated')"), (Helped, "KeyError('helper')"),
  (Attribute, "KeyError('attribute')"), (Slots, 'return this.count'),
]  # fmt: skip
AROUND = [lambda env: env, made, Passes, lambda env: Passes(made(env))]


@pytest.mark.parametrize('kind, line', WORLDS)
@pytest.mark.parametrize('around', AROUND)
def test_an_environment_is_named_however_its_step_is_written(kind, line, around):
  sentence = said(around(kind()))
  assert sentence.startswith('your environment raised '), sentence
  assert f' in step {place_of(line)}: ' in sentence


def test_a_line_of_a_wrapper_is_not_told_for_an_environment():
  sentence = said(Passes(made(Compiled())))
  assert sentence.startswith('your environment raised ValueError in step: '), sentence


def test_an_attribute_that_a_wrapper_reads_is_the_environments():
  sentence = said(Reads(made(Attribute())))
  assert sentence.startswith('your environment raised KeyError in step (faults_test.py:'), sentence


def test_an_environment_is_named_if_gymnasiums_wrapper_fails_on_its_result():
  sentence = said_in_training(RaisesInHelper(ThreeValues()))
  assert sentence.startswith('your environment raised ValueError in step (faults_test.py:')


@pytest.mark.parametrize('around', AROUND)
@pytest.mark.parametrize(
  'wrapper, name, line',
  [
    (Raises, 'Raises', "KeyError('wrapper')"),
    (RaisesInHelper, 'RaisesInHelper', "KeyError('helper')"),
    (TakesNoAction, 'TakesNoAction', "# The wrapper's"),
    (lambda env: gymnasium.wrappers.TransformReward(env, fails), 'TransformReward', "'function'"),
  ],
)
def test_a_wrapper_is_named_if_its_own_code_raises(wrapper, name, line, around):
  for env in (around(wrapper(World())), Passes(wrapper(around(World())))):
    sentence = said(env)
    assert sentence.startswith(f'the wrapper {name} around your environment raised '), sentence
    assert f' in step {place_of(line)}' in sentence


class OlderWorld(gym.Env):
  observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

  def reset(self):
    return np.zeros(1, np.float32)


class OlderRaises(OlderWorld):
  def step(this, action):
    raise KeyError('older')


class OlderNoAction(OlderWorld):
  def step(self):  # Without an action.
    return np.zeros(1, np.float32), 1.0, False, {}


class OlderCompiled(OlderWorld):
  step = math.log


class OlderRaisesInReset(gym.Wrapper):
  def reset(self):
    return [] + ()


class OlderPasses(gym.Wrapper):
  def step(self, action):
    observation, reward, done, info = self.env.step(action)
    return observation, reward, done, info


@pytest.mark.parametrize('around', [lambda env: env, OlderPasses])
@pytest.mark.parametrize(
  'kind, line', [(OlderRaises, "KeyError('older')"), (OlderNoAction, '# Without an action')]
)
def test_an_adapter_is_not_named(kind, line, around):
  env = gym.wrappers.TimeLimit(gym.wrappers.OrderEnforcing(around(kind())), 9)
  sentence = said(older_gym.adapted(env))
  assert sentence.startswith('your environment raised ') and place_of(line) in sentence, sentence


def test_no_adapter_is_named_for_compiled_code():
  sentence = said_in_training(older_gym.adapted(gym.wrappers.OrderEnforcing(OlderCompiled())))
  assert sentence.startswith('your environment raised ValueError in step: ')


@pytest.mark.parametrize('adapt', [lambda env: env, older_gym.adapted])
def test_a_wrapper_of_the_older_api_is_named(adapt):
  env = older_gym.adapted(OlderRaisesInReset(adapt(OlderRaises())))
  with pytest.raises(TypeError) as info:
    env.reset(seed=1)
  sentence = faults.raised(info.value, env, 'reset')
  place = place_of('return [] + ()')
  start = (
    f'the wrapper OlderRaisesInReset around your environment raised TypeError in reset {place}'
  )
  assert sentence.startswith(start), sentence
