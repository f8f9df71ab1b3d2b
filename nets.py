"""Agents: map observations and core states to policies, actions and baselines.

Agents follow IMPALA (Espeholt et al. 2018, arXiv 1802.01561, figure 3). They are Sonnet 2 modules
inside a TensorFlow graph; their torsos are in `learning/torsos.py`.

Shapes: N environments per step; [T, B] is a batch of B unrolls of T steps; F features; P parameters
of the policy (`learning.distributions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sonnet as snt
import tensorflow as tf

from learning.distributions import distribution_of
from learning.observation_scaling import MomentScaling, scaling_by_moments, with_moments
from learning.sliced_weights import SlicedWeights
from learning.torsos import (
  Linear,
  MLPTorso,
  NatureTorso,
  NestTorso,
  ResNetTorso,
  TorsoClass,
  scale_of,
)
from learning.value_normalisation import PopArt
from structs import (
  AGENTS,
  AgentOutput,
  CoreState,
  Spaces,
  StepOutput,
  StepOutputInfo,
  action_dtype,
  action_shape,
  arrays_of,
  as_observation,
  is_masked,
  why_unfit,
)

snt.Module()  # Sonnet 2 needs its first module built eagerly; later ones may be built in graphs.


class Agent(snt.Module):
  """A torso, an LSTM if `lstm_size` is set, and heads for policy and baseline.

  The core's input is the torso's features, the last reward clipped to [-1, 1] and the one-hot last
  action (IMPALA, figure 3); of an action of several parts, their one-hots, bits, and numbers
  clipped to [-1, 1].

  Args:
    spaces: the observations and actions.
    precision: dtype of the torso's arithmetic, 'float32' or 'bfloat16'. Weights, LSTM, heads and
      all outputs of the agent stay float32.
    scaling: how observations are scaled, a key of `observation_scaling.SCALES`. Images of bytes:
      x / 255, (x - 128) / 128, `RunningScaling` or, in copies, `CopiedScaling`. Other arrays:
      unscaled, `RunningScaling` or `CopiedScaling`; words never.
    value_normalisation: whether the baseline's last layer learns normalised returns, see
      `value_normalisation.PopArt`.

  Attributes:
    distribution: the `learning.distributions.Distribution` of the actions.
    scalings: list of the `MomentScaling` of each array of an observation, or None, set by the first
      call.
    value_scale: a `PopArt`, or None.
  """

  torso_class: TorsoClass
  lstm_size: int | None = None

  def __init__(
    self,
    spaces: Spaces,
    precision: str = 'float32',
    scaling: str = 'unit',
    value_normalisation: bool = False,
    name: str = 'agent',
  ):
    super().__init__(name=name)
    self._spaces, self._scaling = spaces, scaling
    self.distribution = distribution_of(spaces.action)
    self.scalings: list[MomentScaling | None] | None = None
    self.value_scale = PopArt() if value_normalisation else None
    self._torso = self._build_torso(tf.dtypes.as_dtype(precision))
    self._lstm = snt.LSTM(self.lstm_size) if self.lstm_size else None
    # A small gain makes the first policy near-uniform; a near-deterministic one hardly explores.
    self._policy = Linear(self.distribution.num_outputs, gain=0.01, name='policy')
    self._baseline = Linear(1, gain=1.0, name='baseline')
    self._log_std = None

  def _build_torso(self, precision):
    arrays = self._seen_arrays()
    if len(arrays) == 1 and arrays[0].dtype != 'int32':
      return self.torso_class(precision, scale_of(arrays[0], self._scaling))
    return NestTorso(arrays, self.torso_class, precision, self._scaling)

  def _seen_arrays(self):
    """Returns the `ArraySpec` of the arrays that the torso gets: all but the action mask."""
    arrays = self._spaces.observation
    return arrays[:-1] if is_masked(arrays) else arrays

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
      inputs: (last action [N] or [N, K], see `AgentOutput`; StepOutput of [N, ...]).
      core_state: from `initial_state` or the last call; it is reset where `done`.

    Returns:
      (AgentOutput of [N, ...], the next core state).
    """
    last_action, env_output = inputs
    observation = env_output.observation
    features = self._features(last_action, env_output.reward, observation)
    features, core_state = self._core(features, env_output.done, core_state)
    return self._head(features, observation), core_state

  @snt.Module.with_name_scope
  def unroll(
    self, actions: tf.Tensor, env_outputs: StepOutput, core_state: CoreState
  ) -> tuple[AgentOutput, CoreState]:
    """Computes all steps of unrolls, with the same results as repeated calls.

    Args:
      actions: [T, B] or [T, B, K], the action that led to each observation, see `AgentOutput`.
      env_outputs: StepOutput of [T, B, ...]. T is static.
      core_state: the core state before the first step.

    Returns:
      (AgentOutput of [T, B, ...], the core state after the last step).
    """
    # [T, B, ...] -> [T * B, ...]: the torso runs once over all steps.
    actions, reward, observation = tf.nest.map_structure(
      _merge_time, (actions, env_outputs.reward, env_outputs.observation)
    )
    features = self._features(actions, reward, observation)
    if self._lstm:
      features, core_state = self._core_over_time(features, env_outputs.done, core_state)
    output = self._head(features, observation)
    return tf.nest.map_structure(lambda t: _split_time(t, env_outputs.done), output), core_state

  def _features(self, last_action, reward, observation):
    clipped_reward = tf.clip_by_value(reward, -1, 1)[:, None]
    torso = self._torso(self._scaled(observation))
    return tf.concat([torso, clipped_reward, self._action_features(last_action)], axis=1)

  def _action_features(self, action):
    """Returns an action as float32 [N, features]."""
    parts = self._spaces.action
    if not action_shape(parts):
      return tf.one_hot(action, parts[0].size)
    features, start = [], 0
    for part in parts:
      width = 1 if part.kind == 'discrete' else part.size
      own = action[:, start : start + width]
      start += width
      if part.kind == 'discrete':
        features.append(tf.one_hot(tf.cast(own[:, 0], tf.int32), part.size))
      else:
        features.append(tf.clip_by_value(tf.cast(own, tf.float32), -1.0, 1.0))
    return tf.concat(features, axis=1)

  def _scaled(self, observation):
    """Returns what the torso gets: the arrays without the action mask, scaled."""
    arrays = arrays_of(observation)[: len(self._seen_arrays())]
    if self.scalings is None:
      names = [''] if len(arrays) == 1 else [f'_{i}' for i in range(len(arrays))]
      self.scalings = [
        scaling_by_moments(self._scaling, array, name)
        for array, name in zip(arrays, names, strict=True)
      ]
    pairs = zip(self.scalings, arrays, strict=True)
    return as_observation([scaling(array) if scaling else array for scaling, array in pairs])

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

  def _head(self, features, observation):
    mask = arrays_of(observation)[-1] if is_masked(self._spaces.observation) else None
    parameters = self.distribution.parameters(
      self._policy_outputs(features), self._free_parameters(), mask
    )
    action = self.distribution.sample(parameters)
    baseline = self._baseline_outputs(features)
    if self.value_scale:
      baseline = self.value_scale(baseline)
    return AgentOutput(action, parameters, baseline)

  def _policy_outputs(self, features):
    return self._policy(features)

  def _baseline_outputs(self, features):
    return self._baseline(features)[:, 0]

  def _free_parameters(self):
    size = self.distribution.num_free
    if size and self._log_std is None:
      self._log_std = tf.Variable(tf.zeros([size]), name='log_std')
    return self._log_std


