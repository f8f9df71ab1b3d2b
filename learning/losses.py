"""Losses of a batch of unrolls: V-trace policy gradient, baseline and entropy.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), section 4 and Table G.1. Losses are sums over time
and batch, so gradients of towers and of learners add up.

Shapes: [T, B] is time-major, a batch of B unrolls of T steps; P parameters of the policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from config import Hyperparameters
from learning.corrections import policy_gradient_log_probs, targets_and_advantages
from learning.distributions import Distribution
from structs import AgentOutput, StepOutput, StepOutputInfo

_RATIO_CLIP = 0.2  # As in PPO, Table 3.


class Losses(NamedTuple):
  """Losses of a batch, and moments of its advantages and targets.

  Attributes:
    total: float32 scalar, policy loss plus weighted baseline and entropy losses.
    policy: float32 scalar, policy gradient loss.
    baseline: float32 scalar, unweighted baseline loss.
    entropy: float32 scalar, unweighted entropy loss, without replayed unrolls.
    advantages: float32 [3], number, sum and sum of squares of the unscaled advantages, without
      those of replayed unrolls.
    targets: float32 [3], number, sum and sum of squares of the value targets, likewise.
      With PopArt for n > 1 levels, [n, 3] of each level.
    truncated: float32 scalar, number of steps whose importance weight is above `clip_rho`.
  """

  total: tf.Tensor
  policy: tf.Tensor
  baseline: tf.Tensor
  entropy: tf.Tensor
  advantages: tf.Tensor
  targets: tf.Tensor
  truncated: tf.Tensor


class Factors(NamedTuple):
  """Factors in the losses; floats or float32 scalars, or [B] of each unroll.

  Attributes:
    entropy: weight of the entropy loss in the total, see `learner.entropy_cost`.
    advantages: multiplies the advantages.
    baseline: multiplies the baseline errors.
  """

  entropy: float | tf.Tensor
  advantages: float | tf.Tensor = 1.0
  baseline: float | tf.Tensor = 1.0


def clip_rewards(rewards: tf.Tensor, clipping: str) -> tf.Tensor:
  """Returns clipped rewards, as used for learning.

  Args:
    rewards: float32 tensor of any shape.
    clipping: 'abs_one' (to [-1, 1]), 'soft_asymmetric' (5 tanh(r / 5), times 0.3 where r < 0) or
      'none'.

  Raises:
    ValueError: `clipping` is not one of these names.
  """
  if clipping == 'abs_one':
    return tf.clip_by_value(rewards, -1, 1)
  if clipping == 'soft_asymmetric':
    squeezed = tf.tanh(rewards / 5.0)
    return tf.where(rewards < 0, 0.3 * squeezed, squeezed) * 5.0
  if clipping == 'none':
    return tf.identity(rewards)
  raise ValueError(f'reward clipping {clipping!r} is none of abs_one, soft_asymmetric, none')


def policy_gradient_loss(log_probs: tf.Tensor, advantages: tf.Tensor) -> tf.Tensor:
  """Returns the sum over [T, B] of -log pi(a) * advantage; advantages get no gradient."""
  return -tf.reduce_sum(log_probs * tf.stop_gradient(advantages))


def reused_policy_gradient_loss(
  log_probs: tf.Tensor,
  advantages: tf.Tensor,
  first_pass_only: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
  """Returns the policy gradient loss of a batch that is used in several passes.

  The clipped objective of PPO (Schulman et al. 2017, arXiv 1707.06347): the sum over [T, B] of
  -min(r * advantage, clip(r) * advantage), where r is the action's probability divided by its
  probability in the first pass, and clip limits r to [0.8, 1.2]. In the first pass the gradient
  equals the gradient of `policy_gradient_loss`.

  Args:
    log_probs: float32 [T, B], log pi(a).
    advantages: float32 [T, B]; they get no gradient.
    first_pass_only: maps log pi(a) [T, B] to its value in the first pass.
  """
  advantages = tf.stop_gradient(advantages)
  ratios = tf.exp(log_probs - tf.stop_gradient(first_pass_only(log_probs)))
  clipped = tf.clip_by_value(ratios, 1 - _RATIO_CLIP, 1 + _RATIO_CLIP)
  return -tf.reduce_sum(tf.minimum(ratios * advantages, clipped * advantages))


def _policy_loss(log_probs, advantages, first_pass_only):
  if first_pass_only is None:
    return policy_gradient_loss(log_probs, advantages)
  return reused_policy_gradient_loss(log_probs, advantages, first_pass_only)


def baseline_loss(errors: tf.Tensor) -> tf.Tensor:
  """Returns half the sum of squares of `errors` [T, B]."""
  return 0.5 * tf.reduce_sum(tf.square(errors))


def entropy_loss(entropy_terms: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
  """Returns the negative entropy of the policies, summed over time and batch.

  Args:
    entropy_terms: float32 [T, B, E], see `Distribution.entropy_terms`.
    counted: bool [T, B], the steps to sum over.
  """
  return -tf.reduce_sum(tf.where(tf.expand_dims(counted, -1), entropy_terms, 0.0))


def _starts_after_cut(done: tf.Tensor, info: StepOutputInfo) -> tf.Tensor:
  """Returns bool: True where a game starts after a crash or time limit; see `StepOutput`."""
  return done & ~info.game_over & tf.equal(info.episode_step, 0)


def _moments(values: tf.Tensor, masked: tf.Tensor, levels: tf.Tensor | None = None) -> tf.Tensor:
  """Returns float32 [3] or [n, 3]: number, sum and sum of squares of the unmasked values [T, B].

  Args:
    values: float32 [T, B].
    masked: bool [T, B].
    levels: float32 [B, n], one-hot: the moments are those of each level.
  """
  kept = tf.where(masked, 0.0, values)
  parts = tf.cast(~masked, tf.float32), kept, tf.square(kept)
  if levels is None:
    return tf.stack([tf.reduce_sum(part) for part in parts])
  return tf.stack([tf.reduce_sum(tf.matmul(part, levels), axis=0) for part in parts], axis=-1)


def compute_losses(
  learner_outputs: AgentOutput,
  agent_outputs: AgentOutput,
  env_outputs: StepOutput,
  distribution: Distribution,
  hyperparameters: Hyperparameters,
  factors: Factors,
  first_pass_only: Callable[[tf.Tensor], tf.Tensor] | None = None,
  num_new: int | None = None,
  levels: tf.Tensor | None = None,
) -> Losses:
  """Returns the V-trace losses of a batch.

  Args:
    learner_outputs: AgentOutput of [T+1, B, ...], from the learner's policy.
    agent_outputs: AgentOutput of [T+1, B, ...], from the actor's policy; the action of entry t led
      to observation t.
    env_outputs: StepOutput of [T+1, B, ...]; reward and done of entry t came with observation t.
    distribution: of the actions; the `policy_logits` of both policies are its parameters.
    hyperparameters: weights, discount and clipping.
    factors: see `Factors`.
    first_pass_only: see `reused_policy_gradient_loss`; None if each batch is used once.
    num_new: number of unrolls, the first of the batch, that are not replayed; None if all are new.
      Replayed ones have no part in entropy loss, advantages and targets.
    levels: float32 [B, n], one-hot, the level of each unroll; None if the targets of all levels
      have the same moments.
  """
  bootstrap_value = learner_outputs.baseline[-1]
  # Entry t of these is the step from observation t to observation t+1.
  agent_outputs = tf.nest.map_structure(lambda t: t[1:], agent_outputs)
  rewards, done = env_outputs.reward[1:], env_outputs.done[1:]
  learner_outputs = tf.nest.map_structure(lambda t: t[:-1], learner_outputs)
  rewards = clip_rewards(rewards, hyperparameters.reward_clipping)
  # Masked steps teach nothing: with a reward equal to the value, the target equals the value.
  masked = _starts_after_cut(env_outputs.done, env_outputs.info)[1:]
  rewards = tf.where(masked, learner_outputs.baseline, rewards)
  uncounted = masked if num_new is None else masked | (tf.range(masked.shape[1]) >= num_new)

  log_probs = distribution.log_prob(learner_outputs.policy_logits, agent_outputs.action)
  behaviour = distribution.log_prob(agent_outputs.policy_logits, agent_outputs.action)
  log_rhos = log_probs - behaviour
  returns = targets_and_advantages(
    log_rhos,
    discounts=tf.cast(~done, tf.float32) * hyperparameters.discounting,
    rewards=rewards,
    values=learner_outputs.baseline,
    bootstrap_value=bootstrap_value,
    hyperparameters=hyperparameters,
  )
  advantages = _moments(returns.pg_advantages, uncounted)
  targets = _moments(returns.vs, uncounted, levels)
  scaled = returns.pg_advantages * factors.advantages
  differentiated = policy_gradient_log_probs(log_probs, hyperparameters)
  policy = _policy_loss(differentiated, scaled, first_pass_only)
  baseline = baseline_loss((returns.vs - learner_outputs.baseline) * factors.baseline)
  entropy = entropy_loss(distribution.entropy_terms(learner_outputs.policy_logits), ~uncounted)
  total = policy + hyperparameters.baseline_cost * baseline + factors.entropy * entropy
  above = log_rhos > math.log(hyperparameters.clip_rho)
  truncated = tf.reduce_sum(tf.cast(above & ~masked, tf.float32))
  return Losses(total, policy, baseline, entropy, advantages, targets, truncated)
