"""`impala/Catch-v0`, a game of small images that is cheap enough for tests."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Catch(gymnasium.Env):
  """A ball falls down a board of 10 x 5; the paddle below must be under it in the end.

  The rules of bsuite (Osband et al. 2019, arXiv 1908.03568): 9 steps, actions left, stay, right,
  reward +1 for a catch and -1 for a miss, at the end.
  """

  rows, columns = 10, 5
  metadata = {'render_modes': ['rgb_array'], 'render_fps': 5}

  def __init__(self, render_mode: str | None = None):
    self.render_mode = render_mode
    shape = (self.rows, self.columns, 1)
    self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
    self.action_space = gymnasium.spaces.Discrete(3)

  def reset(
    self, *, seed: int | None = None, options: dict[str, Any] | None = None
  ) -> tuple[np.ndarray, dict[str, Any]]:
    """The ball starts in a random column, the paddle in the middle."""
    super().reset(seed=seed)
    self._ball = [0, int(self.np_random.integers(self.columns))]
    self._paddle = self.columns // 2
    return self._board(), {}

  def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Moves the paddle by action - 1 and the ball down."""
    self._paddle = min(max(self._paddle + int(action) - 1, 0), self.columns - 1)
    self._ball[0] += 1
    landed = self._ball[0] == self.rows - 1
    reward = (1.0 if self._ball[1] == self._paddle else -1.0) if landed else 0.0
    return self._board(), reward, landed, False, {}

  def render(self) -> np.ndarray:
    """The board as uint8 [160, 80, 3]: 16 pixels a field, white on black."""
    return np.kron(self._board(), np.ones((16, 16, 3), np.uint8))

  def _board(self):
    board = np.zeros((self.rows, self.columns, 1), np.uint8)
    board[tuple(self._ball)] = 255
    board[self.rows - 1, self._paddle] = 255
    return board
