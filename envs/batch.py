"""What all batches of environments share: what a step gives, the totals of running games, seeds.

A batch of N environments is an object with

  num_envs: N.
  crashes: environments rebuilt so far.
  reset(): StepOutput of all games from the start.
  step(actions): StepOutput after int32 [N] actions.
  close(): ends the environments; may be called twice.
"""

import collections

import numpy as np

StepOutput = collections.namedtuple('StepOutput', 'reward info done observation')
StepOutput.__doc__ = """What one step of N environments gives.

Attributes:
  reward: float32 [N], raw, the sum over the action's repeats.
  info: StepOutputInfo of [N].
  done: bool [N], the end of an episode for learning. When `done`, the observation is already the
    first of the next episode. A time limit (`truncated`) is no such end: the last observation is
    shown, so that its value is bootstrapped, and one more step, of which nothing is learned, then
    leads to the next game. The limit of ale_py, 108,000 frames, counts as
    an end.
  observation: uint8 [N, H, W, C] (bool images as 0 and 255) or float32 [N, D] (vectors flattened,
    Discrete observations one-hot).
"""

StepOutputInfo = collections.namedtuple('StepOutputInfo', 'episode_return episode_step game_over')
StepOutputInfo.__doc__ = """The score of each of N games.

Attributes:
  episode_return: float32 [N], raw score of the whole game so far, over all its lives.
  episode_step: int32 [N], agent steps of the whole game so far.
  game_over: bool [N], the game has ended; return and step are its totals and restart at 0 after
    this entry. `done` without `game_over` is a lost life (return and step go on), the entry before
    the first action, or the first of a game after one that crashed or reached its time limit
    (return and step are 0).
"""


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
