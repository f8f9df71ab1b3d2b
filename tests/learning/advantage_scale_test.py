"""The scale of advantages against numpy: alone, in updates and in checkpoints."""

import numpy as np
import pytest
import tensorflow as tf

from learner_fixtures import TWO_CPUS, Learner, assert_same, random_unrolls, small_settings
from learning.advantage_scale import AdvantageScale

NAME = 'advantage_moments'


def factors(scale, batches):
  """The factor before and after each of some batches of advantages."""
  sums = tf.compat.v1.placeholder(tf.float32, [2])
  add, factor = scale.add(sums), scale.factor()
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    found = [session.run(factor)]
    for batch in batches:
      session.run(add, {sums: [np.size(batch), np.sum(np.square(batch))]})
      found.append(session.run(factor))
  return found


def test_it_is_one_over_the_root_mean_square_of_the_batches_of_late(graph):
  rng = np.random.default_rng(0)
  batches = [rng.normal(scale=0.1 * (1 + i), size=80 - i) for i in range(30)]
  expected = [1.0]
  for i in range(len(batches)):
    weights = [0.99 ** (i - j) for j in range(i + 1)]
    squares = sum(w * np.sum(b**2) for w, b in zip(weights, batches, strict=False))
    number = sum(w * np.size(b) for w, b in zip(weights, batches, strict=False))
    expected.append(1 / np.sqrt(squares / number))
  np.testing.assert_allclose(factors(AdvantageScale(), batches), expected, rtol=1e-5)


def test_half_a_batch_of_each_of_two_learners_counts_as_a_whole_one_of_one(graph):
  rng = np.random.default_rng(0)
  batches = [rng.normal(scale=0.1 + i % 3, size=80) for i in range(30)]
  halves = [half for batch in batches for half in np.split(batch, 2)]
  whole = factors(AdvantageScale(), batches)
  np.testing.assert_allclose(factors(AdvantageScale(2), halves)[::2], whole, rtol=0.01)


def test_where_nothing_is_rewarded_nothing_is_blown_up(graph):
  assert factors(AdvantageScale(), [np.zeros(80), np.full(80, 1e-9)])[1:] == [1e4, 1e4]


@pytest.mark.slow
def test_updates_scale_by_those_before_and_a_checkpoint_holds_the_statistics():
  unrolls = [np.concatenate([t, t]) for t in random_unrolls(small_settings(), 4)]
  reports, values = {}, {}
  for on in (False, True):
    settings = small_settings(
      return_normalisation='advantage_rms' if on else 'none', learning_rate=0.0
    )
    with Learner(settings).open() as learner:
      learner.put(unrolls)  # The same batch twice, and no learning in between.
      reports[on], values[on] = learner.update(2), learner.values()
  assert NAME not in values[False]
  number, squares = values[True][NAME]
  assert number == pytest.approx(4 * settings.unroll_length * (1 - 0.99**2))
  first, second = (report['policy_loss'] for report in reports[True])
  assert first == reports[False][0]['policy_loss'] == reports[False][1]['policy_loss']
  assert second == pytest.approx(first / np.sqrt(squares / number), rel=1e-5)
  assert second != pytest.approx(first, rel=0.01)


@pytest.mark.slow
def test_two_towers_equal_one():
  settings = small_settings(return_normalisation='advantage_rms')
  unrolls = random_unrolls(settings, 12)
  after = []
  for devices in (['/cpu:0'], TWO_CPUS):
    with Learner(settings, devices=devices).open() as learner:
      learner.put(unrolls)
      learner.update(3)
      after.append(learner.values())
  assert_same(*after, rtol=1e-4, atol=1e-5)
