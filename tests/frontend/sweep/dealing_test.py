"""Which host gets which run: shares by slots and speed, few moves, and what never moves."""

import collections

from frontend.host_side.sweep_folder import Run
from frontend.sweep import dealing
from frontend.sweep.dealing import Place


def runs(*places):
  return [Run(str(number), {}, place) for number, place in enumerate(places)]


def dealt(all_runs, places, states=None, begun=(), given_up=()):
  states = {run.name: 'waiting' for run in all_runs} | (states or {})
  return dealing.deal(all_runs, states, begun, places, given_up)


def counts(found):
  return dict(collections.Counter(found.values()))


def test_new_runs_go_by_slots_and_in_turns():
  found = dealt(runs(*[''] * 12), {'a': Place(4), 'b': Place(2)})
  assert counts(found) == {'a': 8, 'b': 4}
  # The first that are started everywhere are the first of the list.
  assert {found['0'], found['1']} == {'a', 'b'}


def test_what_is_dealt_evenly_stays_as_it_is():
  once = dealt(runs(*[''] * 11), {'a': Place(2), 'b': Place(2)})
  again = dealt(runs(*once.values()), {'a': Place(2), 'b': Place(2)})
  assert again == once


def test_a_slow_host_loses_its_last_runs():
  before = runs(*['a'] * 6, *['b'] * 6)
  found = dealt(before, {'a': Place(1, speed=100), 'b': Place(1, speed=20)})
  assert counts(found) == {'a': 10, 'b': 2}
  assert [found[name] for name in ('6', '7')] == ['b', 'b']
  # Unknown speeds are the mean of the known ones.
  found = dealt(before, {'a': Place(1, speed=100), 'b': Place(1)})
  assert counts(found) == {'a': 6, 'b': 6}


def test_a_busy_host_gets_less():
  found = dealt(runs(*[''] * 4), {'a': Place(2, running=2), 'b': Place(2)})
  assert counts(found) == {'a': 1, 'b': 3}


def test_what_has_begun_or_ended_never_moves():
  before = runs(*['a'] * 5)
  states = {'0': 'done', '1': 'failed', '2': 'running'}
  found = dealt(before, {'a': Place(1), 'b': Place(9)}, states, begun=['3'])
  assert [found[name] for name in '0123'] == ['a'] * 4 and found['4'] == 'b'


def test_runs_of_a_host_that_does_not_answer_stay_unless_they_are_given_up():
  before = runs('a', 'gone', 'gone', 'gone')
  states = {'1': 'unknown', '2': 'unknown', '3': 'unknown'}
  places = {'a': Place(1)}
  assert dealt(before, places, states) == {'0': 'a', '1': 'gone', '2': 'gone', '3': 'gone'}
  found = dealt(before, places, states, given_up=['2', '3'])
  assert found == {'0': 'a', '1': 'gone', '2': 'a', '3': 'a'}
  assert dealt(before, {}, states, given_up=['2']) == {r.name: r.place for r in before}
