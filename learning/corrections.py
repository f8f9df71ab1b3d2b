"""The off-policy corrections that the paper compares: V-trace and three simpler ones.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), section 5.2.2 and Table 2:

  vtrace    section 4: values and policy gradient are corrected, see `vtrace.py`.
  one_step  values are learned without a correction; each advantage of the policy gradient is
            multiplied by the importance weight of its step.
  epsilon   no correction; 1e-6 is added to pi(a) in the logarithm of the policy gradient, so that
            actions which have become unlikely give no huge gradients.
  none      no correction: off-policy data are learned from as if the policy had acted.
"""

from __future__ import annotations

import math

import tensorflow as tf

import vtrace
from config import Hyperparameters

_EPSILON = 1e-6


def targets_and_advantages(
  log_rhos: tf.Tensor,
  discounts: tf.Tensor,
  rewards: tf.Tensor,
  values: tf.Tensor,
  bootstrap_value: tf.Tensor,
  hyperparameters: Hyperparameters,
) -> vtrace.VTraceReturns:
  """Returns value targets and advantages under `hyperparameters.off_policy_correction`.

  Args:
    log_rhos: float32 [T, B], log(pi(a_t|x_t) / mu(a_t|x_t)).
    discounts, rewards, values: float32 [T, B], see `vtrace.from_importance_weights`.
    bootstrap_value: float32 [B], V(x_T).
    hyperparameters: the correction, its clips, lambda and the bootstrap of the advantages.
  """
  correction = hyperparameters.off_policy_correction
  lambda_, bootstrap = hyperparameters.vtrace_lambda, hyperparameters.advantage_bootstrap
  others = discounts, rewards, values, bootstrap_value
  if correction == 'vtrace':
    return vtrace.from_importance_weights(
      log_rhos,
      *others,
      clip_rho_threshold=hyperparameters.clip_rho,
      clip_pg_rho_threshold=hyperparameters.clip_pg_rho,
      lambda_=lambda_,
      clip_c_threshold=hyperparameters.clip_c,
      advantage_bootstrap=bootstrap,
    )
  on_policy = vtrace.from_importance_weights(
    tf.zeros_like(log_rhos), *others, None, None,
    lambda_=lambda_, clip_c_threshold=None, advantage_bootstrap=bootstrap,
  )  # fmt: skip
  if correction != 'one_step':
    return on_policy
  weights = tf.stop_gradient(tf.minimum(hyperparameters.clip_pg_rho, tf.exp(log_rhos)))
  return on_policy._replace(pg_advantages=weights * on_policy.pg_advantages)


def policy_gradient_log_probs(log_probs: tf.Tensor, hyperparameters: Hyperparameters) -> tf.Tensor:
  """Returns the logarithms that the policy gradient differentiates, float32 [T, B].

  Args:
    log_probs: float32 [T, B], log pi(a).
    hyperparameters: the correction; `epsilon` makes them log(pi(a) + 1e-6).
  """
  if hyperparameters.off_policy_correction != 'epsilon':
    return log_probs
  # As a sum of logarithms, since a density, unlike a probability, may be too large for exp.
  epsilon = tf.fill(tf.shape(log_probs), math.log(_EPSILON))
  return tf.reduce_logsumexp(tf.stack([log_probs, epsilon]), axis=0)
