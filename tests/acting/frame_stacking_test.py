"""frame_stacking: real games travel frame by frame, and the learner sees the stacks of before."""

import numpy as np
import pytest
import tensorflow as tf

import environments
import nets
import structs
from acting import actor, frame_stacking
from learning import learner
from structs import AgentOutput

pytestmark = pytest.mark.slow  # Real games of Atari.

N, T = 3, 20
UNROLLS = 25


class Player:
  """An agent that plays the same actions in every graph: many of each, so that games end."""

  def __init__(self, num_actions):
    self._num_actions = num_actions

  def initial_state(self, batch_size):
    return tf.zeros([batch_size], tf.int32)

  def __call__(self, inputs, steps):
    games = tf.range(steps.shape[0])
    action = (steps * 7 // 3 + games) % self._num_actions
    logits = tf.zeros([steps.shape[0], self._num_actions])
    return AgentOutput(action, logits, tf.zeros([steps.shape[0]])), steps + 1


def played(level_name, as_frames):
  """UNROLLS env_outputs of the same N games, time-major, as a learner sees them."""
  with tf.Graph().as_default():
    spec = environments.environment_spec(level_name)
    flow = environments.create_environment(level_name, N, seed=3)
    version = tf.Variable(tf.constant(0, tf.int64), trainable=False)
    try:
      unroll = actor.build_unroll(
        Player(spec.action[0].size), flow, T, version, as_frames=as_frames
      )
      seen = learner.time_major_env_outputs(unroll.env_outputs)
      with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(tf.compat.v1.local_variables_initializer())
        return [session.run(seen) for _ in range(UNROLLS)]
    finally:
      flow.close()


@pytest.mark.parametrize('level_name', ['BreakoutNoFrameskip-v4', 'ALE/Breakout-v5'])
def test_the_learner_sees_the_stacks_of_real_games(level_name):
  stacks, rebuilt = (played(level_name, as_frames) for as_frames in (False, True))
  dones = sum(output.done[1:].sum() for output in stacks)
  ends = sum(output.info.game_over[1:].sum() for output in stacks)
  assert dones > ends > 0  # Lives were lost, and games.
  for expected, actual in zip(stacks, rebuilt, strict=True):
    assert expected.observation.shape == (T + 1, N, 84, 84, 4)
    tf.nest.map_structure(np.testing.assert_array_equal, actual, expected)


def rebuilt(frames, starts, device='/cpu:0'):
  config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
  with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=config) as session:
    with tf.device(device):
      packed = structs.Frames(tf.constant(frames))
      stacks = frame_stacking.unpack(packed, tf.constant(starts))
    leaves_device = any(op.type.startswith('PyFunc') for op in graph.get_operations())
    assert leaves_device == (device == '/cpu:0')
    return session.run(stacks)


def test_a_start_hides_all_frames_before_it_and_entry_0_hides_none():
  # Frame k of game b is filled with 10 b + k + 1; 6 entries of stacks of 4.
  values = 10 * np.arange(2)[:, None] + np.arange(1, 10)
  frames = np.tile(values[..., None, None], (1, 1, 2, 3)).astype(np.uint8)
  starts = np.zeros([6, 2], bool)
  starts[[0, 2, 3], [0, 0, 1]] = True
  stacks = rebuilt(frames, starts)
  assert stacks.shape == (6, 2, 2, 3, 4)
  np.testing.assert_array_equal(
    stacks[:, 0, 0, 0],
    [[1, 2, 3, 4], [2, 3, 4, 5], [0, 0, 0, 6], [0, 0, 6, 7], [0, 6, 7, 8], [6, 7, 8, 9]],
  )
  np.testing.assert_array_equal(stacks[3, 1, 1, 2], [0, 0, 0, 17])
  np.testing.assert_array_equal(stacks[5, 1, 1, 2], [0, 17, 18, 19])


def test_a_gpu_rebuilds_the_same_stacks_by_itself():
  generator = np.random.default_rng(1)
  frames = generator.integers(0, 256, [3, 9, 5, 7], np.uint8)
  starts = generator.random([6, 3]) < 0.2
  on_gpu = rebuilt(frames, starts, '/device:GPU:0')
  np.testing.assert_array_equal(on_gpu, rebuilt(frames, starts))


def test_the_sums_over_stacks_are_those_of_the_stacks_after_entry_0():
  generator = np.random.default_rng(2)
  frames = generator.integers(0, 256, [3, 9, 5, 7], np.uint8)
  starts = generator.random([6, 3]) < 0.3
  stacks = rebuilt(frames, starts)[1:].reshape(-1, 5, 7, 4).astype(np.float64)
  assert (starts[1:].sum(0) > 0).any() and (stacks == 0).sum() > 4 * 5 * 7
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    packed = structs.Frames(tf.constant(frames))
    number, total, squares = session.run(frame_stacking.sums(packed, tf.constant(starts)))
  assert number == len(stacks) == 15
  np.testing.assert_array_equal(total, stacks.sum(0))
  np.testing.assert_array_equal(squares, (stacks**2).sum(0))


def test_an_unroll_of_an_atari_game_is_less_than_a_third_of_its_stacks():
  spec = environments.environment_spec('PongNoFrameskip-v4')
  with tf.Graph().as_default():
    agent = nets.build_agent('SimpleConvNetAgent', spec)
    sizes = []
    for as_frames in (False, True):
      specs = actor.unroll_specs(agent, spec, T, as_frames)
      sizes.append(sum(s.shape.num_elements() * s.dtype.size for s in tf.nest.flatten(specs)))
  stacks, frames = sizes
  assert stacks - frames == ((T + 1) * 4 - (T + 4)) * 84 * 84
  assert frames < 0.3 * stacks
