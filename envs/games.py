"""The games of one environment: repeated actions, time limits, and converted observations."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs import actions, checks, faults, nests, pictures, results
from envs.faults import BrokenPromise, EnvironmentRaised, Misfit
from structs import arrays_of


class Games:
  """Plays games of one environment.

  Args:
    env: the environment, of Gymnasium's API.
    nest: converts its observations.
    action_view: converts actions.
    seed: of the first reset.
    num_action_repeats: number of times each action is repeated; the rewards are summed.
    max_episode_steps: agent steps after which a game is truncated; 0 means never.
    masked: whether each observation ends with an action mask.

  Attributes:
    masked: as above.

  All methods raise `EnvironmentRaised` if a method of the environment raises, and `BrokenPromise`
  if what it returns does not fit its spaces.
  """

  # What later steps depend on, beside the environment.
  _STATE = ('seed', 'truncated', 'steps', 'steps_before')

  def __init__(
    self,
    env: Any,
    nest: nests.Nest,
    action_view: actions.Actions,
    seed: int,
    num_action_repeats: int,
    max_episode_steps: int,
    masked: bool,
  ):
    self._env, self._nest, self._actions = env, nest, action_view
    self._pictures = pictures.Pictures()
    self._num_action_repeats, self._max_episode_steps = num_action_repeats, max_episode_steps
    self.masked = masked
    self._seed: int | None = seed
    self._truncated, self._steps, self._steps_before = False, 0, 0

  def state(self) -> dict[str, Any]:
    """Returns what later steps depend on, by name."""
    return {'env': self._env, **{name: getattr(self, f'_{name}') for name in self._STATE}}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on from what `state` has returned for another environment of the same level."""
    self._env = state['env']
    for name in self._STATE:
      setattr(self, f'_{name}', state[name])

  def reset(self) -> Any:
    """Starts a new game and returns its first observation, an array or a tuple of arrays."""
    seed, self._seed = self._seed, None
    self._truncated, self._steps, self._steps_before = False, 0, self._steps_before + self._steps
    return self._converted(self._first, self._call('reset', seed=seed))

  def step(self, action: Any) -> tuple[float, bool, bool, Any]:
    """Repeats `action` and returns (reward, done, game_over, observation), as in `StepOutput`.

    When a game terminates, the observation is the first of the next game. When a time limit
    truncates a game, the observation is the game's last and `done` is False; the next step ignores
    its action and starts the next game.
    """
    reward, done, game_over, observation = self._play(action)
    return reward, done, game_over, self._next(done, game_over, observation)

  def step_and_render(self, action: Any) -> tuple[float, bool, bool, Any, np.ndarray]:
    """Returns the values of `step` and a picture, uint8 [H, W, 3], taken before the next game."""
    reward, done, game_over, observation = self._play(action)
    picture = self.render()
    return reward, done, game_over, self._next(done, game_over, observation), picture

  def render(self) -> np.ndarray:
    """Returns a picture of the current state, uint8 [H, W, 3]."""
    return self._converted(self._pictures, self._call('render'))

  def _play(self, action):
    """Like `step`, but returns the last observation of a terminated game."""
    if self._truncated:
      return 0.0, True, False, self.reset()
    self._steps += 1
    chosen, total = self._actions.convert(action), 0.0
    for _ in range(self._num_action_repeats):
      result = self._converted(_step, self._call('step', chosen))
      observation, reward, terminated, truncated, info = result
      total += reward
      if terminated or truncated:
        break
    truncated = not terminated and (truncated or self._steps == self._max_episode_steps)
    self._truncated = truncated
    if not terminated:
      observation = self._converted(self._observation, observation, info, truncated)
    return total, terminated, terminated or truncated, observation

  def _next(self, done, game_over, observation):
    return self.reset() if done and game_over else observation

  def _call(self, method, *args, **kwargs):
    """Calls a method of the environment; raises `EnvironmentRaised` if the method fails."""
    try:
      return getattr(self._env, method)(*args, **kwargs)
    except (Exception, SystemExit) as error:
      raise EnvironmentRaised(faults.raised(error, self._env, method)) from error

  def _first(self, result):
    return self._observation(*results.of_reset(result))

  def _observation(self, observation, info, truncated=False):
    converted = self._nest.convert(observation)
    if not self.masked:
      return converted
    try:
      mask = checks.mask(self._nest, self._actions, observation, info)
    except Misfit:
      if not truncated:
        raise
      # The action that follows is ignored, and some environments give no mask here.
      mask = np.ones(actions.num_choices(self._actions.parts), bool)
    return *arrays_of(converted), mask

  def _converted(self, convert, *values):
    """Returns `convert(*values)`; raises `BrokenPromise` instead of `Misfit`."""
    try:
      return convert(*values)
    except Misfit as misfit:
      raise BrokenPromise(
        f'its {misfit}, at step {self._steps} of a game (step {self._steps_before + self._steps} '
        'of this environment)'
      ) from None


def _step(result):
  observation, reward, terminated, truncated, info = results.of_step(result)
  return (
    observation,
    results.number(reward),
    results.truth('terminated', terminated),
    results.truth('truncated', truncated),
    info,
  )
