"""reporting.statistics: the figures of a row."""

import json
import sys
import threading
import time

import pytest
from rows import Clock, a_report, an_episode, an_update

from reporting.metrics import EPISODE_COLUMNS, METRIC_COLUMNS
from reporting.statistics import RunStatistics, cluster_line


def test_the_first_row_knows_only_the_counters():
  row = RunStatistics().row(0, 0, 6e-4)
  unknown = {name for name in METRIC_COLUMNS if row[name] is None}
  assert unknown == set(METRIC_COLUMNS) - {
    'time',
    'environment_frames',
    'updates',
    'frames_per_sec',
    'learning_rate',
  }


def test_a_row_sums_up_its_interval_only():
  clock = Clock()
  statistics = RunStatistics(clock=clock)
  statistics.start(1000)
  clock.now += 10
  statistics.add_update(an_update(total_loss=2.0, policy_lag_max=7.0), wait_secs=1.0, busy_secs=2.0)
  statistics.add_update(
    an_update(total_loss=4.0, policy_lag_mean=3.0), wait_secs=1.0, busy_secs=4.0
  )
  row = statistics.row(3000, 2, 6e-4)
  assert row['frames_per_sec'] == 200.0
  assert (row['total_loss'], row['policy_lag_mean'], row['policy_lag_max']) == (3.0, 2.0, 7.0)
  assert row['learner_wait_fraction'] == 0.25
  assert row['time'] == pytest.approx(time.time(), abs=60)
  clock.now += 5
  row = statistics.row(3500, 2, 6e-4)
  assert row['frames_per_sec'] == 100.0
  assert row['total_loss'] is row['policy_lag_max'] is row['learner_wait_fraction'] is None


def test_the_lag_of_replayed_unrolls_is_known_only_with_replay():
  statistics = RunStatistics()
  statistics.add_update(an_update(), 0.0, 1.0)
  row = statistics.row(0, 1, 1.0)
  assert row['replayed_lag_mean'] is row['replayed_lag_max'] is None
  for mean, most in ((10.0, 20.0), (20.0, 30.0)):
    lags = dict(replayed_lag_mean=mean, replayed_lag_max=most)
    statistics.add_update(an_update(**lags), 0.0, 1.0)
  row = statistics.row(0, 3, 1.0)
  assert (row['replayed_lag_mean'], row['replayed_lag_max'], row['policy_lag_max']) == (15, 30, 2)


def test_the_lag_of_each_pass_over_a_batch():
  statistics = RunStatistics()
  for lag, number in ((1.0, 1), (2.0, 2), (3.0, 1), (5.0, 2)):
    statistics.add_update(an_update(policy_lag_mean=lag, **{'pass': number}), 0.0, 1.0)
  row = statistics.row(0, 4, 1.0)
  assert row['policy_lag_by_pass'] == {1: 2.0, 2: 3.5} and row['policy_lag_mean'] == 2.75
  statistics.add_update(an_update(), 0.0, 1.0)
  assert statistics.row(0, 5, 1.0)['policy_lag_by_pass'] == {}


def test_a_mean_of_fewer_games_than_the_window_is_not_known():
  statistics = RunStatistics(window=3)
  statistics.start(0, [('A-v0', 1.0), ('A-v0', 2.0)])
  assert statistics.best_by() is None
  assert statistics.row(0, 0, 1.0)['mean_return_100'] == 1.5
  statistics.start(0, [('A-v0', 1.0), ('A-v0', 2.0), ('A-v0', 6.0)])
  assert statistics.best_by() == 3.0


def test_all_learners_waits_count():
  statistics = RunStatistics()
  statistics.add_update(an_update(), wait_secs=1.0, busy_secs=3.0)
  statistics.add_learner_wait(wait_secs=3.0, busy_secs=1.0)
  assert statistics.row(0, 1, 1.0)['learner_wait_fraction'] == 0.5
  assert statistics.row(0, 1, 1.0)['learner_wait_fraction'] is None


def test_frames_that_step_back_are_no_negative_speed():
  clock = Clock()
  statistics = RunStatistics(clock=clock)
  statistics.start(1000)
  clock.now += 10
  assert statistics.row(400, 1, 1.0)['frames_per_sec'] == 0
  clock.now += 10
  assert statistics.row(600, 1, 1.0)['frames_per_sec'] == 20


def test_the_mean_return_is_that_of_the_window():
  statistics = RunStatistics(window=3)
  for value in (100.0, 1.0, 2.0, 6.0):
    statistics.add_actor_report(a_report(episodes=[an_episode(value)]))
  assert statistics.row(0, 0, 1.0)['mean_return_100'] == 3.0
  assert statistics.row(0, 0, 1.0)['mean_return_100'] == 3.0  # Stays until new games end.


