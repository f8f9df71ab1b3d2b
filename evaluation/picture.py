"""Draws the frames of a film: the game, and a panel with observation, value and policy."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from structs import ActionPart, num_actions

_HEIGHT = 420  # Minimum height of an annotated picture in pixels, for legible text.
_PANEL = 320  # Width of the panel in pixels.
_LEAST_SIDE = 64  # Minimum side of a picture in pixels.
_WHITE, _GREY, _BAR = (235, 235, 235), (150, 150, 150), (90, 170, 250)


class Policy(NamedTuple):
  """What an agent intends.

  Attributes:
    parts: the parts of an action.
    parameters: float32 [P], parameters of the policy, see `learning.distributions`.
    action: the action taken, an array shaped `structs.action_shape`.
    action_names: names of the A actions of a Discrete space.
  """

  parts: Sequence[ActionPart]
  parameters: np.ndarray
  action: Any
  action_names: Sequence[str]


class Fitting:
  """Scales all pictures of a film to the size of the first, which is magnified if it is very small.

  The aspect ratio is kept; the rest is black.
  """

  def __init__(self):
    self._size: tuple[int, int] | None = None  # Width and height.

  def __call__(self, picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [H', W', 3], with the same H' and W' in each call."""
    height, width, _ = picture.shape
    if self._size is None:
      factor = -(-_LEAST_SIDE // min(height, width))
      self._size = factor * width, factor * height
    scale = min(self._size[0] / width, self._size[1] / height)
    if scale != 1:
      size = max(1, round(scale * width)), max(1, round(scale * height))
      kind = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
      picture = cv2.resize(picture, size, interpolation=kind)
      height, width, _ = picture.shape
    below, beside = self._size[1] - height, self._size[0] - width
    return np.pad(picture, ((0, below), (0, beside), (0, 0)))


def annotated(
  picture: np.ndarray, observation: Sequence[np.ndarray], figures: Mapping[str, str], policy: Policy
) -> np.ndarray:
  """Returns a picture with its panel.

  Args:
    picture: uint8 [H, W, 3], the game; it is magnified by an integer factor.
    observation: the arrays of the agent's observation, see `StepOutput`; the first image is drawn,
      or else the first vector.
    figures: texts by name, for the top of the panel.
    policy: what the agent intends: bars of the probabilities of a Discrete space, else the numbers
      of the action.

  Returns:
    uint8 [H', W', 3] with even sides.
  """
  factor = max(1, round(_HEIGHT / picture.shape[0]))
  game = np.repeat(np.repeat(picture, factor, axis=0), factor, axis=1)
  height = max(_HEIGHT, game.shape[0])
  panel = np.zeros([height, _PANEL, 3], np.uint8)
  y = 24
  for name, text in figures.items():
    _write(panel, name, 12, y, _GREY)
    _write(panel, text, 110, y, _WHITE)
    y += 22
  images = [array for array in observation if array.ndim == 3]
  y = _draw_observation(panel, (images or list(observation))[0], y)
  if num_actions(policy.parts):
    probabilities = _softmax(policy.parameters)
    _draw_probabilities(panel, probabilities, int(policy.action), policy.action_names, y)
  else:
    _write(panel, 'the action', 12, y, _GREY)
    _draw_numbers(panel, np.asarray(policy.action), y + 2)
  below = ((0, height - game.shape[0]), (0, 0), (0, 0))
  return even(np.concatenate([np.pad(game, below), panel], axis=1))


def even(picture: np.ndarray) -> np.ndarray:
  """Pads a picture with a black row or column where a side is odd, as codecs require."""
  height, width, _ = picture.shape
  return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)))


def _write(
  panel: np.ndarray, text: str, x: int, y: int, colour: tuple[int, int, int], size: float = 0.45
) -> None:
  cv2.putText(panel, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _draw_observation(panel: np.ndarray, observation: np.ndarray, y: int) -> int:
  """Draws an image's last channels (at most 4) or a vector's first numbers; returns the y below."""
  _write(panel, 'the network sees', 12, y + 4, _GREY)
  y += 12
  if observation.ndim == 1:
    return _draw_numbers(panel, observation, y)
  if observation.dtype != np.uint8:
    observation = np.clip(255 * observation, 0, 255).astype(np.uint8)
  channels = observation.shape[-1]
  pictures = [observation] if channels == 3 else [observation[..., c] for c in range(channels)][-4:]
  side = 70 if len(pictures) > 1 else 96
  for i, seen in enumerate(pictures):
    scale = side / max(seen.shape[:2])
    size = (max(1, round(seen.shape[1] * scale)), max(1, round(seen.shape[0] * scale)))
    small = cv2.resize(seen, size, interpolation=cv2.INTER_NEAREST)
    x = 12 + i * (side + 5)
    panel[y : y + size[1], x : x + size[0]] = small if small.ndim == 3 else small[..., None]
  return y + side + 22


def _draw_numbers(panel: np.ndarray, numbers: np.ndarray, y: int) -> int:
  """Draws the first numbers of a vector; returns the y below."""
  for i in range(0, min(len(numbers), 12), 4):
    _write(panel, ' '.join(f'{x:.2f}' for x in numbers[i : i + 4]), 12, y + 16, _WHITE)
    y += 18
  return y + 14


def _softmax(logits: np.ndarray) -> np.ndarray:
  powers = np.exp(logits - logits.max())
  return powers / powers.sum()


def _draw_probabilities(
  panel: np.ndarray, probabilities: np.ndarray, action: int, names: Sequence[str], y: int
) -> None:
  """Draws bars of the likeliest actions that fit, sorted by action."""
  _write(panel, 'action probabilities', 12, y, _GREY)
  fits = max(1, (len(panel) - y - 8) // 18)
  shown = sorted(np.argsort(-probabilities, kind='stable')[:fits])
  for i in shown:
    y += 18
    colour = _BAR if i == action else _GREY
    _write(panel, names[int(i)][:14], 12, y, _WHITE if i == action else _GREY, 0.4)
    end = 130 + round(130 * float(probabilities[i]))
    cv2.rectangle(panel, (130, y - 10), (end, y), colour, -1)
    _write(panel, f'{probabilities[i]:.2f}', end + 6, y, _WHITE, 0.4)
