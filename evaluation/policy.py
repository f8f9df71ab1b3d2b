"""A run's policy as one step of a graph: what is exported, and what plays in a video."""

import collections

import tensorflow as tf

import nets

Policy = collections.namedtuple('Policy', 'agent inputs outputs batch_size initial_state')
Policy.__doc__ = """One agent step of N games as operations of the default graph; N is free.

Attributes:
  agent: of `nets.build_agent`.
  inputs: dict of placeholders: observation [N, ...], last_action int32 [N], last_reward float32 [N]
    (raw), done bool [N] (the state starts anew), state float32 [N, S], S = 0 without LSTM.
  outputs: dict of tensors: action (sampled anew in each call) and greedy_action int32 [N], logits
    float32 [N, A], value float32 [N], state float32 [N, S].
  batch_size: placeholder int32 [], N of `initial_state`.
  initial_state: float32 [N, S].
"""

Step = collections.namedtuple('Step', 'reward done observation')


def build_policy(settings):
  """The `Policy` of an agent whose weights are yet to be restored.

  Args:
    settings: a run's settings, or the part of them that `nets.build_agent` takes.
  """
  agent = nets.build_agent(
    settings.agent_name,
    settings,
    scaling=settings.observation_scaling,
    value_normalisation=settings.value_normalisation,
  )
  like = agent.initial_state(1)
  sizes = [int(part.shape[1]) for part in tf.nest.flatten(like)]

  def merged(core_state):
    parts = tf.nest.flatten(core_state)
    return tf.concat(parts, axis=1)

  def placeholder(name, dtype, *shape):
    return tf.compat.v1.placeholder(dtype, [None, *shape], name)

  inputs = dict(
    observation=placeholder('observation', settings.observation_dtype, *settings.observation_shape),
    last_action=placeholder('last_action', tf.int32),
    last_reward=placeholder('last_reward', tf.float32),
    done=placeholder('done', tf.bool),
    state=placeholder('state', tf.float32, sum(sizes)),
  )
  core_state = tf.nest.pack_sequence_as(
    like, tf.split(inputs['state'], sizes, axis=1) if sizes else []
  )
  step = Step(inputs['last_reward'], inputs['done'], inputs['observation'])
  output, after = agent((inputs['last_action'], step), core_state)
  outputs = dict(
    action=output.action,
    greedy_action=tf.argmax(output.policy_logits, axis=1, output_type=tf.int32),
    logits=output.policy_logits,
    value=output.baseline,
    state=merged(after) if sizes else tf.identity(inputs['state']),
  )
  batch_size = tf.compat.v1.placeholder(tf.int32, [], 'batch_size')
  first = agent.initial_state(batch_size)
  initial_state = merged(first) if sizes else tf.zeros([batch_size, 0])
  return Policy(agent, inputs, outputs, batch_size, initial_state)
