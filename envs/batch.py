"""What all batches of environments share: the totals of running games, seeds.

A batch of N environments is an object with

  num_envs: N.
  crashes: environments rebuilt so far.
  reset(): StepOutput of all games from the start.
  step(actions): StepOutput after int32 [N] actions.
  close(): ends the environments; may be called twice.
"""

import numpy as np

from structs import StepOutput, StepOutputInfo


class GameTotals:
  """Return and length of N running games."""

  def __init__(self, num_envs):
    self._returns = np.zeros(num_envs, np.float32)
    self._steps = np.zeros(num_envs, np.int32)

  def restart(self, which):
    """Counts from 0 again where the bool [N] `which` is set."""
    self._returns[which] = 0
    self._steps[which] = 0

  def first(self, observation):
    """The StepOutput before the first action; all games restart."""
    everywhere = np.ones(len(self._steps), bool)
    self.restart(everywhere)
    return StepOutput(
      np.zeros_like(self._returns), self._info(~everywhere), everywhere, observation
    )

  def next(self, reward, done, game_over, anew, observation):
    """The StepOutput after an action; games that are over restart after it, those `anew` before."""
    self._returns += reward
    self._steps += 1
    self.restart(anew)
    info = self._info(game_over)
    self.restart(game_over)
    return StepOutput(reward, info, done, observation)

  def _info(self, game_over):
    return StepOutputInfo(self._returns.copy(), self._steps.copy(), game_over)


def environment_seed(*entropy):
  """An int below 2**31 that depends on every one of the given ints >= 0."""
  return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
