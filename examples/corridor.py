"""An environment: a lamp at the start of a corridor says where to turn at its end.

  python experiment.py --flagfile=flagfiles/vector.flags \
      --level_name=examples.corridor:Corridor-v0 --agent_name=examples.gru_agent:GRUAgent
"""

import gymnasium
import numpy as np

GO_ON, LEFT, RIGHT = range(3)


class Corridor(gymnasium.Env):
  """Observations: the lamp (left, right; lit in the first step only), and whether this is the end.

  Args:
    length: agent steps from the lamp to the end.
  """

  observation_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)
  action_space = gymnasium.spaces.Discrete(3)

  def __init__(self, length=4):
    self.length = length

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.place, self.turn = 0, int(self.np_random.integers(LEFT, RIGHT + 1))
    return self.seen(), {}

  def seen(self):
    seen = np.zeros(3, np.float32)
    if self.place == 0:
      seen[self.turn - LEFT] = 1
    seen[2] = self.place == self.length
    return seen

  def step(self, action):
    if self.place < self.length:  # A turn before the end runs into the wall.
      self.place += action == GO_ON
      return self.seen(), -0.1 * (action != GO_ON), False, False, {}
    reward = {GO_ON: 0.0, self.turn: 1.0}.get(int(action), -1.0)
    return self.seen(), reward, True, False, {}


gymnasium.register('Corridor-v0', Corridor, max_episode_steps=50)
