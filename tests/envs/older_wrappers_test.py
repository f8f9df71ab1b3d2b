"""envs.older_gym: wrappers of OpenAI Gym with the older and the newer API, one in another."""

import numpy as np
import pytest

import environments
from envs import level_ids
from structs import Level

OLDER = [
  'OldBothOfOlder', 'OldStepOfOlder', 'OldKeywordsOfOlder', 'OldResetOfOlder',
  'OldInfoOfTakesSeed', 'OldKeywordsOfTakesSeed', 'NewBothOfOlder', 'NewKeywordsOfOlder',
  'NewResetOfOlder', 'NewInfoOfOlder', 'IndexesOfOlder', 'TenOfOlder', 'TenOldResetOfOlder',
  'GymsOfOlder', 'OldOfSame', 'SameOfOld',
]  # fmt: skip
NEWER = ['NewBothOfNewer', 'NewKeywordsOfNewer']
NAMED = [
  'OldBoth', 'OldStep', 'OldReset', 'OldInfo', 'NewBoth', 'NewKeywords', 'NewReset', 'NewInfo',
  'Indexes', 'Ten', 'TenOldReset',
]  # fmt: skip


def made(name, wrappers=()):
  paths = ','.join(f'older_wrappers.{wrapper}' for wrapper in wrappers)
  return level_ids.make(Level(f'older_wrappers:{name}-v0', env_wrappers=paths))


def game(env):
  """Plays one game; returns its seed, rewards and (terminated, truncated)."""
  first, info = env.reset(seed=5)
  assert info == {}
  rewards, ends = [], (False, False)
  while not any(ends):
    _, reward, *ends, _ = env.step(0)
    rewards.append(reward)
  return first[1:].tolist(), rewards, tuple(ends)


@pytest.mark.parametrize('name', OLDER)
def test_an_environment_keeps_its_own_wrappers(name):
  assert game(made(name)) == ([5], [11, 12, 13, 14], (True, False))
  assert game(made(f'{name}Limited')) == ([5], [11, 12], (False, True))


@pytest.mark.parametrize('name', NEWER)
def test_wrappers_of_the_newer_api_pass_unchanged(name):
  assert game(made(name)) == ([], [11, 12], (True, False))


def test_wrappers_of_both_apis():
  assert game(made('OldOfTenOfOldLimited')) == ([5], [31, 32], (False, True))


@pytest.mark.parametrize('wrapper', NAMED)
@pytest.mark.parametrize('name', ['NewBothOfOlder', 'OldBothOfOlder', 'OldInfoOfTakesSeed'])
def test_a_wrapper_that_the_user_names_has_either_api(name, wrapper):
  assert game(made(f'{name}', [wrapper])) == ([5], [21, 22, 23, 24], (True, False))
  limited = made(f'{name}Limited', [wrapper, 'Same', wrapper])
  assert game(limited) == ([5], [31, 32], (False, True))


def test_a_function_may_put_two_wrappers_around_it():
  assert game(made('OldBothOfOlder', ['old_of_new'])) == ([5], [31, 32, 33, 34], (True, False))


def test_a_function_may_make_an_environment_of_gymnasium():
  env = made('OldBothOfOlder', ['shimmed'])
  assert type(env).__name__ == 'Shim'
  assert game(env) == ([5], [11, 12, 13, 14], (True, False))


@pytest.mark.parametrize(
  'name, wrappers, value',
  [
    ('OldBothOfOlder', [], 1),
    ('OldOfDrawsItsSeed', [], 7),
    ('NewBothOfOlder', ['OldBoth'], 1),
    ('OldStepOfOlder', ['OldStep'], 1),
  ],
)
def test_pictures_through_wrappers(name, wrappers, value):
  env = made(name, wrappers)
  assert 'rgb_array' in env.metadata['render_modes']
  env.reset()
  env.step(0)
  assert np.array_equal(env.render(), np.full((2, 3, 3), value))


def test_they_pass_the_checks():
  level = Level('older_wrappers:OldStepOfOlder-v0', env_wrappers='older_wrappers.Ten')
  assert environments.environment_spec(level).action[0].size == 2


@pytest.mark.parametrize(
  'name, wrappers', [('OldRaises', ''), ('OldBothOfOlder', 'older_wrappers.OldRaises')]
)
def test_a_wrapper_that_raises_is_named(name, wrappers):
  said = (
    r'^the wrapper OldRaises around your env.* raised RuntimeError in step \(older_wrappers.py:'
  )
  with pytest.raises(ValueError, match=said):
    environments.environment_spec(Level(f'older_wrappers:{name}-v0', env_wrappers=wrappers))