def _merge_time(tensor):
  """[T, B, ...] -> [T * B, ...]."""
  return tf.reshape(tensor, [-1, *tensor.shape[2:]])


def _split_time(tensor, like):
  """[T * B, ...] -> [T, B, ...], with T and B of the tensor `like`."""
  steps, batch = like.shape[:2]
  return tf.reshape(tensor, [steps, -1 if batch is None else batch, *tensor.shape[1:]])


class SimpleConvNetAgent(Agent):
  """Images; convolutions 32-64-64 and a linear layer of 512 (Mnih et al. 2015)."""

  torso_class = NatureTorso


class SimpleConvNetLSTMAgent(SimpleConvNetAgent):
  """`SimpleConvNetAgent` with an LSTM of 256."""

  lstm_size = 256


class ResNetAgent(Agent):
  """Images; the paper's large network: residual sections 16-32-32, linear 256."""

  torso_class = ResNetTorso


class ResNetLSTMAgent(ResNetAgent):
  """`ResNetAgent` with an LSTM of 256 (the paper's large network)."""

  lstm_size = 256


class MLPAgent(Agent):
  """Vectors; two hidden layers of 64."""

  torso_class = MLPTorso


class MLPLSTMAgent(MLPAgent):
  """`MLPAgent` with an LSTM of 64."""

  lstm_size = 64


class SeparateMLPAgent(Agent):
  """Vectors; two hidden layers of 64 for the policy, and two others for the baseline.

  As is usual for continuous actions (Andrychowicz et al. 2020, arXiv 2006.05990). The last reward
  and action are no inputs.
  """

  def _build_torso(self, precision):
    scale = scale_of(self._seen_arrays()[0], self._scaling)
    self._baseline_torso = MLPTorso(precision, scale, 'baseline_torso')
    return MLPTorso(precision, scale, 'policy_torso')

  def _features(self, last_action, reward, observation):
    del last_action, reward
    vector = tf.concat(arrays_of(self._scaled(observation)), axis=1)
    return tf.concat([self._torso(vector), self._baseline_torso(vector)], axis=1)

  def _policy_outputs(self, features):
    return self._policy(tf.split(features, 2, axis=1)[0])

  def _baseline_outputs(self, features):
    return self._baseline(tf.split(features, 2, axis=1)[1])[:, 0]


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
    spec: observations and actions.
    precision, scaling, value_normalisation: see `Agent`.

  Raises:
    ValueError: the agent does not accept these observations.
  """
  cls = agent_factory(agent_name)
  if reason := why_unfit(cls.__name__, spec):
    raise ValueError(reason)
  agent = cls(spec, precision, scaling, value_normalisation)
  step = StepOutput(
    reward=tf.zeros([1]),
    info=StepOutputInfo(None, None, None),
    done=tf.zeros([1], tf.bool),
    observation=as_observation(
      [tf.zeros([1, *array.shape], array.dtype) for array in spec.observation]
    ),
  )
  action = tf.zeros([1, *action_shape(spec.action)], action_dtype(spec.action))
  agent((action, step), agent.initial_state(1))
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
