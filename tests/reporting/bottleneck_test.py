"""reporting.bottleneck: the bottleneck is named when it changes."""

import pytest

from reporting.bottleneck import BottleneckMonitor, find_bottleneck


def text_of(*args, **kwargs):
  return find_bottleneck(*args, **kwargs).text


@pytest.mark.parametrize(
  'learner, actor, num_actors, expected',
  [
    (None, 0.5, 3, ''),
    (
      0.71,
      0.0,
      5,
      'learners wait 71% of the time for data: about 12 more actors would feed them, and '
      '--sample_reuse=3 would cost no time',
    ),
    (0.49, 0.0, 2, 'learners wait 49% of the time for data: about 2 more actors would feed them'),
    (0.12, None, 3, 'learners wait 12% of the time for data: about 1 more actor would feed them'),
    (
      1.0,
      0.0,
      1,
      'learners wait 100% of the time for data: about 99 more actors would feed them, and '
      '--sample_reuse=4 would cost no time',
    ),
    (0.5, 0.05, 0, 'learners wait 50% of the time for data: no actor is connected'),
    (0.02, 0.4, 3, 'actors wait 40% of the time: the learner is the limit'),
    (0.03, 0.04, 3, 'balanced: learners wait 3% and actors 4% of the time'),
    (
      0.5,
      0.6,
      3,
      'learners wait 50% and actors 60% of the time: what lies between them is the limit '
      '(network, parameter servers, weights)',
    ),
  ],
)
def test_the_text(learner, actor, num_actors, expected):
  assert text_of(learner, actor, num_actors) == expected


def test_the_text_asks_for_no_actors_where_the_processors_are_busy():
  text = (
    'learners wait 44% of the time for data, and the processors are busy for 94%: this machine is '
    'the limit, more actors on it would not help'
  )
  assert text_of(0.44, 0.06, 2, processors_busy=0.94) == text
  assert 'would feed them' in text_of(0.44, 0.06, 2, processors_busy=0.89)
  # Whoever waits for the learner does so on busy processors, too.
  assert text_of(0.06, 0.44, 2, processors_busy=0.94) == text_of(0.06, 0.44, 2)
  assert 'no actor' in text_of(0.5, 0.0, 0, processors_busy=0.94)


def test_the_text_knows_how_often_a_batch_is_learned_from_already():
  assert '--sample_reuse=4 ' in text_of(0.5, 0.0, 2, sample_reuse=2)
  assert '--sample_reuse' not in text_of(0.3, 0.0, 2, sample_reuse=2)


def test_where_the_processors_of_the_actors_hosts_are_busy_others_are_asked_for():
  other = 'about 2 more actors on other hosts (the processors of theirs are busy) would feed them'
  assert other in text_of(0.49, 0.0, 2, busy_by_host={'a': 0.97, 'b': 0.91})
  some = 'about 2 more actors on other hosts than b (its processors are busy) would feed them'
  assert some in text_of(0.49, 0.0, 2, busy_by_host={'a': 0.3, 'b': 0.91})
  assert text_of(0.49, 0.0, 2, busy_by_host={'a': 0.3}) == text_of(0.49, 0.0, 2)
  assert text_of(0.0, 0.49, 2, busy_by_host={'a': 1.0}) == text_of(0.0, 0.49, 2)


def said(rows, num_actors=2, own_host='here'):
  """What was said at which row, of (learner, actor[, busy by host]) as fractions."""
  monitor, found = BottleneckMonitor(1, own_host), {}
  for number, (learner, actor, *busy) in enumerate(rows, 1):
    row = dict(learner_wait_fraction=learner, actor_wait_fraction=actor)
    if text := monitor.add(row | dict(processors_busy_by_host=dict(*busy)), num_actors):
      found[number] = text
  return found


def test_a_bottleneck_is_named_once_and_again_when_it_has_changed_for_good():
  hungry, fed = (0.5, 0.0), (0.0, 0.5)
  assert list(said([hungry] * 100)) == [6]
  assert list(said([hungry] * 20 + [fed] + [hungry] * 20)) == [6]  # One row is nothing.
  changed = said([hungry] * 20 + [fed] * 20)
  assert list(changed)[0] == 6 and 'the learner is the limit' in list(changed.values())[-1]
  assert 23 <= list(changed)[-1] <= 29 and len(changed) <= 3
  # A swing of percentages is no news; four times as many actors are.
  assert list(said([(0.5, 0.0), (0.55, 0.0)] * 20)) == [6]
  assert 'about 18 more' in list(said([(0.5, 0.0)] * 10 + [(0.9, 0.0)] * 20).values())[-1]


def test_rows_without_updates_decide_nothing():
  assert list(said([(None, None)] * 10 + [(0.5, None)] * 6)) == [16]


def test_the_processors_count_that_actors_share_with_the_learner_or_have_of_their_own():
  own, others = {'here': 0.99}, {'here': 0.2, 'there': 0.95}
  (text,) = said([(0.5, 0.0, own)] * 6).values()
  assert 'this machine is the limit' in text
  (text,) = said([(0.5, 0.0, others)] * 6).values()
  assert 'on other hosts than there' in text
  (text,) = said([(0.5, 0.0, {'there': 0.95})] * 6).values()
  assert 'on other hosts (the processors' in text
