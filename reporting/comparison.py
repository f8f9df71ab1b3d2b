"""Compares runs: groups over seeds, their mean and spread, and the IQM over games."""

import json
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


class Group(NamedTuple):
  """Runs with equal values of the --by settings, on a common grid.

  Attributes:
    label: str, 'name=value' of these settings.
    runs: the runs; returns are human-normalised if `Comparison.normalised`.
    grid: float array [points], frames or hours, from the latest first row of a run to the earliest
      last row.
    mean: float array [points], mean return over the runs.
    spread: float array [points], its standard deviation (n - 1); nan for a single run.
  """

  label: str
  runs: list[Run]
  grid: np.ndarray
  mean: np.ndarray
  spread: np.ndarray


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
  runs: Sequence[Run], by: Sequence[str], x: str = 'frames', score: float | None = None
) -> Comparison:
  """Groups runs by settings and interpolates each group on a common grid.

  Args:
    runs: runs from `runs.read_runs`.
    by: names of settings or flags.
    x: 'frames' or 'hours'.
    score: mean return for which to report the frames needed, or None.

  Raises:
    BadInput: no run has a setting of `by`, a group mixes levels without human scores, or the runs
      of a group have no frames (hours) in common.
  """
  known = {name for run in runs for name in run.options}
  for name in by:
    if name not in known:
      hint = texts.did_you_mean(name, known, count=3, cutoff=0.5) or 'run.json lists what there is.'
      raise BadInput(f'--by={name}: no run has such a setting or flag; {hint}')
  members: dict[str, list[Run]] = {}
  for run in runs:
    label = ' '.join(f'{name}={value_text(run.options.get(name, "not recorded"))}' for name in by)
    members.setdefault(label, []).append(run)
  normalised = any(len(levels(group)) > 1 for group in members.values())
  if normalised:
    members = {label: [_normalise(run) for run in group] for label, group in members.items()}
  groups = [_group(label, group, x) for label, group in members.items()]
  return Comparison(groups, by, x, score, normalised)


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

  The interval is a stratified bootstrap as in Agarwal et al. 2021 (arXiv 2108.13264): a sample
  draws the runs of each game with replacement.

  Args:
    scores_by_game: float array [runs] for each game.
    bootstraps: number of bootstrap samples.
    seed: random seed of the samples.

  Returns:
    The mean of the middle half, and the lower and upper end of the interval.
  """
  rng = np.random.default_rng(seed)
  samples = [rng.choice(values, (bootstraps, len(values))) for values in scores_by_game]
  means = np.asarray(stats.trim_mean(np.concatenate(samples, axis=1), 0.25, axis=1))
  low, high = np.percentile(means, [2.5, 97.5])
  mean = np.asarray(stats.trim_mean(np.concatenate(scores_by_game), 0.25))
  return float(mean), float(low), float(high)
