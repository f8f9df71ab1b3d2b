"""The frontend: starts, watches and stops the cluster that a CSV describes, over SSH and tmux.

Nothing in here imports TensorFlow, knows a training flag, or builds a shell string from user input.
"""

import importlib
from types import ModuleType

# Modules that scripts may still import from here; they have moved into `connection/`.
_MOVED = ('hosts', 'ssh')


def __getattr__(name: str) -> ModuleType:
  """Imports a moved module by its earlier name."""
  if name not in _MOVED:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return importlib.import_module(f'frontend.connection.{name}')
