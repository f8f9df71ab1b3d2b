"""The layers of an environment: its wrappers, and the environment inside of them."""

from __future__ import annotations

from typing import Any


class Adapter:
  """Gives an environment another API; `unwrapped` is the adapter itself.

  Args:
    env: the environment inside; attributes that the adapter does not define are its own.
  """

  _seed: int | None = None

  def __init__(self, env: Any):
    self.env = env

  def __getattr__(self, name: str) -> Any:
    if name == 'env':  # Not set yet, in a copy.
      raise AttributeError(name)
    return getattr(self.env, name)

  @property
  def unwrapped(self) -> Any:
    """This object, since callers do not know the API of the environment inside."""
    return self

  def seed(self, seed: int | None = None) -> list[int | None]:
    """Seeds the next reset, as in OpenAI Gym before version 0.26; returns the seed in a list."""
    self._seed = seed
    return [seed]

  def _seed_of_reset(self, seed: int | None) -> int | None:
    """Returns the seed of a reset that got `seed`."""
    seed, self._seed = self._seed if seed is None else seed, None
    return seed


def layers_of(env: Any) -> list[Any]:
  """Returns the wrappers and adapters of an environment, the outermost first, and itself last."""
  layers = [env]
  while isinstance(layers[-1], Adapter) or _is_wrapper(layers[-1]):
    layers.append(layers[-1].env)
  return layers


def _is_wrapper(layer):
  return getattr(layer, 'unwrapped', layer) is not layer and hasattr(layer, 'env')
