"""In a worker process, a user's packages are found before this project's of the same names."""

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def step_aside(root: str = _ROOT) -> None:
  """Lets the modules of this project be found last, so that `envs`, `learner` and so on are free.

  For a process that has loaded all of this project that it needs: what has been imported goes on
  working, but is imported anew where an environment asks for it.
  """
  for name in list(sys.modules):
    if name != '__main__' and _lies_in(sys.modules.get(name.partition('.')[0]), root):
      del sys.modules[name]
  sys.path[:] = [p for p in sys.path if os.path.realpath(p) != os.path.realpath(root)] + [root]


def _lies_in(module, root):
  """Whether a top-level module or package lies in a folder itself, not in one of its folders."""
  paths = list(getattr(module, '__path__', None) or [])
  if not paths and getattr(module, '__file__', None):
    paths = [module.__file__]
  return any(os.path.dirname(os.path.realpath(p)) == os.path.realpath(root) for p in paths)
