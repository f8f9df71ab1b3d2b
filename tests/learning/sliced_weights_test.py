"""sliced_weights: nothing is lost by cutting, and slices learn what the variables would learn."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from learner_fixtures import small_settings
from learning import optimizers, sliced_weights
from runtime.checkpoints import Checkpoints

SHAPES = ([3, 5], [7], [], [2, 1, 4], [64])


@pytest.fixture(autouse=True)
def graph():
  with tf.Graph().as_default() as new:
    yield new


def made(num_slices, scale=1.0):
  """(list of arrays, `SlicedWeights` that begin with them)."""
  rng = np.random.default_rng(3)
  first = [np.float32(scale * rng.normal(size=shape)) for shape in SHAPES]
  with sliced_weights.shape_only_variables(''):
    variables = [tf.Variable(value, name=f'v{i}') for i, value in enumerate(first)]
  return first, sliced_weights.SlicedWeights(variables, num_slices)


def initialized():
  session = tf.compat.v1.Session()
  session.run(tf.compat.v1.global_variables_initializer())
  return session


def assert_equal(values, expected, **tolerance):
  for value, other in zip(values, expected, strict=True):
    assert value.shape == other.shape
    np.testing.assert_allclose(value, other, **{'rtol': 0, **tolerance})


@pytest.mark.parametrize('num_slices', [1, 2, 3, 7, 40])
def test_slices_are_even_and_hold_every_weight_once(num_slices):
  first, weights = made(num_slices)
  with initialized() as session:
    slices, joined = session.run([weights.slices, weights.joined()])
  assert_equal(joined, first)
  assert len(slices) == num_slices
  assert {s.shape for s in slices} == {slices[0].shape} and slices[0].size % 16 == 0
  flat = np.concatenate(slices)
  count = sum(v.size for v in first)
  np.testing.assert_array_equal(flat[:count], np.concatenate([v.reshape(-1) for v in first]))
  assert not np.any(flat[count:])


@pytest.mark.parametrize(
  'num_slices, which', list(itertools.product([1, 2, 7], range(len(SHAPES))))
)
def test_a_variable_is_changed_where_it_lies_and_no_other_is(num_slices, which):
  first, weights = made(num_slices)
  change = weights.scale_and_shift(weights.variables[which], tf.constant(3.0), -1.0)
  with initialized() as session:
    session.run(change)
    joined, slices = session.run([weights.joined(), weights.slices])
  expected = [3 * v - 1 if i == which else v for i, v in enumerate(first)]
  assert_equal(joined, expected, rtol=1e-6)
  assert not np.any(np.concatenate(slices)[sum(v.size for v in first) :])


@pytest.mark.parametrize('num_slices', [1, 3])
def test_only_slices_are_variables_of_the_graph(num_slices):
  _, weights = made(num_slices)
  assert tf.compat.v1.global_variables() == weights.slices
  assert tf.compat.v1.trainable_variables() == weights.slices


def updated(optimizer, values, gradients):
  """An operation that applies gradients as a learner does, clipped by their norm."""
  settings = small_settings(optimizer=optimizer, gradient_clipping=6.5)
  counters = optimizers.create_counters()
  built, _ = optimizers.build_optimizer(settings, counters)
  return built, built.apply_gradients(list(zip(gradients, values, strict=True)), counters.updates)


@pytest.mark.parametrize(
  'optimizer, num_slices', list(itertools.product(['rmsprop', 'adam'], [1, 2, 3]))
)
def test_slices_learn_what_the_variables_would_learn(optimizer, num_slices):
  rng = np.random.default_rng(5)
  steps = [[np.float32(rng.normal(size=shape)) for shape in SHAPES] for _ in range(4)]
  first, weights = made(num_slices)
  given = [tf.compat.v1.placeholder(tf.float32, shape) for shape in SHAPES]
  _, update = updated(optimizer, weights.slices, weights.cut(given))
  with tf.Graph().as_default():
    variables = [tf.Variable(value) for value in first]
    expected_given = [tf.compat.v1.placeholder(tf.float32, shape) for shape in SHAPES]
    _, expected_update = updated(optimizer, variables, expected_given)
    with initialized() as session:
      for gradients in steps:
        session.run(expected_update, dict(zip(expected_given, gradients, strict=True)))
      expected = session.run(variables)
  with initialized() as session:
    for gradients in steps:
      session.run(update, dict(zip(given, gradients, strict=True)))
    values, slices = session.run([weights.joined(), weights.slices])
  assert_equal(values, expected, rtol=1e-5, atol=1e-6)
  assert all(np.any(value != before) for value, before in zip(values, first, strict=True))
  count = sum(v.size for v in first)
  assert not np.any(np.concatenate(slices)[count:])  # Padding learns nothing.


@pytest.mark.parametrize('optimizer', ['rmsprop', 'adam'])
def test_a_checkpoint_goes_on_with_another_number_of_slices(optimizer, tmp_path):
  def trained(num_slices, scale):
    _, weights = made(num_slices, scale)
    built, update = updated(optimizer, weights.slices, weights.cut(weights.joined()))
    return weights, weights.unsliced(built), update

  with tf.Graph().as_default():
    _, whole, update = trained(3, 1.0)
    saver = Checkpoints(str(tmp_path), '', whole=whole)
    with initialized() as session:
      session.run(update)
      saver.save(session, 1)
      saved = session.run(saver.variables)
      session.run(update)
      session.run(whole.gather)
      expected = session.run(saver.variables)
  slot = {'rmsprop': 'v0/RMSProp_1', 'adam': 'v0/Adam_1'}[optimizer]
  assert saved[slot].shape == tuple(SHAPES[0]) and np.all(saved[slot] != 0)
  with tf.Graph().as_default():
    weights, whole, update = trained(2, -2.0)
    saver = Checkpoints(str(tmp_path), '', whole=whole)
    with initialized() as session:
      saver.restore(session, Checkpoints.latest(str(tmp_path)))
      session.run(whole.gather)
      restored, joined = session.run([saver.variables, weights.joined()])
      session.run(update)
      session.run(whole.gather)
      after = session.run(saver.variables)
  assert restored.keys() == saved.keys()
  assert_equal(restored.values(), saved.values())
  assert_equal(joined, [saved[f'v{i}'] for i in range(len(SHAPES))])
  assert_equal([after[name] for name in expected], expected.values(), rtol=1e-6, atol=1e-7)
