"""learner: losses and gradients against numpy, one clipping, counters, towers, several learners."""

import collections
import dataclasses
import threading

import numpy as np
import pytest
import tensorflow as tf

from conftest import eventually
from learner_fixtures import (
  TWO_CPUS,
  Learner,
  assert_same,
  learned,
  random_unrolls,
  rows,
  small_settings,
  two_learners,
  update_together,
)
from learning import learner, optimizers
from roles.role import failure
from structs import Frames, StepOutput, StepOutputInfo

T, B, NUM_ACTIONS = 5, 3, 4
CLOSE = dict(rtol=1e-5, atol=1e-6)
# As the gradients of a batch are sums in another order, and RMSProp divides by their roots.
SUMMED = dict(rtol=1e-4, atol=1e-5)


def run(fetches, feed=None):
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    return session.run(fetches, feed)


# The total gradient.

Applied = collections.namedtuple('Applied', 'steps norm updates frames')


def apply_once(gradients, clipping, scale=1.0):
  """What plain gradient descent at rate 1 does with gradients of variables that are zero."""
  counters = optimizers.create_counters()
  variables = [tf.Variable(tf.zeros(np.shape(g))) for g in gradients]
  optimizer = optimizers.TotalGradientOptimizer(
    tf.compat.v1.train.GradientDescentOptimizer(1.0), counters, clipping, scale, 640
  )
  update = optimizer.apply_gradients(
    [(tf.constant(g), v) for g, v in zip(gradients, variables, strict=True)], counters.updates
  )
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    session.run(update)
    after = session.run([variables, counters.gradient_norm, counters.updates,
                         counters.environment_frames])  # fmt: skip
  return Applied(*after)


GRADIENTS = [np.float32([[3, 0], [0, 4]]), np.float32([12])]  # Of global norm 13.


def test_the_total_gradient_is_clipped_by_its_global_norm(graph):
  applied = apply_once(GRADIENTS, clipping=6.5)
  for step, gradient in zip(applied.steps, GRADIENTS, strict=True):
    np.testing.assert_allclose(step, -gradient / 2, rtol=1e-6)
  assert applied.norm == pytest.approx(13)


def test_a_gradient_within_the_norm_is_not_touched(graph):
  applied = apply_once(GRADIENTS, clipping=13.5)
  for step, gradient in zip(applied.steps, GRADIENTS, strict=True):
    np.testing.assert_array_equal(step, -gradient)


def test_averaged_gradients_are_multiplied_first_and_clipped_once(graph):
  applied = apply_once(GRADIENTS, clipping=30.0, scale=2.0)
  for step, gradient in zip(applied.steps, GRADIENTS, strict=True):
    np.testing.assert_allclose(step, -2 * gradient, rtol=1e-6)
  assert applied.norm == pytest.approx(26)


def test_averaged_gradients_are_clipped_as_their_sum(graph):
  applied = apply_once(GRADIENTS, clipping=13.0, scale=4.0)
  for step, gradient in zip(applied.steps, GRADIENTS, strict=True):
    np.testing.assert_allclose(step, -gradient, rtol=1e-6)
  assert applied.norm == pytest.approx(52)


def test_an_update_counts_itself_and_its_frames_once(graph):
  applied = apply_once(GRADIENTS, clipping=1.0)
  assert (applied.updates, applied.frames) == (1, 640)
  assert applied.frames.dtype == applied.updates.dtype == np.int64


# The learning rate.


@pytest.mark.parametrize('frames, expected', [(0, 0.05), (250, 0.0375), (1000, 0), (1500, 0)])
def test_the_learning_rate_falls_linearly_over_the_frames(graph, frames, expected):
  rate = optimizers.learning_rate(small_settings(), tf.constant(frames, tf.int64))
  assert run(rate) == pytest.approx(expected)


# The optimizers.


@pytest.mark.parametrize(
  'decay_frames, frames, expected',
  [(0, 500, 0.02), (1000, 0, 0.02), (1000, 250, 0.0155), (1000, 1000, 0.002), (1000, 9000, 0.002)],
)
def test_the_weight_of_the_entropy_falls_linearly_and_then_stays(
  graph, decay_frames, frames, expected
):
  settings = small_settings(
    entropy_cost=0.02, entropy_cost_final=0.002, entropy_decay_frames=decay_frames
  )
  cost = learner.entropy_cost(settings, tf.constant(frames, tf.int64))
  assert run(tf.convert_to_tensor(cost)) == pytest.approx(expected)


