"""What an environment does wrong, in one sentence: what came, where, what would be right."""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_HERE)
# A fault that has passed through TensorFlow is text; the sentence is one line of it.
_IN_TEXT = re.compile(r'\bEnvironmentFault: ([^\n]+)')


class EnvironmentFault(RuntimeError):
  """An environment cannot be played any further; the text is one line and needs no traceback."""


class EnvironmentRaised(EnvironmentFault):
  """It raised an exception; another one, of another seed, may not."""


class BrokenPromise(EnvironmentFault):
  """It gave what its spaces or the rules of Gymnasium exclude; starting it anew does not help."""


class Misfit(ValueError):
  """What is wrong with one thing that an environment gave, as the rest of a sentence."""


class UnfitLevel(ValueError):
  """No agent here can play a level; found out before anything starts.

  Attributes:
    level_name: the Gym id.
  """

  def __init__(self, level_name: str, sentence: str):
    super().__init__(sentence)
    self.level_name = level_name


def sentence_in(error: BaseException) -> str:
  """The sentence of the `EnvironmentFault` that an exception is or reports; '' if there is none."""
  if isinstance(error, EnvironmentFault):
    return str(error)
  found = _IN_TEXT.search(getattr(error, 'message', None) or str(error))
  return found[1] if found else ''


def raised(error: BaseException, env: Any, method: str) -> str:
  """Says that an environment raised an exception: in which method, file and line.

  Args:
    error: the exception, with its traceback.
    env: the environment, or None where there is none yet.
    method: name of the method that was called.
  """
  text = ' '.join(str(error).split())
  return (
    f'your environment raised {type(error).__name__} in {method}{place(error, env, method)}'
    + (f': {installable(text)}' if text else '')
  )


def installable(text: str) -> str:
  """A message about a missing package with the `pip` of the Python that runs."""
  pip = os.path.join(sys.prefix, 'bin', 'pip')
  if os.path.dirname(sys.prefix) == _ROOT:
    pip = os.path.relpath(pip, _ROOT)
  # Gymnasium's extra for it has another name in each version.
  text = re.sub(r'(?<=\bpygame is not installed, run `)[^`]*', f'{pip} install pygame', text)
  return re.sub(r'(?<![\w/])pip install', f'{pip} install', text)


def place(error: BaseException, env: Any = None, method: str = '') -> str:
  """' (file.py:12)': the innermost line of the environment's own code; '' where none is known."""
  home = _home(env)
  for frame in reversed(traceback.extract_tb(error.__traceback__)):
    if _is_own(frame.filename, home):
      return f' ({os.path.basename(frame.filename)}:{frame.lineno})'
  code = getattr(getattr(_class_of(env), method, None), '__code__', None)
  return f' ({os.path.basename(code.co_filename)}:{code.co_firstlineno})' if code else ''


def _class_of(env):
  return type(getattr(env, 'unwrapped', None))


def _home(env):
  """The file or folder of the package that an environment's class comes from; '' if unknown."""
  package = sys.modules.get(_class_of(env).__module__.partition('.')[0])
  path = getattr(package, '__file__', None) or ''
  return os.path.dirname(path) if os.path.basename(path) == '__init__.py' else path


def _is_own(path, home):
  """Whether a file is the environment's, not Python's, a library's or this project's."""
  if home and (path == home or path.startswith(home + os.sep)):
    return True
  libraries = os.path.dirname(os.__file__), sys.prefix, sys.base_prefix
  others = (_HERE, *[os.path.join(folder, '') for folder in libraries])
  return not path.startswith(('<', *others)) and os.path.basename(path) != 'worker_process.py'
