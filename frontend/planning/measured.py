"""How fast an actor and a learner are, from the records of a run in one process."""

import csv
import json
import os
import statistics

_COLUMNS = ('time', 'updates', 'frames_per_sec', 'learner_wait_fraction', 'actor_wait_fraction')
_FEWEST_ROWS = 4
_NEVER = 0.98  # Who waits for more of its time says nothing of how fast it is.


def speeds(folder):
  """Speeds as flags of `plan` give them: {'actor_frames_per_sec': .., 'update_secs': ..}.

  Medians over the second half of metrics.csv, of what each would do if it never waited for the
  other. One that hardly did anything but wait is left out.

  Args:
    folder: of a run that trained in one process.

  Raises:
    ValueError: it is no such folder, in one sentence.
  """
  asked = f'--speeds_from={folder}'
  if _recorded_flags(asked, folder).get('job_name'):
    raise ValueError(
      f'{asked} is the run of a cluster, whose updates hold the exchange with parameter servers as '
      'well: name a run in one process (experiment.py without hosts)'
    )
  rows = _rows(asked, folder)
  actors, updates = [], []
  for before, row in zip(rows, rows[1:], strict=False):
    acting, learning = (1 - row[f'{who}_wait_fraction'] for who in ('actor', 'learner'))
    made, secs = row['updates'] - before['updates'], row['time'] - before['time']
    if acting > 1 - _NEVER:
      actors.append(row['frames_per_sec'] / acting)
    if learning > 1 - _NEVER and made > 0 and secs > 0:
      updates.append(learning * secs / made)
  found = {'actor_frames_per_sec': actors, 'update_secs': updates}
  return {name: statistics.median(values) for name, values in found.items() if values}


def _recorded_flags(asked, folder):
  try:
    with open(os.path.join(folder, 'run.json'), encoding='utf-8') as file:
      return json.load(file)['flags']
  except (OSError, ValueError, KeyError, TypeError):
    raise ValueError(f'{asked}: there is no run.json of a run in this folder') from None


def _rows(asked, folder):
  """The second half of metrics.csv, as dicts of numbers."""
  try:
    with open(os.path.join(folder, 'metrics.csv'), encoding='utf-8', newline='') as file:
      lines = list(csv.DictReader(file))
  except OSError as e:
    raise ValueError(f'{asked}: metrics.csv cannot be read: {e.strerror}') from None
  rows = []
  for line in lines[len(lines) // 2 :]:
    try:
      rows.append({name: float(line[name]) for name in _COLUMNS})
    except (KeyError, TypeError, ValueError):  # Half a line, of a run that trains.
      continue
  if len(rows) < _FEWEST_ROWS:
    raise ValueError(
      f'{asked}: its metrics.csv has {len(lines)} rows, too few to tell how fast it is: at least '
      f'{2 * _FEWEST_ROWS}, one every --metrics_secs'
    )
  return rows
