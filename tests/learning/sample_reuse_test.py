"""--sample_reuse: several updates of a batch, of which the frames and the entropy count once."""

import numpy as np
import pytest

from learner_fixtures import TWO_CPUS, Learner, assert_same, random_unrolls, small_settings

pytestmark = pytest.mark.slow

FRAMES = 32  # Of a batch: 4 unrolls of 4 steps, 2 frames each.


def learned(settings, unrolls, updates, devices=('/cpu:0',)):
  """(reports, values after) of a learner."""
  with Learner(settings, devices=devices).open() as one:
    one.put(unrolls)
    return one.update(updates), one.values()


def test_each_batch_is_learned_from_as_often_as_asked_and_its_frames_count_once():
  settings = small_settings(sample_reuse=2, learning_rate=0.0, entropy_cost=0.25)
  reports, _ = learned(settings, random_unrolls(settings, 8), 4)
  baselines = [report['baseline_loss'] for report in reports]
  assert baselines[0] == baselines[1] != baselines[2] == baselines[3]
  assert [report['environment_frames'] for report in reports] == [16, 32, 48, 64]
  assert [report['updates'] for report in reports] == [1, 2, 3, 4]
  assert [report['policy_lag_mean'] for report in reports] == [0, 1, 2, 3]
  assert [report['pass'] for report in reports] == [1, 2, 1, 2]
  assert reports[0]['entropy_loss'] == reports[1]['entropy_loss'] < 0
  for i, report in enumerate(reports):
    total = report['policy_loss'] + 0.5 * report['baseline_loss']
    total += 0 if i % 2 else 0.25 * report['entropy_loss']
    assert report['total_loss'] == pytest.approx(total, rel=1e-5)


def test_the_shares_of_a_batch_add_up_to_its_frames():
  settings = small_settings(sample_reuse=3)
  reports, _ = learned(settings, random_unrolls(settings, 12), 9)
  assert [report['environment_frames'] for report in reports][2::3] == [32, 64, 96]


def test_the_first_pass_learns_what_one_pass_learns_and_the_second_more():
  unrolls = random_unrolls(small_settings(), 4)
  _, once = learned(small_settings(), unrolls, 1)
  _, first = learned(small_settings(sample_reuse=2), unrolls, 1)
  _, both = learned(small_settings(sample_reuse=2), unrolls, 2)
  counted = {'environment_frames': FRAMES // 2}  # Half of it is that of the second pass.
  assert_same(first, {**once, **counted}, rtol=1e-4, atol=1e-6)
  weights = [name for name in once if name.startswith('agent/') and name.endswith('/w')]
  assert weights and all(np.any(both[name] != first[name]) for name in weights)


def test_observations_are_counted_in_the_first_pass_only():
  settings = small_settings(sample_reuse=3, observation_scaling='running')
  _, values = learned(settings, random_unrolls(settings, 8), 6)
  assert values['agent/observation_statistics/count'] == 8 * settings.unroll_length


def test_two_towers_equal_one():
  settings = small_settings(sample_reuse=2)
  unrolls = random_unrolls(settings, 8)
  (_, one), (_, two) = (
    learned(settings, unrolls, 4, devices) for devices in (('/cpu:0',), TWO_CPUS)
  )
  assert_same(two, one, rtol=1e-4, atol=1e-5)


def test_after_a_stop_between_two_passes_the_next_batch_is_begun():
  settings = small_settings(sample_reuse=2)
  unrolls = random_unrolls(settings, 8)
  with Learner(settings).open() as one:
    one.put(unrolls)
    before = one.values()
    one.update(1)  # Stops between two passes.
    one.assign(before)
    second = one.update(1)
  with Learner(settings).open() as other:
    other.assign(before)
    other.put([t[4:] for t in unrolls])
    assert other.update(1)[0]['total_loss'] == pytest.approx(second[0]['total_loss'], rel=1e-5)
