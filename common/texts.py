"""Text for users: printable text, tables, durations, bars, "did you mean".

Text from hosts, file names or error messages may contain terminal escape sequences or marks that
reverse the writing direction. All text from hosts goes through `printable` before it is shown: in
errors (frontend/errors.py) and in `Console.say` (frontend/console.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# From low to high; PLAIN_BARS is for terminals that cannot show BARS.
BARS = '▁▂▃▄▅▆▇█'
PLAIN_BARS = '_.-=+*#@'


def printable(text: object) -> str:
  """Returns `str(text)` as one line of printable characters; tabs and newlines become spaces."""
  return ''.join(
    letter if letter.isprintable() else ' ' if letter in '\t\r\n' else '' for letter in str(text)
  )


def printable_lines(text: object) -> str:
  """Returns `str(text)` like `printable`, but keeps its lines."""
  return '\n'.join(map(printable, str(text).split('\n')))


def did_you_mean(
  word: str, known: Iterable[str], form: str = '{}', count: int = 1, cutoff: float = 0.6
) -> str:
  """Returns a question such as 'did you mean --logdir?', or '' if no known word is similar.

  Args:
    word: the unknown word.
    known: all known words.
    form: how a word is shown, for example '--{}'.
    count: how many words are suggested at most.
    cutoff: similarity from 0 (any word is suggested) to 1 (only the word itself).
  """
  close = closest(word, known, count, cutoff)
  return f'did you mean {" or ".join(map(form.format, close))}?' if close else ''


def closest(word: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
  """Returns the known words that are most similar to `word`; see `did_you_mean`."""
  return difflib.get_close_matches(word, list(known), count, cutoff)


def layout(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows of strings as lines with aligned columns."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def duration(secs: float | None, separator: str = ' ') -> str:
  """Returns seconds as `9s`, `3m 07s`, `2h 05m` or `3d 02h`; `-` for None."""
  if secs is None:
    return '-'
  secs = int(secs)
  for size, unit, part, part_unit in (
    (86400, 'd', 3600, 'h'),
    (3600, 'h', 60, 'm'),
    (60, 'm', 1, 's'),
  ):
    if secs >= size:
      return f'{secs // size}{unit}{separator}{secs % size // part:02d}{part_unit}'
  return f'{secs}s'


def spark(values: Sequence[float], encoding: str | None) -> str:
  """Returns a line of bars, one character per number.

  Args:
    values: at least one finite number.
    encoding: encoding of the terminal; None for UTF-8.
  """
  try:
    BARS.encode(encoding or 'utf-8')
    bars = BARS
  except UnicodeEncodeError:
    bars = PLAIN_BARS
  low, high = min(values), max(values)
  steps = (len(bars) - 1) / (high - low) if high > low else 0
  return ''.join(bars[round((value - low) * steps)] for value in values)
