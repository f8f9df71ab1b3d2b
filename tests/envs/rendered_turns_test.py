"""envs.rendered.GamesInTurn: several levels as one game, for a film."""

import numpy as np

from envs.batch import GameTotals
from envs.rendered import GamesInTurn


class Game:
  """A game of two steps; the observation is the number of the level and of the step."""

  action_names, frames_per_sec = ['a'], 15.0

  def __init__(self, level):
    self._totals, self._level, self._step, self.closed = GameTotals(1), level, 0, False

  @property
  def picture(self):
    return np.array([self._level, self._step])

  def reset(self):
    self._step = 0
    return self._totals.first(self.picture[None])

  def step(self, action):
    del action
    self._step += 1
    over = np.array([self._step == 2])
    self._step %= 2
    return self._totals.next(np.float32([1]), over, over, ~over & False, self.picture[None])

  def close(self):
    self.closed = True


def test_a_level_ends_with_its_games_and_the_next_begins_with_its_first_observation():
  levels = [Game(level) for level in range(3)]
  games = GamesInTurn(levels, 2)
  seen = [games.reset(), *(games.step(0) for _ in range(14))]
  # Two games of each level, each with its end.
  steps = [0, 1, 0, 1, 0]
  expected = [[level, step] for level in range(3) for step in steps]
  assert [list(step.observation[0]) for step in seen] == expected
  assert [bool(step.info.game_over[0]) for step in seen] == 3 * [False, False, True, False, True]
  assert bool(seen[5].done[0]) and seen[5].reward[0] == 0 and games.level_id == 2
  assert [list(step.info.episode_return) for step in seen[:3]] == [[0], [1], [2]]
  games.close()
  assert all(level.closed for level in levels)
