"""Losses of a batch of unrolls: V-trace policy gradient, baseline and entropy.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), section 4 and Table G.1. Losses are sums over time
and batch, so gradients of towers and of learners add up.

Shapes: [T, B] is time-major, a batch of B unrolls of T steps; A actions.
"""

import collections

import tensorflow as tf

import vtrace

_RATIO_CLIP = 0.2  # How far a policy may go from that of the first pass and still be followed.

Losses = collections.namedtuple('Losses', 'total policy baseline entropy advantages targets')
Losses.__doc__ = """float32 scalars; `baseline` and `entropy` without their costs, `total` with.

`advantages` (not scaled) and `targets` (of the values) are float32 [3]: how many steps had one,
their sum and the sum of their squares.
"""


def clip_rewards(rewards, clipping):
  """Rewards as the learner sees them.

  Args:
    rewards: float32 tensor of any shape.
    clipping: 'abs_one' (to [-1, 1]), 'soft_asymmetric' (5 tanh(r / 5), times 0.3 where r < 0) or
      'none'.

  Raises:
    ValueError: no clipping of that name.
  """
  if clipping == 'abs_one':
    return tf.clip_by_value(rewards, -1, 1)
  if clipping == 'soft_asymmetric':
    squeezed = tf.tanh(rewards / 5.0)
    return tf.where(rewards < 0, 0.3 * squeezed, squeezed) * 5.0
  if clipping == 'none':
    return tf.identity(rewards)
  raise ValueError(f'reward clipping {clipping!r} is none of abs_one, soft_asymmetric, none')


def policy_gradient_loss(policy_logits, actions, advantages):
  """Sum over [T, B] of -log pi(a) * advantage; no gradient flows through the advantages."""
  log_probs = vtrace.log_probs_from_logits_and_actions(policy_logits, actions)
  return -tf.reduce_sum(log_probs * tf.stop_gradient(advantages))


def reused_policy_gradient_loss(policy_logits, actions, advantages, at_first):
  """The policy gradient loss where a batch is learned from several times (PPO, arXiv 1707.06347).

  Sum over [T, B] of -min(r * advantage, clip(r) * advantage), with r the probability of the action
  relative to that before the first pass, clipped to [0.8, 1.2]. The gradient of the first pass is
  that of `policy_gradient_loss`.

  Args:
    policy_logits: float32 [T, B, A].
    actions: int32 [T, B].
    advantages: float32 [T, B]; no gradient flows through them.
    at_first: function of log pi(a) [T, B], gives those of the first pass.
  """
  log_probs = vtrace.log_probs_from_logits_and_actions(policy_logits, actions)
  advantages = tf.stop_gradient(advantages)
  ratios = tf.exp(log_probs - tf.stop_gradient(at_first(log_probs)))
  clipped = tf.clip_by_value(ratios, 1 - _RATIO_CLIP, 1 + _RATIO_CLIP)
  return -tf.reduce_sum(tf.minimum(ratios * advantages, clipped * advantages))


def baseline_loss(errors):
  """Half the sum of squares of `errors` [T, B]."""
  return 0.5 * tf.reduce_sum(tf.square(errors))


def entropy_loss(policy_logits, counted=None):
  """The negative entropy of policies [T, B, A], summed where `counted` (bool [T, B]; None: all)."""
  policy, log_policy = tf.nn.softmax(policy_logits), tf.nn.log_softmax(policy_logits)
  if counted is not None:
    policy = tf.where(counted[..., tf.newaxis], policy, 0.0)
  return tf.reduce_sum(policy * log_policy)


def _leads_nowhere(done, info):
  """Whether entries came by a step from a crash or a time limit to a new game; see `StepOutput`."""
  return done & ~info.game_over & tf.equal(info.episode_step, 0)


def _moments(values, masked):
  kept = tf.where(masked, 0.0, values)
  number = tf.reduce_sum(tf.cast(~masked, tf.float32))
  return tf.stack([number, tf.reduce_sum(kept), tf.reduce_sum(tf.square(kept))])


def compute_losses(
  learner_outputs,
  agent_outputs,
  env_outputs,
  hyperparameters,
  entropy_weight,
  advantage_factor=1.0,
  baseline_factor=1.0,
  at_first=None,
):
  """V-trace losses of a batch.

  Args:
    learner_outputs: AgentOutput of [T+1, B, ...], the learner's policy on the actor's steps.
    agent_outputs: AgentOutput of [T+1, B, ...], what the actor computed; the action of entry t led
      to observation t.
    env_outputs: StepOutput of [T+1, B, ...]; reward and done of entry t came with observation t.
    hyperparameters: `config.Hyperparameters`.
    entropy_weight: what the entropy counts in the total, see `learner.entropy_cost`.
    advantage_factor: float32 scalar, multiplies the advantages.
    baseline_factor: float32 scalar, multiplies the errors of the baseline.
    at_first: see `reused_policy_gradient_loss`; None: a batch is learned from once.

  Returns:
    `Losses`.
  """
  bootstrap_value = learner_outputs.baseline[-1]
  # Entry t of these is the step from observation t to observation t+1.
  agent_outputs = tf.nest.map_structure(lambda t: t[1:], agent_outputs)
  rewards, done = env_outputs.reward[1:], env_outputs.done[1:]
  learner_outputs = tf.nest.map_structure(lambda t: t[:-1], learner_outputs)
  rewards = clip_rewards(rewards, hyperparameters.reward_clipping)
  # From a time limit or a crash to the next game: target and value are one, so the errors are 0.
  masked = _leads_nowhere(env_outputs.done, env_outputs.info)[1:]
  rewards = tf.where(masked, learner_outputs.baseline, rewards)

  returns = vtrace.from_logits(
    behaviour_policy_logits=agent_outputs.policy_logits,
    target_policy_logits=learner_outputs.policy_logits,
    actions=agent_outputs.action,
    discounts=tf.cast(~done, tf.float32) * hyperparameters.discounting,
    rewards=rewards,
    values=learner_outputs.baseline,
    bootstrap_value=bootstrap_value,
    lambda_=hyperparameters.vtrace_lambda,
  )
  advantages, targets = _moments(returns.pg_advantages, masked), _moments(returns.vs, masked)
  scaled = returns.pg_advantages * advantage_factor
  chosen = learner_outputs.policy_logits, agent_outputs.action, scaled
  if at_first is None:
    policy = policy_gradient_loss(*chosen)
  else:
    policy = reused_policy_gradient_loss(*chosen, at_first)
  baseline = baseline_loss((returns.vs - learner_outputs.baseline) * baseline_factor)
  entropy = entropy_loss(learner_outputs.policy_logits, ~masked)
  total = policy + hyperparameters.baseline_cost * baseline + entropy_weight * entropy
  return Losses(total, policy, baseline, entropy, advantages, targets)
