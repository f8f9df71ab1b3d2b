"""Builds one step of a run's policy as a graph, for exports and videos."""

import re
from typing import Any, NamedTuple

import tensorflow as tf

import nets
from structs import Spaces, action_dtype, action_shape, as_observation


class Policy(NamedTuple):
  """One agent step of N games in the default graph; N may differ from call to call.

  Attributes:
    agent: agent from `nets.build_agent`.
    inputs: placeholders by name: observation [N, ...], or one placeholder for each array of it,
      observation_NAME (see `input_names`); last_action [N] or [N, K], see `AgentOutput`;
      last_reward float32 [N] (raw), done bool [N] (resets the state), state float32 [N, S], S = 0
      without LSTM.
    outputs: tensors by name: action (sampled in each call) and greedy_action, like last_action;
      logits float32 [N, P], the parameters of the policy; value float32 [N], or [N, n] with PopArt
      for each of n > 1 levels; state float32 [N, S].
    batch_size: placeholder int32 [], the N of `initial_state`.
    initial_state: float32 [N, S].
  """

  agent: Any
  inputs: dict[str, tf.Tensor]
  outputs: dict[str, tf.Tensor]
  batch_size: Any
  initial_state: tf.Tensor


class Step(NamedTuple):
  """The fields of a `StepOutput` that an agent reads.

  Attributes:
    reward: float32 [N].
    done: bool [N].
    observation: see `StepOutput`.
  """

  reward: tf.Tensor
  done: tf.Tensor
  observation: Any


def input_names(spaces: Spaces) -> list[str]:
  """Returns the names of the inputs that take the arrays of an observation.

  `observation` for a single array; else observation_NAME, where NAME is that of `ArraySpec` with
  `_` for characters other than letters and digits.
  """
  if len(spaces.observation) == 1:
    return ['observation']
  return ['observation_' + re.sub(r'\W', '_', array.name) for array in spaces.observation]


def build_policy(settings: Any) -> Policy:
  """Builds the policy in the default graph; its weights are not initialized.

  Args:
    settings: `roles.settings.Settings` of the run; `nets.build_agent` uses a part of them.
  """
  agent = nets.build_agent(
    settings.agent_name,
    settings,
    scaling=settings.observation_scaling,
    value_normalisation=settings.value_normalisation,
  )
  like = agent.initial_state(1)
  shapes = [part.shape[1:] for part in tf.nest.flatten(like)]
  sizes = [shape.num_elements() for shape in shapes]

  def merged(core_state):
    parts = zip(tf.nest.flatten(core_state), sizes, strict=True)
    return tf.concat([tf.reshape(part, [-1, size]) for part, size in parts], axis=1)

  def split(state):
    parts = tf.split(state, sizes, axis=1) if sizes else []
    return [tf.reshape(t, [-1, *shape]) for t, shape in zip(parts, shapes, strict=True)]

  def placeholder(name, dtype, *shape):
    return tf.compat.v1.placeholder(dtype, [None, *shape], name)

  inputs = dict(
    **{
      name: placeholder(name, array.dtype, *array.shape)
      for name, array in zip(input_names(settings), settings.observation, strict=True)
    },
    last_action=placeholder(
      'last_action', action_dtype(settings.action), *action_shape(settings.action)
    ),
    last_reward=placeholder('last_reward', tf.float32),
    done=placeholder('done', tf.bool),
    state=placeholder('state', tf.float32, sum(sizes)),
  )
  core_state = tf.nest.pack_sequence_as(like, split(inputs['state']))
  observation = as_observation([inputs[name] for name in input_names(settings)])
  step: Any = Step(inputs['last_reward'], inputs['done'], observation)
  output, after = agent((inputs['last_action'], step), core_state)
  outputs = dict(
    action=output.action,
    greedy_action=agent.distribution.mode(output.policy_logits),
    logits=output.policy_logits,
    value=output.baseline,
    state=merged(after) if sizes else tf.identity(inputs['state']),
  )
  batch_size = tf.compat.v1.placeholder(tf.int32, [], 'batch_size')
  first = agent.initial_state(batch_size)
  initial_state = merged(first) if sizes else tf.zeros([batch_size, 0])
  return Policy(agent, inputs, outputs, batch_size, initial_state)
