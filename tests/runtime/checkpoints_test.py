"""runtime.checkpoints: after a restore, weights, slots, counters and learning rate are exact."""

import os

import numpy as np
import pytest

from learner_fixtures import Learner, assert_same, random_unrolls, small_settings
from runtime.checkpoints import Checkpoints


def checkpoints(one, folder):
  with one.tf_graph.as_default():
    return Checkpoints(str(folder), '')


def batch(settings, seed):
  return random_unrolls(settings, settings.batch_size, seed)


@pytest.mark.parametrize('optimizer', ['rmsprop', 'adam'])
def test_everything_that_was_perturbed_is_restored_exactly(optimizer, tmp_path):
  settings = small_settings(optimizer=optimizer)
  one = Learner(settings)
  saver = checkpoints(one, tmp_path)
  with one.open():
    for seed in range(2):
      one.put(batch(settings, seed))
      one.update()
    saver.save(one.session, 2)
    saved = one.values()
    one.assign({name: value + 1 for name, value in saved.items()})
    perturbed = one.values()
    for name in saved:
      assert not np.any(perturbed[name] == saved[name]), name
    with one.tf_graph.as_default():
      saver.saver.restore(one.session, saver.latest(str(tmp_path)))
    assert_same(one.values(), saved)
  slots = {'rmsprop': 'RMSProp_1', 'adam': 'Adam_1'}[optimizer]
  assert f'agent/policy/w/{slots}' in saved
  assert saved['environment_frames'] == 64 and saved['global_step'] == 2
  assert saved['gradient_norm'] > 0


@pytest.mark.parametrize('optimizer', ['rmsprop', 'adam'])
def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(optimizer, tmp_path):
  settings = small_settings(optimizer=optimizer)
  one = Learner(settings)
  saver = checkpoints(one, tmp_path)
  with one.open():
    for seed in range(2):
      one.put(batch(settings, seed))
      one.update()
    saver.save(one.session, 2)
    saved = one.values()
    one.put(batch(settings, 2))
    (report,) = one.update()
    expected = one.values()
  # Another seed: nothing can come from the initialisation.
  resumed = Learner(settings._replace(seed=2))
  saver = checkpoints(resumed, tmp_path)
  with resumed.open(saver=saver.saver, path=saver.latest(str(tmp_path))):
    assert_same(resumed.values(), saved)
    resumed.put(batch(settings, 2))
    (resumed_report,) = resumed.update()
    # Sums of several threads are not always added in the same order.
    assert_same(resumed.values(), expected, rtol=1e-5, atol=1e-6)
  for name in ('learning_rate', 'updates', 'environment_frames'):
    assert resumed_report[name] == report[name]


def test_a_checkpoint_holds_all_global_variables_in_one_file_and_nothing_else(tmp_path):
  one = Learner(small_settings())
  saver = checkpoints(one, tmp_path)
  with one.open():
    saver.save(one.session, 7)
    values = one.values()
  path = saver.latest(str(tmp_path))
  assert path == str(tmp_path / 'model.ckpt-7')
  assert saver.shapes(path) == {name: list(value.shape) for name, value in values.items()}
  for name, value in values.items():
    np.testing.assert_array_equal(saver.value(path, name), value)
  assert sorted(os.listdir(tmp_path)) == [
    'checkpoint',
    'model.ckpt-7.data-00000-of-00001',
    'model.ckpt-7.index',
  ]


def kept(folder):
  return sorted(name for name in os.listdir(folder) if name.endswith('.index'))


def test_the_last_three_are_kept_also_over_restarts(tmp_path):
  for updates in ([1, 2], [3, 4]):
    one = Learner(small_settings())
    saver = checkpoints(one, tmp_path)
    with one.open():
      for number in updates:
        saver.save(one.session, number)
  assert kept(tmp_path) == [f'model.ckpt-{k}.index' for k in (2, 3, 4)]
  assert saver.latest(str(tmp_path)) == str(tmp_path / 'model.ckpt-4')


def test_a_folder_can_be_moved_with_its_checkpoints(tmp_path):
  one = Learner(small_settings())
  (tmp_path / 'here').mkdir()
  saver = checkpoints(one, tmp_path / 'here')
  with one.open():
    saver.save(one.session, 1)
  os.rename(tmp_path / 'here', tmp_path / 'there')
  assert saver.latest(str(tmp_path / 'there')) == str(tmp_path / 'there' / 'model.ckpt-1')


def test_without_a_checkpoint_there_is_no_latest(tmp_path):
  assert Checkpoints.latest(str(tmp_path)) is None
  assert not Checkpoints.exist(str(tmp_path))
