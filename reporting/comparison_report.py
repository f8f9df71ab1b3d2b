"""Shows a comparison of runs as text: a table, remarks on it, and a page."""

import os
from collections.abc import Sequence

import numpy as np

import config
from common import files, texts
from reporting.comparison import (
  Comparison,
  Group,
  final_returns,
  frames_to_score,
  interquartile_mean,
  of_each_level,
  value_text,
)
from reporting.sweeps import REPETITION

FEW_RUNS = 5
_SAME_LENGTH = 0.01  # Runs whose ends differ by at most this share are not said to be cut off.
MANY_GROUPS = 10  # Above it, warnings about few runs become one.


def table(comparison: Comparison) -> str:
  """Returns the table for the terminal."""
  return texts.layout(_rows(comparison))


def _rows(comparison: Comparison) -> list[list[str]]:
  """Returns the cells of the table, its header first."""
  header = ['group', 'runs', 'at ' + comparison.x, 'final', 'best', 'frames/s']
  if comparison.score is not None:
    header.insert(5, f'frames to {comparison.score:g}')
  return [header] + [_row(group, comparison) for group in comparison.groups]


def _final_text(group: Group) -> str:
  """Returns the final return: mean +- spread, or the IQM (low to high)."""
  low, high = (end[-1] for end in group.band)
  if not np.isfinite(low):
    return f'{group.centre[-1]:.4g}'
  if group.iqm is not None:
    return f'{group.centre[-1]:.4g} ({low:.4g} to {high:.4g})'
  return f'{group.mean[-1]:.4g} +- {group.spread[-1]:.4g}'


def _row(group: Group, comparison: Comparison) -> list[str]:
  end = _amount(group.grid[-1], comparison.x)
  speed = np.mean([run.frames_per_sec for run in group.runs])
  row = [
    group.label,
    str(len(group.runs)),
    end,
    _final_text(group),
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
  many = len(comparison.groups) > MANY_GROUPS
  if comparison.groups[0].iqm is not None:
    sentences.append('final: interquartile mean over the runs, and its 95% bootstrap interval.')
    sentences += _different_ends(comparison)
  fewest = min(_fewest(group) for group in comparison.groups)
  if many and fewest < FEW_RUNS:
    few = [group for group in comparison.groups if _fewest(group) < FEW_RUNS]
    sentences.append(_few_runs(f'{len(few)} of {len(comparison.groups)} groups', fewest, ''))
  for group in comparison.groups:
    for run in group.left_out:
      sentences.append(
        f'{group.label}: {run.folder} is left out: it ends before another one has games.'
      )
    sentences += _cut_off(group, comparison.x)
    which = of_each_level(group.runs)
    if len(which) > 1 and group.iqm is None:
      returns = final_returns(group, comparison.x)
      sentences.append(_iqm_of_levels(group.label, [returns[indices] for indices in which]))
    if not many and _fewest(group) < FEW_RUNS:
      of = ' of a level' if len(which) > 1 else ''
      sentences.append(_few_runs(group.label, _fewest(group), of))
    differences = _differences(group, comparison.by)
    sentences += [f'Warning: {group.label}: {text}' for text in differences]
  return sentences


def _fewest(group: Group) -> int:
  """Returns the number of runs of the level that has the fewest in a group."""
  return min(map(len, of_each_level(group.runs)))


def _few_runs(who: str, fewest: int, of: str) -> str:
  return (
    f'Warning: {who}: {fewest} run{"s" * (fewest != 1)}{of}; below {FEW_RUNS}, mean and spread '
    'say little (arXiv 2108.13264).'
  )


def _iqm_of_levels(label: str, by_level: Sequence[np.ndarray]) -> str:
  iqm, low, high = interquartile_mean(by_level)
  interval = f'95% interval {low:.4g} to {high:.4g} (stratified bootstrap, {len(by_level)} levels)'
  if min(map(len, by_level)) < 2:
    interval = 'no interval: that takes two runs of each level'
  return f'{label}: IQM {iqm:.4g}, {interval}.'


def _different_ends(comparison: Comparison) -> list[str]:
  """Returns a sentence if the final returns of groups are not those of equal frames (hours)."""
  x = comparison.x
  ends = sorted(float(group.grid[-1]) for group in comparison.groups)
  if ends[-1] <= ends[0] * (1 + _SAME_LENGTH):
    return []
  return [
    f'Warning: the groups end at {_amount(ends[0], x)} to {_amount(ends[-1], x)} {x}: their final '
    'returns are not those of equal training.'
  ]


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
  named = {name for run in group.runs for name in run.options} - REPETITION - set(by)
  sentences = []
  for name in sorted(named):
    values = [value_text(run.options[name]) for run in group.runs if name in run.options]
    values = list(dict.fromkeys(values))
    if len(values) > 1:
      sentences.append(f'{name} differs inside of the group: {", ".join(values)}.')
  return sentences


def write_page(comparison: Comparison, title: str, picture: str, path: str) -> None:
  """Writes a page in Markdown: picture, table and remarks, and the flags of the best group.

  Args:
    comparison: groups, the best first.
    title: heading of the page.
    picture: path of the picture; the page refers to it by a relative path.
    path: path of the page.

  Raises:
    OSError: the page cannot be written; an earlier one is unchanged.
  """
  header, *rows = _rows(comparison)
  best = max(comparison.groups, key=lambda group: group.centre[-1])
  options = best.runs[0].options
  flags = [config.flag_of(name, options[name]) for name in comparison.by if name in options]
  lines = [
    f'# {title}',
    '',
    f'![final returns]({os.path.relpath(picture, os.path.dirname(path) or ".")})',
    '',
    *(_markdown(row) for row in (header, ['---'] * len(header), *rows)),
    '',
    *(f'- {sentence}' for sentence in remarks(comparison)),
    '',
    '## The best settings',
    '```',
    *flags,
    '```',
  ]
  files.write_whole(path, ('\n'.join(lines) + '\n').encode(), durable=False)


def _markdown(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |'