def test_an_update_weighs_the_entropy_by_the_frames_so_far():
  settings = small_settings(
    entropy_cost=0.5, entropy_cost_final=0.1, entropy_decay_frames=64, learning_rate=1e-9
  )
  _, _, reports = learned(settings, random_unrolls(settings, 8), times=2)
  for report, weight in zip(reports, [0.5, 0.3], strict=True):  # 32 frames an update.
    parts = report['policy_loss'] + settings.baseline_cost * report['baseline_loss']
    assert report['total_loss'] - parts == pytest.approx(weight * report['entropy_loss'], rel=1e-3)


def rmsprop(settings, gradient, rates):
  """A weight that was 0, after TensorFlow's RMSProp, whose mean of squares begins at 1."""
  weight, mean_square, momentum = 0.0, 1.0, 0.0
  for rate in rates:
    mean_square = settings.decay * mean_square + (1 - settings.decay) * gradient**2
    momentum = settings.momentum * momentum + rate * gradient / np.sqrt(
      mean_square + settings.epsilon
    )
    weight -= momentum
  return weight


def adam(settings, gradient, rates):
  """A weight that was 0, after Adam (Kingma and Ba 2015) in the form before their section 2.1."""
  weight, mean, mean_square = 0.0, 0.0, 0.0
  for t, rate in enumerate(rates, 1):
    mean = 0.9 * mean + 0.1 * gradient
    mean_square = 0.999 * mean_square + 0.001 * gradient**2
    rate *= np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    weight -= rate * mean / (np.sqrt(mean_square) + settings.epsilon)
  return weight


@pytest.mark.parametrize('optimizer', [rmsprop, adam])
def test_weights_follow_the_optimizer_and_the_rate_of_the_frames_so_far(graph, optimizer):
  settings = small_settings(optimizer=optimizer.__name__, gradient_clipping=6.5)
  counters = optimizers.create_counters()
  weight = tf.Variable(tf.zeros(2))
  built, sync = optimizers.build_optimizer(settings, counters)
  assert sync is None
  update = built.apply_gradients([(tf.constant([5.0, 12.0]), weight)], counters.updates)
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    for _ in range(3):
      session.run(update)
    weight_v, frames = session.run([weight, counters.environment_frames])
  # 4 unrolls of 4 steps of 2 frames.
  assert frames == 3 * 32
  rates = [0.05 * (1 - 32 * k / 1000) for k in range(3)]
  expected = [optimizer(settings, gradient, rates) for gradient in (2.5, 6.0)]
  np.testing.assert_allclose(weight_v, expected, rtol=1e-5)


# Updates of a learner.


def test_an_update_reports_what_it_did():
  settings = small_settings()
  unrolls = random_unrolls(settings, 8, policy_version=-3)
  unrolls[1][5] = -7
  unrolls[1][2] = 9  # Of weights that a restart from a checkpoint made void.
  before, after, reports = learned(settings, unrolls)
  for k, report in enumerate(reports, 1):
    assert report['updates'] == k
    assert report['environment_frames'] == 32 * k
    assert report['learning_rate'] == pytest.approx(0.05 * (1 - 32 * k / 1000))
    total = report['policy_loss'] + 0.5 * report['baseline_loss'] + 0.01 * report['entropy_loss']
    assert report['total_loss'] == pytest.approx(total, rel=1e-5)
  assert [report['policy_lag_mean'] for report in reports] == [9 / 4, 5]
  assert [report['policy_lag_max'] for report in reports] == [3, 8]
  assert after['gradient_norm'] == reports[-1]['gradient_norm'] > 0
  assert (after['global_step'], after['environment_frames']) == (2, 64)
  changed = [name for name in before if not np.array_equal(before[name], after[name])]
  assert sorted(changed) == sorted(before)


def test_evaluating_any_of_the_reported_values_does_the_update():
  settings = small_settings()
  with Learner(settings).open() as one:
    for done, (name, value) in enumerate(one.side.update.items(), 1):
      one.put(random_unrolls(settings, settings.batch_size))
      one.session.run(value)
      assert one.values()['global_step'] == done, name


