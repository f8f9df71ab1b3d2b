"""Environments of OpenAI Gym, also those with its API before version 0.26."""

from __future__ import annotations

import dis
import inspect
from typing import Any

from envs import wrapping
from envs.layers import Adapter, layers_of

# Methods of OpenAI Gym 0.26 that want (observation, info) of `reset` and five values of `step`.
_NEWER = ('gym.wrappers.', 'gym.core.ObservationWrapper.', 'gym.core.RewardWrapper.')


def adapted(env: Any) -> Any:
  """Returns an environment of OpenAI Gym with Gymnasium's API.

  Its wrappers stay. An adapter is put between two layers that use different APIs.

  Args:
    env: what `gym.make` returned, or what this function returned, in further wrappers.
  """
  *wrappers, made = layers_of(env)
  is_newer = False  # Without an adapter: older or newer, `NewerApi` accepts both.
  for wrapper in reversed(wrappers):
    if isinstance(wrapper, Adapter):
      made, is_newer = wrapper, isinstance(wrapper, NewerApi)
      continue
    wants = _wanted_api(wrapper)
    if wants is NewerApi and not is_newer:
      wrapper.env = NewerApi(made)
    elif wants is OlderApi and is_newer:
      wrapper.env = OlderApi(made)
    is_newer = wants is NewerApi or (is_newer and wants is not OlderApi)
    made, is_newer = wrapper, is_newer and 'seed' in wrapping.accepted(wrapper.reset, ['seed'])
  return made if is_newer else NewerApi(made)


class NewerApi(Adapter):
  """Wraps an environment of any version of OpenAI Gym in the API of Gymnasium.

  Before version 0.26, `reset` returned the observation alone, `step` returned four values, and a
  method `seed` took the place of the argument. Results of the newer API pass unchanged.

  Args:
    env: the environment, perhaps in wrappers.

  Attributes:
    env: the same.
    metadata: its metadata, with the key `render_modes`.
  """

  def __init__(self, env: Any):
    super().__init__(env)
    self._reset_takes = _taken(env, 'reset', {'seed', 'options'})
    self._can_seed = wrapping.takes_argument(getattr(env, 'seed', None))
    self._render_takes = _taken(env, 'render', {'mode'})
    metadata = getattr(env, 'metadata', None) or {}
    modes = metadata.get('render_modes') or metadata.get('render.modes')
    if not modes and 'seed' not in self._reset_takes:
      modes = ['rgb_array']  # Its `render` takes the mode, or returns a picture.
    self.metadata = {**metadata, 'render_modes': list(modes or ())}

  def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
    """Returns (observation, info); seeds with the method `seed` if `reset` takes no seed."""
    seed = self._seed_of_reset(seed)
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


class OlderApi(Adapter):
  """Wraps an environment with Gymnasium's API in that of OpenAI Gym before version 0.22.

  Args:
    env: the environment, perhaps in wrappers.
  """

  def reset(self, *, seed: int | None = None, **_: Any) -> Any:
    """Returns the first observation of a new game."""
    observation, _info = self.env.reset(seed=self._seed_of_reset(seed))
    return observation

  def step(self, action: Any) -> Any:
    """Returns (observation, reward, done, info); `info` says whether a time limit ended it."""
    observation, reward, terminated, truncated, info = self.env.step(action)
    if truncated and not terminated:
      info = {**info, 'TimeLimit.truncated': True}
    return observation, reward, bool(terminated or truncated), info

  def render(self, mode: str = 'rgb_array', **_: Any) -> Any:
    """Returns a picture, of the mode for which the environment was made."""
    return self.env.render()


def _wanted_api(wrapper):
  """Returns the adapter whose API the methods of a wrapper expect inside; None if either fits."""
  reset, step = (getattr(type(wrapper), name, None) for name in ('reset', 'step'))
  if any(_full_name(method).startswith(_NEWER) for method in (reset, step)):
    return NewerApi
  if 'seed' not in wrapping.accepted(reset, ['seed']):
    return OlderApi
  counts = _unpacked(step) & {4, 5}
  if len(counts) == 1:
    return OlderApi if counts == {4} else NewerApi
  names = _parameters(reset)
  if 'return_info' in names:  # Versions 0.22 to 0.25, whose `step` returned four values.
    return OlderApi
  return NewerApi if 'seed' in names or 2 in _unpacked(reset) else None


def _full_name(method):
  return f'{getattr(method, "__module__", "")}.{getattr(method, "__qualname__", "")}'


def _parameters(method):
  try:
    return set(inspect.signature(method).parameters)
  except (TypeError, ValueError):  # There is none, or it is compiled.
    return set()


def _unpacked(method):
  """Returns how many variables the tuple assignments of a method have: {4} for `a, b, c, d = x`."""
  code = getattr(inspect.unwrap(method), '__code__', None)
  instructions = dis.get_instructions(code) if code else ()
  return {one.arg for one in instructions if one.opname == 'UNPACK_SEQUENCE'}


def _taken(env, method, names):
  """Returns the keywords of `names` that a method accepts; `**kwargs` are followed inwards."""
  for layer in layers_of(env):
    function = getattr(layer, method, None)
    names = wrapping.accepted(function, names)
    if not wrapping.accepted(function, ['any name']):  # It has no **kwargs.
      break
  return names
