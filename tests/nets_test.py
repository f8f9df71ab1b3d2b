"""Agents: unrolls against single steps, resets, gradients, names, sizes of images, precision."""

import re

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

import nets
from learning import torsos
from learning.observation_scaling import SCALES
from simple_spaces import simple_spaces
from structs import AGENTS, StepOutput, StepOutputInfo, default_agent_name

SMALL_IMAGES = simple_spaces((10, 10, 2), 'uint8', 4)
ATARI = simple_spaces((84, 84, 4), 'uint8', 6)
VECTORS = simple_spaces((5,), 'float32', 3)
T, B = 6, 3

ALL_AGENTS = list(AGENTS)
IMAGE_AGENTS = [name for name in ALL_AGENTS if AGENTS[name] == 3]
LSTM_AGENTS = [name for name in ALL_AGENTS if 'LSTM' in name]


def _spec(name):
  return SMALL_IMAGES if name in IMAGE_AGENTS else VECTORS


def _inputs(spec, done, seed=0):
  """Actions and environment outputs of [T, B, ...] as constants."""
  rng = np.random.default_rng(seed)
  shape = done.shape
  if spec.dtype == 'uint8':
    observation = rng.integers(0, 256, (*shape, *spec.shape), np.uint8)
  else:
    observation = np.float32(rng.normal(size=(*shape, *spec.shape)))
  reward = np.float32(rng.normal(scale=3.0, size=shape))
  info = StepOutputInfo(
    np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.zeros(shape, bool)
  )
  actions = rng.integers(0, spec.num_actions, shape, np.int32)
  env_outputs = StepOutput(reward, info, done, observation)
  return tf.nest.map_structure(tf.constant, (actions, env_outputs))


def _random_state(agent, seed=1):
  """A core state as it is in the middle of an episode."""
  return tf.nest.map_structure(
    lambda t: tf.constant(np.float32(np.random.default_rng(seed).normal(size=t.shape))),
    agent.initial_state(B),
  )


def _dones(*steps_and_environments):
  done = np.zeros([T, B], bool)
  for index in steps_and_environments:
    done[index] = True
  return done


SOME_DONE = _dones((0, 1), (2, 0), (3, 0), (4, 2))


def _step_by_step(agent, actions, env_outputs, core_state):
  outputs = []
  for t in range(T):
    now = tf.nest.map_structure(lambda x, t=t: x[t], (actions, env_outputs))
    output, core_state = agent(now, core_state)
    outputs.append(output)
  return tf.nest.map_structure(lambda *steps: tf.stack(steps), *outputs), core_state


def _run(fetches):
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    return session.run(fetches)


@pytest.fixture(autouse=True)
def graph():
  with tf.Graph().as_default() as graph:
    tf.random.set_seed(1)
    yield graph


