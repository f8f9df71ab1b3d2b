"""envs.gym_env: spaces, ids, action repeats, time limits."""

import numpy as np
import pytest

import counting_env
import environments
from child_processes import children
from environment_player import counting, playing
from structs import ActionPart, ArraySpec


def test_a_time_limit_ends_the_game_but_shows_its_last_observation():
  with playing(counting('TimeLimit'), 1) as player:
    player.initial()
    outputs = [player.step() for _ in range(5)]
  assert [bool(o.done[0]) for o in outputs] == [False, False, False, True, False]
  assert [bool(o.info.game_over[0]) for o in outputs] == [False, False, True, False, False]
  assert [o.observation[0].tolist() for o in outputs] == [[1, 0], [2, 0], [3, 0], [0, 1], [1, 1]]
  assert [float(o.reward[0]) for o in outputs] == [1, 2, 3, 0, 1]
  assert [float(o.info.episode_return[0]) for o in outputs] == [1, 3, 6, 0, 1]
  assert [int(o.info.episode_step[0]) for o in outputs] == [1, 2, 3, 0, 1]


def test_an_end_at_the_time_limit_is_an_end():
  with playing('counting_env:EndAtTimeLimit-v0', 1) as player:
    player.initial()
    outputs = [player.step() for _ in range(4)]
  assert [bool(o.done[0]) for o in outputs] == [False, False, True, False]
  assert [float(o.observation[0, 0]) for o in outputs] == [1, 2, 0, 1]


def test_action_repeats_sum_rewards_and_stop_at_the_end():
  with playing(counting('Counting'), 1, num_action_repeats=3) as player:
    assert player.flow.spec.num_action_repeats == 3
    player.initial()
    first, second, third = player.step(), player.step(), player.step()
  assert (first.reward, first.observation[0, 0], first.done) == (1 + 2 + 3, 3, False)
  assert (second.reward, second.observation[0, 0], second.done) == (4 + 5, 0, True)
  assert second.info.episode_return == 15 and second.info.episode_step == 2
  assert third.reward == 6


@pytest.mark.parametrize(
  'name, shape, dtype, observation_of',
  [
    ('Counting', (2,), 'float32', lambda step: [step, 0]),
    ('Image', (4, 3, 2), 'uint8', lambda step: np.full((4, 3, 2), step)),
    ('BoolImage', (6, 1, 1), 'uint8', lambda step: 255 * np.eye(6)[step].reshape(6, 1, 1)),
    ('Numbered', (6,), 'float32', lambda step: np.eye(6)[step]),
  ],
)
def test_kinds_of_observations(name, shape, dtype, observation_of):
  spec = environments.environment_spec(counting(name))
  assert spec.observation == (ArraySpec('', shape, dtype),)
  assert spec.action == (ActionPart('discrete', 3),)
  assert (spec.num_action_repeats, spec.is_atari) == (1, False)
  with playing(counting(name), 1) as player:
    for step, output in enumerate([player.initial(), player.step(), player.step()]):
      assert output.observation.dtype == dtype
      np.testing.assert_array_equal(output.observation[0], observation_of(step))


def test_an_observation_space_without_an_agent_is_refused():
  with pytest.raises(ValueError) as info:
    environments.environment_spec(counting('ObservationStack'))
  assert str(counting_env.SPACES['Stack']) in str(info.value)
  assert 'supported are images' in str(info.value) and 'Discrete' in str(info.value)


def test_an_action_space_without_a_distribution_is_refused():
  with pytest.raises(ValueError) as info:
    environments.create_environment(counting('ActionText'), 2, 1)
  assert str(counting_env.SPACES['Text']) in str(info.value)
  assert 'supported are Discrete' in str(info.value)
  assert not children()


@pytest.mark.parametrize(
  'level_name, closest',
  [
    ('PongNoFrameskip-v9', 'PongNoFrameskip-v4'),
    ('CartPol-v1', 'CartPole-v1'),
    ('impala/Cath-v0', 'impala/Catch-v0'),
    ('counting_env:Cuonting-v0', 'Counting-v0'),
  ],
)
def test_unknown_id_names_the_three_closest(level_name, closest):
  with pytest.raises(ValueError, match='known to neither Gymnasium nor OpenAI Gym') as info:
    environments.environment_spec(level_name)
  named = str(info.value).rpartition('the closest are ')[2].split(', ')
  assert len(named) == 3 and closest in named


def test_module_that_cannot_be_imported_is_named():
  with pytest.raises(ValueError, match="'no_such_module:X-v0' cannot be made: .*no_such_module"):
    environments.environment_spec('no_such_module:X-v0')


def test_environment_that_only_openai_gym_knows():
  with playing('openai_gym_env:OnlyInOpenAIGym-v0', 2) as player:
    outputs = [player.initial(), player.step(), player.step(), player.step()]
  assert [o.observation[1, 0] for o in outputs] == [0, 1, 0, 1]
  assert [bool(o.info.game_over[0]) for o in outputs] == [False, False, True, False]
  assert outputs[2].info.episode_return[0] == 3
