"""Converts what an environment renders to RGB pictures for videos."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.faults import Misfit
from envs.observations import described

_CHANNELS = (1, 3, 4)
_MOST_FRAMES_PER_SEC = 240


def frames_per_sec(metadata: dict[str, Any]) -> float:
  """Returns `render_fps` of an environment's metadata, at most 240, or 30 if it is not valid."""
  try:
    rate = float(metadata.get('render_fps') or 0)
  except (TypeError, ValueError):
    rate = 0
  return min(rate, _MOST_FRAMES_PER_SEC) if rate > 0 else 30


class Pictures:
  """Converts pictures of one environment to uint8 [H, W, 3].

  Pictures may be gray, RGB or RGBA, of integers, floats or bools. Those that are not uint8 are
  taken to range from 0 to 1 until a value exceeds 1; from then on, from 0 to 255.
  """

  def __init__(self):
    self._white = 1

  def __call__(self, rendered: Any) -> np.ndarray:
    """Converts one picture.

    Args:
      rendered: result of `render`: an array [H, W] or [H, W, C] or [C, H, W] with C = 1, 3 or 4, or
        a list of such arrays, of which the last is used.

    Returns:
      uint8 [H, W, 3].

    Raises:
      Misfit: `rendered` is not a picture.
    """
    if isinstance(rendered, (list, tuple)) and rendered and np.ndim(rendered[-1]) >= 2:
      rendered = rendered[-1]  # A list holds all frames since the last call.
    array = np.asarray(rendered) if rendered is not None else np.asarray('')
    wrong = (
      f'render() returned {_said(rendered, array)} where an image [height, width, 3] is wanted'
    )
    if array.dtype.kind not in 'biuf' or array.ndim not in (2, 3) or not array.size:
      raise Misfit(wrong)
    if array.ndim == 2:
      array = array[..., None]
    elif array.shape[2] not in _CHANNELS and array.shape[0] in _CHANNELS:
      array = np.moveaxis(array, 0, 2)
    if array.shape[2] not in _CHANNELS:
      raise Misfit(wrong)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # Also True for nan.
      raise Misfit(f'{wrong}, of 0 to 1 or 0 to 255; it goes from {low:g} to {high:g}')
    return _opaque(self._bytes(array, high))

  def _bytes(self, array, high):
    if array.dtype == np.uint8:
      return array
    if high > 1:
      self._white = 255
    return np.rint(array * (255.0 / self._white)).astype(np.uint8)


def _said(rendered, array):
  if array.dtype.kind in 'biuf' and array.ndim:
    return f'{array.dtype} of shape {array.shape}'
  return described(rendered)


def _opaque(array):
  """Converts uint8 [H, W, C], gray, RGB or RGBA, to RGB.

  Transparent pixels are blended with black; an alpha channel of zeros is ignored.
  """
  if array.shape[2] == 4:
    alpha = array[..., 3:]
    if alpha.any() and alpha.min() < 255:
      return (array[..., :3].astype(np.uint16) * alpha // 255).astype(np.uint8)
    return array[..., :3]
  return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array
