"""Shows a comparison of runs: a table, remarks on it, and a picture."""

import io
import os
from collections.abc import Sequence

import numpy as np

import config
from common import files
from reporting.comparison import (
  Comparison,
  Group,
  final_returns,
  frames_to_score,
  interquartile_mean,
  levels,
  value_text,
)
from runtime.process import BadInput

FEW_RUNS = 5
_SAME_LENGTH = 0.01  # Runs whose ends differ by at most this share are not said to be cut off.
_FORMATS = ('jpg', 'pdf', 'png', 'svg')
# Runs of a group may differ in these without a warning.
_MAY_DIFFER = config.NOT_OF_THE_POLICY | {'seed', 'code_version'}


def table(comparison: Comparison) -> str:
  """Returns the table for the terminal."""
  header = ['group', 'runs', 'at ' + comparison.x, 'final', 'best', 'frames/s']
  if comparison.score is not None:
    header.insert(5, f'frames to {comparison.score:g}')
  rows = [header] + [_row(group, comparison) for group in comparison.groups]
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(group: Group, comparison: Comparison) -> list[str]:
  spread = '' if len(group.runs) == 1 else f' +- {group.spread[-1]:.4g}'
  end = _amount(group.grid[-1], comparison.x)
  speed = np.mean([run.frames_per_sec for run in group.runs])
  row = [
    group.label,
    str(len(group.runs)),
    end,
    f'{group.mean[-1]:.4g}{spread}',
    f'{np.mean([run.returns.max() for run in group.runs]):.4g}',
    f'{speed:,.0f}' if np.isfinite(speed) else '-',
  ]
  if comparison.score is not None:
    frames, reached = frames_to_score(group.runs, comparison.score)
    frames = f'{frames:,.0f}' if np.isfinite(frames) else '-'
    row.insert(5, f'{frames} ({reached} of {len(group.runs)})')
  return row


def _amount(value: float, x: str) -> str:
  return f'{value:,.0f}' if x == 'frames' else f'{value:.3g}'


def remarks(comparison: Comparison) -> list[str]:
  """Returns sentences below the table: curves cut off, IQM, too few runs, settings that differ."""
  sentences = [
    'Returns are human-normalised (0: random play, 1: a person).'
  ] * comparison.normalised
  for group in comparison.groups:
    sentences += _cut_off(group, comparison.x)
    returns, games = final_returns(group, comparison.x), levels(group.runs)
    by_game = [
      returns[[str(run.options.get('level_name')) == game for run in group.runs]] for game in games
    ]
    if len(games) > 1:
      iqm, low, high = interquartile_mean(by_game)
      interval = f'95% interval {low:.4g} to {high:.4g} (stratified bootstrap, {len(games)} levels)'
      if min(map(len, by_game)) < 2:
        interval = 'no interval: that takes two runs of each level'
      sentences.append(f'{group.label}: IQM {iqm:.4g}, {interval}.')
    fewest = min(map(len, by_game))
    if fewest < FEW_RUNS:
      of = ' of a level' if len(games) > 1 else ''
      sentences.append(
        f'Warning: {group.label}: {fewest} run{"s" * (fewest != 1)}{of}; below {FEW_RUNS}, mean '
        'and spread say little (arXiv 2108.13264).'
      )
    differences = _differences(group, comparison.by)
    sentences += [f'Warning: {group.label}: {text}' for text in differences]
  return sentences


def _cut_off(group: Group, x: str) -> list[str]:
  """Returns a sentence if the shortest run of a group ends before another one."""
  ends = [getattr(run, x)[-1] for run in group.runs]
  first, last = min(ends), max(ends)
  if last <= first * (1 + _SAME_LENGTH):
    return []
  shortest, longest = (group.runs[ends.index(end)].folder for end in (first, last))
  return [
    f'{group.label}: cut off at {_amount(first, x)} {x}, the end of {shortest}; {longest} has '
    f'{_amount(last, x)}.'
  ]


def _differences(group: Group, by: Sequence[str]) -> list[str]:
  """Returns a sentence for each setting in which the runs of a group differ and should not."""
  named = {name for run in group.runs for name in run.options} - _MAY_DIFFER - set(by)
  sentences = []
  for name in sorted(named):
    values = [value_text(run.options[name]) for run in group.runs if name in run.options]
    values = list(dict.fromkeys(values))
    if len(values) > 1:
      sentences.append(f'{name} differs inside of the group: {", ".join(values)}.')
  return sentences


def check_out(path: str) -> None:
  """Raises BadInput if no picture can be written to `path`."""
  folder = os.path.dirname(path) or '.'
  if path.rpartition('.')[2].lower() not in _FORMATS:
    raise BadInput(f'--out={path}: the name of the picture has to end in .{", .".join(_FORMATS)}.')
  if not os.path.isdir(folder):
    raise BadInput(f'--out={path}: {folder} is no folder; make it first.')
  if os.path.isdir(path) or not os.access(folder, os.W_OK):
    raise BadInput(f'--out={path} cannot be written: choose another name.')


def plot(comparison: Comparison, path: str) -> None:
  """Draws mean and spread of each group.

  Raises:
    OSError: the picture cannot be written; an earlier one is unchanged.
  """
  import matplotlib.backends.backend_agg
  import matplotlib.figure

  figure = matplotlib.figure.Figure(figsize=(9, 5.5), layout='constrained')
  matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  axis = figure.subplots()
  scale = 1e6 if comparison.x == 'frames' else 1
  for number, group in enumerate(comparison.groups):
    grid, color = group.grid / scale, f'C{number}'
    marker = 'o' if len(grid) == 1 else None
    label = f'{group.label} (n={len(group.runs)})'
    axis.plot(grid, group.mean, color=color, marker=marker, label=label)
    low, high = group.mean - group.spread, group.mean + group.spread
    axis.fill_between(grid, low, high, color=color, alpha=0.2, linewidth=0)
  if comparison.score is not None:
    axis.axhline(comparison.score, color='gray', linestyle=':')
  axis.set_xlabel('environment frames (million)' if scale > 1 else 'hours of training')
  axis.set_ylabel(
    'human-normalised return' if comparison.normalised else 'mean return of 100 games'
  )
  axis.grid(alpha=0.3)
  axis.legend(fontsize='small')
  picture = io.BytesIO()
  figure.savefig(picture, dpi=100, format=path.rpartition('.')[2].lower())
  files.write_whole(path, picture.getvalue(), durable=False)
