"""Converts the actions of agents to elements of an environment's action space, and action masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs.faults import Misfit
from envs.observations import described
from envs.spaces import NO_BOUND, kind_of
from structs import ActionPart, action_dtype, action_shape


class Actions(NamedTuple):
  """The conversion of agents' actions to an action space.

  Attributes:
    parts: tuple of `ActionPart`, in the order of the space.
    convert: function of an action, an array shaped `structs.action_shape` or an int, that returns
      an element of the space. Numbers with two bounds are scaled from [-1, 1] to them, others are
      not scaled. If a range lies on one side of 0, such as [0, inf), numbers are shifted so that 0
      becomes 1 inside the bound. All are clipped.
  """

  parts: tuple[ActionPart, ...]
  convert: Callable[[Any], Any]

  def first(self) -> Any:
    """Returns an element of the space: the first choices, the middle of the bounds."""
    return self.convert(first_action(self.parts))


def view_of(space: Any) -> Actions:
  """Returns the `Actions` of an action space.

  Raises:
    ValueError: no agent supports the space; the text is the end of a sentence about the level.
  """
  taken = _view(space)
  if taken is None or not taken.parts:
    raise ValueError(
      f'has the action space {space}; supported are Discrete, MultiDiscrete, MultiBinary, Box, and '
      'Dict and Tuple of these'
    )
  return taken


def _view(space):
  kind = kind_of(space)
  if kind == 'Discrete':
    return _discrete(space)
  if kind == 'MultiDiscrete':
    return _multi_discrete(space)
  if kind == 'MultiBinary':
    size = int(np.prod(space.shape))
    return Actions(
      (ActionPart('binary', size),),
      lambda action: np.asarray(action).astype(space.dtype).reshape(space.shape),
    )
  if kind == 'Box':
    return _box(space)
  if kind == 'Dict':
    keys, parts = list(space.spaces), [_view(part) for part in space.spaces.values()]
    return _joined(parts, lambda elements: dict(zip(keys, elements, strict=True)))
  if kind == 'Tuple':
    return _joined([_view(part) for part in space.spaces], tuple)
  return None


def _discrete(space):
  start, as_type = int(getattr(space, 'start', 0)), np.dtype(space.dtype).type

  def convert(action):
    index = action if type(action) is int else int(np.asarray(action).reshape(()))
    return as_type(start + index)

  return Actions((ActionPart('discrete', int(space.n)),), convert)


def _multi_discrete(space):
  sizes = np.asarray(space.nvec)
  start = np.asarray(getattr(space, 'start', np.zeros_like(sizes)))

  def convert(action):
    chosen = np.asarray(action).astype(space.dtype).reshape(sizes.shape)
    return (chosen + start).astype(space.dtype)

  return Actions(tuple(ActionPart('discrete', int(n)) for n in sizes.flat), convert)


def _box(space):
  low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
  bounded = (np.abs(low) < NO_BOUND) & (np.abs(high) < NO_BOUND)
  with np.errstate(invalid='ignore', over='ignore'):
    zero = np.where(low >= 0, low + 1, np.where(high <= 0, high - 1, 0.0))
    middle = np.where(bounded, (low + high) / 2, zero)
    half = np.where(bounded, (high - low) / 2, 1.0)

  def convert(action):
    scaled = np.clip(middle + half * np.asarray(action, np.float64).reshape(-1), low, high)
    if space.dtype.kind in 'biu':
      scaled = np.rint(scaled)
    return scaled.astype(space.dtype).reshape(space.shape)

  def bounds(values):
    return tuple(float(value) if abs(value) < NO_BOUND else None for value in values)

  part = ActionPart('continuous', int(low.size), bounds(low), bounds(high))
  return Actions((part,) if low.size else (), convert)


def _joined(views, join):
  if any(view is None for view in views):
    return None
  sizes = [int(np.prod(action_shape(view.parts), dtype=int)) for view in views]
  ends = np.cumsum(sizes)

  def convert(action):
    pieces = np.split(np.atleast_1d(np.asarray(action)), ends[:-1])
    return join([view.convert(piece) for view, piece in zip(views, pieces, strict=True)])

  return Actions(tuple(part for view in views for part in view.parts), convert)


def num_choices(parts: Sequence[ActionPart]) -> int:
  """Returns M, the elements of an action mask: the choices of all discrete parts."""
  return sum(part.size for part in parts if part.kind == 'discrete')


def mask_of(value: Any, parts: Sequence[ActionPart]) -> np.ndarray:
  """Returns an action mask as bool [M].

  Args:
    value: zeros and ones, 1 where an action is allowed: an array for a Discrete space; one array,
      or a tuple or list of one array per part, for several discrete parts.
    parts: the parts of an action.

  Raises:
    Misfit: the mask has another shape, or forbids every choice of a part.
  """
  try:
    pieces = value if isinstance(value, (tuple, list)) else [value]
    flat = np.concatenate([np.asarray(piece).reshape(-1) for piece in pieces])
  except ValueError:
    flat = np.asarray([])
  sizes = [part.size for part in parts if part.kind == 'discrete']
  if flat.shape != (sum(sizes),) or flat.dtype.kind not in 'biuf':
    raise Misfit(
      f'action mask is {described(value)} where {sum(sizes)} zeros and ones are wanted; '
      '--action_masks=false ignores masks'
    )
  mask = flat != 0
  if not all(piece.any() for piece in np.split(mask, np.cumsum(sizes)[:-1])):
    raise Misfit('action mask allows no action; --action_masks=false ignores masks')
  return mask


def first_action(parts: Sequence[ActionPart], allowed: np.ndarray | None = None) -> np.ndarray:
  """Returns an agent's action: the first allowed choice of each discrete part, else zeros.

  Args:
    parts: the parts of an action.
    allowed: an action mask, bool [M]; None allows everything.
  """
  action, start = [], 0
  for part in parts:
    if part.kind == 'discrete':
      action.append(0 if allowed is None else int(np.argmax(allowed[start : start + part.size])))
      start += part.size
    else:
      action += [0] * part.size
  return np.array(action, action_dtype(parts)).reshape(action_shape(parts))