def test_batches_are_staged_ahead_and_trained_on_in_order():
  settings = small_settings()
  versions = [-10, -20, -30]
  with Learner(settings).open() as one:
    for version in versions:
      one.put(random_unrolls(settings, settings.batch_size, policy_version=version))
    # One batch waits to be trained on and one to take its place, before there was any update.
    eventually(lambda: one.session.run(one.side.queue_size) == settings.batch_size)
    assert one.values()['global_step'] == 0
    lags = [report['policy_lag_mean'] for report in one.update(3)]
  assert lags == [10, 21, 32]


def test_a_learner_waits_for_a_whole_batch():
  settings = small_settings()
  phases, stop = [], threading.Event()
  with Learner(settings).open() as one:
    thread = threading.Thread(
      target=one.side.loop.run,
      args=(one.session, one.side.update, stop.is_set, phases.append, lambda *report: None),
    )
    thread.start()
    one.put(random_unrolls(settings, settings.batch_size - 1))
    eventually(lambda: phases == ['wait'])
    one.put(random_unrolls(settings, 1))
    eventually(lambda: phases == ['wait', 'update', 'wait'])
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert one.values()['global_step'] == 1


def test_a_batch_that_was_lost_with_its_session_is_waited_for_again():
  settings = small_settings()
  one = Learner(settings)
  with one.open():
    one.put(random_unrolls(settings, settings.batch_size * 3))
    # More was staged than trained on when the session went.
    eventually(lambda: one.session.run(one.side.queue_size) == settings.batch_size)
  phases, stop = [], threading.Event()
  with one.open():
    thread = threading.Thread(
      target=one.side.loop.run,
      args=(one.session, one.side.update, stop.is_set, phases.append, lambda *report: None),
    )
    thread.start()
    eventually(lambda: phases)
    stop.set()
    eventually(lambda: not thread.is_alive(), 20, 'stuck in an update without a batch')
    assert phases == ['wait']


@pytest.mark.parametrize('field, poison', [('reward', np.nan), ('policy_logits', np.inf)])
def test_a_non_finite_update_is_named_and_changes_nothing(field, poison):
  settings = small_settings(reward_clipping='none')
  good, bad = (random_unrolls(settings, 4, seed=k) for k in range(2))
  bad[{'reward': 4, 'policy_logits': -2}[field]][2, 3] = poison
  with Learner(settings).open() as one:
    one.put(good)
    one.update()
    before = one.values()
    one.put(bad)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
      one.update()
    assert_same(one.values(), before)
    assert before['global_step'] == 1
  assert failure(error.value) == (
    'the loss or its gradient is not finite at update 1; the last checkpoint before it is kept'
  )


# Statistics of observations.


def test_the_statistics_are_the_moments_of_what_was_learned_from_each_step_once():
  settings = small_settings(observation_scaling='running')
  unrolls = random_unrolls(settings, 8)
  observation = next(t for t in unrolls if t.ndim == 3 and t.shape[-1] == 3)
  one, values, _ = learned(settings, unrolls, times=2)
  seen = observation[:, 1:].reshape(-1, 3).astype(np.float64)
  name = 'agent/observation_statistics/'
  assert values[name + 'count'] == len(seen) == 8 * settings.unroll_length
  np.testing.assert_allclose(values[name + 'sum'], seen.sum(0), rtol=1e-6)
  np.testing.assert_allclose(values[name + 'sum_of_squares'], (seen**2).sum(0), rtol=1e-6)


def test_stacks_sent_as_frames_are_taken_in_as_the_stacks_that_are_learned_from():
  generator = np.random.default_rng(3)
  frames = generator.integers(0, 256, [B, T + 4, 6, 5], np.uint8)
  episode_step = generator.integers(0, 3, [B, T + 1])
  game_over = generator.random([B, T + 1]) < 0.2
  with tf.Graph().as_default():
    info = StepOutputInfo(tf.zeros([B, T + 1]), tf.constant(episode_step), tf.constant(game_over))
    packed = Frames(tf.constant(frames))
    sent = StepOutput(tf.zeros([B, T + 1]), info, tf.zeros([B, T + 1], tf.bool), packed)
    stacks = learner.time_major_env_outputs(sent).observation
    ((number, *sums),), stacks = run([learner.observation_sums(sent), stacks])
  new = stacks[1:].reshape(-1, 6, 5, 4).astype(np.float64)
  assert number == len(new) == B * T and (new == 0).all((1, 2)).any()
  np.testing.assert_array_equal(sums, [new.sum(0), (new**2).sum(0)])


