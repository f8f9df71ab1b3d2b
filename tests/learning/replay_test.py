"""Replay: what the buffer keeps and gives, and what of a replayed unroll counts in an update."""

import numpy as np
import pytest
import tensorflow as tf

import learner_fixtures
from learner_fixtures import TWO_CPUS, Learner, assert_same, random_unrolls, small_settings
from learning.replay import ReplayBuffer
from roles import wiring
from runtime import memory
from runtime.process import BadInput

SPECS = [(np.int32, []), (np.float32, [3]), (np.uint8, [2, 2])]


def numbered(first, number):
  """Unrolls, all arrays of which hold their number."""
  ids = np.arange(first, first + number)
  return [
    np.broadcast_to(ids.reshape([-1] + [1] * len(shape)), [number, *shape]).astype(dtype)
    for dtype, shape in SPECS
  ]


def buffer_of(capacity, rows, batch_size):
  return ReplayBuffer(capacity, SPECS, rows, batch_size, seed=1)


@pytest.mark.parametrize('rows', [1, 4, 6, 8])
def test_the_share_of_replay_is_exact_in_every_one_of_1000_batches(rows):
  batch_size, capacity = 8, 50
  new = batch_size - rows or batch_size
  buffer, ages = buffer_of(capacity, rows, batch_size), set()
  for number in range(1000):
    fresh = numbered(number * new, new)
    ids, floats, pixels = buffer.batch(fresh)
    online, replayed = ids[: batch_size - rows], ids[batch_size - rows :]
    np.testing.assert_array_equal(online, fresh[0][: batch_size - rows])
    last = (number + 1) * new - 1
    assert len(ids) == batch_size and replayed.max() <= last
    assert replayed.min() >= max(0, last - capacity + 1)  # What is older has left.
    ages.update(last - replayed)
    # An unroll stays whole.
    np.testing.assert_array_equal(floats, np.broadcast_to(ids[:, None], [batch_size, 3]))
    np.testing.assert_array_equal(pixels[:, 1, 0], ids.astype(np.uint8))
  # From the newest, which came with the batch, to the oldest.
  assert buffer.size == capacity and ages == set(range(capacity))


def test_unrolls_are_drawn_evenly_from_all_that_are_kept():
  buffer = buffer_of(capacity=20, rows=10, batch_size=11)
  buffer.batch(numbered(0, 19))
  counts = np.zeros(2020)
  for number in range(2000):
    ids, _, _ = buffer.batch(numbered(19 + number, 1))
    np.add.at(counts, ids[1:], 1)
  # Each is kept for 20 batches, of which each draws it 10 / 20 times.
  assert counts[20:-20].mean() == pytest.approx(10, rel=0.02)
  # Poisson's deviation: 3.2; if drawn by age, or with favourites, it is another.
  assert counts[20:-20].std() == pytest.approx(10**0.5, rel=0.15)


def test_what_a_batch_gives_is_not_changed_by_later_unrolls():
  buffer = buffer_of(capacity=4, rows=2, batch_size=4)
  fresh = numbered(0, 2)
  given = buffer.batch(fresh)
  before = [array.copy() for array in given]
  for array in fresh:
    array[...] = 99
  for first in (2, 4, 6):
    buffer.batch(numbered(first, 2))
  for array, expected in zip(given, before, strict=True):
    np.testing.assert_array_equal(array, expected)


def replaying(**changes):
  """Settings of batches of 2 new and 2 replayed unrolls."""
  return small_settings(**{'agent_name': 'MLPAgent', 'replay_capacity': 6, **changes})


def half(unrolls, number):
  return [array[2 * number : 2 * number + 2] for array in unrolls]


def mixed(settings, unrolls, batches):
  """The batches that a learner with these settings makes of `unrolls`, for one without replay."""
  specs = [(array.dtype, array.shape[1:]) for array in unrolls]
  seed = wiring.derived_seed(settings.seed, 0, *b'replay')
  buffer = ReplayBuffer(settings.replay_capacity, specs, 2, 4, seed)
  made = [buffer.batch(half(unrolls, number)) for number in range(batches)]
  return [np.concatenate(arrays) for arrays in zip(*made, strict=True)]


