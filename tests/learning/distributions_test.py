"""Distributions of actions against scipy.stats, products of them, and action masks."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import vtrace
from learning.distributions import Bernoulli, Categorical, Normal, distribution_of
from structs import ActionPart

N = 7
PARTS = [
  ActionPart('discrete', 3),
  ActionPart('continuous', 2, (-1.0, 0.0), (1.0, 5.0)),
  ActionPart('binary', 4),
  ActionPart('discrete', 5),
]


def random(*shape, seed=0, scale=1.0):
  return np.float32(np.random.default_rng(seed).normal(scale=scale, size=shape))


def run(*fetches):
  with tf.compat.v1.Session() as session:
    return session.run(fetches if len(fetches) > 1 else fetches[0])


def test_categorical(graph):
  logits, actions = random(N, 4), np.arange(N, dtype=np.int32) % 4
  one = Categorical(4)
  log_prob, entropy, mode = run(
    one.log_prob(tf.constant(logits), actions), one.entropy(logits), one.mode(logits)
  )
  logs = scipy.special.log_softmax(logits, axis=1)
  np.testing.assert_allclose(log_prob, logs[np.arange(N), actions], rtol=1e-5)
  np.testing.assert_allclose(entropy, scipy.stats.entropy(np.exp(logs), axis=1), rtol=1e-5)
  np.testing.assert_array_equal(mode, logits.argmax(axis=1))


def test_bernoulli(graph):
  logits = random(N, 3)
  bits = np.int32(np.random.default_rng(1).integers(0, 2, (N, 3)))
  one = Bernoulli(3)
  log_prob, entropy, mode = run(
    one.log_prob(tf.constant(logits), bits), one.entropy(tf.constant(logits)), one.mode(logits)
  )
  law = scipy.stats.bernoulli(scipy.special.expit(logits))
  np.testing.assert_allclose(log_prob, law.logpmf(bits).sum(axis=1), rtol=1e-5)
  np.testing.assert_allclose(entropy, law.entropy().sum(axis=1), rtol=1e-5)
  np.testing.assert_array_equal(mode, logits > 0)


def test_normal(graph):
  mean, log_std, actions = random(N, 2), random(2, seed=1), random(N, 2, seed=2, scale=3.0)
  one = Normal(2)
  parameters = one.parameters(tf.constant(mean), tf.constant(log_std))
  log_prob, entropy, mode = run(
    one.log_prob(parameters, actions), one.entropy(parameters), one.mode(parameters)
  )
  law = scipy.stats.norm(mean, np.exp(log_std))
  np.testing.assert_allclose(log_prob, law.logpdf(actions).sum(axis=1), rtol=1e-4)
  np.testing.assert_allclose(entropy, law.entropy().sum(axis=1), rtol=1e-4)
  np.testing.assert_array_equal(mode, mean)


def test_parts_are_independent(graph):
  """The log probability and the entropy of a product are the sums of its parts'."""
  product = distribution_of(PARTS)
  parts = [distribution_of([part]) for part in PARTS]
  assert (product.num_outputs, product.num_free) == (3 + 2 + 4 + 5, 2)
  outputs, free = random(N, product.num_outputs), random(2, seed=3)
  parameters = product.parameters(tf.constant(outputs), tf.constant(free))
  assert parameters.shape == (N, product.num_parameters) == (N, 3 + 4 + 4 + 5)
  action = product.sample(parameters)
  assert action.shape == (N, 1 + 2 + 4 + 1) and action.dtype == tf.float32
  own = tf.split(parameters, [part.num_parameters for part in parts], axis=1)
  columns = tf.split(action, [1, 2, 4, 1], axis=1)
  columns = [tf.cast(c[:, 0], tf.int32) if c.shape[1] == 1 else c for c in columns]
  terms = [part.log_prob(p, c) for part, p, c in zip(parts, own, columns, strict=True)]
  entropies = [part.entropy(p) for part, p in zip(parts, own, strict=True)]
  over_time = product.log_prob(parameters[None], action[None])  # [1, N, ...], as in a learner.
  ours, theirs, shaped = run(
    [product.log_prob(parameters, action), product.entropy(parameters)],
    [tf.add_n(terms), tf.add_n(entropies)],
    over_time,
  )
  np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  np.testing.assert_allclose(shaped[0], ours[0], rtol=1e-5)


@pytest.mark.parametrize('part', [ActionPart('discrete', 3), ActionPart('binary', 2)], ids=str)
def test_probabilities_sum_to_one(graph, part):
  one = distribution_of([part])
  everything = np.int32(list(itertools.product([0, 1], repeat=2)) if part.size == 2 else range(3))
  parameters = np.repeat(random(1, one.num_parameters), len(everything), axis=0)
  assert run(tf.exp(one.log_prob(parameters, everything))).sum() == pytest.approx(1.0, 1e-5)


