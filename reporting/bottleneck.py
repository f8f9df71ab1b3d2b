"""Finds the bottleneck of a run (learner or actors) and suggests a remedy.

A sentence is returned only when the bottleneck changes.
"""

import collections
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

_WAIT_THRESHOLD = 0.1  # Smaller wait fractions are ignored.
_BUSY_THRESHOLD = 0.9  # Processors busier than this have no capacity for more actors.
_WINDOW_ROWS = 6  # One minute, by default.
_LASTING_ROWS = 3  # A new bottleneck is reported after this many rows.


class Bottleneck(NamedTuple):
  """What limits the speed of a run.

  Attributes:
    kind: str, one word; None if not known yet.
    more_actors: int, how many more actors would help.
    text: str, a sentence for the user; '' if the kind is None.
  """

  kind: str | None
  more_actors: int
  text: str


class BottleneckMonitor:
  """Follows the rows of a run and names the bottleneck when it changes.

  Args:
    sample_reuse: how often a batch is learned from.
    own_host: name of the learner's host.
  """

  def __init__(self, sample_reuse: int, own_host: str):
    self._sample_reuse, self._own_host = sample_reuse, own_host
    self._rows: collections.deque[Mapping[str, Any]] = collections.deque(maxlen=_WINDOW_ROWS)
    self._reported = Bottleneck(None, 0, '')
    self._changed_rows = 0  # Consecutive rows whose bottleneck was not the reported one.

  def add(self, row: Mapping[str, Any], num_actors: int) -> str:
    """Adds a row of `RunStatistics.row`; returns a sentence if the bottleneck changed, else ''.

    Args:
      row: as above.
      num_actors: actors that play.
    """
    if row['learner_wait_fraction'] is None:
      return ''
    self._rows.append(row)
    if len(self._rows) < _WINDOW_ROWS:
      return ''
    new = find_bottleneck(
      self._median('learner_wait_fraction'),
      self._median('actor_wait_fraction'),
      num_actors,
      self._sample_reuse,
      *self._processors_busy(),
    )
    self._changed_rows = self._changed_rows + 1 if self._differs(new) else 0
    if not self._changed_rows or (self._reported.kind and self._changed_rows < _LASTING_ROWS):
      return ''
    self._reported, self._changed_rows = new, 0
    return new.text

  def _differs(self, new: Bottleneck) -> bool:
    """Returns whether the kind changed since the last report, or `more_actors` by a factor of 2."""
    if new.kind != self._reported.kind:
      return True
    few, many = sorted([new.more_actors, self._reported.more_actors])
    return few > 0 and many >= 2 * few and many - few > 1

  def _median(self, name: str) -> float | None:
    values = [row[name] for row in self._rows if row[name] is not None]
    return statistics.median(values) if values else None

  def _processors_busy(self) -> tuple[float | None, dict[str, float] | None]:
    """Returns (busy share, None) if all actors are on the learner's host, else (None, by host)."""
    shares: dict[str, list[float]] = collections.defaultdict(list)
    for row in self._rows:
      for host, share in row['processors_busy_by_host'].items():
        shares[host].append(share)
    means = {host: sum(values) / len(values) for host, values in shares.items()}
    if set(means) == {self._own_host}:
      return means[self._own_host], None
    return None, means


def find_bottleneck(
  learner_wait_fraction: float | None,
  actor_wait_fraction: float | None,
  num_actors: int,
  sample_reuse: int = 1,
  processors_busy: float | None = None,
  busy_by_host: Mapping[str, float] | None = None,
) -> Bottleneck:
  """Returns the bottleneck.

  Args:
    learner_wait_fraction: share of time that learners wait for data, in [0, 1]; None: not known.
    actor_wait_fraction: share of time that actors wait for room in the queue, or None.
    num_actors: connected actors.
    sample_reuse: how often a batch is learned from.
    processors_busy: if actors and learner share a host, the share of time that its processors are
      busy, in [0, 1].
    busy_by_host: if they do not, the same for each host of an actor.
  """
  if learner_wait_fraction is None:
    return Bottleneck(None, 0, '')
  learner, actor = learner_wait_fraction, actor_wait_fraction or 0.0
  if not num_actors:
    text = f'learners wait {learner:.0%} of the time for data: no actor is connected'
    return Bottleneck('no actor', 0, text)
  if learner < _WAIT_THRESHOLD and actor < _WAIT_THRESHOLD:
    text = f'balanced: learners wait {learner:.0%} and actors {actor:.0%} of the time'
    return Bottleneck('balanced', 0, text)
  if (
    learner >= _WAIT_THRESHOLD
    and actor >= _WAIT_THRESHOLD
    and (max(learner, actor) < 2 * min(learner, actor))
  ):
    text = (
      f'learners wait {learner:.0%} and actors {actor:.0%} of the time: what lies between '
      'them is the limit (network, parameter servers, weights)'
    )
    return Bottleneck('between', 0, text)
  if actor > learner:
    text = f'actors wait {actor:.0%} of the time: the learner is the limit'
    return Bottleneck('learner', 0, text)
  if processors_busy is not None and processors_busy >= _BUSY_THRESHOLD:
    text = (
      f'learners wait {learner:.0%} of the time for data, and the processors are busy for '
      f'{processors_busy:.0%}: this machine is the limit, more actors on it would not help'
    )
    return Bottleneck('machine', 0, text)
  # n actors keep the learners busy for a share 1 - w of the time, so n / (1 - w) would do for all.
  share = min(learner, 0.99)
  more = max(round(num_actors * share / (1.0 - share)), 1)
  actors = 'actor' if more == 1 else 'actors'
  reuse = int(sample_reuse / (1.0 - min(learner, 0.75)))
  instead = f', and --sample_reuse={reuse} would cost no time' if reuse > sample_reuse else ''
  kind, where = _where_to_add_actors(busy_by_host or {})
  text = (
    f'learners wait {learner:.0%} of the time for data: about {more} more {actors}{where} would '
    f'feed them{instead}'
  )
  return Bottleneck(kind, more, text)


def _where_to_add_actors(busy_by_host: Mapping[str, float]) -> tuple[str, str]:
  """Returns (kind of the bottleneck, text that says on which hosts more actors would help)."""
  busy = sorted(host for host, share in busy_by_host.items() if share >= _BUSY_THRESHOLD)
  if not busy:
    return 'actors', ''
  if len(busy) == len(busy_by_host):
    return 'hosts', ' on other hosts (the processors of theirs are busy)'
  return 'actors', f' on other hosts than {", ".join(busy)} (its processors are busy)'
