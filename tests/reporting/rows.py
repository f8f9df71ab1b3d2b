"""Reports, rows and a manual clock for the tests of `reporting`."""

import csv
import io
import os

from reporting import metrics, writers


class Clock:
  """A clock that tests move by hand."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def an_update(**changes):
  return dict(
    dict(
      {name: 0.0 for name in metrics.UPDATE_MEANS if not name.startswith('replayed_')},
      total_loss=3.0,
      policy_loss=1.0,
      baseline_loss=2.0,
      entropy_loss=-0.5,
      gradient_norm=40.0,
      policy_lag_mean=1.0,
      policy_lag_max=2.0,
    ),
    **{'pass': 1} | changes,
  )


def a_report(task=0, **changes):
  return dict(
    dict(task=task, frames=800, wait_secs=1.0, busy_secs=3.0, crashes=0, pid=10, episodes=[]),
    **changes,
  )


def an_episode(episode_return=5.0, **changes):
  return dict(
    dict(
      level_name='impala/Catch-v0',
      episode_return=episode_return,
      clipped_return=1.0,
      episode_frames=9,
    ),
    **changes,
  )


def a_row(frames=12_300_000, **changes):
  row = dict.fromkeys(metrics.METRIC_COLUMNS)
  row.update(
    time=1e9,
    environment_frames=frames,
    updates=4000,
    frames_per_sec=7012.0,
    learning_rate=1e-4,
    queue_depth=None,
    connected_actors=0,
    actor_restarts=0,
    environment_crashes=0,
    frames_per_sec_by_actor={},
    policy_lag_by_pass={},
  )
  return dict(row, **changes)


def an_evaluation(frames=100, **changes):
  return dict(
    dict(
      time=1e9,
      environment_frames=frames,
      checkpoint='model.ckpt-3',
      protocol='training',
      deterministic=False,
      num_episodes=30,
      mean_return=2.0,
      mean_return_low=1.5,
      mean_return_high=2.25,
      median_return=2.5,
      human_normalised_score=None,
      mean_score=None,
      mean_capped_score=None,
    ),
    **changes,
  )


FULL = {
  'mean_return_100': 14.2,
  'policy_lag_mean': 4.2,
  'total_loss': 3.1,
  'learner_wait_fraction': 0.12,
  'actor_wait_fraction': 0.35,
}


def rows_of(folder, name):
  with open(os.path.join(folder, name), newline='') as file:
    return list(csv.DictReader(file))


def shown_on(stream, *rows, total=40_000_000, message=None):
  writer = writers.open_run(None, total, 10, stream)
  for row in rows:
    writer.write(row)
  if message:
    writer.message(message)
  writer.close()


class reporting_run:
  """`open_run` into memory as a context."""

  def __init__(self, folder, **kwargs):
    self._writer = writers.open_run(folder and str(folder), 1000, 10, io.StringIO(), **kwargs)

  def __enter__(self):
    return self._writer

  def __exit__(self, *unused_error):
    self._writer.close()
