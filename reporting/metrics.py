"""Every figure that a run records, declared once: CSV columns, TensorBoard tags, documentation.

`python -m reporting.metrics > docs/metrics.md` writes the documentation.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
  """A figure of a row.

  Attributes:
    name: str, key in the row, and column of the CSV file where there is one.
    meaning: str, noun phrase with the unit, for docs/metrics.md.
    tag: str, TensorBoard tag; '' for none. '{level_name}' in it stands for the row's value. A
      figure that is a dict gets a tag per key below this one.
    is_update_mean: bool, whether it is the mean of the figure of this name in
      `learner.build_update`, over the updates since the row before.
    is_timed: bool, whether it depends on the clock, so that it differs between runs with
      --deterministic_training.
  """

  name: str
  meaning: str
  tag: str = ''
  is_update_mean: bool = False
  is_timed: bool = False


def _update_mean(name: str, meaning: str) -> Metric:
  return Metric(name, meaning, f'metrics/{name}', is_update_mean=True)


# Columns of metrics.csv. Append only: a run of an earlier version is resumed if its columns are the
# first of these. TensorBoard sorts groups of tags by name, so '1_return' puts returns first.
METRICS = (
  Metric('time', 'seconds since 1970', is_timed=True),
  Metric('environment_frames', 'environment frames trained on so far'),
  Metric('updates', 'updates of the weights so far', 'metrics/updates'),
  Metric(
    'frames_per_sec',
    'environment frames trained on per second',
    'metrics/frames_per_sec',
    is_timed=True,
  ),
  Metric('mean_return_100', 'mean raw return of the last 100 games', '1_return/mean_return_100'),
  _update_mean('policy_lag_mean', 'updates by which the policy that acted is behind the learner'),
  Metric('policy_lag_max', 'the same, maximum', 'metrics/policy_lag_max'),
  Metric(
    'learner_wait_fraction',
    'share of time that learners wait for data, in [0, 1]',
    'metrics/learner_wait_fraction',
    is_timed=True,
  ),
  Metric(
    'actor_wait_fraction',
    'share of time that actors wait for room in the queue, in [0, 1]',
    'metrics/actor_wait_fraction',
    is_timed=True,
  ),
  _update_mean('total_loss', 'sum of the three losses below, each times its cost'),
  _update_mean('policy_loss', 'policy gradient loss, a sum over time and batch'),
  _update_mean('baseline_loss', 'half the squared errors of the baseline, a sum likewise'),
  _update_mean('entropy_loss', 'negative entropy of the policy in nats, a sum likewise'),
  _update_mean('gradient_norm', 'global norm of the gradient before it is clipped'),
  Metric('learning_rate', 'learning rate', 'metrics/learning_rate'),
  Metric('entropy_cost', 'weight of the entropy loss', 'metrics/entropy_cost'),
  _update_mean(
    'truncated_weights',
    'share of steps whose importance weight is above `--clip_rho`, in [0, 1]',
  ),
  _update_mean('replayed_lag_mean', '`policy_lag_mean` of the replayed unrolls'),
  Metric('replayed_lag_max', 'the same, maximum', 'metrics/replayed_lag_max'),
  Metric(
    'mean_score',
    'mean over several levels of their scores: 0 for random play, 1 for the reference',
    '1_return/mean_score',
  ),
  Metric(
    'mean_capped_score',
    'the same, with the score of each level capped at 1',
    '1_return/mean_capped_score',
  ),
)

# Figures of the cluster, in TensorBoard only.
CLUSTER_METRICS = (
  Metric('queue_depth', "unrolls in the learners' queues", 'cluster/queue_depth'),
  Metric('connected_actors', 'actor tasks heard of lately', 'cluster/connected_actors'),
  Metric('actor_restarts', 'restarts of actor tasks so far', 'cluster/actor_restarts'),
  Metric(
    'environment_crashes',
    'environments rebuilt after a crash so far',
    'cluster/environment_crashes',
  ),
  Metric(
    'frames_per_sec_by_actor',
    'environment frames played per second, by actor task',
    'cluster/frames_per_sec_by_actor',
  ),
  Metric(
    'processors_busy_by_host',
    'share of time that processors are busy, by host of an actor, in [0, 1]',
    'cluster/processors_busy_by_host',
  ),
  Metric(
    'mean_return_by_level',
    'mean raw return of the last 100 games of a level, with several levels',
    '1_return/mean_return_100',
  ),
  Metric(
    'frames_share_by_level',
    'share of the frames played, by level, in [0, 1]',
    'cluster/frames_share_by_level',
  ),
  Metric(
    'policy_lag_by_pass',
    'mean policy lag by pass over a batch, with `--sample_reuse`',
    'cluster/policy_lag_by_pass',
  ),
)

# Columns of episodes.csv: one row per game.
EPISODE_METRICS = (
  Metric('time', 'end of the game, in seconds since 1970', is_timed=True),
  Metric('environment_frames', 'environment frames trained on after the next update'),
  Metric('level_name', 'Gym id'),
  Metric('episode_return', 'raw return of the game', '1_return/{level_name}/episode_return'),
  Metric('clipped_return', 'return of the clipped rewards', 'episodes/{level_name}/clipped_return'),
  Metric('episode_frames', 'frames of the game', 'episodes/{level_name}/episode_frames'),
)

# Columns of evaluations.csv: one row per evaluation of a checkpoint while training.
_EVALUATIONS = '1_return/evaluations/{protocol}/'
EVALUATION_METRICS = (
  Metric('time', 'end of the evaluation, in seconds since 1970'),
  Metric('environment_frames', 'environment frames that the checkpoint was trained on'),
  Metric('checkpoint', 'name of the checkpoint'),
  Metric('protocol', '`--eval_protocol`'),
  Metric('deterministic', 'True where the likeliest action was taken'),
  Metric('num_episodes', 'games played'),
  Metric('mean_return', 'mean raw return', _EVALUATIONS + 'mean_return'),
  Metric('mean_return_low', 'lower end of its 95% bootstrap interval'),
  Metric('mean_return_high', 'upper end'),
  Metric('median_return', 'median raw return', _EVALUATIONS + 'median_return'),
  Metric(
    'human_normalised_score',
    '0 for random play, 1 for a human tester; Atari only',
    _EVALUATIONS + 'human_normalised_score',
  ),
  Metric(
    'mean_score',
    'mean over levels of their normalised scores, with several levels',
    _EVALUATIONS + 'mean_score',
  ),
  Metric(
    'mean_capped_score',
    'the same, with the score of each level capped at 1',
    _EVALUATIONS + 'mean_capped_score',
  ),
)


def _names(metrics: Iterable[Metric]) -> tuple[str, ...]:
  return tuple(metric.name for metric in metrics)


METRIC_COLUMNS = _names(METRICS)
EPISODE_COLUMNS = _names(EPISODE_METRICS)
EVALUATION_COLUMNS = _names(EVALUATION_METRICS)
UPDATE_MEANS = _names(metric for metric in METRICS if metric.is_update_mean)


def scalars(metrics: Iterable[Metric], row: Mapping[str, Any]) -> dict[str, float]:
  """Returns the known numbers of a row by TensorBoard tag."""
  found = {}
  for metric in metrics:
    value = row.get(metric.name)
    if not metric.tag or value is None:
      continue
    tag = metric.tag.format(**row)
    if isinstance(value, dict):
      found.update({f'{tag}/{key}': item for key, item in value.items()})
    else:
      found[tag] = value
  return found


def documentation() -> str:
  """Returns the text of docs/metrics.md."""
  tables = (
    ('`metrics.csv`: one row every `--metrics_secs`', METRICS),
    ('Figures of the cluster, in TensorBoard only', CLUSTER_METRICS),
    ('`episodes.csv`: one row per game', EPISODE_METRICS),
    ('`evaluations.csv`: one row per evaluation while training', EVALUATION_METRICS),
  )
  parts = [
    '# Metrics',
    'Made by `python -m reporting.metrics > docs/metrics.md`; a test compares it. An empty cell '
    "of a CSV file means: not known. TensorBoard's steps are environment frames. With "
    '`--deterministic_training`, all columns of `metrics.csv` and `episodes.csv` repeat but those '
    'marked with *, which depend on the clock.',
  ]
  for title, metrics in tables:
    lines = ['| name | meaning | TensorBoard tag |', '| --- | --- | --- |']
    for metric in metrics:
      tag = f'`{metric.tag.replace("{", "").replace("}", "")}`' if metric.tag else ''
      meaning = metric.meaning + (' (mean over the updates of the row)' * metric.is_update_mean)
      mark = ' *' if metric.is_timed else ''
      lines.append(f'| `{metric.name}`{mark} | {meaning} | {tag} |')
    parts += [f'## {title}', '\n'.join(lines)]
  return '\n\n'.join(parts) + '\n'


if __name__ == '__main__':
  print(documentation(), end='')
