"""Sends each frame once: actors convert stacked frames to `Frames`, learners convert them back.

An Atari observation is a stack of the C newest frames, so an unroll of stacks holds nearly every
frame C times. `Frames` hold C - 1 frames before the first entry and one frame per entry. As in
ale_py, the first stack of a game is black except for its newest frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from structs import Frames


def frames_spec(stack_shape: Sequence[int], steps: int) -> Frames:
  """Returns the `Frames` of tf.TensorSpec for `steps` stacks of shape (H, W, C)."""
  height, width, channels = stack_shape
  return Frames(tf.TensorSpec([steps + channels - 1, height, width], tf.uint8))


def pack(first: tf.Tensor, rest: tf.Tensor) -> Frames:
  """Returns the frames of an unroll.

  Args:
    first: uint8 [N, H, W, C], the stacks of entry 0.
    rest: uint8 [T, N, H, W, C], the stacks of entries 1 to T.

  Returns:
    `Frames` of [N, T + C, H, W].
  """
  unroll_length, num_envs, height, width, channels = rest.shape
  shape = [num_envs, unroll_length + channels, height, width]

  def extract(first, rest):
    import cv2  # Ten times as fast as TensorFlow at extracting every fourth byte.

    frames = np.empty(shape, np.uint8)
    for c, plane in enumerate(cv2.split(first.reshape(-1, width, channels))):
      frames[:, c] = plane.reshape(num_envs, height, width)
    newest = cv2.extractChannel(rest.reshape(-1, width, channels), channels - 1)
    newest = newest.reshape(unroll_length, num_envs, height, width)
    frames[:, channels:] = newest.swapaxes(0, 1)
    return frames

  frames = tf.numpy_function(extract, [first, rest], tf.uint8, stateful=False)
  return Frames(tf.ensure_shape(frames, shape))


def unpack(packed: Frames, starts: tf.Tensor) -> tf.Tensor:
  """Rebuilds the stacks of frames, time-major.

  Args:
    packed: `Frames` of [B, T + C, H, W].
    starts: bool [T+1, B], True where the entry is the first observation of a game.

  Returns:
    uint8 [T+1, B, H, W, C].
  """
  steps, channels = starts.shape[0], packed.frames.shape[1] - starts.shape[0] + 1
  frames = tf.transpose(packed.frames, [1, 0, 2, 3])
  black = _before_start(starts, channels)
  if 'GPU' in frames.device.upper():
    stacks = tf.stack([frames[c : c + steps] for c in range(channels)], axis=-1)
    return tf.where(black[:, :, None, None], tf.zeros([], tf.uint8), stacks)
  stacks = tf.numpy_function(_merge, [frames, black], tf.uint8, stateful=False)
  return tf.ensure_shape(stacks, [*starts.shape, *frames.shape[2:], channels])


def sums(packed: Frames, starts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns sums over the stacks of entries 1 to T, without building the stacks.

  In float32: exact for batches of up to 258 stacks, to seven digits for more.

  Args:
    packed: as for `unpack`.
    starts: as for `unpack`.

  Returns:
    (B * T as float64 scalar, sum of the stacks, sum of their squares; float64 [H, W, C]).
  """
  (steps, games), (height, width) = starts.shape, packed.frames.shape[2:]
  channels = packed.frames.shape[1] - steps + 1
  with tf.device('/cpu:0'):  # Products on a GPU may be rounded to three digits.
    seen = tf.cast(~_before_start(starts, channels)[1:], tf.float32)
    # Channel c of entry t is frame t + c. For each channel: which frames count in it.
    stands = [tf.pad(seen[..., c], [[1 + c, channels - 1 - c], [0, 0]]) for c in range(channels)]
    stands = tf.reshape(tf.transpose(tf.stack(stands), [0, 2, 1]), [channels, -1])
    frames = tf.reshape(tf.cast(packed.frames, tf.float32), [-1, height * width])

    def over_stacks(values):
      by_channel = tf.transpose(tf.matmul(stands, values))
      return tf.cast(tf.reshape(by_channel, [height, width, channels]), tf.float64)

    number = tf.cast((steps - 1) * games, tf.float64)
    return number, over_stacks(frames), over_stacks(tf.square(frames))


def _merge(frames: np.ndarray, black: np.ndarray) -> np.ndarray:
  """Merges uint8 [T + C, B, H, W], bool [T+1, B, C] -> uint8 [T+1, B, H, W, C] with black planes.

  For the Atari stacks of 4 unrolls, OpenCV takes 0.8 ms and tf.stack 8 ms.
  """
  import cv2

  (steps, _, channels), shape = black.shape, frames.shape[1:]
  planes = [frames[c : c + steps].reshape(-1, shape[-1]) for c in range(channels)]
  stacks = cv2.merge(planes).reshape(steps, *shape, channels)
  for step, game, channel in zip(*black.nonzero(), strict=True):
    stacks[step, game, ..., channel] = 0
  return stacks


def _before_start(starts: tf.Tensor, channels: int) -> tf.Tensor:
  """Returns bool [T+1, B, C]: True for frames in stacks from before the game's start."""
  # The stack of entry 0 was sent unchanged, even at the start of a game.
  starts = tf.concat([tf.zeros_like(starts[:1]), starts[1:]], 0)
  older = tf.zeros_like(starts)
  by_age = [older]
  for age in range(channels - 1):
    older |= tf.pad(starts, [[age, 0], [0, 0]])[: starts.shape[0]]
    by_age.append(older)
  return tf.stack(by_age[::-1], axis=2)
