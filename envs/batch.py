"""Code shared by all batches of environments: totals of running games, and seeds.

A batch of N environments is an object with

  num_envs: N.
  crashes: number of environments rebuilt so far.
  reset(): restarts all games and returns their first StepOutput.
  step(actions): returns the StepOutput after `actions`, int32 [N].
  close(): closes the environments; may be called twice.
  why_not_set(): returns why `set_state` is not possible, or ''.
  state(): returns the state of all games, which JSON can hold.
  set_state(state): sets it in another batch of the same level and number, after a `reset`.

`state` and `set_state` are only called, and only needed, if `why_not_set` returns ''.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from structs import StepOutput, StepOutputInfo


class GameTotals:
  """Tracks the return and the length of N running games."""

  def __init__(self, num_envs: int):
    self._returns = np.zeros(num_envs, np.float32)
    self._steps = np.zeros(num_envs, np.int32)

  def restart(self, which: np.ndarray) -> None:
    """Resets the totals to 0 where `which`, bool [N], is True."""
    self._returns[which] = 0
    self._steps[which] = 0

  def first(self, observation: np.ndarray) -> StepOutput:
    """Restarts all totals and returns the StepOutput before the first action."""
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
      reward: float32 [N], see `StepOutput`.
      done: bool [N], see `StepOutput`.
      game_over: bool [N], True where this step ended a game; its totals restart after this step.
      anew: bool [N], True where this step began a new game; its totals restart before this step.
      observation: [N, ...], see `StepOutput`.
    """
    self._returns += reward
    self._steps += 1
    self.restart(anew)
    info = self._info(game_over)
    self.restart(game_over)
    return StepOutput(reward, info, done, observation)

  def state(self) -> dict[str, list]:
    """Returns the totals, which JSON can hold."""
    return dict(returns=self._returns.tolist(), steps=self._steps.tolist())

  def set_state(self, state: Mapping[str, list]) -> None:
    """Sets totals from `state`; raises ValueError if they are of another number of games."""
    self._returns[:], self._steps[:] = state['returns'], state['steps']

  def _info(self, game_over: np.ndarray) -> StepOutputInfo:
    return StepOutputInfo(self._returns.copy(), self._steps.copy(), game_over)


def environment_seed(*entropy: int) -> int:
  """Returns a seed in [0, 2**31) derived from all of the given ints, each >= 0."""
  return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
