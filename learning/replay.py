"""Replay: part of every batch is drawn from the last unrolls that a learner was sent.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), section 5.2.2 and Table D.3: half of a batch is
sampled uniformly from the last 10,000 unrolls, which leave first in, first out. An unroll is kept
as it was sent: frames once each, the logits of the policy that acted, and the core state it began
with. So V-trace corrects a replayed unroll like a new one, with an importance weight of its own for
each step.

What counts once for each unroll, counts when it is new: environment frames, running statistics, and
the entropy bonus (Schmitt et al. 2019, arXiv 1909.11583, who found it best so).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class ReplayBuffer:
  """The last unrolls of one learner, in memory; used by one thread.

  Args:
    capacity: number of unrolls, at least that of a batch.
    specs: (numpy dtype, shape) of each array of an unroll.
    rows: unrolls that each batch takes from the buffer.
    batch_size: B.
    seed: of the choice of unrolls.

  Attributes:
    size: number of unrolls in the buffer.
  """

  def __init__(
    self,
    capacity: int,
    specs: Sequence[tuple[Any, Sequence[int]]],
    rows: int,
    batch_size: int,
    seed: int,
  ):
    # Memory that is not written yet takes none.
    self._arrays = [np.empty([capacity, *shape], dtype) for dtype, shape in specs]
    self._capacity, self._rows, self._batch_size = capacity, rows, batch_size
    self._random = np.random.default_rng(seed)
    self._next, self.size = 0, 0

  @property
  def nbytes(self) -> int:
    """The bytes that the buffer takes when it is full."""
    return sum(array.nbytes for array in self._arrays)

  def batch(self, new: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Adds new unrolls and returns a batch: of these, the first, and behind them replayed ones.

    Args:
      new: arrays [M, ...] of M new unrolls. They may be among the replayed ones, too.

    Returns:
      Arrays [B, ...]. If a batch is all replay, no new unroll is in it but by chance.
    """
    self._add(new)
    chosen = self._random.integers(self.size, size=self._rows)
    online = self._batch_size - self._rows
    return [
      np.concatenate([fresh[:online], kept[chosen]])
      for fresh, kept in zip(new, self._arrays, strict=True)
    ]

  def _add(self, new: Sequence[np.ndarray]) -> None:
    number = len(new[0])
    places = (self._next + np.arange(number)) % self._capacity
    for array, values in zip(self._arrays, new, strict=True):
      array[places] = values
    self._next = int(places[-1] + 1) % self._capacity
    self.size = min(self.size + number, self._capacity)

  def described(self) -> str:
    """Returns what the buffer holds and what it will take, as a sentence for the user."""
    held = f'has {self.size} unrolls' if self.size else 'is empty'
    return (
      f'the replay buffer {held}; it will hold {self._capacity}, which take '
      f'{self.nbytes / 1e9:.3g} GB of memory on each learner'
    )
