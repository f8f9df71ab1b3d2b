"""Draws learning curves from the CSV files of runs: returns, waits, policy lag and loss.

Evaluations while training are drawn among the returns, with their intervals.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common import files
from reporting import csv_files

if TYPE_CHECKING:
  from matplotlib.axes import Axes


def plot_learning_curve(
  logdirs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], path: str
) -> None:
  """Draws returns, waits, policy lag and loss of one or more runs over environment frames.

  Rows that a restart from an earlier checkpoint made void are left out.

  Args:
    logdirs: a run's folder, or several.
    path: path of the picture; its ending selects the format.

  Raises:
    ValueError: a folder has no metrics.csv, or one without rows.
    OSError: the picture cannot be written; an earlier one is unchanged.
  """
  import matplotlib.backends.backend_agg
  import matplotlib.figure

  logdirs = [logdirs] if isinstance(logdirs, (str, os.PathLike)) else list(logdirs)
  figure = matplotlib.figure.Figure(figsize=(9, 11), layout='constrained')
  matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  axes = figure.subplots(4, 1, sharex=True, height_ratios=(3, 1, 1, 1))
  for number, logdir in enumerate(logdirs):
    _plot_run(axes, logdir, f'C{number}')
  labels = ('return of a game, or score', 'share of time waiting', 'policy lag (updates)', 'loss')
  for axis, label in zip(axes, labels):
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize='small')
  axes[1].set_ylim(0, 1)
  axes[-1].set_xlabel('environment frames (million)')
  picture = io.BytesIO()
  figure.savefig(picture, dpi=100, format=os.path.splitext(path)[1][1:])
  # Written atomically, since the user may copy the picture at any time.
  files.write_whole(path, picture.getvalue(), durable=False)


def _plot_run(axes: Sequence[Axes], logdir: str | os.PathLike[str], color: str) -> None:
  rows = csv_files.read_csv(os.path.join(logdir, 'metrics.csv'))
  if not rows:
    raise ValueError(f'{os.path.join(logdir, "metrics.csv")} has no rows yet: nothing to plot.')
  name = os.path.basename(os.path.abspath(logdir))
  if any(row.get('mean_score') for row in rows):
    _plot_scores(axes[0], rows, color, name)
  else:
    _plot_returns(axes[0], logdir, rows, color, name)
  axes[1].plot(*_curve(rows, 'learner_wait_fraction'), color=color, label=f'{name}: learner')
  axes[1].plot(
    *_curve(rows, 'actor_wait_fraction'), color=color, linestyle='--', label=f'{name}: actors'
  )
  axes[2].plot(*_curve(rows, 'policy_lag_mean'), color=color, label=name)
  axes[3].plot(*_curve(rows, 'total_loss'), color=color, label=name)


def _plot_scores(axis: Axes, rows: list[dict[str, str]], color: str, name: str) -> None:
  """Draws the scores of a run of several levels, whose returns are not of one size."""
  axis.plot(*_curve(rows, 'mean_score'), color=color, label=f'{name}: mean score of the levels')
  capped = _curve(rows, 'mean_capped_score')
  axis.plot(*capped, color=color, linestyle='--', label=f'{name}: each level capped at 1')


def _plot_returns(
  axis: Axes, logdir: str | os.PathLike[str], rows: list[dict[str, str]], color: str, name: str
) -> None:
  games = _curve(csv_files.read_games(logdir), 'episode_return')
  axis.plot(*games, '.', color=color, markersize=2, alpha=0.25)
  axis.plot(*_curve(rows, 'mean_return_100'), color=color, label=f'{name}: mean of 100')
  for number, (kind, played) in enumerate(_by_kind(csv_files.read_evaluations(logdir)).items()):
    _plot_evaluations(axis, played, 'osD^v*'[number % 6], color, f'{name}: {kind}')


def _by_kind(evaluations: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
  """Groups rows of evaluations.csv by protocol and kind of action."""
  kinds: dict[str, list[dict[str, str]]] = {}
  for row in evaluations:
    greedy = ', likeliest actions' if row['deterministic'] == 'True' else ''
    kinds.setdefault(f'evaluation ({row["protocol"]}{greedy})', []).append(row)
  return kinds


def _plot_evaluations(
  axis: Axes, rows: list[dict[str, str]], marker: str, color: str, label: str
) -> None:
  frames, means = _curve(rows, 'mean_return')
  # A single game has no interval.
  ends = [_curve(rows, f'mean_return_{end}')[1] for end in ('low', 'high')]
  lengths = [[abs(end - mean) for end, mean in zip(side, means)] for side in ends]
  axis.errorbar(
    frames, means, lengths, fmt=marker, color=color, markeredgecolor='black', ecolor='black',
    markersize=5, elinewidth=1, capsize=2, label=label,
  )  # fmt: skip


def _curve(rows: list[dict[str, str]], column: str) -> tuple[list[float], list[float]]:
  """Returns million frames and values of a column; empty cells become nan, which leaves gaps."""
  return (
    [float(row['environment_frames']) / 1e6 for row in rows],
    [float(row[column] or 'nan') for row in rows],
  )
