"""Spaces of one array and one choice, as most environments have them."""

from typing import NamedTuple

from structs import ActionPart, ArraySpec


class SimpleSpaces(NamedTuple):
  """`structs.Spaces` of an environment."""

  observation: tuple[ArraySpec, ...]
  action: tuple[ActionPart, ...]

  @property
  def shape(self):
    return self.observation[0].shape

  @property
  def dtype(self):
    return self.observation[0].dtype

  @property
  def num_actions(self):
    return self.action[0].size


def simple_spaces(shape, dtype, num_actions):
  """`SimpleSpaces` of observations that are one array, and of Discrete actions."""
  return SimpleSpaces((ArraySpec('', shape, dtype),), (ActionPart('discrete', num_actions),))


def fields(shape, dtype, num_actions):
  """The same as fields of `roles.settings.Settings`."""
  return simple_spaces(shape, dtype, num_actions)._asdict()
