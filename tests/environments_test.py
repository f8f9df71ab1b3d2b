"""environments: alignment, totals, static shapes, seeds, closing."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import counting_env
import environments
from conftest import ROOT
from environment_player import counting, playing


def expected_counts(num_steps, game_steps=counting_env.GAME_STEPS):
  """Reward, return, step, done, observed step and game after t = 0..num_steps actions."""
  for t in range(num_steps + 1):
    game, step = divmod(t, game_steps)
    over = t > 0 and step == 0
    played = game_steps if over else step
    yield float(played), played * (played + 1) / 2, played, over, step, game


def test_counting_environment_shows_alignment_reset_and_totals_exactly():
  with playing(counting('Counting'), 2) as player:
    outputs = [player.initial()] + [player.step(2) for _ in range(12)]
  for t, (output, expected) in enumerate(zip(outputs, expected_counts(12))):
    reward, episode_return, step, over, observed_step, game = expected
    np.testing.assert_array_equal(output.reward, [reward] * 2)
    np.testing.assert_array_equal(output.info.episode_return, [episode_return] * 2)
    np.testing.assert_array_equal(output.info.episode_step, [step] * 2)
    np.testing.assert_array_equal(output.info.game_over, [over] * 2)
    np.testing.assert_array_equal(output.done, [over or t == 0] * 2)
    np.testing.assert_array_equal(output.observation, [[observed_step, game]] * 2)


def test_steps_inside_a_scan_keep_their_order_and_static_shapes():
  flow = environments.create_environment(counting('Image'), 3, seed=1)
  try:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
      first = flow.initial()
      output, _ = tf.scan(
        lambda carry, _: flow.step(tf.zeros([3], tf.int32), carry[1]), tf.range(12), first
      )
      assert output.observation.shape == [12, 3, 4, 3, 2]
      assert output.reward.shape == output.info.episode_step.shape == [12, 3]
      output_v, first_v = session.run([output, first[0]])
  finally:
    flow.close()
  np.testing.assert_array_equal(first_v.observation, np.zeros([3, 4, 3, 2]))
  _, returns, steps, overs, observed, _ = zip(*list(expected_counts(12))[1:])
  np.testing.assert_array_equal(output_v.observation[:, 1, 2, 2, 1], observed)
  np.testing.assert_array_equal(output_v.info.episode_return[:, 2], returns)
  np.testing.assert_array_equal(output_v.info.episode_step[:, 0], steps)
  np.testing.assert_array_equal(output_v.info.game_over[:, 0], overs)


def test_initial_again_starts_all_games_anew():
  with playing(counting('Counting'), 2) as player:
    player.initial()
    player.step()
    player.step()
    output = player.initial()
    np.testing.assert_array_equal(output.observation, [[0, 1]] * 2)
    assert output.done.all() and not output.info.game_over.any()
    np.testing.assert_array_equal(player.step().info.episode_return, [1, 1])


def test_specs_need_no_tensorflow():
  code = (
    'import sys, environments; environments.environment_spec("impala/Catch-v0"); '
    'environments.environment_spec("ALE/Pong-v5"); assert "tensorflow" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.parametrize('level_name', ['BreakoutNoFrameskip-v4', counting('Random')])
def test_seeds_decide_the_first_observations(level_name):
  def first_observations(seed):
    with playing(level_name, 6, seed) as player:
      return player.initial().observation

  ours, again, others = first_observations(5), first_observations(5), first_observations(6)
  np.testing.assert_array_equal(ours, again)
  assert (ours != others).any()
  assert any((ours[0] != ours[i]).any() for i in range(1, 6))  # Each environment has its own.


@pytest.mark.parametrize('level_name', ['PongNoFrameskip-v4', 'impala/Catch-v0'])
def test_closed_environments_say_so(level_name):
  with playing(level_name, 2) as player:
    player.initial()
    player.flow.close()
    with pytest.raises(tf.errors.OpError, match=f'the environments of {level_name} are closed'):
      player.step()
