"""Who does not answer is named, and nobody of whom nothing can be known."""

import pytest

from runtime import unresponsive
from runtime.cluster import Cluster

LATE = unresponsive.UNRESPONSIVE_SECS + 1
PLACE = Cluster(('a:1', 'b:1'), ('c:1', 'd:1'), ('e:1', 'f:1'), 'learner', 0)


@pytest.fixture
def clock(monkeypatch):
  """Seconds that pass as a test says."""

  class Clock:
    now = 1000.0

    def passes(self, secs):
      self.now += secs

  made = Clock()
  monkeypatch.setattr(unresponsive.time, 'monotonic', lambda: made.now)
  monkeypatch.setattr(unresponsive.time, 'time', lambda: 5000.0 + made.now)
  return made


@pytest.fixture
def chief(clock):
  """The chief's view, with what it `said`."""
  said = []
  made = unresponsive.UnresponsiveTasks(PLACE, said.append)
  made.said = said
  return made


def looks(chief, clock, secs, heard=(), answered=()):
  """The chief looks on ps 0 again and again meanwhile, and always hears of the same."""
  for _ in range(round(secs)):
    clock.passes(1)
    chief.saw_reports(heard)
    for name in answered:
      chief.answered(name)


def test_who_does_not_answer_is_named_once_and_so_is_its_return(chief, clock):
  chief.answered('ps:1')
  began = clock.now
  for _ in range(3):
    clock.passes(LATE)
    assert chief.announce_changes() == {'ps:1': 5000.0 + began}
  chief.answered('ps:1')
  assert chief.announce_changes() == {}
  assert len(chief.said) == 2
  assert chief.said[0].startswith('ps:1 at b:1 does not answer since ')
  assert chief.said[1] == f'ps:1 at b:1 answers again, after {3 * LATE:.0f} s'


def test_a_task_whose_reports_stay_away_is_named_while_others_report(chief, clock):
  chief.saw_reports(['actor:0', 'actor:1', 'learner:1'])
  looks(chief, clock, LATE, heard=['actor:0'])
  assert list(chief.announce_changes()) == ['actor:1', 'learner:1']


def test_nobody_is_named_of_whom_nothing_could_be_heard(chief, clock):
  chief.answered('ps:0')
  chief.saw_reports(['actor:0', 'learner:1'])
  clock.passes(2 * LATE)  # No look at ps 0, where the reports are.
  assert list(chief.announce_changes()) == ['ps:0']
  chief.answered('ps:0')
  chief.saw_reports()
  assert chief.announce_changes() == {}
  looks(chief, clock, LATE, heard=['actor:0'], answered=['ps:0'])
  assert list(chief.announce_changes()) == ['learner:1']


def test_who_has_left_or_was_never_there_is_not_missed(chief, clock):
  chief.saw_reports(['actor:1'])
  chief.forget('actor:1')
  looks(chief, clock, LATE, heard=['actor:0'])
  assert chief.announce_changes() == {} and chief.said == []


def test_a_process_that_was_suspended_blames_nobody_for_it(chief, clock):
  chief.answered('ps:0')
  chief.saw_reports(['actor:0'])
  clock.passes(LATE)
  chief.suspended(LATE)
  assert chief.announce_changes() == {}


def test_a_spare_actor_that_was_killed_is_forgotten_in_the_end(chief, clock):
  chief.saw_reports(['actor:7', 'actor:1'])
  looks(chief, clock, LATE)
  assert set(chief.announce_changes()) == {'actor:7', 'actor:1'}
  assert 'actor:7 does not answer' in ' '.join(chief.said)  # It has no address.
  looks(chief, clock, 700)
  assert set(chief.announce_changes()) == {'actor:1'}


def test_the_others_hear_from_the_chief_who_is_there_and_that_it_is(chief, clock):
  other = unresponsive.UnresponsiveTasks(
    Cluster(PLACE.ps, PLACE.learner, PLACE.actor, 'learner', 1)
  )
  other.saw_roll_call('')  # Nobody has called yet.
  assert other.present is None
  for _ in range(round(LATE) + 2):
    clock.passes(1)
    chief.saw_reports(['actor:1', 'learner:1'] + (['actor:0'] if not other.present else []))
    other.saw_roll_call(chief.roll_call())
  assert other.present == {'actor:1', 'learner:1'}  # No longer actor 0.
  assert other.announce_changes() == {}
  last = chief.roll_call()
  for _ in range(round(LATE) + 1):  # The chief calls no more, and its last words stay.
    clock.passes(1)
    other.saw_roll_call(last)
  assert list(other.announce_changes()) == ['learner:0']
