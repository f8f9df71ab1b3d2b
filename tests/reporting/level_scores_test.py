"""reporting.level_scores: means of each level, and the scores of a run of several levels."""

import pytest
from rows import FULL, a_report, a_row, an_episode

from reporting.level_scores import LevelScores
from reporting.statistics import RunStatistics
from reporting.terminal import live_line

PONG, BREAKOUT = 'PongNoFrameskip-v4', 'BreakoutNoFrameskip-v4'  # -20.7 to 14.6, 1.7 to 30.5.


def test_the_score_is_capped_after_the_mean_of_a_level_and_known_with_a_game_of_each():
  levels = LevelScores([PONG, BREAKOUT], window=2)
  for value in (0.0, -20.7, 14.6 + 35.3):  # The last two: scores 0 and 2, of mean 1.
    levels.add(PONG, value)
  assert levels.figures() == dict(
    mean_return_by_level={PONG: pytest.approx(14.6)}, mean_score=None, mean_capped_score=None,
    frames_share_by_level={},
  )  # fmt: skip
  assert levels.mean_return() is None
  levels.add(BREAKOUT, 1.7 + 2 * 28.8)
  assert levels.figures()['mean_score'] == pytest.approx(1.5)
  assert levels.figures()['mean_capped_score'] == pytest.approx(1.0)
  assert levels.mean_return() == pytest.approx((14.6 + 59.3) / 2)
  assert levels.best_by() == pytest.approx(1.0)


def test_levels_without_reference_have_a_mean_return_but_no_score():
  levels = LevelScores(['A-v0', PONG], window=2)
  levels.start([('A-v0', 1.0), (PONG, 5.0), ('gone-v0', 100.0)])
  assert levels.figures()['mean_score'] is None
  assert levels.best_by() == 3.0


def test_the_best_checkpoint_waits_for_games_of_each_level():
  levels = LevelScores([PONG, BREAKOUT], window=4)
  levels.start([(PONG, 1.0)] * 9 + [(BREAKOUT, 1.0)])
  assert levels.best_by() is None
  levels.add(BREAKOUT, 1.0)
  assert levels.best_by() is not None


def test_a_row_of_several_levels_has_their_returns_and_shares_of_frames():
  statistics = RunStatistics(level_names=[PONG, BREAKOUT])
  games = [an_episode(14.6, level_name=PONG), an_episode(30.5, level_name=BREAKOUT)]
  statistics.add_actor_report(a_report(0, frames_by_level={PONG: 600}, episodes=games))
  statistics.add_actor_report(a_report(1, frames_by_level={PONG: 150, BREAKOUT: 250}))
  row = statistics.row(0, 0, 1.0)
  assert row['mean_return_by_level'] == {PONG: 14.6, BREAKOUT: 30.5}
  assert row['frames_share_by_level'] == {PONG: 0.75, BREAKOUT: 0.25}
  assert (row['mean_score'], row['mean_capped_score']) == (1.0, 1.0)
  assert statistics.row(0, 0, 1.0)['frames_share_by_level'] == {}


def test_the_live_line_has_both_scores_in_place_of_a_return():
  row = a_row(**FULL, mean_score=1.234, mean_capped_score=0.5)
  assert 'score 123% capped 50%' in live_line(row, 10**9, 0.0, short=False)
  assert 'S 123%/50%' in live_line(row, 10**9, 0.0, short=True)
  assert 'return(100)' not in live_line(row, 10**9, 0.0, short=False)
  assert 'return(100)' in live_line(a_row(**FULL), 10**9, 0.0, short=False)
