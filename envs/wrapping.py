"""Runs a user's imports, and puts a user's wrappers around an environment."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from common import keywords, own_code, texts
from envs import faults

_PARTS = ('reset', 'step', 'observation_space', 'action_space')


def run_imports(text: str) -> None:
  """Imports the modules that `keywords.imports_of` finds in `text`, and calls their functions.

  Raises:
    ValueError: one cannot be imported, or raises; the message begins with the flag.
  """
  for module, function in keywords.imports_of(text):
    flag = f'--import={module}' + (f':{function}' if function else '')
    if not function:
      _imported(flag, module)
      continue
    register = _found(flag, module, function)
    if not callable(register):
      raise ValueError(f'{flag}: {function} is {_kind(register)}, not a function')
    try:
      register()
    except (Exception, SystemExit) as error:
      raise ValueError(f'{flag} raised {reason(error)}') from error


def wrapped(env: Any, text: str) -> Any:
  """Returns an environment in the wrappers that `keywords.wrappers_of` finds in `text`.

  Raises:
    ValueError: a wrapper cannot be imported, does not return an environment, or raises; the message
      begins with the flag.
  """
  for path, kwargs in keywords.wrappers_of(text):
    flag = f'--env_wrappers={path}'
    module, _, name = path.rpartition('.')
    wrapper = _found(flag, module, name)
    if not callable(wrapper):
      raise ValueError(f'{flag}: it is {_kind(wrapper)}, not a class or function of an environment')
    try:
      env = called(functools.partial(wrapper, env), kwargs)
    except (Exception, SystemExit) as error:
      if isinstance(error, TypeError) and (wrong := unknown_keywords(wrapper, kwargs, skip=1)):
        raise ValueError(f'{flag}: {wrong}') from error
      given = f' with {keywords.as_keywords(kwargs)}' if kwargs else ''
      raise ValueError(f'{flag}{given} raised {reason(error)}') from error
    missing = [name for name in _PARTS if not hasattr(env, name)]
    if missing:
      raise ValueError(
        f'{flag}: what it made is {_kind(env)} and no environment, it has no {missing[0]}'
      )
  return env


def called(function: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
  """Returns `function(**kwargs)`.

  If the call raises TypeError or AttributeError, tuples of numbers in `kwargs` are passed as numpy
  arrays in a second call.

  Raises:
    Exception: what the first call raised; if the second call fails, too, its error is dropped.
  """
  try:
    return function(**kwargs)
  except (TypeError, AttributeError):
    arrays = {name: _array(value) for name, value in kwargs.items()}
    if any(isinstance(value, np.ndarray) for value in arrays.values()):
      with contextlib.suppress(Exception):  # The first error is told.
        return function(**arrays)
    raise


def _array(value):
  """Returns a tuple of numbers, or of lists of numbers, as an array, and all else as it is."""
  try:
    array = np.array(value if isinstance(value, tuple) else None)
  except ValueError:  # Lists of unequal lengths.
    return value
  return array if array.dtype.kind in 'biuf' and array.size else value


def reason(error: BaseException) -> str:
  """Returns an exception's type, place in the user's code and text, on one line.

  One without text, such as that of an assertion, has the line of code that raised it.
  """
  text, where = ' '.join(str(error).split()), faults.place(error)
  frames = traceback.extract_tb(error.__traceback__)
  if not text and frames:
    where = where or f' ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})'
    text = frames[-1].line or ''
  return f'{type(error).__name__}{where}' + (f': {faults.installable(text)}' if text else '')


def not_found(error: BaseException, module: str) -> str:
  """Returns advice if `error` says that `module` or its parent was not found, or ''."""
  if not isinstance(error, ModuleNotFoundError) or not error.name:
    return ''
  return own_code.where_to_put(error.name, module)


def unknown_keywords(function: Any, kwargs: dict[str, Any], skip: int = 0) -> str:
  """Returns a sentence about the first of `kwargs` that a function does not take, or ''.

  Args:
    function: a class or function.
    kwargs: keywords that it was given.
    skip: number of its first parameters that are given by position.
  """
  try:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
  except (TypeError, ValueError):
    return ''
  takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
  any_name = any(p.kind == p.VAR_KEYWORD for p in parameters)
  wrong = [name for name in kwargs if name not in takes]
  if any_name or not wrong:
    return ''
  return f'{wrong[0]!r} is no keyword of it; ' + (
    f'its keywords are {", ".join(takes)}' if takes else 'it has none'
  )


def accepted(function: Any, names: Iterable[str]) -> set[str]:
  """Returns those of `names` that a function accepts as keywords; all if it has no signature."""
  try:
    parameters = inspect.signature(function).parameters.values()
  except (TypeError, ValueError):  # Compiled functions may have no signature.
    return set(names)
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return set(names)
  takes = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
  return takes.intersection(names)


def takes_argument(function: Any) -> bool:
  """Returns whether `function` is a function that can be called with one argument."""
  try:
    inspect.signature(function).bind(None)
  except TypeError:  # It is none, or takes none.
    return False
  except ValueError:  # Compiled functions may have no signature.
    pass
  return True


def _imported(flag, module):
  try:
    return importlib.import_module(module)
  except (Exception, SystemExit) as error:
    raise ValueError(f'{flag}: {reason(error)}{not_found(error, module)}') from error


def _found(flag, module, name):
  """Returns what a module holds under a name."""
  there = _imported(flag, module)
  try:
    return getattr(there, name)
  except AttributeError:
    pass
  except Exception as error:  # Gymnasium imports some of its wrappers only here.
    raise ValueError(f'{flag}: {reason(error)}') from error
  hint = texts.did_you_mean(name, [known for known in dir(there) if known[0] != '_'])
  raise ValueError(f'{flag}: {module} has no {name}' + (f'; {hint}' if hint else ''))


def _kind(value):
  return f'of type {type(value).__name__}'
