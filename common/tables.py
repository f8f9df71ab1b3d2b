"""Rows of strings become a table for the terminal, seconds words, numbers a line of bars."""

# From low to high, and where the terminal has no such letters.
BARS = '▁▂▃▄▅▆▇█'
PLAIN_BARS = '_.-=+*#@'


def layout(rows):
  """Rows of strings as text in columns."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def duration(secs):
  """`9s`, `3m 07s`, `2h 05m`, `3d 02h`; `-` for None."""
  if secs is None:
    return '-'
  secs = int(secs)
  if secs < 60:
    return f'{secs}s'
  if secs < 3600:
    return f'{secs // 60}m {secs % 60:02d}s'
  if secs < 86400:
    return f'{secs // 3600}h {secs // 60 % 60:02d}m'
  return f'{secs // 86400}d {secs // 3600 % 24:02d}h'


def spark(values, encoding):
  """Numbers as one letter each, from the least of them to the greatest.

  Args:
    values: list of at least one finite float.
    encoding: of the terminal; None for UTF-8.
  """
  try:
    BARS.encode(encoding or 'utf-8')
    bars = BARS
  except UnicodeEncodeError:
    bars = PLAIN_BARS
  low, high = min(values), max(values)
  steps = (len(bars) - 1) / (high - low) if high > low else 0
  return ''.join(bars[round((value - low) * steps)] for value in values)