def test_without_running_statistics_there_are_no_variables_for_them():
  _, values, _ = learned(small_settings(), random_unrolls(small_settings(), 8))
  assert not [name for name in values if 'statistics' in name]


# Towers.


def test_two_towers_are_on_two_devices_and_equal_one():
  settings = small_settings(gradient_clipping=0.7)
  unrolls = random_unrolls(settings, 8)
  _, one, one_reports = learned(settings, unrolls)
  _, two, two_reports = learned(settings, unrolls, TWO_CPUS)
  assert_same(two, one, **SUMMED)
  for one_report, two_report in zip(one_reports, two_reports, strict=True):
    assert one_report['gradient_norm'] > 2 * settings.gradient_clipping
    assert two_report == pytest.approx(one_report, rel=1e-4)


def test_every_tower_computes_its_share_on_its_device(graph):
  one = Learner(small_settings(), devices=TWO_CPUS)
  shares = collections.Counter()
  for op in one.tf_graph.get_operations():
    if op.type == 'SparseSoftmaxCrossEntropyWithLogits':
      shares[op.device, op.outputs[0].shape[0]] += 1
  # From [T = 4, B / 2 = 2]: the log probabilities of the policy and of the behaviour policy.
  assert shares == {('/device:CPU:0', 8): 2, ('/device:CPU:1', 8): 2}


# Learners together.


@pytest.mark.slow
@pytest.mark.parametrize(
  'devices, num_ps, optimizer, reuse',
  [
    (('/cpu:0',), 1, 'adam', 1),
    (TWO_CPUS, 2, 'rmsprop', 1),
    (('/cpu:0',), 3, 'adam', 1),
    (TWO_CPUS, 1, 'adam', 2),
  ],
)
def test_two_learners_with_half_a_batch_equal_one_with_the_whole(devices, num_ps, optimizer, reuse):
  whole = small_settings(gradient_clipping=0.7, optimizer=optimizer, sample_reuse=reuse)
  half = dataclasses.replace(whole, batch_size=2)
  unrolls = random_unrolls(whole, 12)
  with two_learners(half, devices, num_ps) as learners:
    before = learners[0].values()
    learners[0].put(rows(unrolls, 0, 2, 4))
    learners[1].put(rows(unrolls, 1, 3, 5))
    reports = update_together(learners, times=3 * reuse)
    after = learners[0].values()
  with Learner(whole).open() as one:
    one.assign(before)
    one.put(unrolls)
    expected_reports = one.update(3 * reuse)
    expected = one.values()
  assert after['environment_frames'] == 96
  assert_same(after, expected, **SUMMED)
  for first, second, both in zip(*reports, expected_reports, strict=True):
    assert both['gradient_norm'] > 2 * whole.gradient_clipping
    assert first['total_loss'] + second['total_loss'] == pytest.approx(both['total_loss'], rel=1e-4)
    for name in ('updates', 'environment_frames', 'learning_rate', 'gradient_norm'):
      assert first[name] == pytest.approx(second[name]) == pytest.approx(both[name], rel=1e-4)


@pytest.mark.slow
def test_learners_on_their_own_apply_one_after_the_other():
  settings = small_settings(gradient_clipping=0.7, batch_size=2, sync_learners=False)
  unrolls = random_unrolls(settings, 4)
  with two_learners(settings) as learners:
    before = learners[0].values()
    for i, one in enumerate(learners):
      one.put(rows(unrolls, i))
      (report,) = one.update()
      assert (report['updates'], report['environment_frames']) == (i + 1, 16 * (i + 1))
    after = learners[0].values()
  with Learner(settings).open() as one:
    one.assign(before)
    one.put(unrolls)
    one.update(2)
    assert_same(after, one.values(), **SUMMED)
