"""envs.alike: the levels of one agent get equal spaces, or are refused."""

import numpy as np
import pytest

import environments
from environment_player import counting, playing
from envs import alike
from structs import Level

IMAGE, DEEP = Level(counting('Image')), Level(counting('DeepImage'))


def test_missing_channels_are_zeros_and_the_others_stay():
  one, other = environments.specs_alike([IMAGE, DEEP])
  assert one.observation == other.observation and one.observation_shape == (4, 3, 3)
  with playing(one.level, 2) as player:
    assert player.flow.spec == one
    player.initial()
    observation = player.step().observation
  np.testing.assert_array_equal(observation[..., :2], np.full((2, 4, 3, 2), 1))
  np.testing.assert_array_equal(observation[..., 2], np.zeros((2, 4, 3)))
  with playing(other.level, 1) as player:
    player.initial()
    np.testing.assert_array_equal(player.step().observation, np.full((1, 4, 3, 3), 1))


def test_a_single_level_is_left_as_it_is():
  pong = Level('PongNoFrameskip-v4')
  assert environments.specs_alike([pong]) == [environments.environment_spec(pong)]
  assert environments.specs_alike([IMAGE]) == [environments.environment_spec(IMAGE)]


def test_games_of_atari_have_all_18_actions():
  pong, riverraid = Level('PongNoFrameskip-v4'), Level('RiverraidNoFrameskip-v4')
  specs = environments.specs_alike([pong, riverraid])
  assert [spec.num_actions for spec in specs] == [18, 18]
  assert environments.stacks_frames([spec.level for spec in specs])
  own = Level('PongNoFrameskip-v4', '{"full_action_space": false}')
  assert alike.with_all_actions([own, riverraid])[0] == own
  with pytest.raises(ValueError, match='actions are 6 choices and 18 choices'):
    environments.specs_alike([own, riverraid])


@pytest.mark.parametrize(
  'names, words',
  [
    (['Image', 'Counting'], r'uint8 \(4, 3, 2\) and float32 \(2,\)'),
    (['Image', 'BoolImage'], r'uint8 \(4, 3, 2\) and uint8 \(6, 1, 1\)'),
  ],
)
def test_levels_that_differ_are_refused_in_a_sentence(names, words):
  with pytest.raises(ValueError, match=words):
    environments.specs_alike([Level(counting(name)) for name in names])


def test_levels_of_other_action_repeats_are_refused():
  names = ['SpaceInvadersDeterministic-v4', 'PongDeterministic-v4']
  with pytest.raises(ValueError, match='3 and 4 frames; --num_action_repeats sets it'):
    environments.specs_alike([Level(name) for name in names])
