"""Torsos: networks that turn one observation into a vector of features.

The image torsos follow IMPALA (Espeholt et al. 2018, arXiv 1802.01561, figure 3) and Nature DQN
(Mnih et al. 2015), that of texts the language channel of the same figure.

Shapes: N observations.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import sonnet as snt
import tensorflow as tf

from learning.observation_scaling import SCALES, Scale
from structs import NUM_WORDS, ActionPart, ArraySpec, action_shape

_SQRT_2 = math.sqrt(2.0)
_SMALL_IMAGE = 36  # Pixels. The Nature kernels and strides shrink smaller images to nothing.
_WORD_SIZE = 20  # Of the embedding of a word.

# A torso's class: (dtype of its arithmetic, scale, name) -> the torso.
TorsoClass = Callable[..., Callable[[tf.Tensor], tf.Tensor]]


class _Weights(snt.Module):
  """Float32 weights `w` and `b` of a linear map, cast to the dtype of the input."""

  def _weights(
    self, shape: Sequence[Any], gain: float, dtype: tf.DType
  ) -> tuple[tf.Tensor, tf.Tensor]:
    if not hasattr(self, 'w'):
      self.w = tf.Variable(snt.initializers.Orthogonal(gain)(shape, tf.float32), name='w')
      self.b = tf.Variable(tf.zeros(shape[-1:]), name='b')
    return tf.cast(self.w, dtype), tf.cast(self.b, dtype)


class Linear(_Weights):
  """A fully connected layer with orthogonal initialisation."""

  def __init__(self, output_size: int, gain: float = _SQRT_2, name: str = 'linear'):
    super().__init__(name=name)
    self._output_size, self._gain = output_size, gain

  @snt.Module.with_name_scope
  def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
    """[N, inputs] -> [N, output_size], in the dtype of `inputs`."""
    w, b = self._weights([inputs.shape[-1], self._output_size], self._gain, inputs.dtype)
    return tf.nn.bias_add(inputs @ w, b)


class Conv2D(_Weights):
  """A convolution over NHWC images with orthogonal initialisation."""

  def __init__(
    self,
    channels: int,
    kernel: int,
    stride: int = 1,
    padding: Literal['SAME', 'VALID'] = 'SAME',
    input_scale: float = 1.0,
    name: str = 'conv',
  ):
    super().__init__(name=name)
    self._channels, self._kernel = channels, kernel
    self._stride, self._input_scale = stride, input_scale
    self._padding: Literal['SAME', 'VALID'] = padding

  @snt.Module.with_name_scope
  def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] -> [N, H', W', channels], in the dtype of `inputs`."""
    shape = [self._kernel, self._kernel, inputs.shape[-1], self._channels]
    w, b = self._weights(shape, _SQRT_2, inputs.dtype)
    # Scaling the kernel instead of the image saves a pass over the largest tensor of the network.
    w = w * tf.cast(self._input_scale, inputs.dtype)
    return tf.nn.bias_add(tf.nn.conv2d(inputs, w, self._stride, self._padding), b)


class ImageTorso(snt.Module):
  """Base class of image torsos; scales and casts the pixels."""

  def __init__(self, precision: tf.DType, scale: Scale, name: str):
    super().__init__(name=name)
    self._precision, self._scale = precision, scale

  def _pixels(self, observation: tf.Tensor) -> tf.Tensor:
    """Returns the image in the torso's dtype, shifted; the first kernel applies the factor."""
    image = tf.cast(observation, self._precision)
    return image - self._scale.offset if self._scale.offset else image


