"""envs.atari_ids: every spelling of an Atari id keeps its promises."""

import re

import gymnasium
import numpy as np
import pytest

import environments
from environment_player import playing
from envs import atari_ids, level_ids, rendered
from structs import Level

level_ids.register_atari()

# Spelling: (frames per agent step, stickiness, whether the vector environment plays it).
SPELLINGS = {
  'PongNoFrameskip-v4': (4, 0.0, True),
  'PongNoFrameskip-v0': (4, 0.25, True),
  'PongDeterministic-v4': (4, 0.0, True),
  'PongDeterministic-v0': (4, 0.25, True),
  'SpaceInvadersDeterministic-v4': (3, 0.0, True),
  'ALE/Pong-v5': (4, 0.25, True),
  'ale_py:ALE/Pong-v5': (4, 0.25, True),
  'Pong-v4': (3, 0.0, False),
  'Pong-v0': (3, 0.25, False),
  'Pong-ram-v4': (3, 0.0, False),
  'Pong-ram-v0': (3, 0.25, False),
  'Pong-ramNoFrameskip-v4': (1, 0.0, False),
  'Pong-ramDeterministic-v0': (4, 0.25, False),
  'SpaceInvaders-ramDeterministic-v4': (3, 0.0, False),
  'ALE/Pong-ram-v5': (4, 0.25, False),
}


def made(name, **kwargs):
  """The environment that a worker makes for an id, and how it is played."""
  played = atari_ids.played(Level(name, **kwargs))
  return level_ids.make(Level(name), played.made_as), played


@pytest.mark.parametrize('name', SPELLINGS)
def test_a_spelling_has_the_frames_the_stickiness_and_the_player_that_it_promises(name):
  frames, stickiness, in_vector = SPELLINGS[name]
  played = atari_ids.played(name)
  assert (played.frames_per_step, played.vector is not None) == (frames, in_vector)
  if in_vector:
    assert played.vector['repeat_action_probability'] == stickiness
    assert (played.vector['frameskip'], played.repeats) == (frames, frames)
    return
  env, _ = made(name)
  assert env.unwrapped.ale.getFloat('repeat_action_probability') == pytest.approx(stickiness)
  env.close()


@pytest.mark.parametrize('name', [name for name, row in SPELLINGS.items() if not row[2]])
def test_frames_are_skipped_as_promised(name):
  env, played = made(name)
  _, info = env.reset(seed=1)
  frames = [info['episode_frame_number']]
  for _ in range(60):
    for _ in range(played.repeats):
      _, _, terminated, _, info = env.step(1)
      assert not terminated
    frames.append(info['episode_frame_number'])
  env.close()
  skipped = np.diff(frames)
  if re.search('Deterministic|NoFrameskip|v5', name):
    assert set(skipped) == {played.frames_per_step}
  else:
    assert set(skipped) == {2, 3, 4} and abs(skipped.mean() - played.frames_per_step) < 0.4


def test_all_games_of_gym_have_all_their_spellings():
  games = [i.removesuffix('NoFrameskip-v4') for i in gymnasium.registry if 'NoFrameskip-v4' in i]
  assert len(games) == 62
  for game in games:
    for version in (0, 4):
      for skip in ('', 'NoFrameskip', 'Deterministic'):
        for name in (f'{game}{skip}-v{version}', f'{game}-ram{skip}-v{version}'):
          assert atari_ids.played(name).made_as.name == f'ALE/{game}-v5' in gymnasium.registry


@pytest.mark.parametrize('name', [
  'Pong-v5', 'Pong-v1', 'ALE/Pong-v4', 'ALE/PongNoFrameskip-v5', 'pong-v4', 'Pongg-v4', 'ALE/Pong',
  'CartPole-v1', 'my_module:Pong-v4', 'impala/Catch-v0',
])  # fmt: skip
def test_other_ids_are_none_of_atari(name):
  assert atari_ids.played(name) is None and atari_ids.most_frames(name) is None


def test_the_memory_is_128_bytes_and_images_are_preprocessed_as_ever():
  with playing('SpaceInvaders-ramDeterministic-v4', 1) as player:
    assert (player.flow.spec.num_action_repeats, player.flow.spec.is_atari) == (3, False)
    observation = player.initial().observation
  assert observation.shape == (1, 128) and observation.max() > 1
  spec = environments.environment_spec('Pong-v4', width=60, height=50)
  assert [tuple(array) for array in spec.observation] == [('', (50, 60, 4), 'uint8')]
  assert (spec.num_action_repeats, spec.is_atari) == (3, False)


def test_a_game_in_another_mode_looks_as_in_the_vector_environment():
  """Freeway's difficulty 1 only changes what a collision costs: the first frames are the same."""
  name = 'FreewayNoFrameskip-v4'
  levels = [Level(name, '{"noop_max": 0}'), Level(name, '{"difficulty": 0}')]
  assert [atari_ids.played(level).vector is None for level in levels] == [False, True]
  frames = []
  for level in levels:
    with playing(level, 1) as player:
      player.initial()
      for _ in range(60):  # The no-ops at the start have passed.
        output = player.step(1)
      frames.append(output.observation[0, ..., -1].astype(float))
  # The same colours of the same lanes; the cars stand elsewhere.
  assert abs(frames[0].mean(axis=1) - frames[1].mean(axis=1)).mean() < 5


