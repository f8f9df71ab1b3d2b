"""Environments and an agent in the graph that count, so that all numbers of an unroll are known.

`CountingWorlds` has the interface of `environments.FlowEnvironment`, `CountingAgent` that of
`nets.Agent`.
"""

import tensorflow as tf

from learning.distributions import Categorical
from simple_spaces import simple_spaces
from structs import AgentOutput, StepOutput, StepOutputInfo

NUM_ACTIONS = 5
SPEC = simple_spaces((3,), 'float32', NUM_ACTIONS)


class CountingWorlds:
  """N endless rows of games; those of environment i have `game_steps[i]` steps each.

  Observation float32 [N, 3]: step of the game, number of the game, the action that led here (-1 at
  first). When `done`, it is already the first of the next game.

  Args:
    game_steps: list of N ints.
    reward: function of (step int32 [N], action int32 [N]); the number of the step if left out.
  """

  crashes = 0
  spec = SPEC

  def __init__(self, game_steps, reward=lambda step, action: step):
    self.num_envs = len(game_steps)
    self._game_steps, self._reward = tf.constant(game_steps), reward

  def initial(self):
    none = tf.zeros([self.num_envs], tf.int32)
    no = tf.zeros([self.num_envs], tf.bool)
    info = StepOutputInfo(tf.cast(none, tf.float32), none, no)
    output = StepOutput(tf.cast(none, tf.float32), info, ~no, _observation(none, none, none - 1))
    return output, (none, none, info.episode_return)

  def step(self, action, state):
    step, game, total = state
    step += 1
    reward = tf.cast(self._reward(step, action), tf.float32)
    total += reward
    done = tf.equal(step, self._game_steps)
    info = StepOutputInfo(total, step, done)
    step, game = tf.where(done, 0, step), tf.where(done, game + 1, game)
    output = StepOutput(reward, info, done, _observation(step, game, action))
    return output, (step, game, tf.where(done, 0.0, total))


def _observation(*columns):
  return tf.cast(tf.stack(columns, axis=1), tf.float32)


class CountingAgent:
  """Its core state [N, 1] counts the steps since `done`; its logits repeat what it was shown.

  AgentOutput: action (3 * last action + step of the game + core) % 5; policy_logits = observation,
  reward and done; baseline = the core state after the step.
  """

  distribution = Categorical(5)  # As many parameters as the logits have.

  def initial_state(self, batch_size):
    return tf.zeros([batch_size, 1])

  def __call__(self, inputs, core_state):
    last_action, env_output = inputs
    done = tf.cast(env_output.done, tf.float32)[:, None]
    core_state = core_state * (1 - done) + 1
    count = core_state[:, 0]
    seen = tf.concat([env_output.observation, env_output.reward[:, None], done], axis=1)
    step = tf.cast(env_output.observation[:, 0] + count, tf.int32)
    return AgentOutput((3 * last_action + step) % NUM_ACTIONS, seen, count), core_state
