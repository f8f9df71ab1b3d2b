"""Agents: map observations and core states to policies, actions and baselines.

Agents follow IMPALA (Espeholt et al. 2018, arXiv 1802.01561, figure 3). They are Sonnet 2 modules
inside a TensorFlow graph; their torsos are in `learning/torsos.py`.

Shapes: N environments per step; [T, B] is a batch of B unrolls of T steps; F features; P parameters
of the policy (`learning.distributions`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import sonnet as snt
import tensorflow as tf

from common import own_code
from common.declarations import is_own_code
from learning import agent_checks
from learning.distributions import distribution_of
from learning.observation_scaling import MomentScaling, scaling_by_moments, with_moments
from learning.recurrent_network import RecurrentNetwork
from learning.sliced_weights import SlicedWeights
from learning.torsos import (
  Linear,
  MinAtarTorso,
  MLPTorso,
  NatureTorso,
  NestTorso,
  ResNetPoolTorso,
  ResNetTorso,
  TorsoClass,
  action_features,
  scale_of,
)
from learning.value_normalisation import PopArt
from structs import (
  AGENTS,
  AgentOutput,
  ArraySpec,
  Spaces,
  arrays_of,
  as_observation,
  is_masked,
  why_unfit,
)

snt.Module()  # Sonnet 2 needs its first module built eagerly; later ones may be built in graphs.


class Agent(RecurrentNetwork):
  """A torso, a recurrent core if there is one, and heads for policy and baseline.

  Subclasses set `torso_class` and `lstm_size`, or override the public methods of this class; see
  docs/environments_and_agents.md.

  Args:
    spaces: the observations and actions.
    precision: dtype of the torso's arithmetic, 'float32' or 'bfloat16'. Weights, LSTM, heads and
      all outputs of the agent stay float32.
    scaling: how observations are scaled, a key of `observation_scaling.SCALES`. Images of bytes:
      x / 255, (x - 128) / 128, `RunningScaling` or, in copies, `CopiedScaling`. Other arrays:
      unscaled, `RunningScaling` or `CopiedScaling`; words never.
    value_normalisation: number of levels for each of which an output of the baseline's last layer
      learns normalised returns, see `value_normalisation.PopArt`; 0 if returns are not normalised.

  Attributes:
    distribution: the `learning.distributions.Distribution` of the actions.
    scalings: list of the `MomentScaling` of each array of an observation, or None, set by the first
      call.
    value_scale: a `PopArt`, or None.
    initial_action_std: standard deviation of continuous actions at first, in units of half their
      range; set before the first call.
  """

  initial_action_std = 1.0
  torso_class: TorsoClass
  lstm_size: int | None = None

  def __init__(
    self,
    spaces: Spaces,
    precision: str = 'float32',
    scaling: str = 'unit',
    value_normalisation: int = 0,
    name: str = 'agent',
  ):
    super().__init__(name=name)
    self._spaces, self._scaling = spaces, scaling
    self.distribution = distribution_of(spaces.action)
    self.scalings: list[MomentScaling | None] | None = None
    self.value_scale = PopArt(int(value_normalisation)) if value_normalisation else None
    self._torso = self.build_torso(tf.dtypes.as_dtype(precision))
    self._lstm = self.build_core()
    # A small gain makes the first policy near-uniform; a near-deterministic one hardly explores.
    self._policy = Linear(self.distribution.num_outputs, gain=0.01, name='policy')
    self._baseline = Linear(max(1, int(value_normalisation)), gain=1.0, name='baseline')
    self._log_std = None

  def build_torso(self, precision: tf.DType) -> Callable[[Any], tf.Tensor]:
    """Returns the module that turns what `scaled` returns into float32 [N, features].

    Args:
      precision: dtype of the torso's arithmetic.
    """
    arrays = self.seen_arrays()
    if len(arrays) == 1 and arrays[0].dtype != 'int32':
      return self.torso_class(precision, scale_of(arrays[0], self._scaling))
    return NestTorso(arrays, self.torso_class, precision, self._scaling)

  def build_core(self) -> snt.RNNCore | None:
    """Returns the recurrent core, whose initial state is zero, or None."""
    return snt.LSTM(self.lstm_size) if self.lstm_size else None

  def features(self, last_action: tf.Tensor, reward: tf.Tensor, observation: Any) -> tf.Tensor:
    """Computes the input of the core, or of the heads if there is none.

    Here it is the torso's features, the last reward clipped to [-1, 1] and the one-hot last action
    (IMPALA, figure 3); see `action_features`.

    Args:
      last_action: [N] or [N, K], see `AgentOutput`.
      reward: float32 [N].
      observation: of [N, ...], see `StepOutput`.

    Returns:
      float32 [N, F].
    """
    clipped_reward = tf.clip_by_value(reward, -1, 1)[:, None]
    torso = self._torso(self.scaled(observation))
    last = action_features(self._spaces.action, last_action)
    return tf.concat([torso, clipped_reward, last], axis=1)

  def policy_outputs(self, features: tf.Tensor) -> tf.Tensor:
    """Computes `distribution.num_outputs` outputs from the core's: float32 [N, F] -> [N, ...]."""
    return self._policy(features)

  def baseline_outputs(self, features: tf.Tensor) -> tf.Tensor:
    """Computes the baseline from the core's output: float32 [N, F] -> [N].

    With PopArt for n > 1 levels it returns [N, n], the baseline of each level.
    """
    return self._values(features)

  def seen_arrays(self) -> tuple[ArraySpec, ...]:
    """Returns the arrays of an observation that the torso gets: all but the action mask."""
    arrays = self._spaces.observation
    return arrays[:-1] if is_masked(arrays) else arrays

  def scaled(self, observation: Any) -> Any:
    """Returns what the torso gets of [N, ...]: the arrays without the action mask, scaled."""
    arrays = arrays_of(observation)[: len(self.seen_arrays())]
    if self.scalings is None:
      names = [''] if len(arrays) == 1 else [f'_{i}' for i in range(len(arrays))]
      self.scalings = [
        scaling_by_moments(self._scaling, array, name)
        for array, name in zip(arrays, names, strict=True)
      ]
    pairs = zip(self.scalings, arrays, strict=True)
    return as_observation([scaling(array) if scaling else array for scaling, array in pairs])

  def rescale_values(self, weights: SlicedWeights) -> tf.Operation:
    """Returns the operation `PopArt.rescale`; needs `value_normalisation`."""
    assert self.value_scale
    return self.value_scale.rescale(weights, self._baseline)

  def _head(self, features, observation):
    mask = arrays_of(observation)[-1] if is_masked(self._spaces.observation) else None
    parameters = self.distribution.parameters(
      self.policy_outputs(features), self._free_parameters(), mask
    )
    action = self.distribution.sample(parameters)
    baseline = self.baseline_outputs(features)
    if self.value_scale:
      baseline = self.value_scale(baseline)
    return AgentOutput(action, parameters, baseline)

  def _values(self, features):
    outputs = self._baseline(features)
    return outputs if self.value_scale and self.value_scale.num_levels > 1 else outputs[:, 0]

  def _free_parameters(self):
    size = self.distribution.num_free
    if size and self._log_std is None:
      log_std = math.log(self.initial_action_std)
      self._log_std = tf.Variable(tf.fill([size], log_std), name='log_std')
    return self._log_std


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


