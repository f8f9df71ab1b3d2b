"""One Gymnasium or OpenAI Gym environment, with its spaces converted to those that agents accept.

Worker processes import this module, so it does not import TensorFlow, ale_py or OpenCV. It also
registers the environments of this project.
"""

from __future__ import annotations

import contextlib
import random
from typing import Any

import gymnasium
import numpy as np

from envs import (
  actions,
  captured_state,
  catch,
  checks,
  level_ids,
  memory,
  nests,
  own_packages,
  pictures,
  without_display,
)
from envs.games import Games
from structs import ActionPart, Level

# Registered as classes, not as import paths, because a user's package may also be named `envs`.
gymnasium.register('impala/Catch-v0', entry_point=catch.Catch)  # pyright: ignore[reportArgumentType]
gymnasium.register('impala/Memory-v0', entry_point=memory.Memory)  # pyright: ignore[reportArgumentType]


class GymEnvironment:
  """One environment, run in a worker process.

  Args:
    level: `structs.Level`; messages name it.
    seed: int, seeds the first reset and the global generators of Python and numpy.
    num_action_repeats: number of times each action is repeated; the rewards are summed.
    render_mode: Gymnasium's render mode, or None.
    max_episode_steps: agent steps after which a game is truncated; 0 means never.
    masked: whether each observation ends with an action mask.
    made_as: what is made for `level`, if that differs.

  Raises:
    ValueError: the id is unknown, the environment cannot be made, or a space is not supported; see
      `level_ids.make`.
  """

  def __init__(
    self,
    level: Level,
    seed: int,
    num_action_repeats: int,
    render_mode: str | None = None,
    max_episode_steps: int = 0,
    masked: bool = False,
    made_as: Level | None = None,
  ):
    own_packages.step_aside()
    without_display.prepare(bool(render_mode) or 'render_mode' in level.env_kwargs)
    self._level = level
    _seed_global_generators(seed)  # Some environments draw their own seed from them.
    self._env = level_ids.make(level, made_as)
    if render_mode:
      self._env.close()
      modes = [mode for mode in self._metadata().get('render_modes') or [] if mode]
      if render_mode not in modes:
        raise ValueError(
          f'level_name {level.name!r} cannot render {render_mode}; it renders '
          f'{", ".join(modes) or "nothing"}'
        )
      self._env = level_ids.make(level, made_as, render_mode=render_mode)
    try:
      keys = [key for key in level.observation_keys.split(',') if key]
      self._nest = nests.Nest(self._env.observation_space, keys, level.channels)
      self._actions = actions.view_of(self._env.action_space)
    except ValueError as error:
      raise ValueError(f'level_name {level.name!r} {error}') from None
    self._seed = seed
    self._games = Games(
      self._env,
      self._nest,
      self._actions,
      seed,
      num_action_repeats,
      max_episode_steps,
      masked,
    )
    _seed_global_generators(seed)  # Some environments use them instead of their own.

  def spaces(self) -> tuple[list[tuple], list[tuple]]:
    """Returns the fields of each `ArraySpec` (without an action mask) and each `ActionPart`."""
    # Plain tuples: the parent may not find the classes of a worker that stepped aside.
    return [tuple(array) for array in self._nest.arrays], [tuple(p) for p in self._actions.parts]

  def check(self) -> tuple[list[str], list[str], bool]:
    """Checks one reset and one step.

    Returns:
      (problems, notes, whether there are action masks), see `checks.check`.
    """
    return checks.check(self._env, self._nest, self._actions, self._level.action_masks, self._seed)

  @property
  def masked(self) -> bool:
    """Whether each observation ends with an action mask."""
    return self._games.masked

  @property
  def action_parts(self) -> tuple[ActionPart, ...]:
    """The parts of an action."""
    return self._actions.parts

  def state(self) -> Any:
    """Returns what later steps depend on, with the global generators of Python and numpy.

    Raises:
      captured_state.CannotCapture: the environment is not made of data alone.
    """
    return captured_state.capture(self._parts())

  def set_state(self, state: Any) -> None:
    """Sets a state of another environment of the same level; a game must have been started.

    Raises:
      captured_state.CannotCapture: the state does not fit; the environment may be changed in part.
    """
    parts = captured_state.restore(self._parts(), state)
    self._env = parts['env']
    self._games.set_state(parts)
    try:
      random.setstate(parts['random'])
      np.random.set_state(parts['numpy'])
    except (TypeError, ValueError, KeyError) as error:
      raise captured_state.CannotCapture(f'no state of a generator: {error}') from error

  def _parts(self):
    return dict(
      **self._games.state(),
      random=random.getstate(),
      numpy=np.random.get_state(legacy=False),
    )

  def render_fps(self) -> float:
    """Returns the frames per second at which the environment should be shown."""
    return pictures.frames_per_sec(self._metadata())

  def reset(self) -> Any:
    """Starts a new game and returns its first observation, an array or a tuple of arrays."""
    return self._games.reset()

  def step(self, action: Any) -> tuple[float, bool, bool, Any]:
    """Plays a step, see `Games.step`."""
    return self._games.step(action)

  def step_and_render(self, action: Any) -> tuple[float, bool, bool, Any, np.ndarray]:
    """Returns the values of `step` and a picture, uint8 [H, W, 3], taken before the next game."""
    return self._games.step_and_render(action)

  def render(self) -> np.ndarray:
    """Returns a picture of the current state, uint8 [H, W, 3]."""
    return self._games.render()

  def close(self) -> None:
    """Closes the environment; ignores errors, because its process ends next."""
    with contextlib.suppress(Exception):
      self._env.close()

  def _metadata(self):
    return getattr(self._env, 'metadata', None) or {}


def _seed_global_generators(seed):
  random.seed(seed)
  np.random.seed(seed)