def test_keywords_of_the_vector_environment_go_to_it():
  kwargs = '{"full_action_space": true, "frameskip": 2, "noop_max": 0, "life_loss_info": false}'
  level = Level('PongNoFrameskip-v4', kwargs)
  spec = environments.environment_spec(level)
  assert (spec.is_atari, spec.num_action_repeats, spec.action[0].size) == (True, 2, 18)
  vector = atari_ids.played(level).vector
  assert (vector['noop_max'], vector['life_loss_info'], vector['frameskip']) == (0, False, 2)
  short = Level('PongNoFrameskip-v4', '{"max_num_frames_per_episode": 400}')
  assert environments.most_frames(short, 4, 0) == 400
  with playing(short, 1) as player:
    player.initial()
    ends = [bool(player.step().info.game_over[0]) for _ in range(110)]
  assert sum(ends) == 1


def test_wrappers_and_kinds_of_observations_get_what_gymnasium_gives():
  level = Level('PongNoFrameskip-v4', env_wrappers='gymnasium.wrappers.AtariPreprocessing')
  spec = environments.environment_spec(level)
  assert (spec.observation[0].shape, spec.num_action_repeats) == ((84, 84, 1), 1)
  raw = environments.environment_spec(Level('ALE/Pong-v5', '{"obs_type": "rgb"}'))
  assert (raw.observation[0].shape, raw.num_action_repeats) == ((210, 160, 3), 4)


@pytest.mark.parametrize('name, kwargs, repeats, sentence', [
  ('Pong-v4', '', 4, 'repeats=4 contradicts Pong-v4, which skips 2 to 4 frames at random'),
  ('ALE/Pong-v5', '{"frameskip": 2}', 4, '=4 contradicts the frameskip 2 of --env_kwargs'),
  ('ALE/Pong-v5', '{"frameskip": [4, 2]}', 0, 'frameskip is not a positive whole number, or '),
  ('ALE/Pong-v5', '{"frameskip": 0}', 0, 'frameskip is not a positive whole number, or '),
  ('ALE/Pong-v5', '{"full_action_space": 1}', 0, 'full_action_space is not true or false'),
  ('ALE/Pong-v5', '{"repeat_action_probability": 2}', 0, 'is not a number from 0 to 1'),
  ('ALE/Pong-v5', '{"noop_max": -1}', 0, 'noop_max is not a whole number from 0'),
  ('ALE/Pong-v5', '{"difficulty": 9}', 0, 'cannot be made with --env_kwargs=.*Invalid difficulty'),
  ('ALE/Pong-v5', '{"modus": 1}', 0, "'modus' is no keyword of it; its keywords are game, mode,"),
])  # fmt: skip
def test_contradictions_are_refused_in_a_sentence(name, kwargs, repeats, sentence):
  with pytest.raises(ValueError, match=sentence):
    environments.environment_spec(Level(name, kwargs), repeats)


def test_a_resumed_run_may_name_the_frames_that_it_recorded():
  for name in ('Pong-v4', 'Pong-ramDeterministic-v4'):
    spec = environments.environment_spec(name)
    assert environments.environment_spec(name, spec.num_action_repeats) == spec


def test_games_are_cut_off_after_the_frames_of_an_atari_game():
  for name in ('Pong-v4', 'Pong-ramNoFrameskip-v4', 'PongDeterministic-v0'):
    assert environments.most_frames(name, 3, 0) == 108_000
    assert environments.most_frames(name, 3, 500) == 500
  assert environments.most_frames('CartPole-v1', 1, 0) == 27_000


@pytest.mark.parametrize('level, frames_per_sec, num_actions', [
  (Level('BreakoutDeterministic-v4', '{"full_action_space": true}'), 15, 18),
  (Level('Breakout-v4'), 20, 4),
])  # fmt: skip
def test_a_game_is_filmed_in_its_colours_and_at_its_speed(level, frames_per_sec, num_actions):
  spec = environments.environment_spec(level)
  game = rendered.open_game(spec, 1)
  try:
    game.step(1)
    assert (game.picture.shape, game.picture.dtype) == ((210, 160, 3), 'uint8')
    assert np.ptp(game.picture, axis=2).max() > 0  # Not gray.
    assert (game.frames_per_sec, len(game.action_names)) == (frames_per_sec, num_actions)
  finally:
    game.close()


@pytest.mark.parametrize('level, least, most', [
  (Level('Pong-v4'), 2, 30 * 4),
  (Level('PongNoFrameskip-v4', '{"difficulty": 0}'), 1, 30),
  (Level('Pong-ram-v4'), 0, 0),
  (Level('PongNoFrameskip-v4', env_wrappers='gymnasium.wrappers.GrayscaleObservation'), 0, 0),
])  # fmt: skip
def test_images_begin_with_no_ops_and_nothing_else_does(level, least, most):
  env = level_ids.make(level, atari_ids.played(level).made_as)
  frames = {env.reset(seed=seed)[1]['episode_frame_number'] for seed in range(8)}
  env.close()
  assert least <= min(frames) <= max(frames) <= most
  assert len(frames) > 4 or most == 0