class ResNetPoolAgent(Agent):
  """Images; `ResNetAgent` with global average pooling in place of flattening."""

  torso_class = ResNetPoolTorso


class ResNetPoolLSTMAgent(ResNetPoolAgent):
  """`ResNetPoolAgent` with an LSTM of 256."""

  lstm_size = 256


class MinAtarAgent(Agent):
  """Images of about 10 x 10; a convolution of 16 channels, linear 128 (the network of MinAtar)."""

  torso_class = MinAtarTorso


class MinAtarLSTMAgent(MinAtarAgent):
  """`MinAtarAgent` with an LSTM of 128."""

  lstm_size = 128


class MLPAgent(Agent):
  """Vectors; two hidden layers of 64."""

  torso_class = MLPTorso


class MLPLSTMAgent(MLPAgent):
  """`MLPAgent` with an LSTM of 64."""

  lstm_size = 64


class SeparateMLPAgent(Agent):
  """Vectors; two hidden layers of 64 for the policy, and two others for the baseline.

  As is usual for continuous actions (Andrychowicz et al. 2020, arXiv 2006.05990). The last reward
  and action are not inputs.
  """

  def build_torso(self, precision: tf.DType) -> Callable[[Any], tf.Tensor]:
    """As `Agent`."""
    scale = scale_of(self.seen_arrays()[0], self._scaling)
    self._baseline_torso = MLPTorso(precision, scale, 'baseline_torso')
    return MLPTorso(precision, scale, 'policy_torso')

  def features(self, last_action: tf.Tensor, reward: tf.Tensor, observation: Any) -> tf.Tensor:
    """As `Agent`: [N, F / 2] for the policy, then [N, F / 2] for the baseline."""
    del last_action, reward
    vector = tf.concat(arrays_of(self.scaled(observation)), axis=1)
    return tf.concat([self._torso(vector), self._baseline_torso(vector)], axis=1)

  def policy_outputs(self, features: tf.Tensor) -> tf.Tensor:
    """As `Agent`."""
    return self._policy(tf.split(features, 2, axis=1)[0])

  def baseline_outputs(self, features: tf.Tensor) -> tf.Tensor:
    """As `Agent`."""
    return self._values(tf.split(features, 2, axis=1)[1])


