"""envs.older_gym: environments of OpenAI Gym with its API before version 0.26."""

import numpy as np
import pytest

import environments
from environment_player import playing
from envs import actions, checks, level_ids, nests


def made(name, **kwargs):
  return level_ids.make(f'older_gym_worlds:{name}-v0', **kwargs)


def steps_of(name, count):
  """Returns (observation of the step, done, game_over) of the first `count` steps."""
  with playing(f'older_gym_worlds:{name}-v0', 1) as player:
    player.initial()
    outputs = [player.step() for _ in range(count)]
  return [(o.observation[0, 0], bool(o.done[0]), bool(o.info.game_over[0])) for o in outputs]


def test_four_values_of_a_step_are_understood():
  assert steps_of('Older', 5) == [
    (1, False, False),
    (2, False, False),
    (3, False, False),
    (0, True, True),
    (1, False, False),
  ]


@pytest.mark.parametrize('name', ['OlderLimited', 'OlderTruncates'])
def test_a_time_limit_truncates(name):
  assert steps_of(name, 4) == [
    (1, False, False),
    (2, False, True),
    (0, True, False),
    (1, False, False),
  ]


def test_the_method_seed_gets_the_seed():
  env = made('Older')
  assert env.reset(seed=5)[0].tolist() == [0, 5]
  assert env.reset()[0].tolist() == [0, 5]


def test_a_reset_that_takes_a_seed_gets_it():
  env = made('TakesSeed')
  assert [env.reset(seed=5)[0].tolist(), env.reset()[0].tolist()] == [[0, 5], [0, -1]]


def test_a_method_seed_without_an_argument_is_not_called():
  assert made('TakesNoSeed').reset(seed=5)[0].tolist() == [0, -1]


def test_a_seed_that_an_environment_draws_follows_from_the_seed():
  drawn = []
  for seed in (1, 1, 2):
    with playing('older_gym_worlds:DrawsItsSeed-v0', 1, seed=seed) as player:
      drawn.append(player.initial().observation[0, 0])
  assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize('name, value', [('Older', 1), ('DrawsItsSeed', 7)])
def test_pictures(name, value):
  env = made(name, render_mode='rgb_array')
  assert 'rgb_array' in env.metadata['render_modes']
  env.reset()
  env.step(0)
  assert np.array_equal(env.render(), np.full((2, 3, 3), value))


@pytest.mark.parametrize(
  'name', ['Older', 'OlderLimited', 'DrawsItsSeed', 'TakesSeed', 'TakesNoSeed']
)
def test_they_pass_the_checks(name):
  assert environments.environment_spec(f'older_gym_worlds:{name}-v0').action[0].size == 2
  env = made(name)
  nest = nests.Nest(env.observation_space, [], 0)
  assert checks.check(env, nest, actions.view_of(env.action_space), 'auto', 1) == ([], [], False)
