"""envs.atari: whole games, rewards, frames."""

import numpy as np
import pytest
import tensorflow as tf

from environment_player import playing


def play_atari(player, num_steps):
  """Random play: the first output and those of the steps, stacked to [num_steps, N, ...]."""
  random = np.random.default_rng(0)
  shape = [num_steps, player.flow.num_envs]
  actions = random.integers(player.flow.spec.action[0].size, size=shape)
  first = player.initial()
  return first, tf.nest.map_structure(lambda *ts: np.stack(ts), *[player.step(a) for a in actions])


def games_of(outputs, i):
  """(first, last) steps of every game of environment i that was played to its end."""
  ends = np.flatnonzero(outputs.info.game_over[:, i])
  return list(zip([0, *(ends[:-1] + 1)], ends))


@pytest.mark.slow
@pytest.mark.parametrize('level_name', ['BreakoutNoFrameskip-v4', 'ALE/Breakout-v5'])
def test_whole_games_of_breakout_over_all_lives(level_name):
  with playing(level_name, 4) as player:
    assert player.flow.spec.action[0].size == 4 and player.flow.spec.num_action_repeats == 4
    _, outputs = play_atari(player, 600)
  games = [(i, *game) for i in range(4) for game in games_of(outputs, i)]
  assert len(games) >= 4
  for i, first, last in games:
    lives_lost = np.flatnonzero(outputs.done[first : last + 1, i])
    assert len(lives_lost) == 5 and lives_lost[-1] == last - first
    score = np.cumsum(outputs.reward[first : last + 1, i])
    np.testing.assert_array_equal(outputs.info.episode_return[first : last + 1, i], score)
    steps = np.arange(1, last - first + 2)
    np.testing.assert_array_equal(outputs.info.episode_step[first : last + 1, i], steps)
  assert max(outputs.info.episode_return[last, i] for i, _, last in games) > 0


def test_whole_games_of_pong():
  with playing('PongNoFrameskip-v4', 2) as player:
    assert player.flow.spec.action[0].size == 6
    _, outputs = play_atari(player, 1500)
  games = [(i, *game) for i in range(2) for game in games_of(outputs, i)]
  assert len(games) >= 2
  for i, first, last in games:
    rewards = outputs.reward[first : last + 1, i]
    assert max((rewards == 1).sum(), (rewards == -1).sum()) == 21
    assert outputs.info.episode_return[last, i] == rewards.sum()
  np.testing.assert_array_equal(outputs.done, outputs.info.game_over)


def test_atari_rewards_are_raw():
  with playing('SpaceInvadersNoFrameskip-v4', 4) as player:
    _, outputs = play_atari(player, 200)
  assert outputs.reward.max() >= 5


def test_atari_frames_are_stacked_with_the_newest_last():
  with playing('BreakoutNoFrameskip-v4', 2, width=60, height=50) as player:
    first, outputs = play_atari(player, 60)
  assert first.observation.shape == (2, 50, 60, 4)
  for t in range(1, 60):
    for i in np.flatnonzero(~outputs.done[t]):
      before, now = outputs.observation[t - 1, i], outputs.observation[t, i]
      np.testing.assert_array_equal(now[..., :3], before[..., 1:])
  assert (outputs.observation[..., 3] != outputs.observation[..., 2]).any()
