"""The order of an agent's computation: all features at once, the core step by step, then the head.

Shapes: N environments per step; [T, B] is a batch of B unrolls of T steps; F features.
"""

from __future__ import annotations

import abc
from typing import Any

import sonnet as snt
import tensorflow as tf

from structs import AgentOutput, CoreState, StepOutput


class RecurrentNetwork(snt.Module):
  """Features, a recurrent core if there is one, and a head, for one step or for unrolls."""

  _lstm: Any  # A snt.RNNCore or None; the name decides the order of `variables`.

  @abc.abstractmethod
  def features(self, last_action: tf.Tensor, reward: tf.Tensor, observation: Any) -> tf.Tensor:
    """See `nets.Agent`."""

  @abc.abstractmethod
  def _head(self, features: tf.Tensor, observation: Any) -> AgentOutput:
    """Computes the outputs of [N, ...] from those of the core, float32 [N, F]."""

  def initial_state(self, batch_size: int) -> CoreState:
    """Returns the first core state: a nest of float32 [batch_size, ...]; () without a core."""
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
    features = self.features(last_action, env_output.reward, observation)
    features, core_state = self._step_core(features, env_output.done, core_state)
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
    features = self.features(actions, reward, observation)
    if self._lstm:
      features, core_state = self._core_over_time(features, env_outputs.done, core_state)
    output = self._head(features, observation)
    return tf.nest.map_structure(lambda t: _split_time(t, env_outputs.done), output), core_state

  def _step_core(self, features, done, core_state):
    if not self._lstm:
      return features, core_state

    keep = tf.cast(~done, tf.float32)[:, None]

    def reset(state):  # The initial state is zero.
      axes = [1] * (state.shape.rank - 1)
      return state * (keep if len(axes) == 1 else tf.reshape(keep, [-1, *axes]))

    return self._lstm(features, tf.nest.map_structure(reset, core_state))

  def _core_over_time(self, features, done, core_state):
    outputs = []
    for features_t, done_t in zip(
      tf.unstack(_split_time(features, done)), tf.unstack(done), strict=True
    ):
      output, core_state = self._step_core(features_t, done_t, core_state)
      outputs.append(output)
    return tf.concat(outputs, axis=0), core_state


def _merge_time(tensor):
  """[T, B, ...] -> [T * B, ...]."""
  return tf.reshape(tensor, [-1, *tensor.shape[2:]])


def _split_time(tensor, like):
  """[T * B, ...] -> [T, B, ...], with T and B of the tensor `like`."""
  steps, batch = like.shape[:2]
  return tf.reshape(tensor, [steps, -1 if batch is None else batch, *tensor.shape[1:]])
