"""Finds the runs below a folder, and the settings in which they differ."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import config
from reporting.runs import Run
from runtime.process import BadInput

# Two runs of one setting may differ in these.
REPETITION = config.NOT_OF_THE_POLICY | {'seed', 'code_version'}


def runs_below(folder: str) -> list[str]:
  """Returns the folders of runs in a folder; an empty list if it is a run itself, or has none.

  They are in the order of their names, numbers by value.
  """
  if os.path.lexists(os.path.join(folder, 'run.json')) or not os.path.isdir(folder):
    return []
  try:
    names = sorted(os.listdir(folder), key=_by_numbers)
  except OSError as e:
    raise BadInput(f'{folder} cannot be read: {e.strerror}.') from None
  paths = [os.path.join(folder, name) for name in names]
  return [path for path in paths if os.path.lexists(os.path.join(path, 'run.json'))]


def _by_numbers(name: str) -> list[tuple[int, float, str]]:
  """Returns a key for which seed=2 comes before seed=10, and 1e-4 before 3e-4."""
  parts = re.split(r'(\d+(?:\.\d+)?(?:e-?\d+)?)', name)
  return [(1, float(part), '') if i % 2 else (0, 0.0, part) for i, part in enumerate(parts)]


def differing(runs: Sequence[Run]) -> list[str]:
  """Returns the settings in which runs differ, apart from the seed.

  Settings that follow from others are left out: with `batch_size`, the capacity of the queue
  differs, too. A setting that a run does not record has its default there.
  """
  names = [name for name in config.SETTINGS if name not in REPETITION]
  names = [name for name in names if len({_value(run, name) for run in runs}) > 1]
  chosen = [name for name in names if not config.SETTINGS[name].fits]
  for name in names:
    if name not in chosen and not _follows(name, chosen, runs):
      chosen.append(name)
  return sorted(chosen, key=names.index)


def _value(run: Run, name: str) -> str:
  return repr(run.options.get(name, config.SETTINGS[name].default))


def _follows(name: str, others: Iterable[str], runs: Iterable[Run]) -> bool:
  """Returns whether runs with equal `others` have equal values of `name`."""
  seen: dict[Any, str] = {}
  for run in runs:
    key = tuple(_value(run, other) for other in others)
    if seen.setdefault(key, _value(run, name)) != _value(run, name):
      return False
  return True


def by_folder(runs: Iterable[Run], below: Mapping[str, Sequence[str]]) -> dict[str, list[Run]]:
  """Returns the runs of each folder with runs; 'runs' has those in none.

  Args:
    runs: all runs.
    below: folders of the runs in each folder that was given.
  """
  folder_of = {run: folder for folder, some in below.items() for run in some}
  found: dict[str, list[Run]] = {}
  for run in runs:
    found.setdefault(folder_of.get(run.folder, 'runs'), []).append(run)
  return found
