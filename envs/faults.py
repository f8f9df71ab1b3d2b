"""Errors of environments, each described in one sentence for the user."""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_HERE)
_WORKERS = os.path.join(_ROOT, 'acting')
# TensorFlow turns an exception into text; our sentence is one line of that text.
_IN_TEXT = re.compile(r'\bEnvironmentFault: ([^\n]+)')


class EnvironmentFault(RuntimeError):
  """An environment cannot continue; the message is one line and needs no traceback."""


class EnvironmentRaised(EnvironmentFault):
  """The environment raised an exception; with another seed it may not."""


class BrokenPromise(EnvironmentFault):
  """The environment broke its spaces or Gymnasium's API; a restart does not help."""


class Misfit(ValueError):
  """One value from an environment is wrong; the message completes a sentence that begins "its"."""


class OutOfBounds(Misfit):
  """A number of an observation is outside of the bounds of its space."""


class UnfitLevel(ValueError):
  """No agent of this project can play a level; raised before anything starts.

  Attributes:
    level_name: the Gym id.
  """

  def __init__(self, level_name: str, sentence: str):
    super().__init__(sentence)
    self.level_name = level_name


def sentence_in(error: BaseException) -> str:
  """Returns the message of the `EnvironmentFault` that `error` is or quotes, or ''."""
  if isinstance(error, EnvironmentFault):
    return str(error)
  found = _IN_TEXT.search(getattr(error, 'message', None) or str(error))
  return found[1] if found else ''


def flagged(level_name: str, error: BaseException) -> str:
  """Returns a message with the flag to blame before it: `--level_name`, if it names none."""
  text, subject = str(error), f'level_name {level_name!r} '
  if text.startswith(subject):
    return f'--level_name={level_name} {text.removeprefix(subject)}'
  return text if text.startswith('--') else f'--level_name={level_name}: {text}'


def raised(error: BaseException, env: Any, method: str) -> str:
  """Returns a sentence with the method, file and line in which an environment raised `error`.

  Args:
    error: the exception, with its traceback.
    env: the environment, or None if it could not be made.
    method: name of the method that was called.
  """
  text, wrapper = ' '.join(str(error).split()), _failed_wrapper(error, env)
  who, where = 'your environment', place(error, env, method)
  if wrapper:
    who, where = f'the wrapper {type(wrapper).__name__} around your environment', place(error)
  return f'{who} raised {type(error).__name__} in {method}{where}' + (
    f': {installable(text)}' if text else ''
  )


def _failed_wrapper(error, env):
  """Returns the wrapper whose own code raised `error`; None if the environment's did."""
  inside = [env]
  while inside[-1] is not getattr(env, 'unwrapped', None) and hasattr(inside[-1], 'env'):
    inside.append(inside[-1].env)
  wrappers = {id(one): one for one in inside[:-1]}
  for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
    caller = id(frame.f_locals.get('self'))
    if caller == id(inside[-1]):
      return None
    if caller in wrappers:
      return wrappers[caller]
  return None


def installable(text: str) -> str:
  """Returns `text` with each `pip install` replaced by the path of the running Python's pip."""
  pip = os.path.join(sys.prefix, 'bin', 'pip')
  if os.path.dirname(sys.prefix) == _ROOT:
    pip = os.path.relpath(pip, _ROOT)
  # The name of Gymnasium's extra for pygame differs between versions.
  text = re.sub(r'(?<=\bpygame is not installed, run `)[^`]*', f'{pip} install pygame', text)
  return re.sub(r'(?<![\w/])pip install', f'{pip} install', text)


def place(error: BaseException, env: Any = None, method: str = '') -> str:
  """Returns the innermost line of the environment's own code, such as ' (file.py:12)', or ''."""
  home = _home(env)
  for frame in reversed(traceback.extract_tb(error.__traceback__)):
    if _is_own(frame.filename, home):
      return f' ({os.path.basename(frame.filename)}:{frame.lineno})'
  code = getattr(getattr(_class_of(env), method, None), '__code__', None)
  return f' ({os.path.basename(code.co_filename)}:{code.co_firstlineno})' if code else ''


def _class_of(env):
  return type(getattr(env, 'unwrapped', None))


def _home(env):
  """Returns the file or folder of the package that defines the environment's class, or ''."""
  package = sys.modules.get(_class_of(env).__module__.partition('.')[0])
  path = getattr(package, '__file__', None) or ''
  return os.path.dirname(path) if os.path.basename(path) == '__init__.py' else path


def _is_own(path, home):
  """Returns whether a file belongs to the environment, not to Python, a library or this project."""
  if home and (path == home or path.startswith(home + os.sep)):
    return True
  libraries = os.path.dirname(os.__file__), sys.prefix, sys.base_prefix
  others = (_HERE, _WORKERS, *libraries)
  return not path.startswith(('<', *[os.path.join(folder, '') for folder in others]))
