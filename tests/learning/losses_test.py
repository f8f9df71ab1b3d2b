"""losses: against numpy, value by value and gradient by gradient."""

import numpy as np
import pytest
import tensorflow as tf

import vtrace
from learner_fixtures import small_settings
from learning import losses
from learning.distributions import Categorical
from structs import AgentOutput, StepOutput, StepOutputInfo

T, B, NUM_ACTIONS = 5, 3, 4
CLOSE = dict(rtol=1e-5, atol=1e-6)


def run(fetches):
  with tf.compat.v1.Session() as session:
    return session.run(fetches)


def softmax(logits):
  exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return exp / exp.sum(axis=-1, keepdims=True)


def log_prob(logits, actions):
  return np.log(np.take_along_axis(softmax(logits), actions[..., None], -1)[..., 0])


def v_trace(rhos, discounts, rewards, values, bootstrap, lambda_):
  """vs and advantages [T, B], by the recursion of remark 1 of the paper, step by step backwards."""
  clipped = np.minimum(rhos, 1)
  next_values = np.append(values[1:], bootstrap[None], axis=0)
  vs, correction = np.zeros_like(values), 0
  for t in reversed(range(len(values))):
    delta = clipped[t] * (rewards[t] + discounts[t] * next_values[t] - values[t])
    correction = delta + discounts[t] * lambda_ * clipped[t] * correction
    vs[t] = values[t] + correction
  next_vs = np.append(vs[1:], bootstrap[None], axis=0)
  return vs, clipped * (rewards + discounts * next_vs - values)


def unroll_arrays(seed=3):
  """(learner's logits and values, actor's AgentOutput, reward, done), time-major, T+1 entries."""
  rng = np.random.default_rng(seed)

  def normal(*shape, scale=1.0):
    return np.float32(rng.normal(scale=scale, size=(T + 1, B, *shape)))

  logits, values = normal(NUM_ACTIONS), normal()
  acting = AgentOutput(
    rng.integers(0, NUM_ACTIONS, (T + 1, B), np.int32), logits + normal(NUM_ACTIONS), normal()
  )
  return logits, values, acting, normal(scale=2.0), rng.random((T + 1, B)) < 0.3


def losses_and_gradients(
  logits, values, acting, reward, done, episode_step=1, factors=None, num_new=None, **changes
):
  """Losses, and the gradients of the total for the learner's logits and values."""
  steps = np.broadcast_to(np.int32(episode_step), done.shape)
  info = tf.nest.map_structure(tf.constant, StepOutputInfo(reward, steps, done & (steps > 0)))
  settings = small_settings(entropy_cost=0.03, vtrace_lambda=0.9, **changes)
  logits, values = tf.constant(logits), tf.constant(values)
  found = losses.compute_losses(
    AgentOutput(tf.constant(acting.action), logits, values),
    tf.nest.map_structure(tf.constant, acting),
    StepOutput(tf.constant(reward), info, tf.constant(done), ()),
    Categorical(NUM_ACTIONS),
    settings,
    losses.Factors(settings.entropy_cost, **(factors or {})),
    num_new=num_new,
  )
  return run((found, tf.gradients(found.total, [logits, values])))


def expected_targets(logits, values, acting, reward, done):
  """vs and advantages of `losses_and_gradients`."""
  actions = acting.action[1:]
  rhos = np.exp(log_prob(logits[:-1], actions) - log_prob(acting.policy_logits[1:], actions))
  return v_trace(
    rhos, np.where(done[1:], 0, 0.9), np.clip(reward[1:], -1, 1), values[:-1], values[-1], 0.9
  )


def test_losses_are_those_of_the_paper(graph):
  arrays = logits, values, acting, _, _ = unroll_arrays()
  found, _ = losses_and_gradients(*arrays)
  vs, advantages = expected_targets(*arrays)
  policy = -np.sum(log_prob(logits[:-1], acting.action[1:]) * advantages)
  baseline = 0.5 * np.sum((vs - values[:-1]) ** 2)
  probabilities = softmax(logits[:-1])
  entropy = np.sum(probabilities * np.log(probabilities))
  np.testing.assert_allclose(
    found[:4], (policy + 0.5 * baseline + 0.03 * entropy, policy, baseline, entropy), **CLOSE
  )
  for moments, values_of_steps in ((found.advantages, advantages), (found.targets, vs)):
    expected = [T * B, np.sum(values_of_steps), np.sum(values_of_steps**2)]
    np.testing.assert_allclose(moments, expected, **CLOSE)


def test_gradients_are_those_of_the_paper(graph):
  arrays = logits, values, acting, _, _ = unroll_arrays()
  _, (for_logits, for_values) = losses_and_gradients(*arrays)
  vs, advantages = expected_targets(*arrays)
  probabilities = softmax(logits[:-1])
  chosen = np.eye(NUM_ACTIONS)[acting.action[1:]]
  policy = -(chosen - probabilities) * advantages[..., None]
  log = np.log(probabilities)
  entropy = probabilities * (log - np.sum(probabilities * log, axis=-1, keepdims=True))
  np.testing.assert_allclose(for_logits[:-1], policy + 0.03 * entropy, **CLOSE)
  np.testing.assert_allclose(for_values[:-1], 0.5 * (values[:-1] - vs), **CLOSE)
  # The last observation is only bootstrapped from.
  assert not for_logits[-1].any() and not for_values[-1].any()


