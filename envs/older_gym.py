"""Environments of OpenAI Gym, also those with its API before version 0.26."""

from __future__ import annotations

from typing import Any

from envs import wrapping


def adapted(env: Any) -> Any:
  """Returns an environment of OpenAI Gym whose innermost environment has Gymnasium's API.

  Args:
    env: what `gym.make` returned; its wrappers stay.
  """
  base = env.unwrapped
  if env is base:
    return NewerApi(base)
  wrapper = env
  while wrapper.env is not base:
    wrapper = wrapper.env
  wrapper.env = NewerApi(base)
  return env


class NewerApi:
  """Wraps an environment of any version of OpenAI Gym in the API of Gymnasium.

  Before version 0.26, `reset` returned the observation alone, `step` returned four values, and a
  method `seed` took the place of the argument. Results of the newer API pass unchanged.

  Args:
    env: the innermost environment.

  Attributes:
    env: the same.
    metadata: its metadata, with the key `render_modes`.
  """

  def __init__(self, env: Any):
    self.env = env
    self._reset_takes = wrapping.accepted(env.reset, ('seed', 'options'))
    self._can_seed = wrapping.takes_argument(getattr(env, 'seed', None))
    self._render_takes = wrapping.accepted(getattr(env, 'render', None), ('mode',))
    metadata = getattr(env, 'metadata', None) or {}
    modes = metadata.get('render_modes') or metadata.get('render.modes')
    if not modes and 'seed' not in self._reset_takes:
      modes = ['rgb_array']  # Its `render` takes the mode, or returns a picture.
    self.metadata = {**metadata, 'render_modes': list(modes or ())}

  def __getattr__(self, name: str) -> Any:
    if name == 'env':  # Not set yet, in a copy.
      raise AttributeError(name)
    return getattr(self.env, name)

  @property
  def unwrapped(self) -> Any:
    """This object, since the environment inside has no API that others know."""
    return self

  def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
    """Returns (observation, info); seeds with the method `seed` if `reset` takes no seed."""
    given = {'seed': seed, 'options': options}
    if seed is not None and 'seed' not in self._reset_takes and self._can_seed:
      self.env.seed(seed)
    result = self.env.reset(**{k: v for k, v in given.items() if k in self._reset_takes})
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
      return result
    return result, {}

  def step(self, action: Any) -> Any:
    """Returns (observation, reward, terminated, truncated, info)."""
    result = self.env.step(action)
    if not isinstance(result, tuple) or len(result) != 4:
      return result
    observation, reward, done, info = result
    truncated = bool(done) and isinstance(info, dict) and bool(info.get('TimeLimit.truncated'))
    return observation, reward, False if truncated else done, truncated, info

  def render(self) -> Any:
    """Returns a picture."""
    if 'mode' in self._render_takes:
      return self.env.render(mode='rgb_array')
    return self.env.render()
