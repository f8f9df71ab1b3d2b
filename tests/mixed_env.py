"""Environments with several observations and several actions; `mixed_env:<Id>` registers them.

Imports no TensorFlow, as every worker process imports it.
"""

import gymnasium
import numpy as np
from gymnasium import spaces

FORBIDDEN, GOOD = 2, 1  # Levers.
TARGETS = (2.0, 8.0)  # Of the dial, by what the image shows.
STEPS = 4
BEST_RETURN = STEPS


class Levers(gymnasium.Env):
  """The image says how far the dial has to be turned; the best lever is forbidden by a mask.

  A step's reward is 1 for the lever GOOD, minus the squared distance of the dial from its target in
  units of 5. The lever FORBIDDEN would give 3, and raises.
  """

  observation_space = spaces.Dict(
    {
      'image': spaces.Box(0, 255, (6, 6, 1), np.uint8),
      'steps': spaces.Tuple([spaces.Discrete(STEPS + 1), spaces.Box(0, 1, (1,), np.float32)]),
      'mission': spaces.Text(20),
      'action_mask': spaces.MultiBinary(3),
    }
  )
  action_space = spaces.Dict(
    {'dial': spaces.Box(0, 10, (1,), np.float32), 'lever': spaces.Discrete(3)}
  )
  metadata = {'render_modes': ['rgb_array'], 'render_fps': 10}

  def __init__(self, render_mode=None):
    self.render_mode = render_mode

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._steps, self._shown = 0, int(self.np_random.integers(2))
    return self._observation(), {}

  def step(self, action):
    assert self.action_space.contains(action), action
    if action['lever'] == FORBIDDEN:
      raise ArithmeticError('this lever is forbidden')
    distance = (float(action['dial'][0]) - TARGETS[self._shown]) / 5
    reward = float(action['lever'] == GOOD) - distance**2
    self._steps, self._shown = self._steps + 1, int(self.np_random.integers(2))
    return self._observation(), reward, self._steps == STEPS, False, {}

  def render(self):
    return np.full((32, 32, 3), 200 * self._shown, np.uint8)

  def _observation(self):
    mask = np.ones(3, np.int8)
    mask[FORBIDDEN] = 0
    return {
      'image': np.full((6, 6, 1), 255 * self._shown, np.uint8),
      'steps': (self._steps, np.float32([self._shown])),
      'mission': 'turn the dial',
      'action_mask': mask,
    }


gymnasium.register('Levers-v0', entry_point='mixed_env:Levers')
