"""What all batches of environments share: the totals of running games, seeds.

A batch of N environments is an object with

  num_envs: N.
  crashes: environments rebuilt so far.
  reset(): StepOutput of all games from the start.
  step(actions): StepOutput after int32 [N] actions.
  close(): ends the environments; may be called twice.
"""

from __future__ import annotations

import numpy as np

from structs import StepOutput, StepOutputInfo


class GameTotals:
  """Return and length of N running games."""

  def __init__(self, num_envs: int):
    self._returns = np.zeros(num_envs, np.float32)
    self._steps = np.zeros(num_envs, np.int32)

  def restart(self, which: np.ndarray) -> None:
    """Counts from 0 again where `which`, bool [N], is True."""
    self._returns[which] = 0
    self._steps[which] = 0

  def first(self, observation: np.ndarray) -> StepOutput:
    """Returns the StepOutput before the first action; all games restart."""
    everywhere = np.ones(len(self._steps), bool)
    self.restart(everywhere)
    return StepOutput(
      np.zeros_like(self._returns), self._info(~everywhere), everywhere, observation
    )

  def next(
    self,
    reward: np.ndarray,
    done: np.ndarray,
    game_over: np.ndarray,
    anew: np.ndarray,
    observation: np.ndarray,
  ) -> StepOutput:
    """Returns the StepOutput after an action.

    Args:
      reward: float32 [N].
      done: bool [N], see `StepOutput`.
      game_over: bool [N], games whose totals restart after this step.
      anew: bool [N], games whose totals restart before it: this step has begun a new game.
      observation: [N, ...].
    """
    self._returns += reward
    self._steps += 1
    self.restart(anew)
    info = self._info(game_over)
    self.restart(game_over)
    return StepOutput(reward, info, done, observation)

  def _info(self, game_over: np.ndarray) -> StepOutputInfo:
    return StepOutputInfo(self._returns.copy(), self._steps.copy(), game_over)


def environment_seed(*entropy: int) -> int:
  """Returns an int below 2**31 that depends on every one of the given ints >= 0."""
  return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
