"""Writes the CSV files of a run row by row, repairs them after a kill, and reads them.

Rows that a restart from an earlier checkpoint made invalid are skipped. Files grow without limit,
so none is read into memory as a whole.
"""

import contextlib
import csv
import io
import math
import os
import random
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from common import files

# Limits of `read_csv`: rows returned, which are sampled evenly, and bytes read.
MOST_ROWS = 100_000
MOST_BYTES = 64 << 20
_BLOCK = 1 << 16
# Hundreds of short games may end per second. All are written until the file has ALL_GAMES_BYTES;
# then half of them, and the share halves again after every STEP_BYTES.
ALL_GAMES_BYTES, STEP_BYTES = 8 << 20, 4 << 20
_LEAST_SHARE = 2.0**-12


class CsvFile:
  """A CSV file to which later starts of the run append. Rows are on disk when `write` returns.

  Args:
    path: path of the file, which may already exist.
    columns: names in the header.

  Attributes:
    last_frames: environment frames of the last row that `cut` has left; 0 if there is none.

  Raises:
    ValueError: the file exists and has other columns.
  """

  def __init__(self, path: str, columns: Sequence[str]):
    self.last_frames = 0.0
    self._path, self._columns = path, columns
    self._file, self._is_prepared = files.AppendOnlyFile(path), False
    with contextlib.suppress(OSError):  # It is tried again with the first rows.
      self._prepare()

  def _prepare(self) -> None:
    """Repairs an existing file, or writes the header of a new one."""
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
  def size(self) -> int:
    """Bytes of the file so far; 0 if it could not be opened."""
    return self._file.size or 0

  def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows that have at least the file's columns; all of them or none.

    Raises:
      OSError: nothing was written.
      ValueError: the file could not be opened before, and has other columns.
    """
    if not self._is_prepared:
      self._prepare()
    cells = [[_cell(row[name], name) for name in self._columns] for row in rows]
    self._file.append(_as_text(cells).encode())

  def cut(self, environment_frames: float) -> None:
    """Removes all rows after the last one with at most so many environment_frames.

    Raises:
      OSError: the file cannot be read or changed.
      ValueError: it has other columns, or a row without frames.
    """
    if not self._is_prepared:
      self._prepare()
    column, end, self.last_frames = self._columns.index('environment_frames'), 0, 0.0
    with open(self._path, 'rb') as file:
      position = 0
      for number, line in enumerate(file):
        position += len(line)
        cells = next(csv.reader([_decoded(line)]), [])
        frames = float(cells[column]) if number else 0.0  # The header stays.
        if frames <= environment_frames:
          end, self.last_frames = position, frames
    self._file.cut(end)

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def share_of_games(size: int | float) -> float:
  """Returns the share of games, in (0, 1], that are written to an episodes.csv of `size` bytes.

  The file thus grows with the logarithm of the number of games.
  """
  steps = max(0, math.ceil((size - ALL_GAMES_BYTES) / STEP_BYTES))
  return max(_LEAST_SHARE, 2.0 ** -min(steps, 1000))


def _as_text(rows: Iterable[Iterable[Any]]) -> str:
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows(rows)
  return text.getvalue()


def _repair_last_line(path: str) -> None:
  """Cuts off the incomplete last line that a killed process may have left."""
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


def _add_columns(path: str, columns: Sequence[str]) -> list[str]:
  """Adds empty cells to a file of an earlier version with fewer columns; returns the header."""
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


def _read_header(path: str) -> list[str]:
  try:
    with open(path, 'rb') as file:
      return next(csv.reader([_decoded(file.readline(_BLOCK))]), [])
  except FileNotFoundError:
    return []


def _cell(value: Any, name: str) -> Any:
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:.3f}' if name == 'time' else f'{value:.8g}'
  return value


def read_csv(path: str) -> list[dict[str, str]]:
  """Returns the rows of a run's CSV file.

  A row is left out if a later row has fewer environment_frames: a restart from a checkpoint made
  it void. At most MOST_ROWS are returned, sampled evenly; the last row is always among them.

  Raises:
    ValueError: there is no such file.
    OSError: it cannot be read.
  """
  drawn, share = random.Random(0), 1.0
  kept: list[tuple[float, dict[str, str], float]] = []  # (frames, row, random number in [0, 1)).
  for row in csv.DictReader(_lines(path)):
    frames = float(row['environment_frames'] or 'nan')
    if None in row.values() or math.isnan(frames):  # A short row is still being written.
      continue
    while kept and kept[-1][0] > frames:
      kept.pop()
    if kept and kept[-1][2] >= share:  # It was kept only as the last row.
      kept.pop()
    kept.append((frames, row, drawn.random()))
    if len(kept) > MOST_ROWS:
      share /= 2
      kept = [one for one in kept[:-1] if one[2] < share] + kept[-1:]
  return [row for _, row, _ in kept]


def _lines(path: str) -> Iterator[str]:
  """Yields the lines of a file; of a long one the header, and whole lines at even distances."""
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
      file.readline(_BLOCK)  # Skips the rest of a line.
      while file.tell() < end and (line := file.readline(_BLOCK)):
        yield _decoded(line)


def _decoded(line: bytes) -> str:
  return line.decode('utf-8', 'replace').replace('\0', '')


def _lines_backwards(path: str) -> Iterator[str]:
  """Yields the complete lines of a file, the last first; none if there is no file."""
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
        lines.pop()  # What follows the last line break is still being written.
        is_last = False
      yield from map(_decoded, reversed(lines))
      rest = rest[:_BLOCK]  # Lines are shorter, but a power cut may leave a long run of zeros.
    if not is_last:
      yield _decoded(rest)


def read_games(logdir: str | os.PathLike[str]) -> list[dict[str, str]]:
  """Returns the rows of a run's episodes.csv as `read_csv` does; [] if there is no file."""
  return _read_if_there(os.path.join(logdir, 'episodes.csv'))


def read_evaluations(logdir: str | os.PathLike[str]) -> list[dict[str, str]]:
  """Returns the rows of a run's evaluations.csv as `read_csv` does; [] if there is no file."""
  return _read_if_there(os.path.join(logdir, 'evaluations.csv'))


def _read_if_there(path: str) -> list[dict[str, str]]:
  return read_csv(path) if os.path.exists(path) else []


def last_games(
  logdir: str | os.PathLike[str], environment_frames: int, window: int = 100
) -> list[tuple[str, float]]:
  """Returns level and raw return of the last games in a run's episodes.csv, the latest last.

  Args:
    logdir: the run's folder; [] if it has no episodes.csv.
    environment_frames: frames at which the run resumes; later games do not count.
    window: maximum number of games.
  """
  path = os.path.join(logdir, 'episodes.csv')
  header, games, limit = _read_header(path), [], environment_frames
  for line in _lines_backwards(path):
    cells = next(csv.reader([line]), [])
    if len(cells) != len(header) or cells == header:
      continue
    row = dict(zip(header, cells, strict=True))
    frames = float(row['environment_frames'] or 'nan')
    if frames <= limit:
      limit = frames
      games.append((row.get('level_name', ''), float(row['episode_return'])))
    if len(games) == window:
      break
  return games[::-1]
