"""A network: one wide layer and a GRU, with its own inputs of the core.

  python experiment.py --flagfile=flagfiles/vector.flags \
      --level_name=examples.corridor:Corridor-v0 --agent_name=examples.gru_agent:GRUAgent
"""

import sonnet as snt
import tensorflow as tf

import nets
from learning.torsos import Linear


class WideTorso(snt.Module):
  """One hidden layer of 128."""

  def __init__(self, precision, scale, name='wide_torso'):
    super().__init__(name=name)
    del scale  # For images of bytes: (x - scale.offset) * scale.factor.
    self.precision, self.layer = precision, Linear(128)

  @snt.Module.with_name_scope
  def __call__(self, observation):
    """float32 [N, D] -> float32 [N, 128]."""
    out = tf.nn.tanh(self.layer(tf.cast(observation, self.precision)))
    return tf.cast(out, tf.float32)


class GRUAgent(nets.Agent):
  """Vectors; remembers with a GRU of 32."""

  torso_class = WideTorso

  def build_core(self):
    return snt.GRU(32)

  def features(self, last_action, reward, observation):
    del last_action, reward  # `Agent` also shows the core the last action and reward.
    return self._torso(self.scaled(observation))