def learned(settings, unrolls, times, devices=('/cpu:0',)):
  """(values after, reports) of a learner."""
  with Learner(settings, devices=devices).open() as one:
    one.put(unrolls)
    reports = one.update(times)
    return one.values(), reports


def test_replayed_unrolls_are_learned_from_like_new_ones():
  settings = replaying(agent_name='MLPLSTMAgent', entropy_cost=0.0)
  unrolls = random_unrolls(settings, 6)
  values, reports = learned(settings, unrolls, 3)
  plain = small_settings(entropy_cost=0.0, total_environment_frames=2000)
  expected, _ = learned(plain, mixed(settings, unrolls, 3), 3)
  assert values.pop('environment_frames') == 48 and expected.pop('environment_frames') == 96
  assert_same(values, expected, rtol=1e-4, atol=1e-5)
  assert [report['environment_frames'] for report in reports] == [16, 32, 48]


def test_what_counts_once_counts_new_unrolls_and_lags_are_apart():
  settings = replaying(observation_scaling='running')
  unrolls = random_unrolls(settings, 8)
  unrolls[1][:] = -np.arange(8)
  versions = mixed(settings, unrolls, 4)[1].reshape(4, 4)
  values, reports = learned(settings, unrolls, 4)
  for updates, (report, acted) in enumerate(zip(reports, versions, strict=True)):
    lags = updates - acted
    assert report['policy_lag_mean'] == lags[:2].mean() and report['policy_lag_max'] == lags[1]
    assert report['replayed_lag_mean'] == lags[2:].mean()
    assert report['replayed_lag_max'] == lags[2:].max()
  assert values['agent/observation_statistics/count'] == 8 * settings.unroll_length
  observations = unrolls[-4] if unrolls[-4].ndim == 3 else None
  assert observations is not None
  np.testing.assert_allclose(
    values['agent/observation_statistics/sum'], observations[:, 1:].sum(axis=(0, 1)), rtol=1e-4
  )


def test_a_batch_that_is_all_replay_counts_the_unrolls_that_it_adds():
  settings = replaying(replay_fraction=1.0)
  _, reports = learned(settings, random_unrolls(settings, 8), 2)
  assert [report['environment_frames'] for report in reports] == [32, 64]
  assert all(report['entropy_loss'] < 0 for report in reports)


def test_two_towers_equal_one_however_the_new_unrolls_are_shared():
  settings = replaying(replay_fraction=0.25, return_normalisation='advantage_rms')
  unrolls = random_unrolls(settings, 6)
  one, _ = learned(settings, unrolls, 2)
  two, _ = learned(settings, unrolls, 2, devices=TWO_CPUS)
  assert_same(two, one, rtol=1e-3, atol=1e-4)


def test_reused_batches_keep_their_replayed_unrolls():
  settings = replaying(sample_reuse=2, learning_rate=0.0)
  _, reports = learned(settings, random_unrolls(settings, 4), 4)
  baselines = [report['baseline_loss'] for report in reports]
  assert baselines[0] == baselines[1] != baselines[2] == baselines[3]
  assert [report['environment_frames'] for report in reports] == [8, 16, 24, 32]


@pytest.mark.slow
def test_each_learner_replays_its_own_unrolls():
  settings = replaying()
  with learner_fixtures.two_learners(settings) as learners:
    for i, one in enumerate(learners):
      one.put(random_unrolls(settings, 4, seed=i))
    for reports in learner_fixtures.update_together(learners, 2):
      assert [report['environment_frames'] for report in reports] == [32, 64]
    assert [one.side.replay.size for one in learners] == [4, 4]


def test_a_buffer_that_memory_does_not_hold_is_refused(monkeypatch):
  settings = replaying()
  with tf.Graph().as_default():
    graph = wiring.Graph(settings, learner_fixtures.LOCAL)
    unrolls = graph.unroll_queue(0)
    buffer = wiring.replay_buffer(graph, unrolls)
    assert buffer and buffer.size == 0
    monkeypatch.setattr(memory, 'available_bytes', lambda: buffer.nbytes - 1)
    with pytest.raises(BadInput, match=r'--replay_capacity=6 .* at most 5 would fit'):
      wiring.replay_buffer(graph, unrolls)
