"""envs.games: action masks of the last observation of a game."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs import actions, games, nests
from envs.faults import BrokenPromise


class Masking(gymnasium.Env):
  """Allows the first action only; the second step returns `last`."""

  observation_space, action_space = spaces.Discrete(3), spaces.Discrete(2)

  def __init__(self, last):
    self._last, self._steps = last, 0

  def reset(self, *, seed=None, options=None):
    self._steps = 0
    return 0, {'action_mask': np.int8([1, 0])}

  def step(self, action):
    self._steps += 1
    if self._steps == 2:
      return self._last
    return 1, 1.0, False, False, {'action_mask': np.int8([1, 0])}


def played(last, num_steps):
  """The last values of `num_steps` steps."""
  env = Masking(last)
  nest, view = nests.Nest(env.observation_space), actions.view_of(env.action_space)
  one = games.Games(env, nest, view, 1, 1, 0, masked=True)
  one.reset()
  return [one.step(0) for _ in range(num_steps)][-1]


@pytest.mark.parametrize('info', [{}, {'action_mask': np.int8([0, 0])}])
def test_a_truncated_game_may_end_without_a_mask(info):
  reward, done, game_over, (seen, mask) = played((2, 5.0, False, True, info), 2)
  assert (reward, done, game_over) == (5, False, True)
  assert (seen.tolist(), mask.tolist()) == ([0, 0, 1], [True, True])
  *_, (seen, mask) = played((2, 5.0, False, True, info), 3)  # The next game.
  assert (seen.tolist(), mask.tolist()) == ([1, 0, 0], [True, False])


def test_a_terminated_game_needs_no_observation():
  reward, done, game_over, (seen, mask) = played((None, 5.0, True, False, {}), 2)
  assert (reward, done, game_over) == (5, True, True)
  assert (seen.tolist(), mask.tolist()) == ([1, 0, 0], [True, False])


@pytest.mark.parametrize('info, said', [
  ({}, "info has no 'action_mask', which earlier ones had; --action_masks=false ignores masks"),
  ({'action_mask': np.int8([0, 0])}, 'action mask allows no action; --action_masks=false ignores'),
])  # fmt: skip
def test_a_game_that_goes_on_needs_a_mask(info, said):
  with pytest.raises(BrokenPromise, match=f'its {said}'):
    played((2, 5.0, False, False, info), 2)
