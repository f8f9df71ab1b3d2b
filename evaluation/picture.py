"""What is drawn of one step: the game, and beside it what the agent sees, expects and intends."""

import cv2
import numpy as np

_HEIGHT = 420  # Pixels, at least, of an annotated picture: less is not legible.
_PANEL = 320
_LEAST_SIDE = 64  # Pixels of a picture: fewer are not seen.
_WHITE, _GREY, _BAR = (235, 235, 235), (150, 150, 150), (90, 170, 250)


class Fitting:
  """Gives all pictures of a film the size of the first, magnified where that is very small.

  What is larger or smaller is scaled as a whole, on black.
  """

  def __init__(self):
    self._size = None  # Width and height.

  def __call__(self, picture):
    """uint8 [H, W, 3] -> uint8 [H', W', 3], of the same H' and W' in each call."""
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


def annotated(picture, observation, figures, probabilities, action, action_names):
  """A picture with its panel.

  Args:
    picture: uint8 [H, W, 3], the game; it is magnified by a whole factor.
    observation: what the agent is given, uint8 [h, w, c] or float32 [d].
    figures: dict of name to text.
    probabilities: float [A].
    action: int, the one taken.
    action_names: list of A strings.

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
  y = _seen(panel, observation, y)
  _bars(panel, probabilities, action, action_names, y)
  below = ((0, height - game.shape[0]), (0, 0), (0, 0))
  return even(np.concatenate([np.pad(game, below), panel], axis=1))


def even(picture):
  """The picture with a black last row or column where a side is odd: codecs want even ones."""
  height, width, _ = picture.shape
  return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)))


def _write(panel, text, x, y, colour, size=0.45):
  cv2.putText(panel, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _seen(panel, observation, y):
  """Draws the observation's channels (at most 4), or the numbers of a vector; the y below it."""
  _write(panel, 'the network sees', 12, y + 4, _GREY)
  y += 12
  if observation.ndim == 1:
    for i in range(0, min(len(observation), 12), 4):
      _write(panel, ' '.join(f'{x:.2f}' for x in observation[i : i + 4]), 12, y + 16, _WHITE)
      y += 18
    return y + 14
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


def _bars(panel, probabilities, action, names, y):
  """Draws the likeliest actions that fit, in the order of their numbers."""
  _write(panel, 'action probabilities', 12, y, _GREY)
  fits = max(1, (len(panel) - y - 8) // 18)
  shown = sorted(np.argsort(-probabilities, kind='stable')[:fits])
  for i in shown:
    y += 18
    colour = _BAR if i == action else _GREY
    _write(panel, names[i][:14], 12, y, _WHITE if i == action else _GREY, 0.4)
    end = 130 + round(130 * float(probabilities[i]))
    cv2.rectangle(panel, (130, y - 10), (end, y), colour, -1)
    _write(panel, f'{probabilities[i]:.2f}', end + 6, y, _WHITE, 0.4)