def assert_sum(parts, whole):
  for name in losses.Losses._fields:
    found = np.sum([getattr(part, name) for part in parts], axis=0)
    np.testing.assert_allclose(found, getattr(whole, name), err_msg=name, **CLOSE)


def test_losses_are_sums_over_time_and_batch(graph):
  logits, values, acting, reward, done = unroll_arrays()
  whole, _ = losses_and_gradients(logits, values, acting, reward, done)
  parts = []
  for b in range(B):
    part = tf.nest.map_structure(lambda x, b=b: x[:, b : b + 1],
                                 (logits, values, acting, reward, done))  # fmt: skip
    parts.append(losses_and_gradients(*part)[0])
  assert_sum(parts, whole)


def test_replayed_unrolls_have_no_part_in_entropy_and_statistics(graph):
  arrays = unroll_arrays()
  found, _ = losses_and_gradients(*arrays, num_new=2)
  whole, _ = losses_and_gradients(*arrays)
  first = tf.nest.map_structure(lambda x: x[:, :2], arrays)
  new, _ = losses_and_gradients(*first)
  for name in losses.Losses._fields[1:]:
    of = whole if name in ('policy', 'baseline', 'truncated') else new
    np.testing.assert_allclose(getattr(found, name), getattr(of, name), err_msg=name, **CLOSE)


def test_a_factor_multiplies_the_advantages_and_nothing_else(graph):
  arrays = unroll_arrays()
  plain, _ = losses_and_gradients(*arrays)
  scaled, (for_logits, for_values) = losses_and_gradients(
    *arrays, factors=dict(advantages=tf.constant(4.0))
  )
  assert scaled.policy == pytest.approx(4 * plain.policy, rel=1e-5)
  assert (scaled.baseline, scaled.entropy) == (plain.baseline, plain.entropy)
  np.testing.assert_array_equal(scaled.advantages, plain.advantages)
  assert scaled.total == pytest.approx(plain.total + 3 * plain.policy, rel=1e-5)
  _, (without_policy, values_alone) = losses_and_gradients(
    *arrays, factors=dict(advantages=tf.constant(0.0))
  )
  _, (for_logits_once, _) = losses_and_gradients(*arrays)
  np.testing.assert_allclose(
    for_logits - without_policy, 4 * (for_logits_once - without_policy), **CLOSE
  )
  np.testing.assert_array_equal(for_values, values_alone)


def losses_of_the_first_release(learner_outputs, agent_outputs, reward, done, settings):
  """The losses as they were before there was a choice, operation by operation."""
  actions, behaviour = agent_outputs.action[1:], agent_outputs.policy_logits[1:]
  logits, values = learner_outputs.policy_logits[:-1], learner_outputs.baseline[:-1]
  returns = vtrace.from_logits(
    behaviour_policy_logits=behaviour,
    target_policy_logits=logits,
    actions=actions,
    discounts=tf.cast(~done[1:], tf.float32) * settings.discounting,
    rewards=tf.clip_by_value(reward[1:], -1, 1),
    values=values,
    bootstrap_value=learner_outputs.baseline[-1],
    lambda_=settings.vtrace_lambda,
  )
  log_probs = vtrace.log_probs_from_logits_and_actions(logits, actions)
  policy = -tf.reduce_sum(log_probs * tf.stop_gradient(returns.pg_advantages))
  baseline = 0.5 * tf.reduce_sum(tf.square(returns.vs - values))
  entropy = tf.reduce_sum(tf.nn.softmax(logits) * tf.nn.log_softmax(logits))
  total = policy + settings.baseline_cost * baseline + settings.entropy_cost * entropy
  return total, policy, baseline, entropy


@pytest.mark.parametrize('seed', range(3))
def test_with_all_that_was_added_off_they_are_bit_for_bit_what_they_were(graph, seed):
  logits, values, acting, reward, done = unroll_arrays(seed)
  found, gradients = losses_and_gradients(logits, values, acting, reward, done)
  settings = small_settings(entropy_cost=0.03, vtrace_lambda=0.9)
  logits, values = tf.constant(logits), tf.constant(values)
  expected = losses_of_the_first_release(
    AgentOutput(None, logits, values),
    tf.nest.map_structure(tf.constant, acting),
    tf.constant(reward),
    tf.constant(done),
    settings,
  )
  expected, expected_gradients = run((expected, tf.gradients(expected[0], [logits, values])))
  assert found[:4] == tuple(expected)
  for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_array_equal(gradient, expected_gradient)


