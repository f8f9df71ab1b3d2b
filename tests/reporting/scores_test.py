"""reporting.scores: human-normalised scores."""

import pytest

from reporting import scores


@pytest.mark.parametrize(
  'level_name',
  [
    'PongNoFrameskip-v4',
    'PongNoFrameskip-v0',
    'Pong-v4',
    'PongDeterministic-v4',
    'Pong-ramDeterministic-v4',
    'ALE/Pong-v5',
    'ale_py:PongNoFrameskip-v4',
  ],
)
def test_human_normalised_score_is_0_for_random_play_and_1_for_people(level_name):
  assert scores.human_normalised_score(level_name, -20.7) == 0
  assert scores.human_normalised_score(level_name, 14.6) == 1
  assert scores.human_normalised_score(level_name, 21) == pytest.approx(1.18, abs=0.01)


def test_other_levels_have_no_human_score():
  for level_name in (
    'impala/Catch-v0',
    'CartPole-v1',
    'MinAtar/Breakout-v0',
    'counting_env:Counting-v0',
  ):
    assert scores.human_normalised_score(level_name, 1) is None


def test_the_57_games_of_the_benchmark_have_scores_of_people_better_than_chance():
  assert len(scores.ATARI_SCORES) == 57
  assert all(human > random for random, human in scores.ATARI_SCORES.values())
