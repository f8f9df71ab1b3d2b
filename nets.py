"""Agents: map observations and core states to policy logits, actions and baselines.

The torsos follow IMPALA (Espeholt et al. 2018, arXiv 1802.01561, figure 3) and Nature DQN (Mnih et
al. 2015). They are Sonnet 2 modules inside a TensorFlow graph.

Shapes: N environments per step; [T, B] is a batch of B unrolls of T steps; A actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import sonnet as snt
import tensorflow as tf

from learning.observation_scaling import (
  SCALES,
  MomentScaling,
  Scale,
  scaling_by_moments,
  with_moments,
)
from learning.sliced_weights import SlicedWeights
from learning.value_normalisation import PopArt
from structs import (
  AGENTS,
  AgentOutput,
  CoreState,
  Spaces,
  StepOutput,
  StepOutputInfo,
  default_agent_name,
)

snt.Module()  # Sonnet 2 needs its first module built eagerly; later ones may be built in graphs.

_SQRT_2 = math.sqrt(2.0)
_SMALL_IMAGE = 36  # Pixels. The Nature kernels and strides shrink smaller images to nothing.


class _Weights(snt.Module):
  """Float32 weights `w` and `b` of a linear map, cast to the dtype of the input."""

  def _weights(
    self, shape: Sequence[Any], gain: float, dtype: tf.DType
  ) -> tuple[tf.Tensor, tf.Tensor]:
    if not hasattr(self, 'w'):
      self.w = tf.Variable(snt.initializers.Orthogonal(gain)(shape, tf.float32), name='w')
      self.b = tf.Variable(tf.zeros(shape[-1:]), name='b')
    return tf.cast(self.w, dtype), tf.cast(self.b, dtype)


class _Linear(_Weights):
  """A fully connected layer with orthogonal initialisation."""

  def __init__(self, output_size: int, gain: float = _SQRT_2, name: str = 'linear'):
    super().__init__(name=name)
    self._output_size, self._gain = output_size, gain

  @snt.Module.with_name_scope
  def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
    """[N, inputs] -> [N, output_size], in the dtype of `inputs`."""
    w, b = self._weights([inputs.shape[-1], self._output_size], self._gain, inputs.dtype)
    return tf.nn.bias_add(inputs @ w, b)


class _Conv2D(_Weights):
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


class _ImageTorso(snt.Module):
  """Base class of image torsos; scales and casts the pixels."""

  def __init__(self, precision: tf.DType, scale: Scale, name: str):
    super().__init__(name=name)
    self._precision, self._scale = precision, scale

  def _pixels(self, observation: tf.Tensor) -> tf.Tensor:
    """Returns the image in the torso's dtype, shifted; the first kernel applies the factor."""
    image = tf.cast(observation, self._precision)
    return image - self._scale.offset if self._scale.offset else image


