"""Environments of a test, played through a session, and the worker processes behind them."""

import contextlib

import numpy as np
import tensorflow as tf

import environments


class Player:
  """Steps environments through a session, one call at a time."""

  def __init__(self, session, flow):
    self.flow, self._session = flow, session
    self._action = tf.compat.v1.placeholder(tf.int32, [flow.num_envs])
    self._state = tf.compat.v1.placeholder(tf.int32, [])
    self._initial = flow.initial()
    self._step = flow.step(self._action, self._state)
    self._state_v = None

  def initial(self):
    output, self._state_v = self._session.run(self._initial)
    return output

  def step(self, actions=0):
    actions = np.broadcast_to(np.array(actions, np.int32), [self.flow.num_envs])
    feed = {self._action: actions, self._state: self._state_v}
    output, self._state_v = self._session.run(self._step, feed)
    return output


@contextlib.contextmanager
def playing(level_name, num_envs, seed=1, **kwargs):
  """A `Player` in a session with a single thread for operations; closed at the end."""
  config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=1)
  flow = environments.create_environment(level_name, num_envs, seed, **kwargs)
  try:
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
      yield Player(session, flow)
  finally:
    flow.close()


def counting(name):
  return f'counting_env:{name}-v0'