class NatureTorso(ImageTorso):
  """Convolutions 32-64-64 and a linear layer of 512 (Mnih et al. 2015), finer on small images."""

  def __init__(self, precision: tf.DType, scale: Scale, name: str = 'nature_torso'):
    super().__init__(precision, scale, name)
    self._convolutions = None
    self._linear = Linear(512)

  @snt.Module.with_name_scope
  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    """uint8 or float32 [N, H, W, C] -> float32 [N, 512]."""
    if self._convolutions is None:
      sizes: Any = observation.shape[1:3]
      self._convolutions = self._build(min(sizes))
    out = self._pixels(observation)
    for conv in self._convolutions:
      out = tf.nn.relu(conv(out))
    out = tf.nn.relu(self._linear(snt.flatten(out)))
    return tf.cast(out, tf.float32)

  def _build(self, size: int) -> list[Conv2D]:
    small = size < _SMALL_IMAGE
    layers = [(32, 3, 1), (64, 3, 2), (64, 3, 1)] if small else [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    padding = 'SAME' if small else 'VALID'
    scales = [self._scale.factor, 1, 1]
    return [Conv2D(*layer, padding, scale) for layer, scale in zip(layers, scales, strict=True)]


class _ResidualSection(snt.Module):
  """A convolution, max pooling to half the size, and two residual blocks."""

  def __init__(self, channels: int, input_scale: float, name: str = 'section'):
    super().__init__(name=name)
    self._conv = Conv2D(channels, 3, input_scale=input_scale)
    self._blocks = [[Conv2D(channels, 3), Conv2D(channels, 3)] for _ in range(2)]

  @snt.Module.with_name_scope
  def __call__(self, out: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] -> [N, H/2, W/2, channels]."""
    out = tf.nn.max_pool2d(self._conv(out), 3, 2, 'SAME')
    for first, second in self._blocks:
      out += second(tf.nn.relu(first(tf.nn.relu(out))))
    return out


class ResNetTorso(ImageTorso):
  """The paper's large network (figure 3, right): sections of 16, 32 and 32 channels, linear 256."""

  def __init__(self, precision: tf.DType, scale: Scale, name: str = 'resnet_torso'):
    super().__init__(precision, scale, name)
    layers = [(16, scale.factor), (32, 1), (32, 1)]
    self._sections = [_ResidualSection(channels, factor) for channels, factor in layers]
    self._linear = Linear(256)

  @snt.Module.with_name_scope
  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    """uint8 or float32 [N, H, W, C] -> float32 [N, 256]."""
    out = self._pixels(observation)
    for section in self._sections:
      out = section(out)
    out = tf.nn.relu(self._linear(self._vector(tf.nn.relu(out))))
    return tf.cast(out, tf.float32)

  def _vector(self, out: tf.Tensor) -> tf.Tensor:
    """Returns the input of the linear layer: [N, H/8, W/8, 32] -> [N, H/8 * W/8 * 32]."""
    return snt.flatten(out)


class ResNetPoolTorso(ResNetTorso):
  """`ResNetTorso` with global average pooling before the linear layer in place of flattening.

  The linear layer has 32 inputs whatever the size of the image (Trumpp et al. 2025,
  arXiv 2503.05546; Sokar and Castro 2025, arXiv 2505.17749).
  """

  def __init__(self, precision: tf.DType, scale: Scale, name: str = 'resnet_pool_torso'):
    super().__init__(precision, scale, name)

  def _vector(self, out: tf.Tensor) -> tf.Tensor:
    """Returns the mean of each channel over the image: [N, H/8, W/8, 32] -> [N, 32]."""
    return tf.reduce_mean(out, axis=[1, 2])


class MinAtarTorso(ImageTorso):
  """A convolution of 16 channels and a linear layer of 128, for images of about 10 x 10.

  The network of MinAtar (Young and Tian 2019, arXiv 1903.03176).
  """

  def __init__(self, precision: tf.DType, scale: Scale, name: str = 'minatar_torso'):
    super().__init__(precision, scale, name)
    self._conv = None
    self._linear = Linear(128)

  @snt.Module.with_name_scope
  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    """uint8 or float32 [N, H, W, C] -> float32 [N, 128]."""
    if self._conv is None:
      sizes: Any = observation.shape[1:3]
      padding = 'VALID' if min(sizes) >= 3 else 'SAME'
      self._conv = Conv2D(16, 3, padding=padding, input_scale=self._scale.factor)
    out = tf.nn.relu(self._conv(self._pixels(observation)))
    out = tf.nn.relu(self._linear(snt.flatten(out)))
    return tf.cast(out, tf.float32)


class MLPTorso(snt.Module):
  """Two hidden layers of 64 with tanh, for vector observations."""

  def __init__(self, precision: tf.DType, scale: Scale, name: str = 'mlp_torso'):
    super().__init__(name=name)
    del scale  # Vectors are not scaled here.
    self._precision = precision
    self._layers = [Linear(64), Linear(64)]

  @snt.Module.with_name_scope
  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    """float32 [N, D] -> float32 [N, 64]."""
    out = tf.cast(observation, self._precision)
    for layer in self._layers:
      out = tf.nn.tanh(layer(out))
    return tf.cast(out, tf.float32)


class TextTorso(snt.Module):
  """Embeds the words of a text, and reads them with an LSTM of 64."""

  def __init__(self, name: str = 'text_torso'):
    super().__init__(name=name)
    self._embedding = snt.Embed(NUM_WORDS, _WORD_SIZE)
    self._lstm = snt.LSTM(64)

  @snt.Module.with_name_scope
  def __call__(self, words: tf.Tensor) -> tf.Tensor:
    """int32 [N, L] -> float32 [N, 64]; 0 is no word."""
    embedded, number = self._embedding(words), words.shape[1] or 0
    games: Any = tf.shape(words)[0]
    state: Any = self._lstm.initial_state(games)
    output = tf.zeros([games, 64])
    for i in range(number):
      is_word = words[:, i, tf.newaxis] > 0
      read, after = self._lstm(embedded[:, i], state)
      output, state = tf.nest.map_structure(
        functools.partial(tf.where, is_word), (read, after), (output, state)
      )
    return output


class NestTorso(snt.Module):
  """Encodes observations of several arrays: a torso for each image and text, an MLP for the rest.

  Their features are concatenated, in the order of the space, and combined by a linear layer of 256.

  Args:
    arrays: the arrays of an observation, without an action mask.
    image_torso: class of the torso of images, or None if there are none.
    precision: dtype of the torsos' arithmetic.
    scaling: key of `observation_scaling.SCALES`.
  """

  def __init__(
    self,
    arrays: Sequence[ArraySpec],
    image_torso: TorsoClass | None,
    precision: tf.DType,
    scaling: str,
    name: str = 'nest_torso',
  ):
    super().__init__(name=name)
    self._torsos: list[tuple[int, Any]] = []
    vectors = [i for i, array in enumerate(arrays) if is_vector(array)]
    self._vectors = vectors
    for i, array in enumerate(arrays):
      if array.dtype == 'int32':
        torso: Any = TextTorso(f'text_{i}')
      elif len(array.shape) == 3 and image_torso:
        torso = image_torso(precision, scale_of(array, scaling), f'image_{i}')
      elif vectors[:1] == [i]:
        torso = MLPTorso(precision, SCALES[scaling], 'vectors')
      else:
        continue
      self._torsos.append((i, torso))
    self._joint = Linear(256, name='joint')

  @snt.Module.with_name_scope
  def __call__(self, arrays: Sequence[tf.Tensor]) -> tf.Tensor:
    """[N, ...] of each array -> float32 [N, 256]."""
    vector = tf.concat([arrays[i] for i in self._vectors], axis=1) if self._vectors else None
    features = [torso(vector if i in self._vectors else arrays[i]) for i, torso in self._torsos]
    return tf.nn.relu(self._joint(tf.concat(features, axis=1)))


def action_features(parts: Sequence[ActionPart], action: tf.Tensor) -> tf.Tensor:
  """Returns actions as inputs of a network: one-hots, bits, and numbers clipped to [-1, 1].

  Args:
    parts: the parts of an action.
    action: [N] or [N, K], see `AgentOutput`.

  Returns:
    float32 [N, features].
  """
  if not action_shape(parts):
    return tf.one_hot(action, parts[0].size)
  features = []
  columns = tf.split(action, [part.num_elements for part in parts], axis=1)
  for part, own in zip(parts, columns, strict=True):
    if part.kind == 'discrete':
      features.append(tf.one_hot(tf.cast(own[:, 0], tf.int32), part.size))
    else:
      features.append(tf.clip_by_value(tf.cast(own, tf.float32), -1.0, 1.0))
  return tf.concat(features, axis=1)


def is_vector(array: ArraySpec) -> bool:
  """Returns whether an array is a vector, float32 [D]."""
  return len(array.shape) == 1 and array.dtype == 'float32'


def scale_of(array: ArraySpec, scaling: str) -> Scale:
  """Returns the scale of an image's first layer; images of floats are not divided by 255."""
  is_bytes = array.dtype == 'uint8'
  return SCALES[scaling] if is_bytes or scaling in ('running', 'copied') else Scale(0.0, 1.0)
