"""`impala/Memory-v0`, a game that only an agent with memory can win; cheap enough for tests."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Memory(gymnasium.Env):
  """The agent sees one of two cues and must name it `delay` steps later, at the query.

  The actions are wait, first cue and second cue. Before the query, any action but wait ends the
  game with reward -1. At the query, the action of the cue shown gives +1, any other -1. Agents
  receive their last action as an input, but it carries no information here: before the query it is
  always wait. Without memory the expected return is therefore 0 at best.

  Observations are float32 [first cue, second cue, query].
  """

  delay = 5
  wait = 0

  def __init__(self):
    self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (3,), np.float32)
    self.action_space = gymnasium.spaces.Discrete(3)

  def reset(
    self, *, seed: int | None = None, options: dict[str, Any] | None = None
  ) -> tuple[np.ndarray, dict[str, Any]]:
    """Shows a random cue."""
    super().reset(seed=seed)
    self._cue = int(self.np_random.integers(2))
    self._step = 0
    return self._shown(), {}

  def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Plays one action; see the class for the rewards."""
    asked = self._step == self.delay
    right = int(action) == (1 + self._cue if asked else self.wait)
    self._step += 1
    reward = -1.0 if not right else float(asked)
    return self._shown(), reward, asked or not right, False, {}

  def _shown(self):
    return np.array(
      [
        self._step == 0 and self._cue == 0,
        self._step == 0 and self._cue == 1,
        self._step == self.delay,
      ],
      np.float32,
    )
