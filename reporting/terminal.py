"""Shows a live line about a run on the terminal, with messages above it."""

import errno
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from common import texts

# Errors that cost a line but not the stream: a full disk, for example, may have room again.
_TRANSIENT = (
  errno.EAGAIN, errno.EINTR, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE,
)  # fmt: skip
_LINE_SECS = 30.0  # Between two lines if the stream is no terminal.


def live_line(row: Mapping[str, Any], total_frames: int, speed: float, short: bool) -> str:
  """Returns one line about a row; figures that are not known yet are left out.

  Args:
    row: row from `RunStatistics.row`.
    total_frames: environment frames at which the run ends.
    speed: frames/s for computing the time left; 0 = unknown.
    short: whether to abbreviate, for a narrow terminal.
  """
  frames = row['environment_frames']
  rate, lag, loss = row['frames_per_sec'], row['policy_lag_mean'], row['total_loss']
  game_return, depth = row['mean_return_100'], row.get('queue_depth')
  parts = [
    f'{_count(frames)}/{_count(total_frames)}' + ('' if short else ' frames'),
    f'{rate:.0f}/s' if short else f'{rate:.0f} frames/s',
  ]
  if row.get('no_answer'):
    parts.append(f'no answer: {row["no_answer"]}')
  if speed > 0 and frames < total_frames:
    parts.append(f'{_duration((total_frames - frames) / speed)} left')
  score, capped = row.get('mean_score'), row.get('mean_capped_score')
  if score is not None and capped is not None:  # Of several levels.
    words = f'score {score:.0%}', f'capped {capped:.0%}'
    parts.append('S {}/{}'.format(*(w.split()[1] for w in words)) if short else ' '.join(words))
  elif game_return is not None:
    parts.append(f'R {game_return:.3g}' if short else f'return(100) {game_return:.3g}')
  if loss is not None:
    parts.append(f'loss {loss:.3g}')
  if lag is not None:  # One lag for each pass over a batch.
    lags = row['policy_lag_by_pass'].values() or [lag]
    parts.append('lag ' + '/'.join(f'{each:.3g}' for each in lags))
  if depth is not None and not short:
    parts.append(f'queue {depth}')
  waits = [
    (name[0].upper() + share if short else f'{name} {share}')
    for name, share in (
      ('learner', _percent(row['learner_wait_fraction'])),
      ('actors', _percent(row['actor_wait_fraction'])),
    )
    if share
  ]
  if waits:
    parts.append(('wait ' if short else 'waits: ') + ' '.join(waits))
  return '  '.join(parts)


def _percent(fraction: float | None) -> str:
  return '' if fraction is None else f'{fraction:.0%}'


def _count(number: int) -> str:
  """12300000 -> '12.3M'."""
  for size, unit in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if number >= size:
      return f'{number / size:.1f}{unit}'
  return str(number)


def _duration(secs: float) -> str:
  """3900 -> '1h05m'."""
  return texts.duration(secs, separator='')


class Terminal:
  """One line that is rewritten on a terminal; every 30 s a new line on any other stream.

  A closed or broken stream is dropped silently, so that training continues.

  Args:
    stream: text stream, or None.
  """

  def __init__(self, stream: TextIO | None):
    self._stream = stream
    is_terminal = stream is not None and _true(stream.isatty)
    self._live = is_terminal and os.environ.get('TERM') != 'dumb'
    self._live_shown = False
    self._pending: str | None = None  # The latest line not shown yet, off a terminal.
    self._next_line = -math.inf

  def show(self, line: str, short_line: str) -> None:
    """Shows the state of the run; the short line if the terminal is too narrow for the other."""
    if self._live:
      width = _width(self._stream) - 1
      self._put('\r' + (line if len(line) <= width else short_line[:width]) + '\x1b[K')
      self._live_shown = True
    elif time.monotonic() >= self._next_line:
      self._next_line = time.monotonic() + _LINE_SECS
      self._pending = None
      self._put(line + '\n')
    else:
      self._pending = line

  def print(self, text: str) -> None:
    """Prints a line that stays, above the live line."""
    self._put(('\r\x1b[K' if self._live_shown else '') + text + '\n')
    self._live_shown = False

  def finish(self) -> None:
    """Ends the live line; off a terminal, prints the latest line if it was not shown yet."""
    if self._live_shown:
      self._put('\n')
    elif self._pending is not None:
      self._put(self._pending + '\n')
    self._live_shown, self._pending = False, None

  def _put(self, text: str) -> None:
    if self._stream is None:
      return
    encoding = getattr(self._stream, 'encoding', None) or 'utf-8'
    try:
      self._stream.write(text.encode(encoding, 'replace').decode(encoding))
      self._stream.flush()
    except (OSError, ValueError) as error:  # ValueError: the stream was closed.
      if isinstance(error, OSError) and error.errno in _TRANSIENT:
        return
      _discard_buffered(self._stream)
      self._stream = None


def _true(method: Callable[[], bool]) -> bool:
  """Returns what a stream's method returns; False if the stream is closed."""
  try:
    return method()
  except (OSError, ValueError):
    return False


def _width(stream: TextIO | None) -> int:
  """Returns the columns of the terminal behind a stream; 80 if they are not known."""
  try:
    return os.get_terminal_size(stream.fileno()).columns or 80 if stream else 80
  except (OSError, ValueError, AttributeError):
    return 80


def _discard_buffered(stream: TextIO) -> None:
  """Discards standard output's buffer: flushing it to a broken pipe would exit with code 120."""
  if stream is sys.stdout and not stream.closed:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
