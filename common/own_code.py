"""Imports what a user names as `module:Name`, and says in a sentence why it cannot be."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import pkgutil
import sys
import textwrap
import traceback
from collections.abc import Iterator

from common import texts

_MOST_LETTERS = 400  # Of an exception's message; TensorFlow's may fill pages.
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class BadOwnCode(ValueError):
  """A class of the user's cannot be used; the message is a sentence for the user."""


def load_agent(name: str) -> type:
  """Returns the class of an agent, see `load_class`.

  Raises:
    BadOwnCode: it cannot be imported.
  """
  try:
    return load_class(name)
  except ValueError as e:
    raise BadOwnCode(f'--agent_name={name} {e}') from e


class BrokenInterface(ValueError):
  """A class does not keep to its interface; the message completes a sentence that it begins."""


@contextlib.contextmanager
def explained(name: str, module_name: str) -> Iterator[None]:
  """Turns what an agent of the user's raises into `BadOwnCode`.

  Args:
    name: `module:Class` of the agent.
    module_name: the module that defines the class.
  """
  try:
    yield
  except BadOwnCode:
    raise
  except BrokenInterface as e:
    raise BadOwnCode(f'--agent_name={name} {e}') from e
  except Exception as e:
    raise BadOwnCode(f'--agent_name={name} raised {described(e, module_name)}') from e


def load_class(name: str) -> type:
  """Imports `module:Class` and returns the class.

  Raises:
    ValueError: it is not there, or no class; the message completes a sentence that begins with the
      flag and `name`.
  """
  module_name, _, class_name = name.partition(':')
  if not (module_name and class_name):
    raise ValueError('is not written module:Class')
  with importing(module_name):
    module = importlib.import_module(module_name)
  found = getattr(module, class_name, None)
  if isinstance(found, type):
    return found
  if found is not None:
    raise ValueError(f'names a {type(found).__name__}, and a class is needed')
  classes = [key for key, value in vars(module).items() if isinstance(value, type)]
  hint = texts.did_you_mean(class_name, classes, f'{module_name}:{{}}')
  path = getattr(module, '__file__', None) or module_name
  raise ValueError(
    f'cannot be found: {path} has no class {class_name}' + (f'; {hint}' * bool(hint))
  )


@contextlib.contextmanager
def importing(module_name: str) -> Iterator[None]:
  """Turns what an import of a user's module raises into a ValueError, as `load_class` does."""
  try:
    yield
  except (Exception, SystemExit) as e:
    missing = isinstance(e, ModuleNotFoundError) and e.name
    advice = where_to_put(e.name, module_name) if missing and e.name else ''
    raise ValueError(f'cannot be imported: {described(e, module_name)}{advice}') from e


def where_to_put(missing: str, module_name: str) -> str:
  """Returns advice if a module that is missing is the user's module or its parent, or ''."""
  if not (module_name + '.').startswith(missing + '.'):
    return ''
  hidden = hidden_by(module_name)
  parent, _, name = missing.rpartition('.')
  folders = getattr(sys.modules.get(parent), '__path__', None)
  if folders and not hidden:
    there = [module.name for module in pkgutil.iter_modules(folders)]
    hint = texts.did_you_mean(name, there, f'{parent}.{{}}')
    return f'; {hint}' * bool(hint)
  folder_of = missing.partition('.')[0]
  return f'; {hidden}put the folder that holds {folder_of} on PYTHONPATH'


def hidden_by(module_name: str) -> str:
  """Returns a note if a module of this project has the name of the user's module, or ''."""
  top = module_name.partition('.')[0]
  for path in (os.path.join(_ROOT, top), os.path.join(_ROOT, f'{top}.py')):
    if top and os.path.exists(path):
      return f'{top} is a part of this project, {path}, and none of yours was found on PYTHONPATH; '
  return ''


def described(error: BaseException, module_name: str) -> str:
  """Returns an exception of a user's module on one line: type, line in that module, message."""
  text = textwrap.shorten(str(error), _MOST_LETTERS, placeholder=' ...')
  return f'{type(error).__name__}{_place(error, module_name)}' + (f': {text}' if text else '')


def _place(error: BaseException, module_name: str) -> str:
  """Returns the innermost line of a module, or of one beside it, as ' (file.py:12)', or ''."""
  home = _file_of(module_name)
  folder = os.path.dirname(home)
  for frame in reversed(traceback.extract_tb(error.__traceback__)):
    beside = folder != _ROOT and frame.filename.startswith(os.path.join(folder, ''))
    if home and (frame.filename == home or beside):
      return f' ({os.path.basename(frame.filename)}:{frame.lineno})'
  return ''


def _file_of(module_name: str) -> str:
  """Returns the file of a module, imported or not; '' if it has none."""
  module = sys.modules.get(module_name)
  with contextlib.suppress(Exception):  # The module's package may fail too.
    spec = module.__spec__ if module else importlib.util.find_spec(module_name)
    return (spec.origin if spec else '') or ''
  return ''
