"""Converts the observations of an environment to the arrays that agents accept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from envs.faults import Misfit, OutOfBounds
from envs.spaces import NO_BOUND, kind_of

# Arrays with a smaller side, in pixels, are boards or tables, not images.
_LEAST_SIDE = 16
_MOST_CHANNELS = 16
# Relative slack for bounds: rounding float64 to float32 may move a value out of its space.
_ROUNDING = 1e-5


class View(NamedTuple):
  """The conversion of an observation space to the arrays that agents accept.

  Attributes:
    shape: of a converted observation, (H, W, C) or (D,).
    dtype: of a converted observation, 'uint8' or 'float32'.
    convert: function of (observation, strict=False) that returns the converted array, which may
      share its memory with the observation, or raises `Misfit`. With `strict` it also checks the
      bounds of the space and raises `OutOfBounds`.
    notes: sentences for the user that begin with "its observations".
  """

  shape: tuple[int, ...]
  dtype: str
  convert: Callable[..., np.ndarray]
  notes: list[str]


def view_of(space: Any) -> View | None:
  """Returns the `View` of an observation space, or None if no agent supports the space."""
  kind, shape, dtype = kind_of(space), space.shape, space.dtype
  if kind == 'Discrete':
    return View((int(space.n),), 'float32', _one_hot(space), [])
  if kind == 'MultiDiscrete':
    return View((int(np.sum(space.nvec)),), 'float32', _one_hots(space), [])
  if kind == 'MultiBinary':
    return View((int(np.prod(shape)),), 'float32', _bits(space), [])
  if kind != 'Box':
    return None
  low, high = _bounds(space)
  is_bytes = dtype == np.bool_ or (dtype.kind in 'iu' and low >= 0 and high <= 255)
  if len(shape) in (3, 4) and is_bytes:
    return _image_view(space, shape)
  if len(shape) == 2 and is_bytes and high > 127 and min(shape) >= _LEAST_SIDE:
    view = _image_view(space, (*shape, 1))
    return view._replace(notes=[f'its observations {shape} are taken as gray images {view.shape}'])
  if dtype.kind in 'fiu' and (len(shape) in (3, 4) or _is_gray_image(space)):
    return _float_image_view(space, (*shape, 1) if len(shape) == 2 else shape)
  if len(shape) < 3 and dtype.kind in 'biuf':
    return View((int(np.prod(shape)),), 'float32', _vector(space), [])
  return None


def with_channels(view: View, channels: int) -> View:
  """Returns a view of an image with at least so many channels; those that it lacks are zeros."""
  if len(view.shape) != 3 or view.shape[2] >= channels:
    return view
  shape, own = (*view.shape[:2], channels), view.shape[2]

  def convert(value, strict=False):
    image = np.zeros(shape, view.dtype)
    image[..., :own] = view.convert(value, strict)
    return image

  return view._replace(shape=shape, convert=convert)


def refusal(space: Any) -> str:
  """Returns why no agent supports an observation space, as the end of a sentence."""
  return (
    f'has the observation space {space}; supported are images (Box of height x width x channels, '
    'of numbers, or a stack of these), vectors (Box of up to two axes), Discrete, MultiDiscrete, '
    'MultiBinary, Text, and Dict and Tuple of these'
  )


def _bounds(space):
  if space.dtype == np.bool_:
    return 0, 1
  return (float(np.min(space.low)), float(np.max(space.high))) if np.prod(space.shape) else (0, 0)


def _image_view(space, shape):
  low, high = _bounds(space)
  # Small integers, such as 0 and 1 or types of cells, would be almost black; stretch them to 255.
  factor = max(1, 255 // max(1, int(high)))
  notes = []
  arranged, view_shape = _arrangement(shape, notes)
  if factor > 1 and space.dtype != np.bool_:
    notes.append(f'its observations go from {low:g} to {high:g}; they are multiplied by {factor}')

  def convert(value, strict=False):
    array = _shaped(value, space)
    if array.dtype != np.uint8 or factor > 1 or strict:
      array = _bytes_of(array, space, factor, strict)
    return arranged(array.reshape(shape))

  return View(view_shape, 'uint8', convert, notes)


def _arrangement(shape, notes):
  """Returns how images of `shape` become [H, W, C], and that shape; adds a note if it differs.

  Returns:
    (a function of an array of `shape`, (H, W, C)). The frames of a stack, [K, H, W, C] or
    [K, C, H, W], become the channels of one image.
  """
  frame = shape[-3:]
  channels_first = (
    frame[0] <= _MOST_CHANNELS and min(frame[1:]) >= _LEAST_SIDE and frame[2] > frame[0]
  )
  order = [1, 2, 0] if channels_first else [0, 1, 2]
  if len(shape) == 4:
    order = [order[0] + 1, order[1] + 1, 0, order[2] + 1]
  sides = [int(shape[axis]) for axis in order]
  view_shape = (*sides[:2], int(np.prod(sides[2:])))
  if len(shape) == 4:
    notes.append(
      f'its observations {shape} are taken as {shape[0]} images, stacked along the channels: '
      f'height x width x channels {view_shape}'
    )
  elif channels_first:
    notes.append(
      f'its observations {shape} have their channels first; they are taken as height x width x '
      f'channels {view_shape}'
    )
  return lambda array: array.transpose(order).reshape(view_shape), view_shape


def _is_gray_image(space):
  """Returns whether a space of floats with two axes is an image: large, and from 0 to 1 or 255."""
  is_large = len(space.shape) == 2 and min(space.shape) >= _LEAST_SIDE
  return space.dtype.kind == 'f' and is_large and _bounds(space) in ((0, 1), (0, 255))


def _float_image_view(space, shape):
  largest, notes = max(map(abs, _bounds(space))), []
  scale = largest if 1 < largest < NO_BOUND else 1.0
  arranged, view_shape = _arrangement(shape, notes)
  if scale != 1:
    notes.append(f'its observations go up to {largest:g}; they are divided by that')
  flat = _vector(space)

  def convert(value, strict=False):
    return arranged(flat(value, strict).reshape(shape) / np.float32(scale))

  return View(view_shape, 'float32', convert, notes)


def _bytes_of(array, space, factor, strict):
  if array.dtype == np.bool_:
    return array.astype(np.uint8) * np.uint8(255)
  promised = 'uint8' if space.dtype == np.uint8 else f'{space.dtype}'
  low, high = array.min(initial=0), array.max(initial=0)
  if array.dtype.kind == 'f':
    right = '255 * image' if high <= 1 else 'image'
    raise Misfit(
      f'observation holds {array.dtype} from {low:.3g} to {high:.3g} where its space promises '
      f'{promised}: return ({right}).astype(numpy.uint8)'
    )
  lowest, highest = _bounds(space)
  is_byte = low >= 0 and high <= 255
  if not is_byte or strict and (low < lowest or high > highest):
    raise (OutOfBounds if is_byte else Misfit)(
      f'observation goes from {low} to {high} where its space promises {promised} from '
      f'{lowest:g} to {highest:g}'
    )
  return np.minimum(array.astype(np.uint16) * factor, 255).astype(np.uint8)


def _vector(space):
  size = int(np.prod(space.shape))

  def convert(value, strict=False):
    array = _shaped(value, space)
    if array.dtype == np.float32:
      vector = array.reshape(size)
    else:
      with np.errstate(over='ignore'):
        vector = array.astype(np.float32).reshape(size)
    if np.count_nonzero(np.isfinite(vector)) < size:  # Quicker than `all`.
      where = [int(i) for i in np.argwhere(~np.isfinite(array.astype(np.float32)))[0]]
      raise Misfit(f'observation holds {array[tuple(where)]} at {where}')
    if strict and space.dtype != np.bool_:
      _check_range(array, space)
    return vector

  return convert


def _check_range(array, space):
  slack = _ROUNDING * np.maximum(1, np.abs(array))
  outside = np.argwhere((array < space.low - slack) | (array > space.high + slack))
  if len(outside):
    where = tuple(int(i) for i in outside[0])
    raise OutOfBounds(
      f'observation holds {array[where]:g} at {list(where)} where its space promises '
      f'{space.low[where]:g} to {space.high[where]:g}'
    )


def _one_hot(space):
  n, start = int(space.n), int(getattr(space, 'start', 0))

  def convert(value, strict=False):
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in 'biu' or not 0 <= int(array.item()) - start < n:
      raise Misfit(
        f'observation is {described(value)} where its space promises {start} to {start + n - 1}'
      )
    row = np.zeros(n, np.float32)
    row[int(array.item()) - start] = 1
    return row

  return convert


def _one_hots(space):
  sizes = np.asarray(space.nvec).reshape(-1)
  start = np.asarray(getattr(space, 'start', np.zeros_like(space.nvec))).reshape(-1)
  first = np.cumsum(sizes) - sizes

  def convert(value, strict=False):
    chosen = _shaped(value, space).reshape(-1) - start
    if chosen.dtype.kind == 'f' or (chosen < 0).any() or (chosen >= sizes).any():
      raise Misfit(f'observation is {described(value)} where its space promises {space}')
    row = np.zeros(sizes.sum(), np.float32)
    row[first + chosen] = 1
    return row

  return convert


def _bits(space):
  def convert(value, strict=False):
    bits = _shaped(value, space).reshape(-1)
    if not np.isin(bits, (0, 1)).all():
      raise Misfit(f'observation is {described(value)} where its space promises {space}')
    return bits.astype(np.float32)

  return convert


def _shaped(value, space):
  """Returns an observation as a numeric array with the shape of its space."""
  try:
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
  except ValueError:  # Lists of unequal lengths.
    array = np.asarray(None)
  if array.dtype.kind not in 'biuf':
    raise Misfit(
      f'observation is {described(value)} where its space promises numbers of shape {space.shape}'
    )
  if array.shape != space.shape:
    # Shapes may differ in axes of size 1.
    if [n for n in array.shape if n != 1] != [n for n in space.shape if n != 1]:
      raise Misfit(f'observation has shape {array.shape} where its space promises {space.shape}')
    array = array.reshape(space.shape)
  return array


def described(value: Any) -> str:
  """Returns a short description of a value from an environment, for messages."""
  if isinstance(value, np.ndarray) and value.size != 1:
    return f'{value.dtype} of shape {value.shape}'
  if isinstance(value, (tuple, list, dict)):
    return f'a {type(value).__name__} of {len(value)}'
  text = ' '.join(repr(value).split())
  return text if len(text) <= 60 else f'a {type(value).__name__}'


def dtype_note(value: Any, space: Any) -> str:
  """Returns a note if an observation's kind of dtype differs from that of its space, or ''."""
  if kind_of(space) != 'Box':
    return ''
  dtype = np.asarray(value).dtype
  if dtype.kind == space.dtype.kind:
    return ''
  return f'its observations are {dtype} where its space promises {space.dtype}; they are converted'