@pytest.mark.slow
@pytest.mark.parametrize('name', ALL_AGENTS)
def test_unroll_equals_repeated_steps_across_resets(name):
  agent = nets.build_agent(name, _spec(name))
  actions, env_outputs = _inputs(_spec(name), SOME_DONE)
  state = _random_state(agent)
  unroll, steps = _run(
    [agent.unroll(actions, env_outputs, state), _step_by_step(agent, actions, env_outputs, state)]
  )
  for output, last_state in (unroll, steps):
    assert output.action.shape == (T, B) and output.action.dtype == np.int32
    assert output.policy_logits.shape == (T, B, _spec(name).num_actions)
    assert output.baseline.shape == (T, B)
    assert (0 <= output.action).all() and (output.action < _spec(name).num_actions).all()
    assert bool(last_state) == (name in LSTM_AGENTS)
  np.testing.assert_allclose(unroll[0].policy_logits, steps[0].policy_logits, atol=1e-5)
  np.testing.assert_allclose(unroll[0].baseline, steps[0].baseline, atol=1e-5)
  for a, b in zip(tf.nest.flatten(unroll[1]), tf.nest.flatten(steps[1]), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('name', LSTM_AGENTS)
def test_done_forgets_and_only_that(name):
  agent = nets.build_agent(name, _spec(name))
  actions, env_outputs = _inputs(_spec(name), _dones((3, 0)))
  states = [agent.initial_state(B), _random_state(agent)]
  fresh, used = _run([agent.unroll(actions, env_outputs, state)[0].baseline for state in states])
  different = np.abs(fresh - used) > 1e-6
  assert different[:3].all()  # What was before is remembered ...
  assert not different[3:, 0].any()  # ... until the episode ends, and there alone.
  assert different[3, 1:].all()


@pytest.mark.parametrize('name', ALL_AGENTS)
def test_an_unroll_of_unknown_batch_size(name):
  agent = nets.build_agent(name, _spec(name))
  inputs = _inputs(_spec(name), SOME_DONE)
  placeholders = tf.nest.map_structure(
    lambda t: tf.compat.v1.placeholder(t.dtype, [T, None, *t.shape[2:]]), inputs
  )
  state = _random_state(agent)
  known, _ = agent.unroll(*inputs, state)
  unknown, _ = agent.unroll(*placeholders, state)
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    values = session.run(inputs)
    feed = dict(zip(tf.nest.flatten(placeholders), tf.nest.flatten(values), strict=True))
    a, b = session.run([known.policy_logits, unknown.policy_logits], feed)
  np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('name', ALL_AGENTS)
def test_gradients_reach_every_variable(name):
  agent = nets.build_agent(name, _spec(name))
  output, _ = agent.unroll(*_inputs(_spec(name), SOME_DONE), _random_state(agent))
  weights = np.float32(np.random.default_rng(2).normal(size=output.policy_logits.shape))
  loss = tf.reduce_sum(output.policy_logits * weights) + tf.reduce_sum(output.baseline)
  variables = agent.trainable_variables
  assert [v.ref() for v in variables] == [v.ref() for v in agent.variables]
  gradients = tf.gradients(loss, variables)
  assert None not in gradients
  for variable, gradient in zip(variables, _run(gradients), strict=True):
    assert np.isfinite(gradient).all() and np.any(gradient != 0), variable.name


@pytest.mark.parametrize('name', [name for name in ALL_AGENTS if name != 'SeparateMLPAgent'])
def test_the_last_action_and_the_clipped_reward_are_seen(name):
  agent = nets.build_agent(name, _spec(name))
  actions, env_outputs = _inputs(_spec(name), _dones())
  state = _random_state(agent)

  def baseline(action, reward):
    now = tf.nest.map_structure(lambda x: x[0], env_outputs)
    now = now._replace(reward=tf.fill([B], reward))
    return agent((tf.fill([B], action), now), state)[0].baseline

  first, other_action, other_reward, big, bigger = _run(
    [baseline(0, 0.5), baseline(1, 0.5), baseline(0, -0.5), baseline(0, 1.0), baseline(0, 20.0)]
  )
  assert (first != other_action).all() and (first != other_reward).all()
  np.testing.assert_array_equal(big, bigger)


def test_actions_are_sampled_from_the_policy():
  agent = nets.build_agent('MLPAgent', VECTORS)
  inputs = (
    tf.zeros([3000], tf.int32),
    StepOutput(tf.zeros([3000]), (), tf.zeros([3000], tf.bool), tf.zeros([3000, 5])),
  )
  output, _ = agent(inputs, ())
  bias = next(v for v in agent.variables if v.name.endswith('policy/b:0'))
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    session.run(bias.assign(np.log([0.7, 0.2, 0.1])))
    actions, logits = session.run([output.action, output.policy_logits])
  probabilities = np.exp(logits[0]) / np.exp(logits[0]).sum()
  # 5 standard deviations of a mean of 3000.
  np.testing.assert_allclose(np.bincount(actions) / 3000, probabilities, atol=0.045)


@pytest.mark.parametrize('name', ALL_AGENTS)
def test_the_first_policy_is_near_uniform(name):
  agent = nets.build_agent(name, _spec(name))
  output, _ = agent.unroll(*_inputs(_spec(name), SOME_DONE), agent.initial_state(B))
  probabilities = _run(tf.nn.softmax(output.policy_logits))
  np.testing.assert_allclose(probabilities, 1 / _spec(name).num_actions, atol=0.05)


@pytest.mark.parametrize('name', ALL_AGENTS)
def test_variable_names_do_not_depend_on_the_rest_of_the_graph(name):
  alone = [v.name for v in nets.build_agent(name, _spec(name)).variables]
  with tf.Graph().as_default():
    snt.Linear(3)(tf.zeros([1, 2]))
    snt.LSTM(3)(tf.zeros([1, 2]), snt.LSTM(3).initial_state(1))
    tf.Variable(1.0, name='w')
    with tf.name_scope('policy'):
      tf.Variable(1.0, name='w')
    tf.compat.v1.train.create_global_step()
    agent = nets.build_agent(name, _spec(name))
    nets.local_copy(agent, name, _spec(name))
    assert [v.name for v in agent.variables] == alone
  assert len(set(alone)) == len(alone)


def test_the_paper_s_sizes():
  def shapes(name, spec):
    with tf.Graph().as_default():
      variables = nets.build_agent(name, spec).variables
      return sorted(tuple(v.shape) for v in variables if v.shape.rank > 1)

  extra = 1 + ATARI.num_actions  # Reward and last action.
  heads = [ATARI.num_actions, 1]
  assert shapes('SimpleConvNetAgent', ATARI) == sorted(
    [
      (8, 8, 4, 32),
      (4, 4, 32, 64),
      (3, 3, 64, 64),
      (7 * 7 * 64, 512),
      *((512 + extra, size) for size in heads),
    ]
  )
  sections = [(4, 16), (16, 32), (32, 32)]
  assert shapes('ResNetLSTMAgent', ATARI) == sorted(
    [
      *((3, 3, before, after) for before, after in sections),
      *((3, 3, after, after) for _, after in sections for _ in range(4)),
      (11 * 11 * 32, 256),
      (256 + extra, 4 * 256),
      (256, 4 * 256),
      *((256, size) for size in heads),
    ]
  )


@pytest.mark.parametrize(
  'size, places', [((10, 10), 8 * 8), ((3, 4), 1 * 2), ((2, 5), 2 * 5), ((1, 1), 1)]
)
def test_the_network_of_minatar_has_one_convolution_of_16_channels_and_128_features(size, places):
  agent = nets.build_agent('MinAtarAgent', simple_spaces((*size, 4), 'uint8', 6))
  heads = (128 + 1 + 6 + 1) * (6 + 1)  # Of features, last reward and last action.
  sizes = sum(v.shape.num_elements() for v in agent.variables)
  assert sizes == (9 * 4 + 1) * 16 + (places * 16 + 1) * 128 + heads


def test_pooling_leaves_32_inputs_of_the_linear_layer():
  # Of each section: a convolution that changes the number of channels, and four that do not.
  sections = sum(
    9 * before * after + after + 4 * (9 * after * after + after)
    for before, after in [(4, 16), (16, 32), (32, 32)]
  )
  actions = ATARI.num_actions
  features = 256 + 1 + actions  # Of the torso; the last reward; the last action.
  heads = (features + 1) * (actions + 1)
  lstm = (features + 256 + 1) * 4 * 256 + (256 + 1) * (actions + 1)

  def number(name, spec=ATARI):
    with tf.Graph().as_default():
      return sum(v.shape.num_elements() for v in nets.build_agent(name, spec).variables)

  pooled, flat = sections + (32 + 1) * 256, sections + (11 * 11 * 32 + 1) * 256
  assert number('ResNetPoolAgent') == pooled + heads == 108_040  # docs/environments_and_agents.md
  assert number('ResNetPoolLSTMAgent') == pooled + lstm == 640_471
  assert number('ResNetAgent') == flat + heads == 1_091_080
  assert number('ResNetLSTMAgent') == flat + lstm == 1_623_511
  larger = simple_spaces((210, 160, 4), 'uint8', 6)
  assert number('ResNetPoolAgent', larger) == number('ResNetPoolAgent')


def test_pooling_tells_what_is_in_an_image_but_not_where():
  """An object moves by multiples of 8 pixels, the stride of the three sections together.

  A feature sees 70 pixels to each side, so that no edge is seen. All else is black: first biases
  are 0, and so are the activations there.
  """
  images = np.zeros([4, 232, 232, 1], np.uint8)
  thing, other = np.random.default_rng(3).integers(0, 256, (2, 8, 8, 1), np.uint8)
  for i, (row, column) in enumerate([(112, 112), (80, 136), (144, 80)]):
    images[i, row : row + 8, column : column + 8] = thing
  images[3, 112:120, 112:120] = other
  pooled, flat = _run(
    [
      torso(tf.float32, SCALES['unit'])(tf.constant(images))
      for torso in (torsos.ResNetPoolTorso, torsos.ResNetTorso)
    ]
  )
  size = np.abs(pooled).max()
  np.testing.assert_allclose(pooled[1:3], pooled[:1].repeat(2, axis=0), atol=1e-4 * size)
  assert np.abs(pooled[3] - pooled[0]).max() > 0.01 * size  # Another object.
  for moved in flat[1:3]:  # Without pooling, it matters where the object is.
    assert np.abs(moved - flat[0]).max() > 0.1 * np.abs(flat).max()


@pytest.mark.parametrize('shape', [(10, 10, 1), (10, 5, 1), (8, 8, 3), (36, 36, 3), (84, 84, 4)])
@pytest.mark.parametrize('name', IMAGE_AGENTS)
def test_images_of_many_sizes(name, shape):
  spec = simple_spaces(shape, 'uint8', 3)
  agent = nets.build_agent(name, spec)
  output, _ = agent.unroll(*_inputs(spec, _dones()[:1]), agent.initial_state(B))
  assert _run(output.policy_logits).shape == (1, B, 3)


def test_names_in_any_letter_case():
  for name in ALL_AGENTS:
    for spelling in (name, name.lower(), name.upper()):
      assert nets.agent_factory(spelling).__name__ == name


def test_an_unknown_name_lists_the_known():
  with pytest.raises(ValueError, match="'ConvAgent'.*" + '.*'.join(ALL_AGENTS)):
    nets.agent_factory('ConvAgent')


def test_the_default_fits_the_observations():
  assert default_agent_name(ATARI) == 'SimpleConvNetAgent'
  assert default_agent_name(VECTORS) == 'MLPAgent'


@pytest.mark.parametrize(
  'name, spec, fitting',
  [('MLPAgent', ATARI, 'SimpleConvNetAgent'), ('ResNetAgent', VECTORS, 'MLPAgent')],
)
def test_observations_of_the_wrong_kind_are_refused(name, spec, fitting):
  message = f'{name} takes .*{re.escape(str(spec.shape))}; {fitting} would fit'
  with pytest.raises(ValueError, match=message):
    nets.build_agent(name, spec)


@pytest.mark.parametrize('name', ALL_AGENTS)
def test_bfloat16_keeps_weights_and_outputs_float32(name):
  exact = nets.build_agent(name, _spec(name))
  rough, copy_weights = nets.local_copy(exact, name, _spec(name), 'bfloat16')
  inputs = _inputs(_spec(name), SOME_DONE)
  outputs = [agent.unroll(*inputs, _random_state(agent)) for agent in (exact, rough)]
  tensors = tf.nest.flatten([outputs[1][0]._replace(action=()), outputs[1][1]])
  assert {t.dtype for t in [*rough.variables, *tensors]} == {tf.float32}
  gradients = tf.gradients(tf.reduce_sum(outputs[1][0].baseline), rough.variables)
  assert {g.dtype for g in gradients if g is not None} == {tf.float32}
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    session.run(copy_weights())
    a, b = session.run([output.baseline for output, _ in outputs])
  assert np.abs(a - b).max() > 1e-6  # It did compute in bfloat16.
  np.testing.assert_allclose(a, b, atol=0.1)


def test_a_local_copy_is_local_and_follows_its_original(graph):
  agent = nets.build_agent('MLPLSTMAgent', VECTORS)
  before = tf.compat.v1.global_variables(), tf.compat.v1.trainable_variables()
  copy, copy_weights = nets.local_copy(agent, 'MLPLSTMAgent', VECTORS)
  assert (tf.compat.v1.global_variables(), tf.compat.v1.trainable_variables()) == before
  locals_ = {v.ref() for v in tf.compat.v1.local_variables()}
  assert {v.ref() for v in copy.variables} <= locals_
  with tf.compat.v1.Session() as session:
    session.run(
      [tf.compat.v1.global_variables_initializer(), tf.compat.v1.local_variables_initializer()]
    )
    assert not any(np.any(value) for value in session.run(copy.variables))
    session.run(copy_weights())
    values, copied = session.run([agent.variables, copy.variables])
  for value, copied_value in zip(values, copied, strict=True):
    np.testing.assert_array_equal(value, copied_value)
