"""Runs compared: groups over seeds, their mean and spread, a table, IQM over games, a picture."""

import collections
import csv
import datetime
import io
import json
import os

import numpy as np
from scipy import stats

from common import files, texts
from reporting import csv_files, scores
from runtime.process import BadInput

FEW_RUNS = 5
_GRID_POINTS = 200
_ALIKE = 0.01  # Runs that end within this share of the shortest are of one length.
_BOOTSTRAPS = 2000
_FORMATS = ('jpg', 'pdf', 'png', 'svg')
# What may differ between runs of one group without a word: the seed, and where a run took place.
_NO_DIFFERENCE = {
  'seed', 'logdir', 'mode', 'task', 'job_name', 'state_dir', 'cluster', 'ps_hosts',
  'learner_hosts', 'actor_hosts', 'wait_secs', 'watchdog_secs', 'test_num_episodes',
  'save_checkpoint_secs', 'metrics_secs', 'code_version', 'eval_every_frames', 'eval_protocol',
}  # fmt: skip

Run = collections.namedtuple('Run', 'folder options frames hours returns frames_per_sec')
Run.__doc__ = """A run, as its files tell.

Attributes:
  folder: str, as given.
  options: dict, the flags of its run.json, and its settings over them.
  frames: float array [rows], environment frames of the rows of metrics.csv that know a return.
  hours: float array [rows], hours of training until then, without the breaks between two starts.
  returns: float array [rows], mean return of the last 100 games.
  frames_per_sec: float, median over the rows of metrics.csv; nan where none knows it.
"""

Group = collections.namedtuple('Group', 'label runs grid mean spread')
Group.__doc__ = """Runs that agree in the settings of --by, over a grid that all of them cover.

Attributes:
  label: str, 'name=value' of these settings.
  runs: list of `Run`; their returns are human-normalised where `Comparison.normalised`.
  grid: float array [points], frames or hours, from where the last run begins to where the first
    one ends.
  mean: float array [points], mean over the runs.
  spread: float array [points], their standard deviation (n - 1); nan for a single run.
"""

Comparison = collections.namedtuple('Comparison', 'groups by x score normalised')
Comparison.__doc__ = """What is to be shown.

Attributes:
  groups: list of `Group`.
  by: list of names of settings.
  x: 'frames' or 'hours'.
  score: float, a mean return to be reached, or None.
  normalised: bool, returns are human-normalised since a group holds several levels.
"""


# Reading.


def read_runs(folders, tell=lambda sentence: None):
  """`Run` of each folder that holds one which can be read.

  Args:
    folders: list of str.
    tell: function of a sentence, hears what is left out, and why.

  Raises:
    BadInput: a folder is given twice, or none can be read.
  """
  runs, left_out, seen = [], [], {}
  for folder in folders:
    real = os.path.realpath(folder)
    if os.path.abspath(folder) in map(os.path.abspath, seen.values()):
      raise BadInput(f'{folder} is given twice: each run counts once.')
    try:
      if real in seen:
        raise BadInput(f'{folder} is {seen[real]} under another name: each run counts once.')
      runs.append(_read_run(folder))
      seen[real] = folder
    except BadInput as e:
      left_out.append(str(e))
  if not runs:
    more = f' None of the other {len(left_out) - 1} can be read either.' if left_out[1:] else ''
    raise BadInput(left_out[0] + more)
  for sentence in left_out:
    tell(f'left out: {sentence}')
  return runs


def _read_run(folder):
  """The `Run` in a folder; BadInput where there is none that can be read."""
  record = _read_record(folder)
  path = os.path.join(folder, 'metrics.csv')
  if not os.path.isfile(path):
    raise BadInput(f'{path} does not exist: {folder} is no folder of a run that has trained.')
  try:
    rows = csv_files.read_csv(path)
    times, frames, returns, speeds = (
      np.array([float(row[name] or 'nan') for row in rows])
      for name in ('time', 'environment_frames', 'mean_return_100', 'frames_per_sec')
    )
    hours = _training_hours(times, _starts(record))
  except OSError as e:
    raise BadInput(f'{path} cannot be read: {e.strerror}.') from None
  except (AttributeError, KeyError, OverflowError, TypeError, ValueError, csv.Error) as e:
    raise BadInput(f'{path} is no metrics.csv that experiment.py wrote ({e!r}).') from None
  known = np.isfinite(returns) & np.isfinite(frames) & np.isfinite(hours)
  if not known.any():
    raise BadInput(f'{folder} has no games yet: no row of its metrics.csv has a mean return.')
  speeds = speeds[np.isfinite(speeds)]
  return Run(
    folder,
    {**record['flags'], **record.get('settings', {})},
    frames[known],
    hours[known],
    returns[known],
    float(np.median(speeds)) if speeds.size else np.nan,
  )