class _NatureTorso(_ImageTorso):
  """Convolutions 32-64-64 and a linear layer of 512 (Mnih et al. 2015), finer on small images."""

  def __init__(self, precision: tf.DType, scale: Scale, name: str = 'nature_torso'):
    super().__init__(precision, scale, name)
    self._convolutions = None
    self._linear = _Linear(512)

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

  def _build(self, size: int) -> list[_Conv2D]:
    small = size < _SMALL_IMAGE
    layers = [(32, 3, 1), (64, 3, 2), (64, 3, 1)] if small else [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    padding = 'SAME' if small else 'VALID'
    scales = [self._scale.factor, 1, 1]
    return [_Conv2D(*layer, padding, scale) for layer, scale in zip(layers, scales, strict=True)]


class _ResidualSection(snt.Module):
  """A convolution, max pooling to half the size, and two residual blocks."""

  def __init__(self, channels: int, input_scale: float, name: str = 'section'):
    super().__init__(name=name)
    self._conv = _Conv2D(channels, 3, input_scale=input_scale)
    self._blocks = [[_Conv2D(channels, 3), _Conv2D(channels, 3)] for _ in range(2)]

  @snt.Module.with_name_scope
  def __call__(self, out: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] -> [N, H/2, W/2, channels]."""
    out = tf.nn.max_pool2d(self._conv(out), 3, 2, 'SAME')
    for first, second in self._blocks:
      out += second(tf.nn.relu(first(tf.nn.relu(out))))
    return out


class _ResNetTorso(_ImageTorso):
  """The paper's large network (figure 3, right): sections of 16, 32 and 32 channels, linear 256."""

  def __init__(self, precision: tf.DType, scale: Scale, name: str = 'resnet_torso'):
    super().__init__(precision, scale, name)
    layers = [(16, scale.factor), (32, 1), (32, 1)]
    self._sections = [_ResidualSection(channels, factor) for channels, factor in layers]
    self._linear = _Linear(256)

  @snt.Module.with_name_scope
  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    """uint8 or float32 [N, H, W, C] -> float32 [N, 256]."""
    out = self._pixels(observation)
    for section in self._sections:
      out = section(out)
    out = tf.nn.relu(self._linear(snt.flatten(tf.nn.relu(out))))
    return tf.cast(out, tf.float32)


class _MLPTorso(snt.Module):
  """Two hidden layers of 64 with tanh, for vector observations."""

  def __init__(self, precision: tf.DType, scale: Scale, name: str = 'mlp_torso'):
    super().__init__(name=name)
    del scale  # Vectors are not scaled here.
    self._precision = precision
    self._layers = [_Linear(64), _Linear(64)]

  @snt.Module.with_name_scope
  def __call__(self, observation: tf.Tensor) -> tf.Tensor:
    """float32 [N, D] -> float32 [N, 64]."""
    out = tf.cast(observation, self._precision)
    for layer in self._layers:
      out = tf.nn.tanh(layer(out))
    return tf.cast(out, tf.float32)


class Agent(snt.Module):
  """A torso, an LSTM if `lstm_size` is set, and heads for policy and baseline.

  The core's input is the torso's features, the last reward clipped to [-1, 1] and the one-hot last
  action (IMPALA, figure 3).

  Args:
    num_actions: number of discrete actions, A.
    precision: dtype of the torso's arithmetic, 'float32' or 'bfloat16'. Weights, LSTM, heads and
      all outputs of the agent stay float32.
    scaling: how observations are scaled, a key of `observation_scaling.SCALES`. Images: x / 255,
      (x - 128) / 128, `RunningScaling` or, in copies, `CopiedScaling`. Vectors: unscaled,
      `RunningScaling` or `CopiedScaling`.
    value_normalisation: whether the baseline's last layer learns normalised returns, see
      `value_normalisation.PopArt`.

  Attributes:
    running_scaling: result of `scaling_by_moments`, set by the first call.
    value_scale: a `PopArt`, or None.
  """

  torso_class: Callable[[tf.DType, Scale], Callable[[tf.Tensor], tf.Tensor]]
  lstm_size: int | None = None

  def __init__(
    self,
    num_actions: int,
    precision: str = 'float32',
    scaling: str = 'unit',
    value_normalisation: bool = False,
    name: str = 'agent',
  ):
    super().__init__(name=name)
    self._num_actions, self._scaling = num_actions, scaling
    self.running_scaling: MomentScaling | None = None
    self.value_scale = PopArt() if value_normalisation else None
    self._torso = self.torso_class(tf.dtypes.as_dtype(precision), SCALES[scaling])
    self._lstm = snt.LSTM(self.lstm_size) if self.lstm_size else None
    # A small gain makes the first policy near-uniform; a near-deterministic one hardly explores.
    self._policy = _Linear(num_actions, gain=0.01, name='policy')
    self._baseline = _Linear(1, gain=1.0, name='baseline')

  def rescale_values(self, weights: SlicedWeights) -> tf.Operation:
    """Returns the operation `PopArt.rescale`; needs `value_normalisation`."""
    assert self.value_scale
    return self.value_scale.rescale(weights, self._baseline)

  def initial_state(self, batch_size: int) -> CoreState:
    """Returns the first core state: a nest of float32 [batch_size, lstm_size]; () without LSTM."""
    return self._lstm.initial_state(batch_size) if self._lstm else ()

  @snt.Module.with_name_scope
  def __call__(
    self, inputs: tuple[tf.Tensor, StepOutput], core_state: CoreState
  ) -> tuple[AgentOutput, CoreState]:
    """Computes one step.

    Args:
      inputs: (last_action int32 [N], env_output StepOutput of [N, ...]).
      core_state: from `initial_state` or the last call; it is reset where `done`.

    Returns:
      (AgentOutput of [N, ...], the next core state).
    """
    last_action, env_output = inputs
    features = self._features(last_action, env_output.reward, env_output.observation)
    features, core_state = self._core(features, env_output.done, core_state)
    return self._head(features), core_state

  @snt.Module.with_name_scope
  def unroll(
    self, actions: tf.Tensor, env_outputs: StepOutput, core_state: CoreState
  ) -> tuple[AgentOutput, CoreState]:
    """Computes all steps of unrolls, with the same results as repeated calls.

    Args:
      actions: int32 [T, B], the action that led to each observation.
      env_outputs: StepOutput of [T, B, ...]. T is static.
      core_state: the core state before the first step.

    Returns:
      (AgentOutput of [T, B, ...], the core state after the last step).
    """
    # [T, B, ...] -> [T * B, ...]: the torso runs once over all steps.
    flat = (actions, env_outputs.reward, env_outputs.observation)
    features = self._features(*(_merge_time(t) for t in flat))
    if self._lstm:
      features, core_state = self._core_over_time(features, env_outputs.done, core_state)
    output = self._head(features)
    return tf.nest.map_structure(lambda t: _split_time(t, env_outputs.done), output), core_state

  def _features(self, last_action, reward, observation):
    one_hot = tf.one_hot(last_action, self._num_actions)
    clipped_reward = tf.clip_by_value(reward, -1, 1)[:, None]
    return tf.concat([self._torso(self._scaled(observation)), clipped_reward, one_hot], axis=1)

  def _scaled(self, observation):
    if self.running_scaling is None:
      self.running_scaling = scaling_by_moments(self._scaling, observation)
    return self.running_scaling(observation) if self.running_scaling else observation

  def _core(self, features, done, core_state):
    if not self._lstm:
      return features, core_state
    keep = tf.cast(~done, tf.float32)[:, None]  # The initial state is zero.
    return self._lstm(features, tf.nest.map_structure(lambda t: t * keep, core_state))

  def _core_over_time(self, features, done, core_state):
    outputs = []
    for features_t, done_t in zip(
      tf.unstack(_split_time(features, done)), tf.unstack(done), strict=True
    ):
      output, core_state = self._core(features_t, done_t, core_state)
      outputs.append(output)
    return tf.concat(outputs, axis=0), core_state

  def _head(self, features):
    logits = self._policy(features)
    action = tf.random.categorical(logits, 1, dtype=tf.int32)[:, 0]
    baseline = self._baseline(features)[:, 0]
    return AgentOutput(action, logits, self.value_scale(baseline) if self.value_scale else baseline)


def _merge_time(tensor):
  """[T, B, ...] -> [T * B, ...]."""
  return tf.reshape(tensor, [-1, *tensor.shape[2:]])


def _split_time(tensor, like):
  """[T * B, ...] -> [T, B, ...], with T and B of the tensor `like`."""
  steps, batch = like.shape[:2]
  return tf.reshape(tensor, [steps, -1 if batch is None else batch, *tensor.shape[1:]])


class SimpleConvNetAgent(Agent):
  """Images; convolutions 32-64-64 and a linear layer of 512 (Mnih et al. 2015)."""

  torso_class = _NatureTorso


class SimpleConvNetLSTMAgent(SimpleConvNetAgent):
  """`SimpleConvNetAgent` with an LSTM of 256."""

  lstm_size = 256


class ResNetAgent(Agent):
  """Images; the paper's large network: residual sections 16-32-32, linear 256."""

  torso_class = _ResNetTorso


class ResNetLSTMAgent(ResNetAgent):
  """`ResNetAgent` with an LSTM of 256 (the paper's large network)."""

  lstm_size = 256


class MLPAgent(Agent):
  """Vectors; two hidden layers of 64."""

  torso_class = _MLPTorso


class MLPLSTMAgent(MLPAgent):
  """`MLPAgent` with an LSTM of 64."""

  lstm_size = 64


_AGENTS = {name.lower(): globals()[name] for name in AGENTS}  # The classes above.


def agent_factory(agent_name: str) -> type[Agent]:
  """Returns the agent class of that name, in any letter case.

  Raises:
    ValueError: no agent has that name; the message lists those that exist.
  """
  try:
    return _AGENTS[agent_name.lower()]
  except KeyError:
    raise ValueError(f'no agent is called {agent_name!r}; there are {", ".join(AGENTS)}') from None


def build_agent(
  agent_name: str,
  spec: Spaces,
  precision: str = 'float32',
  scaling: str = 'unit',
  value_normalisation: bool = False,
) -> Agent:
  """Returns an agent whose variables have been created, by running it once on zeros.

  Args:
    agent_name: a name for `agent_factory`.
    spec: has `observation_shape` (H, W, C) or (D,), `observation_dtype` and `num_actions`.
    precision, scaling, value_normalisation: see `Agent`.

  Raises:
    ValueError: the agent does not accept observations of this rank.
  """
  cls = agent_factory(agent_name)
  rank = AGENTS[cls.__name__]
  if rank != len(spec.observation_shape):
    kinds = {1: 'vectors', 3: 'images'}
    raise ValueError(
      f'{cls.__name__} takes {kinds[rank]}, but the observations are of shape '
      f'{tuple(spec.observation_shape)}; {default_agent_name(spec.observation_shape)} would fit'
    )
  agent = cls(spec.num_actions, precision, scaling, value_normalisation)
  step = StepOutput(
    reward=tf.zeros([1]),
    info=StepOutputInfo(None, None, None),
    done=tf.zeros([1], tf.bool),
    observation=tf.zeros([1, *spec.observation_shape], spec.observation_dtype),
  )
  agent((tf.zeros([1], tf.int32), step), agent.initial_state(1))
  return agent


def local_copy(
  agent: Agent,
  agent_name: str,
  spec: Spaces,
  precision: str = 'float32',
  scaling: str = 'unit',
  value_normalisation: bool = False,
  values_of: Callable[[Agent], Sequence[tf.Tensor]] | None = None,
) -> tuple[Agent, Callable[[], tf.Operation]]:
  """Returns a second agent with its own local variables, and a function that updates them.

  Actors and learners use such copies, since reading a parameter server's variable in a loop would
  send it over the network at every step.

  Args:
    agent: the original.
    agent_name, spec, precision, scaling, value_normalisation: see `build_agent`.
    values_of: returns the values of `agent.variables`; None reads the variables.

  Returns:
    (agent, function that builds and returns the copying operation). The copy's variables are on the
    current device; TensorFlow's collections list them as local variables, not as trainable ones.
  """
  if scaling == 'running':
    scaling = 'copied'
  with tf.variable_creator_scope(_zero):  # Random initial values would be slow and are never read.
    copy = build_agent(agent_name, spec, precision, scaling, value_normalisation)
  graph = tf.compat.v1.get_default_graph()
  keys = tf.compat.v1.GraphKeys
  for variable in copy.variables:
    for key in (keys.GLOBAL_VARIABLES, keys.TRAINABLE_VARIABLES):
      _remove(graph.get_collection_ref(key), variable)
    graph.add_to_collection(keys.LOCAL_VARIABLES, variable)

  def copy_weights():
    values = values_of(agent) if values_of else agent.variables
    pairs = zip(with_moments(copy, copy.variables), with_moments(agent, values), strict=True)
    return tf.group(*(target.assign(source) for target, source in pairs))

  return copy, copy_weights


def _zero(next_creator: Callable[..., tf.Variable], **kwargs: Any) -> tf.Variable:
  value = tf.convert_to_tensor(kwargs['initial_value'])
  return next_creator(**{**kwargs, 'initial_value': tf.zeros(value.shape, value.dtype)})


def _remove(collection: list[tf.Variable], variable: tf.Variable) -> None:
  collection[:] = [v for v in collection if v is not variable]
