"""Lets a user's packages shadow this project's packages of the same names in a worker process."""

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def step_aside(root: str = _ROOT) -> None:
  """Moves this project to the end of `sys.path` and removes its modules from `sys.modules`.

  An environment can then import its own package named `envs` or `learning`. Call this only after
  all imports from this project: existing references keep working, but a later import of the same
  name searches `sys.path` again.

  Args:
    root: the folder of this project.
  """
  for name in list(sys.modules):
    if name != '__main__' and _lies_in(sys.modules.get(name.partition('.')[0]), root):
      del sys.modules[name]
  sys.path[:] = [p for p in sys.path if os.path.realpath(p) != os.path.realpath(root)] + [root]


def _lies_in(module, root):
  """Returns whether a top-level module or package lies directly in the folder `root`."""
  paths = list(getattr(module, '__path__', None) or [])
  if not paths and getattr(module, '__file__', None):
    paths = [module.__file__]
  return any(os.path.dirname(os.path.realpath(p)) == os.path.realpath(root) for p in paths)
