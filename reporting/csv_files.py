"""The CSV files of a run: written row by row, mended after a kill, read without what is void.

None is read whole into memory: they grow for as long as a run trains.
"""

import contextlib
import csv
import io
import math
import os
import random
import stat

from common import files

# Of what is read for a picture or a table: so many rows, drawn evenly, out of so many bytes.
MOST_ROWS = 100_000
MOST_BYTES = 64 << 20
_BLOCK = 1 << 16
# Games of a few steps come by the hundred a second. All are written until their file has so many
# bytes; then a half of them, and from each further step on half as many as before.
ALL_GAMES_BYTES, STEP_BYTES = 8 << 20, 4 << 20
_LEAST_SHARE = 2.0**-12


class CsvFile:
  """A CSV file that later starts of the run append to. Each row is on disk when `write` returns.

  Raises:
    ValueError: it is there already, with other columns.
  """

  def __init__(self, path, columns):
    self._path, self._columns = path, columns
    self._file, self._is_prepared = files.AppendOnlyFile(path), False
    with contextlib.suppress(OSError):  # Then with the first rows.
      self._prepare()

  def _prepare(self):
    """Mends what is there, and writes the header where there is none."""
    _repair_last_line(self._path)
    columns, header = self._columns, _read_header(self._path)
    if header and header == list(columns[: len(header)]) != list(columns):
      header = _add_columns(self._path, columns)
    if header and header != list(columns):
      raise ValueError(
        f'{self._path} has the columns {",".join(header)}, but this version writes '
        f'{",".join(columns)}: move the file away or choose another --logdir.'
      )
    if not header:
      self._file.append(_as_text([columns]).encode())
    self._file.open()
    self._is_prepared = True

  @property
  def size(self):
    """Bytes of the file so far, int; 0 where it could not be opened."""
    return self._file.size or 0

  def write(self, rows):
    """Appends rows, dicts that have at least the columns; all of them or none.

    Raises:
      OSError: they cannot be written.
    """
    if not self._is_prepared:
      self._prepare()
    cells = [[_cell(row[name], name) for name in self._columns] for row in rows]
    self._file.append(_as_text(cells).encode())

  def close(self):
    """Closes the file."""
    self._file.close()


def share_of_games(size):
  """How many of the games are written to an episodes.csv of so many bytes: a share in (0, 1].

  The file so grows with the logarithm of the number of games; what stands in it is drawn evenly.
  """
  steps = max(0, math.ceil((size - ALL_GAMES_BYTES) / STEP_BYTES))
  return max(_LEAST_SHARE, 2.0 ** -min(steps, 1000))


def _as_text(rows):
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows(rows)
  return text.getvalue()


def _repair_last_line(path):
  """Cuts off the half line that a killed process may have left behind."""
  try:
    file = open(path, 'rb+', opener=files.nofollow_opener)
  except FileNotFoundError:
    return
  with file:
    status = os.fstat(file.fileno())
    end = status.st_size if stat.S_ISREG(status.st_mode) else 0
    while end:
      begin = max(0, end - _BLOCK)
      file.seek(begin)
      newline = file.read(end - begin).rfind(b'\n')
      end = begin + newline + 1 if newline >= 0 else begin
      if newline >= 0:
        break
    if end < status.st_size:
      file.truncate(end)


def _add_columns(path, columns):
  """Gives a file of an earlier version, which had fewer columns, empty cells in the new ones."""
  new = files.temporary_path(path)
  try:
    with (
      open(path, newline='', encoding='utf-8') as old,
      open(new, 'x', newline='', encoding='utf-8') as file,
    ):
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(columns)
      reader = csv.reader(old)
      next(reader)
      writer.writerows([*row, *[''] * (len(columns) - len(row))] for row in reader)
    os.replace(new, path)
  finally:
    with contextlib.suppress(OSError):
      os.remove(new)
  return list(columns)


def _read_header(path):
  try:
    with open(path, 'rb') as file:
      return next(csv.reader([_decoded(file.readline(_BLOCK))]), [])
  except FileNotFoundError:
    return []


