"""Says which levels of a run get few frames or none, when that changes."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

_WINDOW_ROWS = 6  # One minute, by default.
_LEAST_PART = 0.25  # A level with less than this part of an even share starves.
_LASTING_ROWS = 3  # A change is reported after this many rows.


class LevelShares:
  """Follows the rows of a run of several levels.

  Args:
    level_names: the run's levels.
  """

  def __init__(self, level_names: Sequence[str]):
    self._names = tuple(level_names)
    # Starving levels, and whether each has no frames at all: as reported, and of the last rows.
    self._reported: dict[str, bool] = {}
    self._newest: collections.deque[dict[str, bool]] = collections.deque(maxlen=_LASTING_ROWS)
    self._rows: collections.deque[Mapping[str, float]] = collections.deque(maxlen=_WINDOW_ROWS)

  def add(self, shares: Mapping[str, float]) -> str:
    """Adds a row; returns a sentence if other levels starve than before, else ''.

    Args:
      shares: `frames_share_by_level` of a row; rows without frames do not count.
    """
    if len(self._names) == 1 or not shares:
      return ''
    self._rows.append(shares)
    if len(self._rows) < _WINDOW_ROWS:
      return ''
    means = {n: sum(row[n] for row in self._rows) / len(self._rows) for n in self._names}
    starving = {n: share for n, share in means.items() if share * len(means) < _LEAST_PART}
    self._newest.append({name: not share for name, share in starving.items()})
    newest = self._newest[-1]
    if newest == self._reported or list(self._newest).count(newest) < _LASTING_ROWS:
      return ''
    self._reported = newest
    return self._sentence(starving)

  def _sentence(self, starving: Mapping[str, float]) -> str:
    number = len(self._names)
    if not starving:
      return f'all {number} levels get frames again'
    absent = [name for name, share in starving.items() if not share]
    slow = [f'{name} {share:.1%}' for name, share in starving.items() if share]
    parts = []
    if absent:
      parts.append(
        f'no actor plays {", ".join(absent)}: {number} levels take {number} actor loops, and with '
        f'--num_actors={number} (or a multiple) every actor plays all of them'
      )
    if slow:
      parts.append(
        f'of the frames, {", ".join(slow)}, where an even share is {1 / number:.1%}: slow '
        'environments, or too few actors'
      )
    return '; '.join(parts)
