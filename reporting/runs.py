"""Reads finished or running runs from their folders, for comparisons."""

import csv
import datetime
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

import config
from reporting import csv_files
from runtime.process import BadInput


class Run(NamedTuple):
  """What the files of a run record.

  Attributes:
    folder: str, as given.
    options: dict, flags of its run.json, overridden by its settings.
    frames: float array [rows], environment frames of the rows of metrics.csv with a mean return.
    hours: float array [rows], hours of training so far, without the breaks between two starts.
    returns: float array [rows], mean return of the last 100 games.
    frames_per_sec: float, median over the rows of metrics.csv; nan if none has it.
  """

  folder: str
  options: dict[str, Any]
  frames: np.ndarray
  hours: np.ndarray
  returns: np.ndarray
  frames_per_sec: float


def read_runs(
  folders: Iterable[str], log: Callable[[str], None] = lambda sentence: None
) -> list[Run]:
  """Returns the runs in the folders that can be read.

  Args:
    folders: folders of runs.
    log: called with a sentence for each folder that is left out.

  Raises:
    BadInput: a folder is given twice, or none can be read.
  """
  runs: list[Run] = []
  left_out: list[str] = []
  seen: dict[str, str] = {}
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
    log(f'left out: {sentence}')
  return runs


def _read_run(folder: str) -> Run:
  """Returns the run in a folder; raises BadInput if it cannot be read."""
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
    config.up_to_date({**record['flags'], **record.get('settings', {})}),
    frames[known],
    hours[known],
    returns[known],
    float(np.median(speeds)) if speeds.size else np.nan,
  )


def _read_record(folder: str) -> dict[str, Any]:
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
  if not (
    isinstance(record, dict)
    and isinstance(record.get('flags'), dict)
    and isinstance(record.get('settings', {}), dict)
  ):
    raise BadInput(f'{path} cannot be read: it is no run.json that experiment.py wrote.')
  return record


def _starts(record: Mapping[str, Any]) -> list[float]:
  """Returns the times of all starts of a run, in seconds since 1970."""
  started = [start.get('started') for start in [*record.get('starts', []), record]]
  return [datetime.datetime.fromisoformat(text).timestamp() for text in started if text]


def _training_hours(times: np.ndarray, starts: list[float]) -> np.ndarray:
  """Returns the hours of training at each of `times`, without the breaks before each start."""
  events = sorted([(start, -1) for start in starts] + [(t, i) for i, t in enumerate(times)])
  hours, passed, before = np.zeros(len(times)), 0.0, None
  for now, row in events:
    if row >= 0:
      passed += now - before if before is not None else 0.0
      hours[row] = passed / 3600
    before = now
  return hours