def _cell(value, name):
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:.3f}' if name == 'time' else f'{value:.8g}'
  return value


def read_csv(path):
  """Rows of a run's CSV file as dicts of strings, those before a step back in frames dropped.

  Of more than MOST_ROWS a part is drawn, evenly; the last row is always there.
  """
  drawn, share, kept = random.Random(0), 1.0, []  # Of (frames, row, its number in [0, 1)).
  for row in csv.DictReader(_lines(path)):
    frames = float(row['environment_frames'] or 'nan')
    if None in row.values() or math.isnan(frames):  # A short row is being written right now.
      continue
    while kept and kept[-1][0] > frames:
      kept.pop()
    if kept and kept[-1][2] >= share:  # It only was there as the last.
      kept.pop()
    kept.append((frames, row, drawn.random()))
    if len(kept) > MOST_ROWS:
      share /= 2
      kept = [one for one in kept[:-1] if one[2] < share] + kept[-1:]
  return [row for _, row, _ in kept]


def _lines(path):
  """The lines of a file; of a very long one the header, and whole lines out of even parts of it."""
  try:
    file = open(path, 'rb')
  except FileNotFoundError:
    raise ValueError(f'{path} does not exist: nothing to plot.') from None
  with file:
    size = os.fstat(file.fileno()).st_size
    if size <= MOST_BYTES:
      yield from map(_decoded, file)
      return
    yield _decoded(file.readline(_BLOCK))
    parts = MOST_BYTES // _BLOCK
    for number in range(parts):
      end = size * (number + 1) // parts
      file.seek(end - _BLOCK)
      file.readline(_BLOCK)  # The rest of a line.
      while file.tell() < end and (line := file.readline(_BLOCK)):
        yield _decoded(line)


def _decoded(line):
  return line.decode('utf-8', 'replace').replace('\0', '')


def _lines_backwards(path):
  """The whole lines of a file, the last first; none where it is missing."""
  try:
    file = open(path, 'rb')
  except FileNotFoundError:
    return
  with file:
    begin, rest, is_last = os.fstat(file.fileno()).st_size, b'', True
    while begin:
      end, begin = begin, max(0, begin - _BLOCK)
      file.seek(begin)
      rest, *lines = (file.read(end - begin) + rest).split(b'\n')
      if lines and is_last:
        lines.pop()  # What comes after the last line is being written right now.
        is_last = False
      yield from map(_decoded, reversed(lines))
      rest = rest[:_BLOCK]  # No line is that long: a power cut leaves zeros.
    if not is_last:
      yield _decoded(rest)


def read_games(logdir):
  """Rows of a run's episodes.csv, as `read_csv` gives them; none where it is missing."""
  return _read_if_there(os.path.join(logdir, 'episodes.csv'))


def read_evaluations(logdir):
  """Rows of a run's evaluations.csv, as `read_csv` gives them; none where it is missing."""
  return _read_if_there(os.path.join(logdir, 'evaluations.csv'))


def _read_if_there(path):
  return read_csv(path) if os.path.exists(path) else []


def last_returns(logdir, environment_frames, window=100):
  """Raw returns of the last games in a run's episodes.csv, so that a resumed run goes on from them.

  The file is read from its end, and no further than is needed.

  Args:
    logdir: the run's folder; without an episodes.csv there were no games.
    environment_frames: where the run resumes, int; games of frames that were lost do not count.
    window: how many at most.

  Returns:
    A list of floats, the latest last.
  """
  path = os.path.join(logdir, 'episodes.csv')
  header, returns, limit = _read_header(path), [], environment_frames
  for line in _lines_backwards(path):
    cells = next(csv.reader([line]), [])
    if len(cells) != len(header) or cells == header:
      continue
    row = dict(zip(header, cells, strict=True))
    frames = float(row['environment_frames'] or 'nan')
    if frames <= limit:
      limit = frames
      returns.append(float(row['episode_return']))
    if len(returns) == window:
      break
  return returns[::-1]
