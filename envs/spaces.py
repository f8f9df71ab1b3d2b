"""The kinds of spaces of Gymnasium and OpenAI Gym, whose classes have the same names."""

from typing import Any

NO_BOUND = 1e6  # A larger bound says nothing about the scale of the numbers.
TEXTS = ('Text', 'MissionSpace')  # Gymnasium's, and that of MiniGrid.
_KINDS = {'Discrete', 'MultiDiscrete', 'MultiBinary', 'Box', 'Dict', 'Tuple', *TEXTS}


def kind_of(space: Any) -> str:
  """Returns which supported class `space` is an instance of: 'Box', 'Dict', ...; '' if none."""
  return next((cls.__name__ for cls in type(space).__mro__ if cls.__name__ in _KINDS), '')
