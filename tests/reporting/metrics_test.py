"""reporting.metrics: the declared figures, their documentation and their TensorBoard tags."""

import os

from conftest import ROOT
from reporting import metrics
from reporting.statistics import RunStatistics


def test_the_documentation_lists_all_figures():
  with open(os.path.join(ROOT, 'docs/metrics.md'), encoding='utf-8') as file:
    text = file.read()
  assert text == metrics.documentation(), 'python -m reporting.metrics > docs/metrics.md'


def test_a_run_of_an_earlier_version_can_be_resumed():
  # It is if its columns are the first ones; see `csv_files.CsvFile`.
  assert ','.join(metrics.METRIC_COLUMNS).startswith(
    'time,environment_frames,updates,frames_per_sec,mean_return_100,policy_lag_mean,'
    'policy_lag_max,learner_wait_fraction,actor_wait_fraction,total_loss,policy_loss,'
    'baseline_loss,entropy_loss,gradient_norm,learning_rate,entropy_cost'
  )
  assert ','.join(metrics.EPISODE_COLUMNS).startswith(
    'time,environment_frames,level_name,episode_return,clipped_return,episode_frames'
  )


def test_all_figures_of_a_row_are_declared():
  declared = {metric.name for metric in (*metrics.METRICS, *metrics.CLUSTER_METRICS)}
  assert set(RunStatistics().row(0, 0, 6e-4)) == declared


def test_numbers_by_tag():
  figures = (
    metrics.Metric('level', 'no tag'),
    metrics.Metric('score', 'a tag of the row', 'score/{level}'),
    metrics.Metric('speed', 'a dict', 'speed'),
    metrics.Metric('unknown', 'None', 'unknown'),
    metrics.Metric('missing', 'not in the row', 'missing'),
  )
  row = dict(level='a/b-v0', score=1.5, speed={2: 50.0, 'x': 0.0}, unknown=None, other=1)
  assert metrics.scalars(figures, row) == {'score/a/b-v0': 1.5, 'speed/2': 50.0, 'speed/x': 0.0}
