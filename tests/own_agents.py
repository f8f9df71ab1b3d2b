"""Agents of a user: one that is no subclass of `nets.Agent`, and some that break the interface."""

import sonnet as snt
import tensorflow as tf

import nets
from learning.distributions import distribution_of
from learning.torsos import MLPTorso
from structs import AgentOutput


class Plain(snt.Module):
  """Vectors; the core state is a fading sum of the observations."""

  def __init__(self, spaces, precision, scaling, value_normalisation):
    super().__init__(name='plain')
    self.distribution = distribution_of(spaces.action)
    self.size = spaces.observation[0].shape[0]
    self.policy = snt.Linear(self.distribution.num_outputs)
    self.value = snt.Linear(1, name='value')

  def initial_state(self, batch_size):
    return (tf.zeros([batch_size, self.size, 1]),)

  @snt.Module.with_name_scope
  def __call__(self, inputs, core_state):
    _, env_output = inputs
    (memory,) = core_state
    memory = tf.where(env_output.done[:, None, None], 0.0, memory)
    memory = 0.9 * memory + tf.cast(env_output.observation, tf.float32)[:, :, None]
    return self.heads(memory[:, :, 0]), (memory,)

  def heads(self, memory):
    parameters = self.distribution.parameters(self.policy(memory))
    return AgentOutput(self.distribution.sample(parameters), parameters, self.value(memory)[:, 0])

  def unroll(self, actions, env_outputs, core_state):
    outputs = []
    for t in range(actions.shape[0]):
      now = tf.nest.map_structure(lambda x, t=t: x[t], (actions, env_outputs))
      output, core_state = self(now, core_state)
      outputs.append(output)
    return tf.nest.map_structure(lambda *x: tf.stack(x), *outputs), core_state


class Noisy(Plain):
  """Noise in the weights: two calls never agree."""

  def heads(self, memory):
    return super().heads(memory + tf.random.normal(tf.shape(memory)))


class Raises(Plain):
  def heads(self, memory):
    return super().heads(memory @ tf.zeros([7, 7]))


class TakesNothing(Plain):
  def __init__(self):
    pass


class NoUnroll(Plain):
  unroll = None


class NoDistribution(Plain):
  def __init__(self, *args):
    super().__init__(*args)
    self.distribution = None


class NoModule:
  def __init__(self, *args):
    self._plain = Plain(*args)
    self.distribution, self.initial_state = self._plain.distribution, self._plain.initial_state
    self.unroll = self._plain.unroll

  def __call__(self, inputs, core_state):
    return self._plain(inputs, core_state)


class NoState(Plain):
  def __call__(self, inputs, core_state):
    return super().__call__(inputs, core_state)[0]


class NoTensor(Plain):
  def heads(self, memory):
    return super().heads(memory)._replace(baseline=0.0)


class WrongRank(Plain):
  def heads(self, memory):
    return super().heads(memory)._replace(baseline=self.value(memory))


class WrongDtype(Plain):
  def heads(self, memory):
    output = super().heads(memory)
    return output._replace(policy_logits=tf.cast(output.policy_logits, tf.float64))


class WrongAction(Plain):
  def heads(self, memory):
    output = super().heads(memory)
    return output._replace(action=tf.cast(output.action, tf.int64))


class OtherState(Plain):
  def __call__(self, inputs, core_state):
    output, state = super().__call__(inputs, core_state)
    return output, state[0]


class GrowingState(Plain):
  def __call__(self, inputs, core_state):
    output, (memory,) = super().__call__(inputs, core_state)
    return output, (tf.concat([memory, memory], axis=1),)


class DoubleState(Plain):
  def initial_state(self, batch_size):
    return (tf.zeros([batch_size, self.size, 1], tf.float64),)


class Forgets(Plain):
  def __call__(self, inputs, core_state):
    return super().__call__(inputs, tf.nest.map_structure(tf.zeros_like, core_state))


class NeverResets(Plain):
  def __call__(self, inputs, core_state):
    action, env_output = inputs
    done = tf.zeros_like(env_output.done)
    return super().__call__((action, env_output._replace(done=done)), core_state)


class UnrollsOtherwise(Plain):
  def unroll(self, actions, env_outputs, core_state):
    env_outputs = env_outputs._replace(done=tf.zeros_like(env_outputs.done))
    return super().unroll(actions, env_outputs, core_state)


class NewLayers(Plain):
  def heads(self, memory):
    self.policy = snt.Linear(self.distribution.num_outputs)
    return super().heads(memory)


class Unused(Plain):
  def __init__(self, *args):
    super().__init__(*args)
    self.spare = tf.Variable(tf.zeros([3]), name='spare')


class DoubleVariable(Plain):
  def __init__(self, *args):
    super().__init__(*args)
    self.factor = tf.Variable(tf.ones([], tf.float64), name='factor')

  def heads(self, memory):
    return super().heads(memory * tf.cast(self.factor, tf.float32))


class Untrained(Plain):
  def heads(self, memory):
    parameters = tf.zeros([tf.shape(memory)[0], self.distribution.num_parameters])
    action = self.distribution.sample(parameters)
    return AgentOutput(action, parameters, tf.reduce_sum(memory, axis=1))


class OneSizeOnly(Plain):
  def heads(self, memory):
    return super().heads(tf.reshape(memory, [int(memory.shape[0]), self.size]))


class OfVectors(nets.Agent):
  """A subclass that does without what `nets.Agent` does by itself."""

  torso_class = MLPTorso
