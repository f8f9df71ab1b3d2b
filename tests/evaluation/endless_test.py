"""Games that do not end by themselves are cut off, counted and reported; pictures of any size."""

import numpy as np
import pytest

import environments
from environment_player import counting
from envs.process_batch import ProcessBatch
from evaluation import picture, play, records
from structs import StepOutputInfo

TOLD = {'level_name': 'A-v0', 'num_episodes': 2, 'mean_interval_95': None}
TOLD |= dict.fromkeys(('mean', 'median', 'std', 'min', 'max'), 1.0)


def test_a_game_is_cut_off_as_by_a_time_limit():
  spec = environments.environment_spec(counting('Counting'))
  batch = ProcessBatch(spec, 2, 1, max_episode_steps=3)
  try:
    batch.reset()
    outputs = [batch.step(np.zeros(2, np.int32)) for _ in range(5)]
  finally:
    batch.close()
  assert [o.info.game_over.tolist() for o in outputs] == [
    [over, over] for over in (False, False, True, False, False)
  ]
  assert not outputs[2].done.any() and outputs[3].done.all()
  assert outputs[2].info.episode_return.tolist() == [6, 6]
  assert outputs[4].info.episode_step.tolist() == [1, 1]


def test_atari_games_are_cut_off_too():
  flow = environments.create_environment('PongNoFrameskip-v4', 1, 1, max_episode_frames=80)
  try:
    flow._batch.reset()
    overs = [flow._batch.step(np.zeros(1, np.int32)).info.game_over[0] for _ in range(25)]
  finally:
    flow.close()
  # Of 80 frames up to 30 are no-ops.
  least = environments.most_steps('PongNoFrameskip-v4', 4, 80)
  assert least == 13 and least <= overs.index(True) + 1 <= 20


@pytest.mark.parametrize(
  'level_name, repeats, asked, frames',
  [('PongNoFrameskip-v4', 4, 0, 108_000), ('impala/Catch-v0', 1, 0, 27_000),
   ('impala/Catch-v0', 2, 0, 54_000), ('impala/Catch-v0', 2, 30, 30), ('ALE/Pong-v5', 4, 99, 99)],
)  # fmt: skip
def test_the_limit_that_nobody_gave(level_name, repeats, asked, frames):
  assert environments.most_frames(level_name, repeats, asked) == frames


def test_it_is_known_how_far_games_are_and_which_were_cut_off():
  games = play.GameCollector(num_episodes=3, num_envs=2)
  assert games.progress() == ('0 of 3 games played; the longest that is running is at agent step 0')
  steps = np.int32([[0, 1, 2], [0, 9, 1]])
  overs = np.array([[0, 0, 0], [0, 1, 0]], bool)
  assert not games.add(StepOutputInfo(np.float32([[0, 1, 2], [0, 5, 1]]), steps, overs))
  assert games.progress() == (
    '1 of 3 games played, mean 5.00; the longest that is running is at agent step 2'
  )
  assert records.endings(games, 9, 9) == dict(max_episode_frames=9, cut_off=1, asked_episodes=3)
  assert records.endings(games, 10, 10) == dict(max_episode_frames=10, asked_episodes=3)
  told = records.line(TOLD | records.endings(games, 9, 9))
  assert ', of 3 asked for: short games are favoured, 1 of them cut off at 9 frames' in told
  assert 'asked' not in records.line(TOLD) and 'cut off' not in records.line(TOLD)


def test_all_pictures_of_a_film_have_the_size_of_the_first():
  fitting = picture.Fitting()
  first = np.full((100, 80, 3), 9, np.uint8)
  np.testing.assert_array_equal(fitting(first), first)
  for height, width, seen in [(200, 160, (100, 80)), (50, 40, (100, 80)), (100, 160, (50, 80))]:
    fitted = fitting(np.full((height, width, 3), 7, np.uint8))
    assert fitted.shape == first.shape
    assert (fitted[: seen[0], : seen[1]] == 7).all() and fitted.sum() == 7 * 3 * seen[0] * seen[1]


@pytest.mark.parametrize(
  'shape, seen',
  [((3, 5), (66, 110)), ((1, 1), (64, 64)), ((64, 9), (512, 72))],
)
def test_small_pictures_are_magnified(shape, seen):
  dots = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(*shape, 1).repeat(3, axis=2)
  fitted = picture.Fitting()(dots)
  factor = seen[0] // shape[0]
  np.testing.assert_array_equal(fitted, np.kron(dots, np.ones((factor, factor, 1), np.uint8)))
