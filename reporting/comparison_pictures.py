"""Draws a comparison of runs: curves of its groups, or their sorted final scores."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from common import files
from reporting.comparison import Comparison, Group

if TYPE_CHECKING:
  import matplotlib.axes
  import matplotlib.figure

# Above the first number of groups, the best ones are in colours and the others in grey.
_MANY_GROUPS, _BEST_SHOWN = 10, 8
_BESIDE = 5  # Above this number of groups, their names are below the curves.


def plot(comparison: Comparison, path: str) -> None:
  """Draws the curve of each group: mean and spread, or IQM and interval.

  Raises:
    OSError: the picture cannot be written; an earlier one is unchanged.
  """
  figure, (axis,) = new_picture()
  scale = 1e6 if comparison.x == 'frames' else 1
  shown = comparison.groups
  if len(shown) > _MANY_GROUPS:
    shown = sorted(shown, key=lambda group: -group.centre[-1])[:_BEST_SHOWN]
  others = [group for group in comparison.groups if not any(group is one for one in shown)]
  for number, group in enumerate(others):
    label = None if number else f'the {len(others)} others'
    axis.plot(group.grid / scale, group.centre, color='silver', linewidth=0.8, label=label)
  for number, group in enumerate(shown):
    grid, color = group.grid / scale, f'C{number}'
    marker = 'o' if len(grid) == 1 else None
    label = f'{group.label} (n={len(group.runs)})'
    axis.plot(grid, group.centre, color=color, marker=marker, label=label)
    axis.fill_between(grid, *group.band, color=color, alpha=0.2, linewidth=0)
  if comparison.score is not None:
    axis.axhline(comparison.score, color='gray', linestyle=':')
  axis.set_xlabel('environment frames (million)' if scale > 1 else 'hours of training')
  axis.set_ylabel(
    'human-normalised return' if comparison.normalised else 'mean return of 100 games'
  )
  if len(comparison.groups) > _BESIDE:
    figure.legend(fontsize='small', loc='outside lower center', ncols=2)
  else:
    axis.legend(fontsize='small')
  save(figure, path)


def plot_sorted_scores(
  comparison: Comparison, series: Mapping[str, list[Group]], path: str
) -> None:
  """Draws final returns from the best group to the worst, as in the paper's Figure 4.

  Args:
    comparison: what the groups belong to.
    series: the groups of each line, by its label.
    path: the picture.

  Raises:
    OSError: the picture cannot be written; an earlier one is unchanged.
  """
  import matplotlib.ticker

  figure, (axis,) = new_picture()
  for number, (label, groups) in enumerate(series.items()):
    groups = sorted(groups, key=lambda group: -group.centre[-1])
    ranks = np.arange(1, len(groups) + 1)
    returns = np.array([group.centre[-1] for group in groups])
    low, high = np.array([[end[-1] for end in group.band] for group in groups]).T
    axis.plot(ranks, returns, color=f'C{number}', marker='.', label=f'{label} (n={len(groups)})')
    axis.vlines(ranks, low, high, color=f'C{number}', alpha=0.4)
  if comparison.score is not None:
    axis.axhline(comparison.score, color='gray', linestyle=':')
  axis.set_xlabel('combination of settings, the best first')
  axis.set_ylabel('final human-normalised return' if comparison.normalised else 'final return')
  axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
  axis.legend(fontsize='small')
  save(figure, path)


def new_picture(rows: int = 1) -> tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]:
  """Returns an empty picture, and its axes from the top down, which share the horizontal one."""
  import matplotlib.backends.backend_agg
  import matplotlib.figure

  figure = matplotlib.figure.Figure(figsize=(9, 5.5 + 2 * (rows - 1)), layout='constrained')
  matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  axes = list(figure.subplots(rows, sharex=True, squeeze=False)[:, 0])
  for axis in axes:
    axis.grid(alpha=0.3)
  return figure, axes


def save(figure: matplotlib.figure.Figure, path: str) -> None:
  """Writes a picture in the format that the end of its name says."""
  picture = io.BytesIO()
  figure.savefig(picture, dpi=100, format=path.rpartition('.')[2].lower())
  files.write_whole(path, picture.getvalue(), durable=False)
