"""`impala/Catch-v0`, a game with small image observations that is cheap enough for tests."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Catch(gymnasium.Env):
  """The agent moves a paddle to catch a ball that falls down a 10 x 5 board.

  The rules are those of bsuite (Osband et al. 2019, arXiv 1908.03568). An episode takes 9 steps.
  The actions are left, stay and right. The last reward is +1 for a catch and -1 for a miss; all
  others are 0.
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
    """Puts the ball in a random column of the top row and the paddle in the middle."""
    super().reset(seed=seed)
    self._ball = [0, int(self.np_random.integers(self.columns))]
    self._paddle = self.columns // 2
    return self._board(), {}

  def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Moves the paddle by action - 1 columns and the ball down by one row."""
    self._paddle = min(max(self._paddle + int(action) - 1, 0), self.columns - 1)
    self._ball[0] += 1
    landed = self._ball[0] == self.rows - 1
    reward = (1.0 if self._ball[1] == self._paddle else -1.0) if landed else 0.0
    return self._board(), reward, landed, False, {}

  def render(self) -> np.ndarray:
    """Returns the board as uint8 [160, 80, 3], white on black, with 16 x 16 pixels per cell."""
    return np.kron(self._board(), np.ones((16, 16, 3), np.uint8))

  def _board(self):
    board = np.zeros((self.rows, self.columns, 1), np.uint8)
    board[tuple(self._ball)] = 255
    board[self.rows - 1, self._paddle] = 255
    return board
