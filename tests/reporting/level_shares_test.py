"""reporting.level_shares: levels that starve are named, once."""

from reporting.level_shares import LevelShares

EVEN, WITHOUT_C = {'A': 0.4, 'B': 0.3, 'C': 0.3}, {'A': 0.5, 'B': 0.5, 'C': 0.0}


def said(*rows):
  """What was said at which row, counted from 1."""
  shares, found = LevelShares(['A', 'B', 'C']), {}
  for number, row in enumerate(rows, 1):
    if text := shares.add(row):
      found[number] = text
  return found


def test_a_level_that_nobody_plays_is_named_once_with_what_would_help():
  assert said(*[EVEN] * 20) == {}
  texts = said(*[WITHOUT_C] * 20)
  assert list(texts) == [8]
  assert 'no actor plays C: 3 levels take 3 actor loops' in texts[8]
  assert '--num_actors=3' in texts[8]


def test_an_actor_that_is_lost_and_comes_back_is_told_of():
  texts = said(*[EVEN] * 6, *[WITHOUT_C] * 12, *[EVEN] * 12)
  lost, back = texts.values()  # And nothing of the rows in which C's mean share falls and rises.
  assert 'no actor plays C' in lost and back == 'all 3 levels get frames again'


def test_a_slow_level_is_named_with_its_share():
  ((row, text),) = said(*[{'A': 0.6, 'B': 0.38, 'C': 0.02}] * 9).items()
  assert row == 8 and 'C 2.0%, where an even share is 33.3%' in text and 'no actor' not in text


def test_a_slow_level_that_then_has_no_frames_is_named_again():
  slow, gone = said(*[{'A': 0.6, 'B': 0.38, 'C': 0.02}] * 9, *[WITHOUT_C] * 9).values()
  assert 'C 2.0%' in slow and 'no actor plays C' in gone


def test_rows_without_frames_and_runs_of_one_level_say_nothing():
  assert said(*[{}] * 20) == {}
  shares = LevelShares(['A'])
  assert not any(shares.add({'A': 0.0}) for _ in range(20))