def test_actor_figures():
  clock = Clock()
  statistics = RunStatistics(clock=clock)
  clock.now += 10
  statistics.add_actor_report(a_report(0, frames=1000, crashes=2, pid=10))
  statistics.add_actor_report(a_report(0, frames=1000, crashes=3, pid=10))
  statistics.add_actor_report(a_report(0, frames=1000, crashes=1, pid=11))  # Restarted.
  statistics.add_actor_report(a_report(1, frames=500, wait_secs=5.0, busy_secs=3.0, pid=12))
  row = statistics.row(0, 0, 1.0, queue_depth=4)
  assert row['frames_per_sec_by_actor'] == {0: 300.0, 1: 50.0}
  assert row['actor_wait_fraction'] == 0.4
  assert (row['connected_actors'], row['actor_restarts'], row['environment_crashes']) == (2, 1, 4)
  assert row['queue_depth'] == 4
  assert cluster_line(row) == (
    'frames/s by actor: 0: 300, 1: 50  connected 2  restarts 1  environment crashes 4'
  )


def test_a_silent_actor_does_not_count_as_connected():
  clock = Clock()
  statistics = RunStatistics(clock=clock)
  statistics.add_actor_report(a_report(0))
  clock.now += 61
  statistics.add_actor_report(a_report(1))
  row = statistics.row(0, 0, 1.0)
  assert row['connected_actors'] == 1
  assert list(row['frames_per_sec_by_actor']) == [1]


def test_each_game_carries_the_frames_of_when_it_ended():
  clock = Clock()
  statistics = RunStatistics(clock=clock)
  statistics.start(1000)
  for frames in (1100, 1200, 1300):
    clock.now += 1.0
    statistics.add_update(an_update(environment_frames=frames), 0.0, 1.0)
  ended = [an_episode(2.0, secs_ago=0.5), an_episode(1.0, secs_ago=2.5), an_episode(3.0)]
  clock.now += 0.25
  statistics.add_actor_report(a_report(episodes=ended))
  late = an_episode(4.0, secs_ago=2.0)  # Of an actor whose report took longer.
  first = statistics.pop_episodes(1290)  # Read before the last update.
  statistics.add_actor_report(a_report(episodes=[late, an_episode(5.0)]))
  told = [(e['episode_return'], e['environment_frames']) for e in first]
  assert told == [(1.0, 1100), (2.0, 1300), (3.0, 1300)]
  seen = [e['time'] for e in first]
  assert (seen[1] - seen[0], seen[2] - seen[1]) == pytest.approx((2.0, 0.5), abs=0.01)
  clock.now += 1.0
  statistics.add_update(an_update(environment_frames=1400), 0.0, 1.0)
  second = [e['environment_frames'] for e in statistics.pop_episodes(1450)]
  assert second == [1400, 1400]  # They never go back: readers take that for a restart.


def test_episodes_are_handed_out_once():
  statistics = RunStatistics()
  statistics.add_actor_report(a_report(episodes=[an_episode(5.0), an_episode(6.0)]))
  episodes = statistics.pop_episodes(77)
  assert [episode['episode_return'] for episode in episodes] == [5.0, 6.0]
  assert all(set(episode) == set(EPISODE_COLUMNS) for episode in episodes)
  assert all(episode['environment_frames'] == 77 for episode in episodes)
  assert statistics.pop_episodes(78) == []


def test_no_report_of_many_threads_is_lost():
  clock = Clock()
  statistics = RunStatistics(clock=clock)
  popped = []

  def report():
    for _ in range(10_000):
      statistics.add_actor_report(a_report(frames=1, episodes=[an_episode()]))

  threads = [threading.Thread(target=report) for _ in range(8)]
  interval = sys.getswitchinterval()
  sys.setswitchinterval(1e-6)
  try:
    for thread in threads:
      thread.start()
    while any(thread.is_alive() for thread in threads):
      popped += statistics.pop_episodes(0)
  finally:
    sys.setswitchinterval(interval)
  popped += statistics.pop_episodes(0)
  clock.now += 1
  assert len(popped) == 8 * 10_000
  assert statistics.row(0, 0, 1.0)['frames_per_sec_by_actor'] == {0: 8 * 10_000}


def test_a_state_gives_the_rows_and_games_that_would_have_followed():
  def play(statistics, first, last):
    for update in range(first, last):
      episodes = [an_episode(update % 3)] * (update % 2)
      statistics.add_actor_report(a_report(frames=10, episodes=episodes))
      figures = an_update(total_loss=0.1 * update, environment_frames=10 * update)
      statistics.add_update(figures, 0.0, 1.0)

  def results(statistics):
    row, games = statistics.row(90, 9, 1.0), statistics.pop_episodes(90)
    timed = 'time', 'frames_per_sec', 'connected_actors', 'frames_per_sec_by_actor'
    return [{n: v for n, v in one.items() if n not in timed} for one in (row, *games)]

  one, other = RunStatistics(), RunStatistics()
  play(one, 1, 6)
  other.set_state(json.loads(json.dumps(one.state())))
  assert other.state() == one.state()
  for statistics in (one, other):
    play(statistics, 6, 10)
  games = results(one)
  assert games == results(other)
  # Each game has the frames of the update that followed it.
  assert [game['environment_frames'] for game in games[1:]] == [10, 30, 50, 70, 90]
  assert other.pop_episodes(90) == []
