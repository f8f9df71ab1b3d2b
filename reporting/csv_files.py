"""The CSV files of a run: written row by row, mended after a kill, read without what is void."""

import csv
import math
import os


class CsvFile:
  """A CSV file that later starts of the run append to. Each row is on disk when `write` returns."""

  def __init__(self, path, columns):
    self._columns = columns
    _repair_last_line(path)
    header = _read_header(path)
    if header and header == list(columns[: len(header)]) != list(columns):
      header = _add_columns(path, columns)
    if header and header != list(columns):
      raise ValueError(
        f'{path} has the columns {",".join(header)}, but this version writes '
        f'{",".join(columns)}: move the file away or choose another --logdir.'
      )
    self._file = open(path, 'a', newline='', encoding='utf-8')
    self._writer = csv.writer(self._file, lineterminator='\n')
    if not header:
      self._writer.writerow(columns)
      self._file.flush()

  def write(self, rows):
    """Appends rows, dicts that have at least the columns."""
    self._writer.writerows([[_cell(row[name], name) for name in self._columns] for row in rows])
    self._file.flush()

  def close(self):
    """Closes the file."""
    self._file.close()


def _repair_last_line(path):
  """Cuts off the half line that a killed process may have left behind."""
  if os.path.exists(path):
    with open(path, 'rb+') as file:
      file.truncate(file.read().rfind(b'\n') + 1)


def _add_columns(path, columns):
  """Gives a file of an earlier version, which had fewer columns, empty cells in the new ones."""
  with open(path, newline='', encoding='utf-8') as file:
    rows = list(csv.reader(file))[1:]
  with open(path + '.new', 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows([*row, *[''] * (len(columns) - len(row))] for row in rows)
  os.replace(path + '.new', path)
  return list(columns)


def _read_header(path):
  if not os.path.exists(path):
    return []
  with open(path, newline='', encoding='utf-8') as file:
    return next(csv.reader(file), [])


def _cell(value, name):
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:.3f}' if name == 'time' else f'{value:.8g}'
  return value


def read_csv(path):
  """Rows of a run's CSV file as dicts of strings, those before a step back in frames dropped."""
  try:
    with open(path, newline='', encoding='utf-8') as file:
      rows = list(csv.DictReader(file))
  except FileNotFoundError:
    raise ValueError(f'{path} does not exist: nothing to plot.') from None
  kept, limit = [], math.inf
  for row in reversed(rows):
    frames = float(row['environment_frames'] or 'nan')
    if frames <= limit and None not in row.values():  # A short row is being written right now.
      kept.append(row)
      limit = frames
  return kept[::-1]


def read_games(logdir):
  """Rows of a run's episodes.csv, as `read_csv` gives them; none where it is missing."""
  path = os.path.join(logdir, 'episodes.csv')
  return read_csv(path) if os.path.exists(path) else []


def read_evaluations(logdir):
  """Rows of a run's evaluations.csv, as `read_csv` gives them; none where it is missing."""
  path = os.path.join(logdir, 'evaluations.csv')
  return read_csv(path) if os.path.exists(path) else []


def last_returns(logdir, environment_frames, window=100):
  """Raw returns of the last games in a run's episodes.csv, so that a resumed run goes on from them.

  Args:
    logdir: the run's folder; without an episodes.csv there were no games.
    environment_frames: where the run resumes, int; games of frames that were lost do not count.
    window: how many at most.

  Returns:
    A list of floats, the latest last.
  """
  return [
    float(game['episode_return'])
    for game in read_games(logdir)
    if int(game['environment_frames']) <= environment_frames
  ][-window:]