def _read_record(folder):
  path = os.path.join(folder, 'run.json')
  if not os.path.isfile(path):
    raise BadInput(f'{path} does not exist: {folder} is no folder of a run of experiment.py.')
  try:
    with open(path, encoding='utf-8') as file:
      record = json.load(file)
  except OSError as e:
    raise BadInput(f'{path} cannot be read: {e.strerror}.') from None
  except (ValueError, RecursionError):
    record = None
  parts = [record.get('flags'), record.get('settings', {})] if isinstance(record, dict) else [None]
  if not all(isinstance(part, dict) for part in parts):
    raise BadInput(f'{path} cannot be read: it is no run.json that experiment.py wrote.')
  return record


def _starts(record):
  """Seconds since 1970 of all starts of a run."""
  started = [start.get('started') for start in [*record.get('starts', []), record]]
  return [datetime.datetime.fromisoformat(text).timestamp() for text in started if text]


def _training_hours(times, starts):
  """Hours of training at each time; what passed between a row and the next start is a break."""
  events = sorted([(start, -1) for start in starts] + [(t, i) for i, t in enumerate(times)])
  hours, passed, before = np.zeros(len(times)), 0.0, None
  for now, row in events:
    if row >= 0:
      passed += now - before if before is not None else 0.0
      hours[row] = passed / 3600
    before = now
  return hours


# Comparing.


def compare(runs, by, x='frames', score=None):
  """Groups runs by settings and puts each group on a grid.

  Args:
    runs: list of `Run`.
    by: list of names of settings or flags.
    x: 'frames' or 'hours'.
    score: a mean return whose frames are wanted, or None.

  Returns:
    A `Comparison`.

  Raises:
    BadInput: no run knows a name of `by`, levels without human scores would be mixed, or the runs
      of a group have no frames (hours) in common.
  """
  known = {name for run in runs for name in run.options}
  for name in by:
    if name not in known:
      hint = texts.did_you_mean(name, known, count=3, cutoff=0.5) or 'run.json lists what there is.'
      raise BadInput(f'--by={name}: no run has such a setting or flag; {hint}')
  members = {}
  for run in runs:
    label = ' '.join(f'{name}={_text(run.options.get(name, "not recorded"))}' for name in by)
    members.setdefault(label, []).append(run)
  normalised = any(len(_levels(group)) > 1 for group in members.values())
  if normalised:
    members = {label: [_normalise(run) for run in group] for label, group in members.items()}
  groups = [_group(label, group, x) for label, group in members.items()]
  return Comparison(groups, by, x, score, normalised)


def _text(value):
  return value if isinstance(value, str) else json.dumps(value)


def _levels(runs):
  return list(dict.fromkeys(str(run.options.get('level_name')) for run in runs))


def _normalise(run):
  level = str(run.options.get('level_name'))
  if scores.human_normalised_score(level, 0.0) is None:
    raise BadInput(
      f'{run.folder}: {level} has no known human score, so it cannot be in one comparison with a '
      'group of several levels: add level_name to --by.'
    )
  returns = np.array([scores.human_normalised_score(level, value) for value in run.returns])
  return run._replace(returns=returns)


def _group(label, runs, x):
  begin = max(getattr(run, x)[0] for run in runs)
  end = min(getattr(run, x)[-1] for run in runs)
  if begin > end:
    raise BadInput(f'{label}: its runs have no {x} in common; compare them one by one.')
  grid = np.linspace(begin, end, _GRID_POINTS) if begin < end else np.array([end])
  curves = np.array([np.interp(grid, getattr(run, x), run.returns) for run in runs])
  spread = curves.std(axis=0, ddof=1) if len(runs) > 1 else np.full(len(grid), np.nan)
  return Group(label, runs, grid, curves.mean(axis=0), spread)


def final_returns(group, x='frames'):
  """Returns of a group's runs at the end of its grid, float array [runs]."""
  return np.array([np.interp(group.grid[-1], getattr(run, x), run.returns) for run in group.runs])


def frames_to_score(runs, score):
  """Median over runs of the frames until the mean return is `score`, and how many got there.

  A run that never gets there counts as infinitely many frames.
  """
  first = [min(run.frames[run.returns >= score], default=np.inf) for run in runs]
  return float(np.median(first)), int(np.isfinite(first).sum())