_AGENTS = {name.lower(): globals()[name] for name in AGENTS}  # The classes above.


def agent_factory(agent_name: str) -> type[Agent]:
  """Returns the agent class of a name: one of `AGENTS` in any letter case, or `module:Class`.

  A class of the user's need not be a subclass of `Agent`, but has its interface.

  Raises:
    ValueError: no agent has that name; the message lists those that exist.
    own_code.BadOwnCode: the class cannot be imported.
  """
  if is_own_code(agent_name):
    return own_code.load_agent(agent_name)
  try:
    return _AGENTS[agent_name.lower()]
  except KeyError:
    raise ValueError(f'no agent is called {agent_name!r}; there are {", ".join(AGENTS)}') from None


def build_agent(
  agent_name: str,
  spec: Spaces,
  precision: str = 'float32',
  scaling: str = 'unit',
  value_normalisation: int = 0,
  initial_action_std: float = 1.0,
) -> Agent:
  """Returns an agent whose variables have been created, by running it once on zeros.

  Args:
    agent_name: a name for `agent_factory`.
    spec: observations and actions.
    precision, scaling, value_normalisation, initial_action_std: see `Agent`; the last has no
      effect on a user's class that does not derive from `Agent`.

  Raises:
    ValueError: the agent does not accept these observations.
    own_code.BadOwnCode: a class of the user's cannot be imported, raises, or is no agent.
  """
  cls = agent_factory(agent_name)
  inputs = agent_checks.zero_step(spec, 1)
  if not is_own_code(agent_name):
    if reason := why_unfit(cls.__name__, spec):
      raise ValueError(reason)
    agent = cls(spec, precision, scaling, value_normalisation)
    agent.initial_action_std = initial_action_std
    agent(inputs, agent.initial_state(1))
    return agent
  with own_code.explained(agent_name, cls.__module__):
    agent = cls(spec, precision, scaling, value_normalisation)
    agent_checks.check_class(agent)
    if isinstance(agent, Agent):
      agent.initial_action_std = initial_action_std
    before = agent.initial_state(1)
    agent_checks.check_first_state(before)
    agent_checks.check_step(agent, spec, '__call__', before, agent(inputs, before), (1,))
    agent_checks.check_options(agent, scaling, value_normalisation)
  return agent


def check_agent(
  agent_name: str, spec: Spaces, precision: str, scaling: str, value_normalisation: int
) -> None:
  """Checks a class of the user's in a graph of its own; does nothing for the agents of `AGENTS`.

  Args:
    agent_name, spec, precision, scaling, value_normalisation: see `build_agent`.

  Raises:
    own_code.BadOwnCode: the class cannot be imported, raises, or does not keep to the interface.
  """
  if not is_own_code(agent_name):
    return
  with tf.Graph().as_default():
    agent = build_agent(agent_name, spec, 'float32', scaling, value_normalisation)
    with own_code.explained(agent_name, type(agent).__module__):
      agent_checks.check_agent(agent, spec)
    if precision != 'float32':
      build_agent(agent_name, spec, precision, scaling, value_normalisation)


def local_copy(
  agent: Agent,
  agent_name: str,
  spec: Spaces,
  precision: str = 'float32',
  scaling: str = 'unit',
  value_normalisation: int = 0,
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
