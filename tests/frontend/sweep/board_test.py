"""What several hosts say about a sweep becomes one row for each run."""

import pytest

from frontend import cluster
from frontend.actions import sweep_views
from frontend.connection import hosts
from frontend.host_side.sweep_folder import HostEntry, Run, Sweep
from frontend.sweep import board as board_lib
from frontend.sweep.board import Board

HOSTS = [HostEntry('a', 'a'), HostEntry('b', 'b'), HostEntry('c', 'b')]  # b and c share a folder.


def sweep(**places):
  return Sweep(['seed'], [], [Run(name, {}, place) for name, place in places.items()], HOSTS)


def row(name, state, host='', **more):
  known = dict.fromkeys(board_lib.ROW_KEYS) | {'starts': 1, 'restarts': 0}
  return known | {'run': name, 'state': state, 'host': host} | more


def merged(a_sweep, before=(), **seen):
  return board_lib.merge(a_sweep, seen, dict(before))


def test_whoever_has_got_furthest_with_a_run_speaks_for_it():
  rows, twice = merged(
    sweep(x='a', y='b', z='b'),
    a=[row('x', 'done', 'a'), row('y', 'moved', 'a'), row('z', 'running', 'a')],
    b=[row('x', 'waiting'), row('y', 'waiting', 'a'), row('z', 'waiting')],
  )
  assert {name: (r['state'], r['host']) for name, r in rows.items()} == {
    'x': ('done', 'a'), 'y': ('waiting', 'b'), 'z': ('running', 'a')}  # fmt: skip
  assert twice == []


def test_a_run_that_two_places_have_trained_is_told_but_one_folder_is_one_place():
  running = [row('x', 'running', 'b')]
  assert merged(sweep(x='b'), b=running, c=running)[1] == []
  assert merged(sweep(x='b'), a=[row('x', 'done', 'a')], b=running)[1] == ['x']


def test_what_was_seen_done_is_done_though_its_host_is_gone():
  before = {'x': 'done', 'y': 'running', 'z': 'waiting'}
  rows, _ = merged(sweep(x='b', y='b', z='b'), before, a=[row(n, 'moved') for n in 'xyz'])
  assert [rows[name]['state'] for name in 'xyz'] == ['done', 'unknown', 'unknown']


def test_rows_of_unknown_runs_and_states_are_left_out():
  rows, _ = merged(sweep(x='a'), a=[row('other', 'done'), row('x', 'flying')])
  assert {name: r['state'] for name, r in rows.items()} == {'x': 'waiting'}


def host(name):
  return hosts.open_host(cluster.Host(name, None, '', '', '', ()))


def board(runners, rows=(), hosts_of=HOSTS, guarded='abc'):
  replies = {host(name): {'runner': runner} for name, runner in runners.items()}
  made = sweep(x='a')._replace(hosts=hosts_of)
  return Board(made, replies, {}, dict(rows), {}, [], set(guarded))


def told(**secs):
  return {'unreached_secs': secs}


@pytest.mark.parametrize(
  'runners, lost',
  [
    ({'a': told(b=9, c=1900), 'b': told(c=1800)}, {'c'}),
    ({'a': told(b=9, c=1900), 'b': told(c=1700)}, set()),
    ({'a': told(b=9, c=1900), 'b': told()}, set()),  # b has never reached it.
    ({'a': told(c=1900), 'b': None}, set()),  # One of three is no majority.
    ({'a': told(b=1900, c=1900)}, set()),
    ({'a': None}, set()),
  ],
)
def test_a_majority_has_to_miss_a_host_for_long(runners, lost):
  assert board_lib.lost_hosts(board(runners)) == lost
  assert board_lib.lost_hosts(board(runners, guarded='ab')) == set()


def test_a_host_that_one_runner_reaches_is_not_lost():
  four = [*HOSTS, HostEntry('d', 'd')]
  missed = {'a': told(d=1900), 'b': told(d=1900), 'c': told(d=1900)}
  assert board_lib.lost_hosts(board(missed, hosts_of=four, guarded='abcd')) == {'d'}
  missed['c'] = told(d=5)
  assert board_lib.lost_hosts(board(missed, hosts_of=four, guarded='abcd')) == set()


def test_of_two_hosts_the_second_is_lost_without_the_first_but_not_the_first_without_it():
  two = HOSTS[:2]
  assert board_lib.lost_hosts(board({'a': told(b=1900)}, hosts_of=two)) == {'b'}
  assert board_lib.lost_hosts(board({'b': told(a=1900)}, hosts_of=two)) == set()
  # What is lost counts no more, until it answers.
  left = [*two, HOSTS[2]._replace(is_lost=True)]
  assert board_lib.lost_hosts(board({'a': told(b=1900)}, hosts_of=left)) == {'b', 'c'}
  assert board_lib.lost_hosts(board({'a': told(b=1900), 'c': None}, hosts_of=left)) == {'b'}


def test_hours_left_count_running_and_waiting_runs_on_the_slots_there_are():
  rows = {
    'x': row('x', 'done', secs=3600),
    'y': row('y', 'running', hours_left=0.5, secs=1800),
    'z': row('z', 'waiting'),
    'w': row('w', 'waiting'),
    'v': row('v', 'failed'),
  }
  assert sweep_views.hours_left(board({'a': {'slots': 2}}, rows)) == pytest.approx(1.25)
  assert sweep_views.hours_left(board({'a': None}, rows)) is None  # Nobody runs what waits.
  del rows['y'], rows['z'], rows['w']
  assert sweep_views.hours_left(board({'a': None}, rows)) == 0.0
