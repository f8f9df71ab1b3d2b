"""`impala/Memory-v0`, a game that only an agent with memory can win, cheap enough for tests."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Memory(gymnasium.Env):
  """One of two cues is shown, and named again when the query comes `delay` steps later.

  Actions are wait, first cue, second cue. Before the query anything but wait ends the game with -1;
  at the query the shown cue gives +1, all else -1. An agent sees its last action, which could serve
  as its memory; as waiting is the only action that keeps the game going, it carries nothing, and
  without memory the expected return is 0 at best.

  Observation: float32 [first cue, second cue, query].
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
    """Waits for the query, or answers."""
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
