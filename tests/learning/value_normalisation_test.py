"""PopArt: its statistics against numpy, and values that they do not move."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import nets
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
from learning import sliced_weights
from learning.value_normalisation import PopArt
from structs import AgentOutput, StepOutput

MOMENTS, SCALE = 'agent/value_statistics/moments', 'agent/value_statistics/scale'
OFF = small_settings(reward_clipping='none')
ON = dataclasses.replace(OFF, return_normalisation='popart')


def moments_of(targets):
  return [np.size(targets), np.sum(targets), np.sum(np.square(targets))]


def test_the_statistics_are_the_moments_of_the_stream(graph):
  rng = np.random.default_rng(0)
  batches = [rng.normal(5 - i, 0.1 * (1 + i), size=80 - i) for i in range(30)]
  pop_art = PopArt()
  given = tf.compat.v1.placeholder(tf.float32, [3])
  add, statistics = pop_art.add(given), pop_art.statistics()
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    assert session.run(statistics).tolist() == [0, 1]
    for i, batch in enumerate(batches):
      session.run(add, {given: moments_of(batch)})
      stream = np.concatenate(batches[: i + 1])
      weights = np.concatenate([np.full(len(b), (1 - 3e-4) ** -j) for j, b in enumerate(batches)])
      weights = weights[: len(stream)]
      mean = np.average(stream, weights=weights)
      std = np.sqrt(np.average(np.square(stream - mean), weights=weights))
      np.testing.assert_allclose(session.run(statistics), [mean, std], rtol=1e-4)


def test_where_every_return_is_the_same_nothing_is_blown_up(graph):
  pop_art = PopArt()
  add = pop_art.add(tf.constant(moments_of(np.full(80, 3.0)), tf.float32))
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    session.run(add)
    mean, std = session.run(pop_art.statistics())
  assert (mean, std) == (pytest.approx(3), pytest.approx(1e-4))


@pytest.mark.parametrize('num_slices', [1, 3])
@pytest.mark.parametrize('name', ['MLPAgent', 'MLPLSTMAgent'])
def test_a_change_of_the_statistics_changes_no_output(graph, name, num_slices):
  tf.compat.v1.set_random_seed(3)
  with sliced_weights.shape_only_variables(''):
    agent = nets.build_agent(name, ON, value_normalisation=True)
  weights = sliced_weights.SlicedWeights(agent.trainable_variables, num_slices)
  copy, copy_weights = nets.local_copy(
    agent, name, ON, value_normalisation=True, values_of=weights.values_of
  )
  targets = np.random.default_rng(1).normal(-40, 7, 500)
  add = agent.value_scale.add(tf.constant(moments_of(targets), tf.float32))
  rescale, refresh = agent.rescale_values(weights), copy_weights()
  inputs = np.float32(np.random.default_rng(2).normal(scale=9, size=(6, *ON.observation[0].shape)))
  step = StepOutput(tf.zeros([6]), (), tf.zeros([6], tf.bool), tf.constant(inputs))
  output, _ = copy((tf.zeros([6], tf.int32), step), copy.initial_state(6))
  outputs = output.policy_logits, output.baseline
  normalised = (output.baseline - copy.value_scale.scale[0]) / copy.value_scale.scale[1]
  v1 = tf.compat.v1
  with v1.Session() as session:
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
    session.run(refresh)
    before, inside_before = session.run([outputs, normalised])
    session.run(add)
    for _ in range(2):  # The second time there is nothing to change.
      session.run(rescale)
      session.run(refresh)
      after, inside_after, scale = session.run([outputs, normalised, copy.value_scale.scale])
      np.testing.assert_allclose(scale, [targets.mean(), targets.std()], rtol=1e-3)
      np.testing.assert_array_equal(after[0], before[0])
      np.testing.assert_allclose(after[1], before[1], rtol=1e-4, atol=1e-4)
      np.testing.assert_allclose(inside_after, (before[1] - scale[0]) / scale[1], rtol=1e-3)
  assert np.ptp(before[1]) > 0.1 and np.abs(inside_after - inside_before).min() > 1


def test_losses_are_divided_by_the_deviation_and_its_square():
  """The same batch three times without learning: only the scale of the losses changes."""
  still = dict(learning_rate=1e-9)
  unrolls = [np.concatenate([t] * 3) for t in random_unrolls(OFF, 4)]
  _, _, plain = learned(dataclasses.replace(OFF, **still), unrolls, times=3)
  _, values, scaled = learned(dataclasses.replace(ON, **still), unrolls, times=3)
  number, total, squares = values[MOMENTS]
  std = np.sqrt(squares / number - (total / number) ** 2)
  np.testing.assert_allclose(values[SCALE], [total / number, std], rtol=1e-3)
  assert abs(std - 1) > 0.1
  # The statistics are those of the updates before: the first update knows of none, the second is
  # scaled after it has been applied.
  for report, before, factor in zip(scaled, plain, [1, 1, 1 / std], strict=True):
    assert report['policy_loss'] == pytest.approx(before['policy_loss'] * factor, rel=1e-3)
    assert report['baseline_loss'] == pytest.approx(before['baseline_loss'] * factor**2, rel=1e-3)
    assert report['entropy_loss'] == pytest.approx(before['entropy_loss'], rel=1e-4)


def test_targets_are_counted_in_the_first_pass_only():
  unrolls = [np.concatenate([t] * 2) for t in random_unrolls(ON, 4)]
  _, once, _ = learned(ON, unrolls, times=1)
  _, values, _ = learned(dataclasses.replace(ON, sample_reuse=3), unrolls, times=6)
  assert values[MOMENTS][0] == pytest.approx(once[MOMENTS][0] * (1 + (1 - 3e-4)))


def test_two_towers_equal_one():
  unrolls = random_unrolls(ON, 16)
  _, one, _ = learned(ON, unrolls, times=4)
  _, two, _ = learned(ON, unrolls, TWO_CPUS, times=4)
  assert_same(two, one, rtol=1e-4, atol=1e-5)


def test_without_it_there_is_nothing_of_it():
  _, values, _ = learned(OFF, random_unrolls(ON, 4), times=1)
  assert MOMENTS not in values and SCALE not in values


def test_what_is_long_ago_fades_as_fast_for_two_learners_as_for_one(graph):
  whole, halves = PopArt(name='whole'), PopArt(name='halves')
  add_whole = whole.add(tf.constant([80.0, 160.0, 400.0]))
  add_half = halves.add(tf.constant([40.0, 80.0, 200.0]), num_learners=2)
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    for _ in range(1000):
      session.run(add_whole)
      session.run(add_half)
      session.run(add_half)
    expected, found = session.run([whole.moments, halves.moments])
  np.testing.assert_allclose(found, expected, rtol=0.01)
  np.testing.assert_allclose(expected, np.float64([80, 160, 400]) * (1 - (1 - 3e-4) ** 1000))


@pytest.mark.slow
def test_two_learners_with_half_a_batch_equal_one_with_the_whole():
  unrolls = random_unrolls(ON, 16)
  with two_learners(dataclasses.replace(ON, batch_size=2), num_ps=3) as learners:
    before = learners[0].values()
    learners[0].put(rows(unrolls, 0, 2, 4, 6))
    learners[1].put(rows(unrolls, 1, 3, 5, 7))
    update_together(learners, times=4)
    after = learners[0].values()
  with Learner(ON).open() as one:
    one.assign(before)
    one.put(unrolls)
    one.update(4)
    expected = one.values()
  assert abs(expected[SCALE][1] - 1) > 0.1
  assert_same(after, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_learners_on_their_own_leave_the_scale_to_the_chief():
  unrolls = random_unrolls(ON, 16)
  with two_learners(dataclasses.replace(ON, batch_size=2, sync_learners=False)) as learners:
    for i, one in enumerate(learners):
      one.put(rows(unrolls, i, i + 2))
    learners[1].update(2)
    before = learners[0].values()
    assert before[SCALE].tolist() == [0, 1] and before[MOMENTS][0] > 0
    learners[0].update(1)
    number, total, squares = before[MOMENTS]
    std = np.sqrt(squares / number - (total / number) ** 2)
    np.testing.assert_allclose(learners[0].values()[SCALE], [total / number, std], rtol=1e-4)


def test_agents_have_the_same_outputs_before_the_first_update(graph):
  tf.compat.v1.set_random_seed(1)
  agents = [nets.build_agent('MLPAgent', ON, value_normalisation=on) for on in (False, True)]
  plain, scaled = agents
  step = StepOutput(tf.zeros([2]), (), tf.zeros([2], tf.bool), tf.ones([2, 3]))
  outputs = [agent((tf.zeros([2], tf.int32), step), ())[0] for agent in agents]
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    pairs = zip(plain.trainable_variables, scaled.trainable_variables, strict=True)
    session.run([a.assign(b) for a, b in pairs])
    found = session.run([AgentOutput((), o.policy_logits, o.baseline) for o in outputs])
  np.testing.assert_array_equal(found[0].policy_logits, found[1].policy_logits)
  np.testing.assert_array_equal(found[0].baseline, found[1].baseline)
  assert len(plain.trainable_variables) == len(plain.variables) == len(scaled.variables) - 2


# Several levels.

LEVELS = 3
MANY = dataclasses.replace(ON, level_name='A-v0,B-v0,C-v0')


def unrolls_of(level_ids, seed=0, settings=MANY):
  """Random unrolls of these levels; rewards of level i are scaled by 10 ** i."""
  level_id, version, *others = random_unrolls(settings, len(level_ids), seed)
  flat = [np.int32(level_ids), version, *others]
  scale = np.float32(10.0) ** np.float32(level_ids)
  # Where the reward is depends on the core state's arrays before it.
  at = 2 + ('LSTM' in settings.agent_name) * 2
  flat[at] = flat[at] * scale[:, None]
  return flat


def statistics_of(moments):
  """(means, deviations) of moments [n, 3], in numpy."""
  number, total, squares = np.moveaxis(moments, -1, 0)
  mean = total / number
  return mean, np.clip(np.sqrt(squares / number - mean**2), 1e-4, 1e6)


def test_each_level_has_the_moments_of_its_own_stream_and_keeps_them_while_it_is_away(graph):
  rng = np.random.default_rng(0)
  pop_art = PopArt(LEVELS)
  given = tf.compat.v1.placeholder(tf.float32, [LEVELS, 3])
  add, statistics = pop_art.add(given), pop_art.statistics()
  mean, second, weight = (np.zeros(LEVELS) for _ in range(3))
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    for i in range(20):
      batch = [rng.normal(10.0**k, 10.0 ** (k - 1), size=20 * (i % (k + 2) == 0)) for k in range(3)]
      before = session.run(pop_art.moments)
      session.run(add, {given: [moments_of(targets) for targets in batch]})
      for k, targets in enumerate(batch):
        if not targets.size:
          np.testing.assert_array_equal(session.run(pop_art.moments)[k], before[k])
          continue
        # mu <- (1 - beta) mu + beta G and nu <- (1 - beta) nu + beta G^2, of averages that begin at
        # 0 and are divided by the weight that they have so far.
        beta = 3e-4
        mean[k] = (1 - beta) * mean[k] + beta * targets.mean()
        second[k] = (1 - beta) * second[k] + beta * np.square(targets).mean()
        weight[k] = (1 - beta) * weight[k] + beta
    found = session.run(statistics)
  mu = mean / weight
  np.testing.assert_allclose(found[:, 0], mu, rtol=1e-5)
  np.testing.assert_allclose(found[:, 1], np.sqrt(second / weight - mu**2), rtol=1e-3)


def test_a_level_that_was_never_played_and_huge_deviations_stay_within_bounds(graph):
  pop_art = PopArt(2)
  add = pop_art.add(tf.constant([[0, 0, 0], [10, 0, 1e20]], tf.float32))
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    session.run(add)
    np.testing.assert_allclose(session.run(pop_art.statistics()), [[0, 1], [0, 1e6]])


@pytest.mark.parametrize('num_slices', [1, 100])  # The head is on several slices, too.
def test_a_change_of_one_level_changes_only_its_head_and_no_value(graph, num_slices):
  tf.compat.v1.set_random_seed(3)
  with sliced_weights.shape_only_variables(''):
    agent = nets.build_agent('MLPAgent', MANY, value_normalisation=LEVELS)
  weights = sliced_weights.SlicedWeights(agent.trainable_variables, num_slices)
  copy, copy_weights = nets.local_copy(
    agent, 'MLPAgent', MANY, value_normalisation=LEVELS, values_of=weights.values_of
  )
  targets = np.random.default_rng(1).normal(-40, 7, 500)
  add = agent.value_scale.add(tf.constant([3 * [0], moments_of(targets), 3 * [0]], tf.float32))
  rescale, refresh = agent.rescale_values(weights), copy_weights()
  inputs = np.float32(np.random.default_rng(2).normal(scale=9, size=(6, *ON.observation[0].shape)))
  step = StepOutput(tf.zeros([6]), (), tf.zeros([6], tf.bool), tf.constant(inputs))
  output, _ = copy((tf.zeros([6], tf.int32), step), ())
  heads = [v for v in copy.trainable_variables if 'baseline' in v.name]
  others = [v for v in copy.trainable_variables if 'baseline' not in v.name]
  v1 = tf.compat.v1
  with v1.Session() as session:
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
    session.run(refresh)
    before, heads_before, others_before = session.run([output.baseline, heads, others])
    for operation in (add, rescale, refresh):
      session.run(operation)
    after, heads_after, others_after = session.run([output.baseline, heads, others])
    scale = session.run(agent.value_scale.scale)
  assert before.shape == (6, LEVELS)
  np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(scale[1], [targets.mean(), targets.std()], rtol=1e-3)
  assert scale[::2].tolist() == [[0, 1], [0, 1]]
  assert_same(dict(enumerate(others_after)), dict(enumerate(others_before)), rtol=0, atol=0)
  for one, other in zip(heads_before, heads_after, strict=True):
    np.testing.assert_array_equal(one[..., ::2], other[..., ::2])
    assert np.abs(one[..., 1] - other[..., 1]).max() > 0.01


def test_unrolls_are_learned_from_with_the_head_and_deviation_of_their_level():
  """A batch three times without learning: the losses are the sums of those of each level alone."""
  still = dict(learning_rate=1e-9, agent_name='MLPAgent')
  ids = [0, 1, 1, 2]
  unrolls = unrolls_of(ids, settings=dataclasses.replace(MANY, **still))
  before, values, reports = learned(
    dataclasses.replace(MANY, **still), [np.concatenate([t] * 3) for t in unrolls], times=3
  )
  mean, std = statistics_of(values[MOMENTS])
  np.testing.assert_allclose(values[SCALE], np.stack([mean, std], axis=-1), rtol=1e-3)
  assert std[2] > 3 * std[1] > 9 * std[0]
  parts = []
  for k in range(LEVELS):
    own = [i for i, level in enumerate(ids) if level == k]
    with Learner(dataclasses.replace(OFF, batch_size=len(own), **still)).open() as one:
      heads = {n: v[..., k : k + 1] if 'baseline' in n else v for n, v in before.items()}
      one.assign({n: heads[n] for n in one.values() if n.endswith(('/w', '/b'))})
      one.put([array[own] for array in unrolls])
      parts += one.update(1)
  # As with one level, the third update is the first that is scaled.
  for report, scale in zip(reports, [np.ones(LEVELS)] * 2 + [std], strict=True):
    policy = sum(part['policy_loss'] / s for part, s in zip(parts, scale, strict=True))
    baseline = sum(part['baseline_loss'] / s**2 for part, s in zip(parts, scale, strict=True))
    assert report['policy_loss'] == pytest.approx(policy, rel=2e-3)
    assert report['baseline_loss'] == pytest.approx(baseline, rel=2e-3)


def test_two_towers_equal_one_with_levels():
  unrolls = unrolls_of([0, 1, 2, 1, 0, 0, 2, 1])
  _, one, _ = learned(MANY, unrolls, times=2)
  _, two, _ = learned(MANY, unrolls, TWO_CPUS, times=2)
  assert_same(two, one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_learners_with_other_levels_on_three_parameter_servers_learn_each_level():
  unrolls = unrolls_of([0, 1, 2, 2])
  settings = dataclasses.replace(MANY, batch_size=2, learning_rate=1e-9)
  with two_learners(settings, num_ps=3) as learners:
    learners[0].put(rows(unrolls, 0, 0))  # Levels 0 and 1, as its actors play them.
    learners[1].put(rows(unrolls, 1, 1))  # Level 2.
    update_together(learners, times=2)
    values = learners[0].values()
  mean, std = statistics_of(values[MOMENTS])
  np.testing.assert_allclose(values[SCALE], np.stack([mean, std], axis=-1), rtol=1e-3)
  assert std[2] > 3 * std[1] > 9 * std[0]
