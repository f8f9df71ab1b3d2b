"""Unpacks and checks what `reset` and `step` of an environment return."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from envs.faults import Misfit
from envs.observations import described

_MOST_FLOAT32 = float(np.finfo(np.float32).max)
_STEP_GIVES = 'observation, reward, terminated, truncated, info'


def of_reset(result: Any) -> tuple[Any, dict[str, Any]]:
  """Returns the result of `reset`, (observation, info).

  Raises:
    Misfit: `result` is not (observation, info).
  """
  if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
    raise Misfit(f'reset() returned {described(result)} where Gymnasium wants (observation, info)')
  return result


def of_step(result: Any) -> Any:
  """Returns the result of `step`, (observation, reward, terminated, truncated, info).

  Raises:
    Misfit: `result` is not a tuple or list of five values.
  """
  if not isinstance(result, (tuple, list)) or len(result) != 5:
    old = ' of the old API' if isinstance(result, tuple) and len(result) == 4 else ''
    raise Misfit(f'step() returned {described(result)}{old} where Gymnasium wants ({_STEP_GIVES})')
  return result


def number(reward: Any) -> float:
  """Returns a reward as a float.

  Args:
    reward: a real number, or an array with one element.

  Raises:
    Misfit: the reward is not a number, or not finite in float32.
  """
  value = _real(reward)
  if value is None:
    several = isinstance(reward, (dict, list, tuple)) or np.size(reward) > 1
    advice = '; with several agents or rewards, a wrapper has to make one number of them'
    raise Misfit(f'reward is {described(reward)}, which is no number' + advice * several)
  if not -_MOST_FLOAT32 <= value <= _MOST_FLOAT32:  # Also True for nan.
    raise Misfit(f'reward is {value:g}')
  return value


def _real(reward):
  if isinstance(reward, (float, int, np.floating)):
    try:
      return float(reward)
    except OverflowError:
      return math.inf
  array = _array(reward)
  if array.size != 1:
    return None
  item: Any = array.item()
  if array.dtype.kind in 'biuf':
    return float(item)
  is_real = isinstance(item, numbers.Number) and not isinstance(item, complex)
  number: Any = item  # For example, a Fraction.
  return float(number) if is_real and array.dtype.kind == 'O' else None


def truth(name: str, value: Any) -> bool:
  """Returns `terminated` or `truncated` as a bool.

  Args:
    name: 'terminated' or 'truncated', for the message.
    value: a bool, 0 or 1, or an array with one such element.

  Raises:
    Misfit: `value` is neither true nor false.
  """
  if isinstance(value, (bool, np.bool_)):
    return bool(value)
  array = _array(value)
  if array.size != 1 or array.dtype.kind not in 'biuf' or array.item() not in (0, 1):
    raise Misfit(f'`{name}` is {described(value)}, which is neither true nor false')
  return bool(array.item())


def _array(value):
  try:
    return np.asarray(value)
  except ValueError:  # Lists of unequal lengths.
    return np.asarray([])
