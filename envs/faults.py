"""Errors of environments, each described in one sentence for the user."""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
import types
from typing import Any

from envs import layers

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_HERE)
_WORKERS = os.path.join(_ROOT, 'acting')
# TensorFlow turns an exception into text; our sentence is one line of that text.
_IN_TEXT = re.compile(r'\bEnvironmentFault: ([^\n]+)')

# Wrappers that `make` of Gymnasium or OpenAI Gym adds; they fail only if the environment does.
_OF_MAKE = (
  'AutoResetWrapper', 'EnvCompatibility', 'HumanRendering', 'OrderEnforcing', 'PassiveEnvChecker',
  'RenderCollection', 'StepAPICompatibility', 'TimeLimit',
)  # fmt: skip


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

  A wrapper is named if the error comes from its own code.

  Args:
    error: the exception, with its traceback.
    env: the environment, or None if it could not be made.
    method: name of the method that was called.
  """
  text, found = ' '.join(str(error).split()), layers.layers_of(env)
  layer, calls = _origin(error, found, method)
  is_wrapper = layer is not found[-1]
  who = f'the wrapper {type(layer).__name__} around ' * is_wrapper + 'your environment'
  where = _own_line(calls, _home(type(layer))) or _definition(layer, method)
  return f'{who} raised {type(error).__name__} in {method}{where}' + (
    f': {installable(text)}' if text else ''
  )


def _origin(error, found, method):
  """Returns the layer that raised `error`, and the part of the traceback from its call on.

  Args:
    error: the exception.
    found: the layers of the environment.
    method: name of the method that was called.

  Returns:
    (layer, calls), see `_calls_of`. For the wrappers of `make`, and if no layer has the code, the
    layer is the environment inside.
  """
  codes, calls = [set(_codes(layer)) for layer in found], _calls_of(error)
  owned = [
    (i, at) for i, (frame, _) in enumerate(calls) if (at := _owner(frame, found, codes)) >= 0
  ]
  first, at = owned[-1] if owned else (0, -1)
  if isinstance(error, TypeError):
    for inner in range(at + 1, len(found)):
      if not _can_be_called(found, inner, method):
        return found[inner], []
  if at == -1:
    return found[-1], calls
  if _is_of_make(found[at]):
    return found[-1], calls[first + 1 :]
  return found[at], calls[first:]


def _owner(frame, found, codes):
  """Returns the index of the layer whose function a frame runs; -1 if there is none.

  Args:
    frame: the frame.
    found: the layers.
    codes: the code objects of each layer's functions.
  """
  owners = [at for at, own in enumerate(codes) if frame.f_code in own]
  if not owners:
    return -1
  # Layers of one class have the same code.
  subject = frame.f_locals.get(next(iter(frame.f_code.co_varnames), ''))
  return next((at for at in owners if found[at] is subject), owners[-1])


def _codes(layer):
  """Yields the code objects of a layer's functions, without those of Gymnasium's base classes."""
  own = [value for value in getattr(layer, '__dict__', {}).values() if inspect.isroutine(value)]
  for cls in type(layer).__mro__:
    if cls.__module__ not in ('gymnasium.core', 'gym.core'):
      own += vars(cls).values()
  for value in own:
    value = value.fget if isinstance(value, property) else value
    value = getattr(value, '__func__', value)  # Of a method, static or not.
    if isinstance(value, types.FunctionType):
      yield value.__code__


def _can_be_called(found, at, method):
  """Returns whether a method of layer `at` takes the arguments with which it is called."""
  args, kwargs = (None,) * (method == 'step'), {}
  if method == 'reset' and not any(isinstance(outer, layers.Adapter) for outer in found[:at]):
    kwargs = {'seed': None}  # Adapters pass a seed only where there is a keyword for it.
  try:
    inspect.signature(getattr(found[at], method)).bind(*args, **kwargs)
  except (AttributeError, TypeError):
    return False
  except ValueError:  # Compiled functions may have no signature.
    pass
  return True


def _is_of_make(layer):
  """Returns whether a layer is one that the user did not ask for."""
  module, name = type(layer).__module__, type(layer).__name__
  of_gym = f'{module}.'.startswith(('gymnasium.wrappers.', 'gym.wrappers.'))
  return isinstance(layer, layers.Adapter) or (of_gym and name in _OF_MAKE)


def installable(text: str) -> str:
  """Returns `text` with each `pip install` replaced by the path of the running Python's pip."""
  pip = os.path.join(sys.prefix, 'bin', 'pip')
  if os.path.dirname(sys.prefix) == _ROOT:
    pip = os.path.relpath(pip, _ROOT)
  # The name of Gymnasium's extra for pygame differs between versions.
  text = re.sub(r'(?<=\bpygame is not installed, run `)[^`]*', f'{pip} install pygame', text)
  return re.sub(r'(?<![\w/])pip install', f'{pip} install', text)


def place(error: BaseException) -> str:
  """Returns the innermost line of the user's own code, such as ' (file.py:12)', or ''."""
  return _own_line(_calls_of(error), '')


def _calls_of(error):
  """Returns a list of the (frame, number of the line) in a traceback, the outermost first."""
  return [*traceback.walk_tb(error.__traceback__)]


def _own_line(calls, home):
  """Returns the innermost line that belongs to the user or to a file or folder `home`, or ''."""
  for frame, line in reversed(calls):
    path = frame.f_code.co_filename
    if _is_own(path, home):
      return f' ({os.path.basename(path)}:{line})'
  return ''


def _definition(layer, method):
  """Returns the line in which the method of a layer begins, as `place` does, or ''."""
  code = getattr(getattr(type(layer), method, None), '__code__', None)
  return f' ({os.path.basename(code.co_filename)}:{code.co_firstlineno})' if code else ''


def _home(cls):
  """Returns the file or folder of the package that defines a class, or ''."""
  package = sys.modules.get(cls.__module__.partition('.')[0])
  path = getattr(package, '__file__', None) or ''
  return os.path.dirname(path) if os.path.basename(path) == '__init__.py' else path


def _is_own(path, home):
  """Returns whether a file belongs to the environment, not to Python, a library or this project."""
  if home and (path == home or path.startswith(home + os.sep)):
    return True
  libraries = os.path.dirname(os.__file__), sys.prefix, sys.base_prefix
  others = (_HERE, _WORKERS, *libraries)
  return not path.startswith(('<', *[os.path.join(folder, '') for folder in others]))