@pytest.mark.parametrize('part', PARTS[:3], ids=lambda part: part.kind)
def test_samples_follow_the_distribution(graph, part):
  tf.compat.v1.set_random_seed(1)
  one, many = distribution_of([part]), 20_000
  outputs = tf.constant(np.repeat(random(1, one.num_outputs), many, axis=0))
  parameters = one.parameters(outputs, tf.constant([0.3, -0.5]))
  samples, row = run(one.sample(parameters), parameters[0])
  if part.kind == 'discrete':
    expected = scipy.special.softmax(row)
    found = np.bincount(samples) / many
  elif part.kind == 'binary':
    expected, found = scipy.special.expit(row), samples.mean(axis=0)
  else:
    expected = np.append(row[:2], np.exp([0.3, -0.5]))
    found = np.append(samples.mean(axis=0), samples.std(axis=0))
  np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize('part', PARTS[:3], ids=lambda part: part.kind)
def test_seeded_samples_follow_the_distribution_and_repeat(graph, part):
  one, many = distribution_of([part]), 20_000
  outputs = tf.constant(np.repeat(random(1, one.num_outputs), many, axis=0))
  parameters = one.parameters(outputs, tf.constant([0.3, -0.5]))
  tf.compat.v1.set_random_seed(1)
  plain = run(one.sample(parameters))
  seed = tf.compat.v1.placeholder(tf.int32, [2])
  seeded = one.sample(parameters, seed)
  with tf.compat.v1.Session() as session:
    draws = [session.run(seeded, {seed: [7, step]}) for step in (0, 1, 0)]
  assert (draws[0] == draws[2]).all() and (draws[0] != draws[1]).any()
  for moment in (np.mean, np.std):
    np.testing.assert_allclose(moment(draws[0], axis=0), moment(plain, axis=0), atol=0.03)


def test_parts_with_one_seed_draw_independently(graph):
  product = distribution_of([ActionPart('discrete', 8)] * 2)
  actions = run(product.sample(tf.zeros([1000, 16]), tf.constant([7, 0])))
  assert 0.05 < (actions[:, 0] == actions[:, 1]).mean() < 0.2


def test_masked_actions_have_no_probability_no_gradient_and_no_entropy(graph):
  """Forbidden choices are never sampled, and what is left is renormalised."""
  tf.compat.v1.set_random_seed(1)
  one, logits = Categorical(4), tf.constant(np.repeat(np.float32([[5, 1, 0, 2]]), 1000, axis=0))
  mask = tf.constant([[False, True, True, False]] * 1000)
  parameters = one.parameters(logits, mask=mask)
  actions, entropy = run(one.sample(parameters), one.entropy(parameters)[0])
  assert set(actions) == {1, 2}
  allowed = scipy.special.softmax([1, 0])
  assert entropy == pytest.approx(scipy.stats.entropy(allowed), 1e-5)
  log_prob = one.log_prob(parameters, tf.ones([1000], tf.int32))
  assert run(tf.exp(log_prob))[0] == pytest.approx(allowed[0], 1e-5)
  for quantity in (log_prob, one.entropy(parameters)):
    gradient = run(tf.gradients(quantity, logits)[0])[0]
    assert np.isfinite(gradient).all() and not gradient[[0, 3]].any() and gradient[[1, 2]].all()


def test_a_mask_of_several_parts_is_split_among_the_discrete_ones(graph):
  product = distribution_of(PARTS)
  assert product.num_choices == 3 + 5
  mask = np.array([[False, False, True, True, False, False, False, False]] * N)
  outputs = tf.constant(random(N, product.num_outputs, scale=5.0))
  parameters = product.parameters(outputs, tf.zeros([2]), tf.constant(mask))
  action = run(product.sample(parameters))
  assert (action[:, 0] == 2).all() and (action[:, -1] == 0).all()


def test_v_trace_of_continuous_actions_has_the_paper_s_fixed_point(graph):
  """In a bandit, V converges to the value of the policy proportional to min(mu, pi)."""
  tf.compat.v1.set_random_seed(1)
  one, many = Normal(1), 200_000
  acting = one.parameters(tf.zeros([1, many, 1]), tf.constant([0.2]))
  learned = one.parameters(tf.fill([1, many, 1], 0.5), tf.constant([-0.3]))
  actions = one.sample(acting)
  rewards = tf.square(actions[..., 0] - 1.0)
  log_rhos = one.log_prob(learned, actions) - one.log_prob(acting, actions)
  # Where V is the fixed point, the mean of the targets is V.
  grid = np.linspace(-12, 12, 100_001)
  law = np.minimum(
    scipy.stats.norm(0, np.exp(0.2)).pdf(grid), scipy.stats.norm(0.5, np.exp(-0.3)).pdf(grid)
  )
  fixed_point = np.sum(law * (grid - 1) ** 2) / np.sum(law)
  values = tf.fill([1, many], np.float32(fixed_point))
  returns = vtrace.from_importance_weights(
    log_rhos, tf.zeros([1, many]), rewards, values, tf.zeros([many])
  )
  vs, plain = run(returns.vs, rewards)
  assert vs.mean() == pytest.approx(fixed_point, abs=0.01)
  assert abs(plain.mean() - fixed_point) > 0.3  # The acting policy's own value is another.
