"""runtime.checkpoints: after a restore, weights, slots, counters and learning rate are exact."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from conftest import ROOT
from learner_fixtures import Learner, assert_same, random_unrolls, small_settings
from runtime.checkpoints import LIST, Checkpoints, find, listed, take_over
from runtime.process import BadInput

pytestmark = pytest.mark.slow


def checkpoints(one, folder, **kept):
  with one.tf_graph.as_default():
    return Checkpoints(str(folder), '', whole=one.whole, **kept)


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
      saver.restore(one.session, saver.latest(str(tmp_path)))
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
  resumed = Learner(dataclasses.replace(settings, seed=2))
  saver = checkpoints(resumed, tmp_path)
  with resumed.open(saver=saver, path=saver.latest(str(tmp_path))):
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
    'checkpoints.json',
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


def test_one_that_somebody_reads_is_kept_as_long_as_that(tmp_path):
  one = Learner(small_settings())
  read = {'model.ckpt-1'}
  saver = checkpoints(one, tmp_path, keep=1, in_use=read.__contains__)
  with one.open():
    assert saver.save(one.session, 1).name == 'model.ckpt-1'
    saver.save(one.session, 2)
    assert kept(tmp_path) == [f'model.ckpt-{k}.index' for k in (1, 2)]
    read.clear()
    saver.save(one.session, 3)
  assert kept(tmp_path) == ['model.ckpt-3.index']


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


@pytest.fixture(scope='module')
def one():
  """A learner with an open session; tests give its counters the values that they want."""
  learner = Learner(small_settings())
  with learner.open():
    yield learner


def save(one, saver, frames, mean_return_100=None):
  """Saves after so many frames; an update is 100 of them."""
  one.assign({'environment_frames': frames, 'global_step': frames // 100})
  saver.save(one.session, frames // 100, mean_return_100)


def frames_of(folder):
  """Of the checkpoints on disk, which are those on the list; the newest last."""
  there = listed(str(folder))
  assert {f'{saved.name}.index' for saved in there} == set(kept(folder))
  return [saved.frames for saved in there]


def test_the_best_is_kept_beside_the_newest(one, tmp_path):
  saver = checkpoints(one, tmp_path, keep=2)
  returns = [(100, None), (200, 5.0), (300, 7.5), (400, 7.5), (500, 7.0), (600, -1.0)]
  for frames, mean in returns:
    save(one, saver, frames, mean)
  assert frames_of(tmp_path) == [300, 500, 600]  # Of the best two, the first.
  save(one, saver, 700, 8.0)
  assert frames_of(tmp_path) == [600, 700]
  content = json.loads((tmp_path / LIST).read_text())
  assert content['best'] == 'model.ckpt-7'
  assert content['checkpoints'][-1] == {
    'name': 'model.ckpt-7', 'frames': 700, 'updates': 7, 'mean_return_100': 8.0, 'for_ever': False
  }  # fmt: skip


def test_the_first_after_so_many_frames_is_never_deleted(one, tmp_path):
  saver = checkpoints(one, tmp_path, keep=1, keep_every_frames=300)
  assert [saver.is_due(frames) for frames in (299, 300)] == [False, True]
  for frames in (100, 200, 400, 500, 600):
    save(one, saver, frames)
  assert frames_of(tmp_path) == [400, 600]
  # Another process goes on counting where this one stood, and what it was told first still holds.
  saver = checkpoints(one, tmp_path, keep=1, keep_every_frames=1000)
  assert [saver.is_due(frames) for frames in (700, 900, 1000)] == [False, False, True]
  for frames in (700, 1000, 1100):
    save(one, saver, frames)
  assert frames_of(tmp_path) == [400, 600, 1000, 1100]


def test_saved_once_more_it_is_as_good_as_before(one, tmp_path):
  saver = checkpoints(one, tmp_path, keep=1, keep_every_frames=100)
  save(one, saver, 100, 3.0)
  save(one, checkpoints(one, tmp_path, keep=1), 100)
  (saved,) = listed(str(tmp_path))
  assert (saved.frames, saved.mean_return_100, saved.for_ever) == (100, 3.0, True)


def test_a_kill_between_saving_and_listing_loses_nothing(one, tmp_path):
  saver = checkpoints(one, tmp_path, keep=2)
  save(one, saver, 100, 3.0)
  before = (tmp_path / LIST).read_text()
  save(one, saver, 200, 2.0)
  (tmp_path / LIST).write_text(before)
  assert frames_of(tmp_path) == [100, 200]
  saver = checkpoints(one, tmp_path, keep=2)
  assert json.loads((tmp_path / LIST).read_text())['checkpoints'][1]['frames'] == 200
  save(one, saver, 300, 1.0)
  save(one, saver, 400, 1.0)
  assert frames_of(tmp_path) == [100, 300, 400]


def test_what_has_to_stay_stays_also_after_such_a_kill(one, tmp_path):
  saver = checkpoints(one, tmp_path, keep=1, keep_every_frames=200)
  save(one, saver, 100)
  before = (tmp_path / LIST).read_text()
  save(one, saver, 200)
  (tmp_path / LIST).write_text(before)
  save(one, checkpoints(one, tmp_path, keep=1, keep_every_frames=200), 300)
  assert frames_of(tmp_path) == [200, 300]


def test_what_is_no_more_on_disk_is_no_more_on_the_list(one, tmp_path):
  saver = checkpoints(one, tmp_path)
  for frames, mean in ((100, 3.0), (200, 2.0), (300, 1.0)):
    save(one, saver, frames, mean)
  os.remove(tmp_path / 'model.ckpt-1.index')  # A kill while it was deleted.
  assert [saved.frames for saved in listed(str(tmp_path))] == [200, 300]
  take_over(str(tmp_path))
  checkpoints(one, tmp_path)
  assert json.loads((tmp_path / LIST).read_text())['best'] == 'model.ckpt-2'
  assert list(tmp_path.glob('model.ckpt-1.*')) == []


def test_a_run_of_before_there_was_a_list_goes_on(one, tmp_path):
  earlier = shutil.copytree(os.path.join(ROOT, 'tests', 'data', 'earlier_run'), tmp_path / 'run')
  folder = str(earlier)
  assert Checkpoints.latest(folder) == find(folder, 'last', '') == f'{folder}/model.ckpt-24'
  assert find(folder, '3072', '') == f'{folder}/model.ckpt-24'
  with pytest.raises(BadInput, match='not known which is best; there are those of 3072$'):
    find(folder, 'best', '--checkpoint=best')
  assert not (earlier / LIST).exists()  # Looking changes nothing.
  save(one, checkpoints(one, earlier), 4000, 1.0)
  assert frames_of(earlier) == [3072, 4000]


def test_a_checkpoint_is_found_by_what_it_is(one, tmp_path):
  saver, folder = checkpoints(one, tmp_path), str(tmp_path)
  for frames, mean in ((100, 3.0), (200, 2.0)):
    save(one, saver, frames, mean)
  names = {choice: os.path.basename(find(folder, choice, '')) for choice in ('best', 'last', '200')}
  assert names == {'best': 'model.ckpt-1', 'last': 'model.ckpt-2', '200': 'model.ckpt-2'}
  with pytest.raises(BadInput, match=r'^x: .* none of 150 frames; .* 100 \(best\), 200$'):
    find(folder, '150', 'x')
