"""--policy_lag: every batch was acted with the weights of exactly K updates ago."""

import threading
import time

import numpy as np
import pytest

from acting.fixed_lag import FixedLag
from conftest import whole_rows

LIMIT_SECS = 240.0


def lags_of(lag, per_update, loops, number, updates):
  """Lags of the unrolls of each update of a run whose loops and learner take random times."""
  turns, stop = FixedLag(lag, per_update), threading.Event()
  queue, version = [], 0
  turns.start(stop.is_set)

  def act(seed):
    random = np.random.default_rng(seed)
    while not stop.is_set():
      place = turns.take_place(number)
      time.sleep(random.random() * 0.001)
      acted = version
      time.sleep(random.random() * 0.002)
      with turns.in_order(place, number):
        if not stop.is_set():
          queue.extend([acted] * number)

  threads = [threading.Thread(target=act, args=(i,)) for i in range(loops)]
  for thread in threads:
    thread.start()
  lags, random = [], np.random.default_rng(99)
  for update in range(updates):
    assert turns.wait_for_batch()
    batch, queue[:per_update] = queue[:per_update], []
    time.sleep(random.random() * 0.002)
    lags.append([update - acted for acted in batch])
    version += 1
    turns.on_update(None)
  stop.set()
  for thread in threads:
    thread.join(10.0)
    assert not thread.is_alive()  # What waits, ends when the run does.
  return lags


@pytest.mark.parametrize('lag', [0, 1, 3])
@pytest.mark.parametrize('loops, number', [(1, 4), (3, 2), (5, 4)])
def test_the_lag_is_exact_whoever_is_slow(lag, loops, number):
  per_update, updates = 8, 12
  lags = lags_of(lag, per_update, loops, number, updates)
  # The first weights are the oldest that there are.
  assert lags == [[min(update, lag)] * per_update for update in range(updates)]


def test_unrolls_are_sent_in_the_order_of_their_places():
  turns, sent = FixedLag(1, 4), []
  first, second = turns.take_place(2), turns.take_place(2)

  def send(place):
    with turns.in_order(place, 2):
      sent.append(place)

  later = threading.Thread(target=send, args=(second,))
  later.start()
  time.sleep(0.05)
  assert not sent
  send(first)
  later.join(10.0)
  assert sent == [first, second]


def test_loops_take_places_in_turn_whoever_comes_first():
  turns = FixedLag(0, 12, num_loops=3)
  turns.first_loop = 1

  def take(loop):
    return turns.take_place(2, loop)

  # Loop 1 begins, so that loops 1, 2, 0, 1, 2, 0 have places 0, 2, 4, 6, 8, 10.
  assert [take(loop) for loop in (0, 0, 2, 1, 1, 2)] == [4, 10, 2, 0, 6, 8]
  for place in (0, 2):
    with turns.in_order(place, 2):
      pass
  assert turns.next_loop(2) == 0


@pytest.mark.timeout(580)
def test_a_run_has_the_lag_that_was_asked_for(tmp_path, processes):
  run = processes.start(
    'experiment.py', '--level_name=impala/Catch-v0', '--policy_lag=2', f'--logdir={tmp_path}',
    '--num_actors=3', '--envs_per_actor=2', '--batch_size=4', '--unroll_length=9',
    '--total_environment_frames=1800', '--metrics_secs=1000',
  )  # fmt: skip
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  # The one row, at the end, is of all updates.
  (row,) = [row for row in whole_rows(tmp_path / 'metrics.csv') if row['policy_lag_mean']]
  assert int(row['updates']) == 50
  lags = [min(update, 2) for update in range(50)]
  assert float(row['policy_lag_mean']) == pytest.approx(np.mean(lags), rel=1e-6)
  assert float(row['policy_lag_max']) == 2