def interquartile_mean(scores_by_game, bootstraps=_BOOTSTRAPS, seed=0):
  """Interquartile mean over all runs and games, and its 95% stratified bootstrap interval.

  As in arXiv 2108.13264: a bootstrap sample draws the runs of each game anew, with replacement.

  Args:
    scores_by_game: list of float arrays [runs of that game].
    bootstraps: number of bootstrap samples.
    seed: of the samples.

  Returns:
    Floats: the mean of the middle half, lower and upper end of its interval.
  """
  rng = np.random.default_rng(seed)
  samples = [rng.choice(values, (bootstraps, len(values))) for values in scores_by_game]
  means = stats.trim_mean(np.concatenate(samples, axis=1), 0.25, axis=1)
  low, high = np.percentile(means, [2.5, 97.5])
  return float(stats.trim_mean(np.concatenate(scores_by_game), 0.25)), float(low), float(high)


# Showing.


def table(comparison):
  """The table for the terminal, str."""
  header = ['group', 'runs', 'at ' + comparison.x, 'final', 'best', 'frames/s']
  if comparison.score is not None:
    header.insert(5, f'frames to {comparison.score:g}')
  rows = [header] + [_row(group, comparison) for group in comparison.groups]
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(group, comparison):
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


def _amount(value, x):
  return f'{value:,.0f}' if x == 'frames' else f'{value:.3g}'


def remarks(comparison):
  """Sentences below the table: what is left out, IQM, few runs, settings that differ; of str."""
  told = ['Returns are human-normalised (0: random play, 1: a person).'] * comparison.normalised
  for group in comparison.groups:
    told += _cut_off(group, comparison.x)
    levels = _levels(group.runs)
    by_game = [
      final_returns(group, comparison.x)[
        [str(run.options.get('level_name')) == level for run in group.runs]
      ]
      for level in levels
    ]
    if len(levels) > 1:
      iqm, low, high = interquartile_mean(by_game)
      interval = (
        f'95% interval {low:.4g} to {high:.4g} (stratified bootstrap, {len(levels)} levels)'
      )
      if min(map(len, by_game)) < 2:
        interval = 'no interval: that takes two runs of each level'
      told.append(f'{group.label}: IQM {iqm:.4g}, {interval}.')
    fewest = min(map(len, by_game))
    if fewest < FEW_RUNS:
      of = ' of a level' if len(levels) > 1 else ''
      told.append(
        f'Warning: {group.label}: {fewest} run{"s" * (fewest != 1)}{of}; below {FEW_RUNS}, mean '
        'and spread say little (arXiv 2108.13264).'
      )
    told += [f'Warning: {group.label}: {text}' for text in _differences(group, comparison.by)]
  return told


def _cut_off(group, x):
  """One sentence where runs of a group go on beyond the end of its shortest; list of str."""
  ends = [getattr(run, x)[-1] for run in group.runs]
  first, last = min(ends), max(ends)
  if last <= first * (1 + _ALIKE):
    return []
  shortest, longest = (group.runs[ends.index(end)].folder for end in (first, last))
  return [
    f'{group.label}: cut off at {_amount(first, x)} {x}, the end of {shortest}; {longest} has '
    f'{_amount(last, x)}.'
  ]


def _differences(group, by):
  """'name differs: values' for each setting other than the seed in which runs of a group differ."""
  named = {name for run in group.runs for name in run.options} - _NO_DIFFERENCE - set(by)
  told = []
  for name in sorted(named):
    values = [_text(run.options[name]) for run in group.runs if name in run.options]
    values = list(dict.fromkeys(values))
    if len(values) > 1:
      told.append(f'{name} differs inside of the group: {", ".join(values)}.')
  return told


def check_out(path):
  """BadInput where no picture can be written to a path."""
  folder = os.path.dirname(path) or '.'
  if path.rpartition('.')[2].lower() not in _FORMATS:
    raise BadInput(f'--out={path}: the name of the picture has to end in .{", .".join(_FORMATS)}.')
  if not os.path.isdir(folder):
    raise BadInput(f'--out={path}: {folder} is no folder; make it first.')
  if os.path.isdir(path) or not os.access(folder, os.W_OK):
    raise BadInput(f'--out={path} cannot be written: choose another name.')


def plot(comparison, path):
  """Draws mean and spread of each group into a picture; a whole file or none. OSError as it is."""
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
