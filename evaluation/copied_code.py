"""Copies modules of this code into an export, which plays without the rest of it."""

import ast
import os
import shutil
from collections.abc import Iterator

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def copy(module: str, folder: str) -> None:
  """Copies a module of this code, and all that it imports of this code.

  Args:
    module: its dotted name.
    folder: where `module` can be imported from afterwards.
  """
  for path in _files(module):
    target = os.path.join(folder, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(os.path.join(_ROOT, path), target)


def _files(module: str) -> set[str]:
  """Returns the files of a module, of its packages and of all that they import, below the root."""
  found, names = set(), [module]
  while names:
    name = names.pop()
    path = _file(name)
    if path and path not in found:
      found.add(path)
      names += _imported(path)
      names.append(name.rpartition('.')[0])  # The package that it is in.
  return found


def _file(name: str) -> str:
  """Returns the file of a module of this code; '' if it is none."""
  stem = name.replace('.', os.sep)
  for path in (f'{stem}.py', os.path.join(stem, '__init__.py')):
    if name and os.path.isfile(os.path.join(_ROOT, path)):
      return path
  return ''


def _imported(path: str) -> Iterator[str]:
  """Yields the names of what a file imports: modules, and what may be modules."""
  with open(os.path.join(_ROOT, path), encoding='utf-8') as file:
    tree = ast.parse(file.read())
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)
