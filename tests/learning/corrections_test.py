"""The four off-policy corrections, the clips and both bootstraps, against numpy of the paper."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

import vtrace
from learner_fixtures import small_settings
from learning import corrections, distributions, losses
from structs import ActionPart, AgentOutput, StepOutput, StepOutputInfo, action_shape

T, B = 6, 4
DISCOUNT, LAMBDA = 0.9, 0.95
CLOSE = dict(rtol=1e-5, atol=1e-5)
CORRECTIONS = 'vtrace', 'one_step', 'epsilon', 'none'


def steps_of(seed=0):
  """log_rhos, discounts, rewards, values [T, B] and the bootstrap value [B], float32."""
  rng = np.random.default_rng(seed)
  log_rhos = rng.normal(scale=1.5, size=(T, B))  # Weights from about 1/20 to 20: all clips matter.
  discounts = np.where(rng.random((T, B)) < 0.2, 0, DISCOUNT)
  rewards, values = rng.normal(size=(2, T, B))
  return [np.float32(x) for x in (log_rhos, discounts, rewards, values, rng.normal(size=B))]


def of_the_paper(steps, correction, clip_rho, clip_pg_rho, clip_c, bootstrap):
  """vs and advantages: equation (1) as a double sum, and what section 5.2.2 leaves of it."""
  log_rhos, discounts, rewards, values, bootstrap_value = (np.float64(x) for x in steps)
  weights = np.exp(log_rhos)
  rho, c, pg_rho = np.ones_like(weights), np.ones_like(weights), np.ones_like(weights)
  if correction == 'vtrace':
    rho, c = np.minimum(clip_rho, weights), np.minimum(clip_c, weights)
  if correction in ('vtrace', 'one_step'):
    pg_rho = np.minimum(clip_pg_rho, weights)
  next_values = np.append(values[1:], bootstrap_value[None], axis=0)
  vs = np.append(values, bootstrap_value[None], axis=0)
  for s, t in itertools.combinations_with_replacement(range(T), 2):
    trace = np.prod(discounts[s:t] * LAMBDA * c[s:t], axis=0)
    vs[s] += trace * rho[t] * (rewards[t] + discounts[t] * next_values[t] - values[t])
  after = vs[1:] if bootstrap == 'vs' else next_values
  return vs[:-1], pg_rho * (rewards + discounts * after - values)


@pytest.mark.parametrize('bootstrap', ['vs', 'baseline'])
@pytest.mark.parametrize('clips', [(1.0, 1.0, 1.0), (3.7, 0.5, 2.0), (10.0, 100.0, 1.0)])
@pytest.mark.parametrize('correction', CORRECTIONS)
def test_targets_and_advantages_are_those_of_the_paper(graph, correction, clips, bootstrap):
  steps = steps_of()
  clip_rho, clip_pg_rho, clip_c = clips
  settings = small_settings(
    off_policy_correction=correction, advantage_bootstrap=bootstrap, vtrace_lambda=LAMBDA,
    clip_rho=clip_rho, clip_pg_rho=clip_pg_rho, clip_c=clip_c,
  )  # fmt: skip
  found = corrections.targets_and_advantages(*map(tf.constant, steps), hyperparameters=settings)
  expected = of_the_paper(steps, correction, clip_rho, clip_pg_rho, clip_c, bootstrap)
  with tf.compat.v1.Session() as session:
    for got, want in zip(session.run(found), expected, strict=True):
      np.testing.assert_allclose(got, want, **CLOSE)


def test_all_corrections_agree_where_the_policy_has_acted_itself(graph):
  _, *others = steps_of()
  found = [
    corrections.targets_and_advantages(
      tf.zeros([T, B]), *map(tf.constant, others),
      hyperparameters=small_settings(off_policy_correction=correction),
    )
    for correction in CORRECTIONS
  ]  # fmt: skip
  with tf.compat.v1.Session() as session:
    first, *rest = session.run(found)
  for other in rest:
    for got, want in zip(other, first, strict=True):
      np.testing.assert_array_equal(got, want)


def test_epsilon_keeps_the_gradient_of_an_unlikely_action_small(graph):
  log_probs = tf.constant(np.float32([0, -1, -10, -20, -90, 3, 200]))  # Above 0: densities.
  settings = small_settings(off_policy_correction='epsilon')
  corrected = corrections.policy_gradient_log_probs(log_probs, settings)
  with tf.compat.v1.Session() as session:
    values, slopes = session.run([corrected, tf.gradients(corrected, log_probs)[0]])
  exact = np.float64([0, -1, -10, -20, -90, 3, 200])
  np.testing.assert_allclose(values, np.log(np.exp(exact) + 1e-6), rtol=1e-6, atol=1e-6)
  # d log(pi + e) = pi / (pi + e) d log(pi).
  np.testing.assert_allclose(slopes, np.exp(exact) / (np.exp(exact) + 1e-6), rtol=1e-5, atol=1e-30)
  for correction in ('vtrace', 'one_step', 'none'):
    settings = small_settings(off_policy_correction=correction)
    assert corrections.policy_gradient_log_probs(log_probs, settings) is log_probs


def test_an_unknown_bootstrap_is_refused():
  with pytest.raises(ValueError, match="'value' is neither vs nor baseline"):
    vtrace.from_importance_weights(*steps_of(), advantage_bootstrap='value')


def losses_of(settings, parts, seed=1):
  """Losses of a random batch with two games that end; also log pi(a) and the steps."""
  rng = np.random.default_rng(seed)
  distribution = distributions.distribution_of(parts)

  def normal(*shape, scale=1.0):
    return tf.constant(np.float32(rng.normal(scale=scale, size=(T + 1, B, *shape))))

  shape = action_shape(parts)
  action = normal(*shape) if shape else tf.constant(rng.integers(0, 5, (T + 1, B), np.int32))
  learner = AgentOutput(action, normal(distribution.num_parameters), normal())
  actor = AgentOutput(action, normal(distribution.num_parameters), normal())
  done = np.zeros([T + 1, B], bool)
  done[3, :2] = True
  reward, done = normal(scale=0.5), tf.constant(done)
  info = StepOutputInfo(reward, tf.ones([T + 1, B], tf.int32), done)
  found = losses.compute_losses(
    learner, actor, StepOutput(reward, info, done, ()), distribution, settings, losses.Factors(0.0)
  )
  log_pi, log_mu = (
    distribution.log_prob(logits, action[1:])
    for logits in (learner.policy_logits[:-1], actor.policy_logits[1:])
  )
  clipped, discounts = tf.clip_by_value(reward[1:], -1, 1), 0.9 * tf.cast(~done[1:], tf.float32)
  steps = log_pi - log_mu, discounts, clipped, learner.baseline[:-1], learner.baseline[-1]
  with tf.compat.v1.Session() as session:
    return session.run((found, log_pi, steps))


DISCRETE = (ActionPart('discrete', 5),)
CONTINUOUS = (ActionPart('continuous', 2, (-1.0, None), (1.0, None)),)


@pytest.mark.parametrize('parts', [DISCRETE, CONTINUOUS], ids=['discrete', 'continuous'])
@pytest.mark.parametrize('correction', CORRECTIONS)
def test_losses_use_the_correction_asked_for(graph, correction, parts):
  settings = small_settings(
    off_policy_correction=correction, vtrace_lambda=LAMBDA, clip_rho=2.0, clip_pg_rho=0.5,
    clip_c=0.7, advantage_bootstrap='baseline',
  )  # fmt: skip
  found, log_pi, steps = losses_of(settings, parts)
  vs, advantages = of_the_paper(steps, correction, 2.0, 0.5, 0.7, 'baseline')
  log_pi = np.float64(log_pi)
  log_probs = np.log(np.exp(log_pi) + 1e-6) if correction == 'epsilon' else log_pi
  assert found.policy == pytest.approx(-np.sum(log_probs * advantages), rel=1e-4)
  assert found.baseline == pytest.approx(0.5 * np.sum((vs - steps[3]) ** 2), rel=1e-4)
  assert found.truncated == np.sum(steps[0] > np.log(2.0)) > 0
