"""Compares runs: groups over seeds, with mean and spread or with IQM and interval."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from common import texts
from reporting import scores
from reporting.runs import Run
from runtime.process import BadInput

_GRID_POINTS = 200
_BOOTSTRAPS = 2000
_AT_ONCE = 4_000_000  # Numbers in the samples that are in memory at a time.
_LONG = 8  # Characters; a label shows longer numbers rounded.


class Group(NamedTuple):
  """Runs with equal values of the --by settings, on a common grid.

  Attributes:
    label: str, 'name=value' of these settings.
    runs: the runs; returns are human-normalised if `Comparison.normalised`.
    grid: float array [points], frames or hours, from the latest first row of a run to the earliest
      last row.
    mean: float array [points], mean return over the runs.
    spread: float array [points], its standard deviation (n - 1); nan for a single run.
    iqm: float array [3, points], interquartile mean over the runs, and the lower and upper end of
      its 95% interval, which are nan for a single run; None if the mean is the statistic.
    left_out: runs that ended before another one of the group has its first row.
  """

  label: str
  runs: list[Run]
  grid: np.ndarray
  mean: np.ndarray
  spread: np.ndarray
  iqm: np.ndarray | None = None
  left_out: Sequence[Run] = ()

  @property
  def centre(self) -> np.ndarray:
    """The statistic, float array [points]."""
    return self.mean if self.iqm is None else self.iqm[0]

  @property
  def band(self) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of what is drawn around it, each a float array [points]."""
    if self.iqm is not None:
      return self.iqm[1], self.iqm[2]
    return self.mean - self.spread, self.mean + self.spread


class Comparison(NamedTuple):
  """Groups of runs, and how they are compared.

  Attributes:
    groups: one per combination of values of `by`.
    by: names of settings or flags.
    x: 'frames' or 'hours'.
    score: mean return for which to report the frames needed, or None.
    normalised: whether returns are human-normalised, which is the case if a group has several
      levels.
  """

  groups: list[Group]
  by: Sequence[str]
  x: str
  score: float | None
  normalised: bool


def compare(
  runs: Sequence[Run],
  by: Sequence[str],
  x: str = 'frames',
  score: float | None = None,
  statistic: str = 'mean',
) -> Comparison:
  """Groups runs by settings and interpolates each group on a common grid.

  Args:
    runs: runs from `runs.read_runs`.
    by: names of settings or flags.
    x: 'frames' or 'hours'.
    score: mean return for which to report the frames needed, or None.
    statistic: 'mean', or 'iqm' with its interval; the groups are then in the order of their final
      IQM, the best first. Runs of a group that have nothing in common with the others, since they
      have just begun, are then left out.

  Raises:
    BadInput: no run has a setting of `by`, a group mixes levels without human scores, or the runs
      of a group have no frames (hours) in common.
  """
  known = {name for run in runs for name in run.options}
  for name in by:
    if name not in known:
      hint = texts.did_you_mean(name, known, count=3, cutoff=0.5) or 'run.json lists what there is.'
      raise BadInput(f'--by={name}: no run has such a setting or flag; {hint}')
  members = _members(runs, by)
  normalised = any(len(levels(group)) > 1 for group in members.values())
  if normalised:
    members = {label: [_normalise(run) for run in group] for label, group in members.items()}
  if statistic == 'iqm':
    groups = []
    for label, group in members.items():
      kept = _in_common(group, x)
      made = _with_iqm(_group(label, kept, x), x)
      groups.append(made._replace(left_out=[run for run in group if run not in kept]))
    groups.sort(key=lambda group: -group.centre[-1])
  else:
    groups = [_group(label, group, x) for label, group in members.items()]
  return Comparison(groups, by, x, score, normalised)


def _members(runs: Iterable[Run], by: Sequence[str]) -> dict[str, list[Run]]:
  """Returns the runs of each combination of values of `by`, by label."""
  combinations: dict[tuple[str, ...], list[Run]] = {}
  for run in runs:
    values = tuple(value_text(run.options.get(name, 'not recorded')) for name in by)
    combinations.setdefault(values, []).append(run)
  rounded = [_label(by, map(_rounded, values)) for values in combinations]
  if len(set(rounded)) < len(rounded):
    rounded = [_label(by, values) for values in combinations]
  return dict(zip(rounded, combinations.values()))


def _label(by: Iterable[str], values: Iterable[str]) -> str:
  return ' '.join(f'{name}={value}' for name, value in zip(by, values))


def _rounded(text: str) -> str:
  """Returns a long number with four digits; other text as it is."""
  try:
    return text if len(text) <= _LONG else f'{float(text):.4g}'
  except ValueError:
    return text


def value_text(value: Any) -> str:
  """Returns a setting's value as text."""
  return value if isinstance(value, str) else json.dumps(value)


def levels(runs: Iterable[Run]) -> list[str]:
  """Returns the different levels of runs, in order of appearance."""
  return list(dict.fromkeys(str(run.options.get('level_name')) for run in runs))


