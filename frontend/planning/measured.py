"""The speeds of an actor and a learner, from the records of a run in one process."""

import csv
import json
import os
import statistics
from typing import Any

from frontend.errors import UserError

_COLUMNS = ('time', 'updates', 'frames_per_sec', 'learner_wait_fraction', 'actor_wait_fraction')
_FEWEST_ROWS = 4
# A part that waits for more of its time does too little to tell its speed.
_MOST_WAITING = 0.98


def speeds(folder: str) -> dict[str, float]:
  """Returns speeds by the flags of `plan`: {'actor_frames_per_sec': ..., 'update_secs': ...}.

  Medians over the second half of metrics.csv of what each part would do without waiting for the
  other. A part that only waited is left out.

  Args:
    folder: folder of a run that trained in one process.

  Raises:
    UserError: it is no such folder.
  """
  flag = f'--speeds_from={folder}'
  if _recorded_flags(flag, folder).get('job_name'):
    raise UserError(
      f'{flag} is the run of a cluster, whose updates hold the exchange with parameter servers as '
      'well: name a run in one process (experiment.py without hosts)'
    )
  rows = _rows(flag, folder)
  actors, updates = [], []
  for before, row in zip(rows, rows[1:], strict=False):
    acting, learning = (1 - row[f'{who}_wait_fraction'] for who in ('actor', 'learner'))
    made, secs = row['updates'] - before['updates'], row['time'] - before['time']
    if acting > 1 - _MOST_WAITING:
      actors.append(row['frames_per_sec'] / acting)
    if learning > 1 - _MOST_WAITING and made > 0 and secs > 0:
      updates.append(learning * secs / made)
  found = {'actor_frames_per_sec': actors, 'update_secs': updates}
  return {name: statistics.median(values) for name, values in found.items() if values}


def _recorded_flags(flag: str, folder: str) -> dict[str, Any]:
  try:
    with open(os.path.join(folder, 'run.json'), encoding='utf-8') as file:
      return json.load(file)['flags']
  except (OSError, ValueError, KeyError, TypeError):
    raise UserError(f'{flag}: there is no run.json of a run in this folder') from None


def _rows(flag: str, folder: str) -> list[dict[str, float]]:
  """The second half of metrics.csv."""
  try:
    with open(os.path.join(folder, 'metrics.csv'), encoding='utf-8', newline='') as file:
      lines = list(csv.DictReader(file))
  except OSError as e:
    raise UserError(f'{flag}: metrics.csv cannot be read: {e.strerror}') from None
  rows = []
  for line in lines[len(lines) // 2 :]:
    try:
      rows.append({name: float(line[name]) for name in _COLUMNS})
    except (KeyError, TypeError, ValueError):  # A line that the run is writing.
      continue
  if len(rows) < _FEWEST_ROWS:
    raise UserError(
      f'{flag}: its metrics.csv has {len(lines)} rows, too few to tell how fast it is: at least '
      f'{2 * _FEWEST_ROWS}, one every --metrics_secs'
    )
  return rows
