"""observation_scaling: what the network sees, against numpy, and statistics that go along."""

import numpy as np
import pytest
import tensorflow as tf

import nets
from learning.observation_scaling import RunningScaling, sums_of
from runtime import placement
from runtime.cluster import Cluster
from simple_spaces import simple_spaces
from structs import StepOutput

IMAGES, VECTORS = simple_spaces((84, 84, 4), 'uint8', 3), simple_spaces((5,), 'float32', 3)


@pytest.fixture
def session():
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    yield session


def images(n, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (n, 84, 84, 4), np.uint8)


def logits(agent, observation):
  n = len(observation)
  step = StepOutput(tf.zeros([n]), (), tf.zeros([n], tf.bool), tf.constant(observation))
  output, _ = agent((tf.zeros([n], tf.int32), step), agent.initial_state(n))
  return output.policy_logits


@pytest.mark.parametrize('name', ['SimpleConvNetAgent', 'ResNetAgent'])
def test_unit_and_centred_are_linear_maps_of_the_pixels(session, name):
  agents = {s: nets.build_agent(name, IMAGES, scaling=s) for s in ('unit', 'centred')}
  # An agent that takes its observations as they are: `running` without its statistics.
  plain = nets.build_agent(name, IMAGES, scaling='running')
  plain.scalings = [lambda observation: observation]
  session.run(tf.compat.v1.global_variables_initializer())
  for agent in agents.values():
    weights = zip(agent.trainable_variables, plain.trainable_variables, strict=True)
    session.run([a.assign(b) for a, b in weights])
  pixels = images(2)
  scaled = {'unit': np.float32(pixels) / 255, 'centred': (np.float32(pixels) - 128) / 128}
  for scaling, agent in agents.items():
    ours, expected = session.run([logits(agent, pixels), logits(plain, scaled[scaling])])
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-6)
    assert np.abs(expected).max() > 1e-4


def test_running_scaling_uses_the_moments_of_all_it_was_given(session):
  scaling = RunningScaling([5], tf.float32)
  stream = np.random.default_rng(1).normal([1, 2, 3, -9, 0], [1, 5, 0.1, 2, 0], (300, 5))
  stream = np.float32(stream)
  session.run(tf.compat.v1.global_variables_initializer())
  batch = tf.compat.v1.placeholder(tf.float32, [None, 5])
  add = scaling.add(*sums_of(batch))
  for part in np.split(stream, [10, 200]):
    session.run(add, {batch: part})
  mean, std = session.run(scaling.moments())
  np.testing.assert_allclose(mean, stream.mean(0), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(std[:4], stream.std(0)[:4], rtol=1e-4)
  assert std[4] == pytest.approx(1e-4)  # Never moved: not divided by nothing.
  seen = session.run(scaling(tf.constant(stream)))
  expected = np.clip((stream - mean) / std, -5, 5)
  np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-4)
  assert session.run(scaling(tf.constant(1e9, shape=[1, 5]))).tolist() == [[5] * 5]


@pytest.mark.parametrize(
  'dtype, value, expected', [('uint8', 192, 0.5), ('uint8', 0, -1), ('float32', 0.25, 0.25)]
)
def test_before_the_first_update_it_is_a_fixed_map(session, dtype, value, expected):
  scaling = RunningScaling([2], dtype)
  session.run(tf.compat.v1.global_variables_initializer())
  assert session.run(scaling(tf.constant(value, dtype, [1, 2]))).tolist() == [[expected] * 2]


@pytest.mark.parametrize('name, spec', [('SimpleConvNetAgent', IMAGES), ('MLPLSTMAgent', VECTORS)])
def test_statistics_are_not_trained_and_a_copy_sees_by_their_moments(session, name, spec):
  agent = nets.build_agent(name, spec, scaling='running')
  copy, copy_weights = nets.local_copy(agent, name, spec, scaling='running')
  shape = (20, *spec.shape)
  observation = np.random.default_rng(2).integers(0, 99, shape).astype(spec.dtype)
  add = agent.scalings[0].add(*sums_of(observation))
  v1 = tf.compat.v1
  session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
  copying = copy_weights()
  for step in range(2):  # Before the first update, and after one.
    session.run(copying)
    ours, theirs = session.run([copy.scalings[0].moments(), agent.scalings[0].moments()])
    np.testing.assert_array_equal(ours, theirs)
    ours, theirs = session.run([logits(copy, observation), logits(agent, observation)])
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(theirs).max() > 1e-4
    assert session.run(agent.scalings[0].count) == step * 20
    session.run(add)
  assert {v.name.rpartition('/')[2] for v in copy.scalings[0].variables} == {'mean:0', 'std:0'}
  assert not [v for v in agent.trainable_variables if 'statistics' in v.name]
  assert agent.scalings[0].count in agent.variables
  unscaled = nets.build_agent(name, spec)
  assert len(agent.trainable_variables) == len(unscaled.trainable_variables)


def test_moments_are_made_on_the_one_server_that_has_the_statistics(session):
  cluster = Cluster(('ps-0:1', 'ps-1:1'), ('learner-0:1',), ('actor-0:1',), 'actor', 0)
  with tf.compat.v1.device(placement.variables_device(cluster)):
    scaling = RunningScaling([8, 8, 4], tf.uint8)
  assert scaling.sum.device == scaling.sum_of_squares.device
  assert scaling.sum.device.startswith('/job:ps')
  with tf.device(cluster.own_device):
    mean, std = scaling.moments()
  assert (mean.device, std.device) == (scaling.sum.device,) * 2