def _normalise(run: Run) -> Run:
  level = str(run.options.get('level_name'))
  returns = [scores.human_normalised_score(level, value) for value in run.returns]
  if None in returns:
    raise BadInput(
      f'{run.folder}: {level} has no known human score, so it cannot be in one comparison with a '
      'group of several levels: add level_name to --by.'
    )
  return run._replace(returns=np.array(returns))


def _group(label: str, runs: list[Run], x: str) -> Group:
  begin = max(getattr(run, x)[0] for run in runs)
  end = min(getattr(run, x)[-1] for run in runs)
  if begin > end:
    raise BadInput(f'{label}: its runs have no {x} in common; compare them one by one.')
  grid = np.linspace(begin, end, _GRID_POINTS) if begin < end else np.array([end])
  curves = np.array([np.interp(grid, getattr(run, x), run.returns) for run in runs])
  spread = curves.std(axis=0, ddof=1) if len(runs) > 1 else np.full(len(grid), np.nan)
  return Group(label, runs, grid, curves.mean(axis=0), spread)


def _in_common(runs: list[Run], x: str) -> list[Run]:
  """Returns the runs without those that end before another one has its first row."""
  begin = max(getattr(run, x)[0] for run in runs)
  return [run for run in runs if getattr(run, x)[-1] >= begin]


def _with_iqm(group: Group, x: str) -> Group:
  """Returns a group with its interquartile mean at each point of its grid."""
  if len(group.runs) == 1:
    return group._replace(iqm=np.array([group.mean, *[np.full(len(group.grid), np.nan)] * 2]))
  curves = np.array([np.interp(group.grid, getattr(run, x), run.returns) for run in group.runs])
  by_level = [curves[which] for which in of_each_level(group.runs)]
  # The samples of all points at once would fill the memory.
  parts = math.ceil(curves.size * _BOOTSTRAPS / _AT_ONCE)
  parts = zip(*(np.array_split(level, parts, axis=1) for level in by_level))
  iqm = np.concatenate([np.array(interquartile_means(part)) for part in parts], axis=1)
  if min(map(len, by_level)) < 2:
    iqm[1:] = np.nan
  return group._replace(iqm=iqm)


def of_each_level(runs: Sequence[Run]) -> list[list[int]]:
  """Returns the indices of the runs of each level, in order of appearance."""
  names = [str(run.options.get('level_name')) for run in runs]
  return [[i for i, name in enumerate(names) if name == level] for level in levels(runs)]


def final_returns(group: Group, x: str = 'frames') -> np.ndarray:
  """Returns the mean returns of a group's runs at the end of its grid, float array [runs]."""
  return np.array([np.interp(group.grid[-1], getattr(run, x), run.returns) for run in group.runs])


def frames_to_score(runs: Iterable[Run], score: float) -> tuple[float, int]:
  """Returns the median frames to reach a mean return of `score`, and how many runs reach it.

  A run that does not reach it counts as infinity.
  """
  first = [min(run.frames[run.returns >= score], default=np.inf) for run in runs]
  return float(np.median(first)), int(np.isfinite(first).sum())


def interquartile_mean(
  scores_by_game: Sequence[np.ndarray], bootstraps: int = _BOOTSTRAPS, seed: int = 0
) -> tuple[float, float, float]:
  """Returns the interquartile mean over all runs and games, and its 95% interval.

  Args:
    scores_by_game: float array [runs] for each game.
    bootstraps: number of bootstrap samples.
    seed: random seed of the samples.

  Returns:
    The mean of the middle half, and the lower and upper end of the interval.
  """
  mean, low, high = interquartile_means(
    [scores[:, None] for scores in scores_by_game], bootstraps, seed
  )
  return float(mean[0]), float(low[0]), float(high[0])


def interquartile_means(
  curves_by_game: Sequence[np.ndarray], bootstraps: int = _BOOTSTRAPS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the interquartile mean over all runs and games at each point, and its 95% interval.

  The interval is a stratified bootstrap as in Agarwal et al. 2021 (arXiv 2108.13264): a sample
  draws the runs of each game with replacement, the same runs at all points.

  Args:
    curves_by_game: float array [runs, points] for each game.
    bootstraps: number of bootstrap samples.
    seed: random seed of the samples.

  Returns:
    Float arrays [points]: the mean of the middle half, and the lower and upper end of the interval.
  """
  rng = np.random.default_rng(seed)
  samples = [
    curves[rng.integers(len(curves), size=(bootstraps, len(curves)))] for curves in curves_by_game
  ]
  means = stats.trim_mean(np.concatenate(samples, axis=1), 0.25, axis=1)
  low, high = np.percentile(means, [2.5, 97.5], axis=0)
  return np.asarray(stats.trim_mean(np.concatenate(curves_by_game), 0.25, axis=0)), low, high