def test_nothing_is_learned_from_the_step_between_a_time_limit_and_the_next_game(graph):
  logits, values, acting, reward, done = unroll_arrays()
  first = 3  # Entry of the next game; the one before it is the last observation of its game.
  steps = np.ones_like(done, dtype=np.int32)
  done[first], steps[first] = True, 0
  whole, (for_logits, for_values) = losses_and_gradients(
    logits, values, acting, reward, done, steps
  )
  parts = []
  for entries in (slice(0, first), slice(first, None)):  # As if they were two unrolls.
    part = tf.nest.map_structure(lambda x, e=entries: x[e], (logits, values, acting, reward, done))
    parts.append(losses_and_gradients(*part)[0])
  assert_sum(parts, whole)
  assert not for_logits[first - 1].any() and not for_values[first - 1].any()
  assert for_logits[first - 2].any() and for_values[first].any()


def test_the_opposite_advantage_gives_the_opposite_gradient(graph):
  rng = np.random.default_rng(0)
  logits = tf.constant(np.float32(rng.normal(size=(T, B, NUM_ACTIONS))))
  actions = tf.constant(rng.integers(0, NUM_ACTIONS, (T, B), np.int32))
  advantages = tf.constant(np.float32(rng.normal(size=(T, B))))
  log_probs = Categorical(NUM_ACTIONS).log_prob(logits, actions)
  gradients = []
  for signed in (advantages, -advantages):
    loss = losses.policy_gradient_loss(log_probs, signed)
    gradients += tf.gradients(loss, logits)
    assert tf.gradients(loss, advantages) == [None]
  ahead, back = run(gradients)
  np.testing.assert_array_equal(back, -ahead)
  # A step down the gradient makes an action with a positive advantage more likely.
  advantages_v, actions_v = run((advantages, actions))
  own = np.take_along_axis(ahead, actions_v[..., None], -1)[..., 0]
  np.testing.assert_array_equal(np.sign(own), -np.sign(advantages_v))


def test_a_reused_batch_follows_the_policy_only_near_that_of_the_first_pass(graph):
  rng = np.random.default_rng(1)
  logits = np.float32(rng.normal(size=(T, B, NUM_ACTIONS)))
  first = logits + np.float32(rng.normal(scale=0.5, size=logits.shape))
  actions = rng.integers(0, NUM_ACTIONS, (T, B), np.int32)
  advantages = np.float32(rng.normal(size=(T, B)))
  tensor = tf.constant(logits)
  log_probs = Categorical(NUM_ACTIONS).log_prob(tensor, actions)

  def loss_and_gradient(at_first):
    loss = losses.reused_policy_gradient_loss(log_probs, tf.constant(advantages), at_first)
    return run((loss, tf.gradients(loss, tensor)[0]))

  loss, gradient = loss_and_gradient(lambda log_probs: tf.constant(log_prob(first, actions)))
  ratios = np.exp(log_prob(logits, actions) - log_prob(first, actions))
  clipped = np.clip(ratios, 0.8, 1.2)
  assert loss == pytest.approx(-np.sum(np.minimum(ratios * advantages, clipped * advantages)), 1e-5)
  stopped = np.where(advantages > 0, ratios > 1.2, ratios < 0.8)
  assert stopped.any() and not stopped.all()
  np.testing.assert_array_equal(np.all(gradient == 0, axis=-1), stopped)
  chosen = np.eye(NUM_ACTIONS)[actions]
  weights = np.where(stopped, 0, ratios * advantages)
  np.testing.assert_allclose(gradient, -(chosen - softmax(logits)) * weights[..., None], **CLOSE)

  _, gradient = loss_and_gradient(lambda log_probs: log_probs)  # The first pass itself.
  plain = losses.policy_gradient_loss(log_probs, tf.constant(advantages))
  np.testing.assert_allclose(gradient, run(tf.gradients(plain, tensor)[0]), **CLOSE)


REWARDS = np.float32([-20, -5, -1, -0.5, 0, 0.5, 1, 5, 20])


@pytest.mark.parametrize(
  'clipping, expected',
  [
    ('abs_one', np.clip(REWARDS, -1, 1)),
    ('soft_asymmetric', np.where(REWARDS < 0, 0.3, 1) * 5 * np.tanh(REWARDS / 5)),
    ('none', REWARDS),
  ],
)
def test_reward_clipping(graph, clipping, expected):
  np.testing.assert_allclose(run(losses.clip_rewards(tf.constant(REWARDS), clipping)), expected,
                             rtol=1e-6)  # fmt: skip
  total = [
      losses_and_gradients(*unroll_arrays()[:3], reward, np.zeros([T + 1, B], bool),
                           reward_clipping=how)[0].total
      for how, reward in [
          (clipping, np.broadcast_to(REWARDS[: T + 1, None], [T + 1, B])),
          ('none', np.broadcast_to(np.float32(expected)[: T + 1, None], [T + 1, B])),
      ]
  ]  # fmt: skip
  assert total[0] == pytest.approx(total[1], rel=1e-5)


def test_unknown_reward_clipping_is_refused(graph):
  with pytest.raises(ValueError, match="'half' is none of abs_one, soft_asymmetric, none"):
    losses.clip_rewards(tf.constant(REWARDS), 'half')
