"""The kinds of spaces of Gymnasium and OpenAI Gym, whose classes have the same names."""

from typing import Any

TEXTS = ('Text', 'MissionSpace')  # Gymnasium's, and that of MiniGrid.
_KINDS = {'Discrete', 'MultiDiscrete', 'MultiBinary', 'Box', 'Dict', 'Tuple', *TEXTS}


def kind_of(space: Any) -> str:
  """Returns the name of the class that a space, or an object of a subclass, is of; '' if none."""
  return next((cls.__name__ for cls in type(space).__mro__ if cls.__name__ in _KINDS), '')
