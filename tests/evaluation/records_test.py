"""evaluation.records: the entries of an evaluation, its interval; earlier ones are kept."""

import concurrent.futures
import json
import os
import resource

import numpy as np
import pytest

from evaluation import records
from runtime.process import BadInput

CATCH = 'impala/Catch-v0'
KEYS = {
  *('level_name', 'num_episodes', 'mean', 'mean_interval_95', 'median', 'std', 'min', 'max'),
  *('returns', 'frames'),
}


class Played:
  scores, steps = [-20.7, 14.6], 10


class Catches:
  scores, steps = [1.0, -1.0, -1.0, 1.0, -1.0], 45


def test_an_evaluation_has_its_keys(tmp_path):
  line = records.add(str(tmp_path), records.summary(CATCH, Catches, 4), '/runs/a/model.ckpt-3')
  (written,) = json.loads((tmp_path / 'evaluation.json').read_text())
  assert set(written) == {*KEYS, 'checkpoint', 'time'}
  assert written['returns'] == Catches.scores
  assert written['mean'] == pytest.approx(-0.2)
  assert written['std'] == pytest.approx(np.std(Catches.scores))
  assert (written['median'], written['min'], written['max']) == (-1, -1, 1)
  assert (written['level_name'], written['num_episodes']) == (CATCH, 5)
  assert (written['frames'], written['checkpoint']) == (45 * 4, 'model.ckpt-3')
  for words in (CATCH, '5 games', 'mean -0.20 (95% interval -1.00 to 0.60)', 'median -1.00'):
    assert words in line
  assert 'human' not in line
  assert os.listdir(tmp_path) == ['evaluation.json']


def test_atari_has_the_human_normalised_score_beside(tmp_path):
  result = records.summary('PongNoFrameskip-v4', Played, 4)
  assert result['human_normalised_score'] == pytest.approx(0.5)
  assert set(result) == {*KEYS, 'human_normalised_score'}
  assert 'human-normalised 50.0%' in records.add(str(tmp_path), result, 'model.ckpt-1')


def test_the_interval_is_that_of_a_bootstrap_by_hand():
  returns = np.random.default_rng(5).exponential(100, size=30)
  rng = np.random.default_rng(1)
  means = [returns[rng.integers(30, size=30)].mean() for _ in range(20_000)]
  low, high = records.mean_interval(list(returns))
  # The end points of two bootstraps of thousands differ by a few hundredths of the spread.
  assert [low, high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.1 * np.std(means))
  assert [low, high] == records.mean_interval(list(returns))


def test_games_without_a_spread_have_an_interval_of_one_point_and_a_single_game_none(tmp_path):
  assert records.mean_interval([3.0] * 4) == [3, 3]
  assert records.mean_interval([3.0]) is None


def test_earlier_evaluations_are_kept_also_one_that_was_alone(tmp_path):
  alone = {'level_name': CATCH, 'returns': [1.0], 'mean': 1.0}
  (tmp_path / 'evaluation.json').write_text(json.dumps(alone))
  result = records.summary(CATCH, Catches, 1)
  for update in (1, 2):
    records.add(str(tmp_path), result, f'model.ckpt-{update}')
  newest, second, oldest = records.read(str(tmp_path))
  assert [newest['checkpoint'], second['checkpoint']] == ['model.ckpt-2', 'model.ckpt-1']
  assert oldest == alone


@pytest.mark.parametrize('content', ['{"returns": [1', '[1, 2]', '{"a": 1}', '3'])
def test_a_file_of_something_else_is_refused_and_untouched(tmp_path, content):
  path = tmp_path / 'evaluation.json'
  path.write_text(content)
  with pytest.raises(BadInput, match='evaluation.json .*move it away'):
    records.add(str(tmp_path), records.summary(CATCH, Catches, 1), 'model.ckpt-1')
  assert path.read_text() == content


def test_a_full_disk_leaves_the_earlier_ones(tmp_path):
  records.add(str(tmp_path), records.summary(CATCH, Catches, 1), 'model.ckpt-1')
  before = (tmp_path / 'evaluation.json').read_text()
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  # A file that may not grow further, for a disk that has no room.
  resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
  try:
    with pytest.raises(OSError, match='File too large'):
      records.add(str(tmp_path), records.summary(CATCH, Catches, 1), 'model.ckpt-2')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert os.listdir(tmp_path) == ['evaluation.json']
  assert (tmp_path / 'evaluation.json').read_text() == before


def test_evaluations_that_end_at_the_same_time_are_all_kept(tmp_path):
  result = records.summary(CATCH, Catches, 1)

  def add(number):
    records.add(str(tmp_path), result, f'model.ckpt-{number}')

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(add, range(40)))
  names = {entry['checkpoint'] for entry in records.read(str(tmp_path))}
  assert names == {f'model.ckpt-{number}' for number in range(40)}


def test_of_several_levels_the_mean_is_that_of_their_means(tmp_path):
  pong = records.summary('PongNoFrameskip-v4', Played, 4)
  catch = records.summary(CATCH, Catches, 4)
  result = records.summary_of_levels('suite', [pong, catch])
  assert result['mean'] == pytest.approx((pong['mean'] + catch['mean']) / 2)
  assert result['returns'] == [*Played.scores, *Catches.scores]
  assert (result['frames'], result['levels']) == (55 * 4, [pong, catch])
  assert (result['mean_score'], result['mean_capped_score']) == (None, None)
  low, high = result['mean_interval_95']
  assert (-20.7 - 1) / 2 <= low < result['mean'] < high <= (14.6 + 1) / 2
  assert f'mean over levels {result["mean"]:.2f}' in records.add(str(tmp_path), result, 'ckpt-1')
  (read,) = records.read(str(tmp_path))
  assert [level['level_name'] for level in read['levels']] == ['PongNoFrameskip-v4', CATCH]


def test_a_level_is_capped_before_the_mean_over_levels():
  pong = records.summary('PongNoFrameskip-v4', Played, 4)  # .5
  freeway = {**pong, 'level_name': 'FreewayNoFrameskip-v4', 'mean': 59.2}  # 2
  result = records.summary_of_levels('suite', [pong, freeway])
  assert result['mean_score'] == pytest.approx(1.25)
  assert result['mean_capped_score'] == pytest.approx(0.75)
  assert 'mean score 125.0%, with each level capped at 100% 75.0%' in records.line(result)
