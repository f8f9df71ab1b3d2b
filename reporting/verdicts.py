"""Who waits for whom, and what would help: a sentence whenever that changes."""

import collections
import statistics

_WAIT_THRESHOLD = 0.1  # A share of waiting below this one is not worth a word.
_BUSY_THRESHOLD = 0.9  # Processors that are busy for this share have no time for more actors.
_WINDOW_ROWS = 6  # A minute, by default.
_LASTING_ROWS = 3  # In so many rows what is new was so all the time, before it is said.

_Verdict = collections.namedtuple('_Verdict', 'kind actors text')
_Verdict.__doc__ = """Of a few rows.

Attributes:
  kind: what is the limit, a word; None while that is not known.
  actors: how many more actors would help, int.
  text: for a person; '' where the kind is None.
"""


class Verdicts:
  """Looks at the rows of a run, and says who waits when that has changed.

  Args:
    sample_reuse: how often a batch is learned from.
    own_host: name of the learner's host.
  """

  def __init__(self, sample_reuse, own_host):
    self._sample_reuse, self._own_host = sample_reuse, own_host
    self._rows, self._said = collections.deque(maxlen=_WINDOW_ROWS), _Verdict(None, 0, '')
    self._changed = 0  # For so many rows another verdict than the one that was said has held.

  def add(self, row, num_actors):
    """Takes a row of `RunStatistics.row`; returns a sentence, or '' where nothing has changed.

    Args:
      row: dict.
      num_actors: int, actors that play.
    """
    if row['learner_wait_fraction'] is None:
      return ''
    self._rows.append(row)
    if len(self._rows) < _WINDOW_ROWS:
      return ''
    new = _judged(
      *(self._usual(f'{who}_wait_fraction') for who in ('learner', 'actor')),
      num_actors,
      self._sample_reuse,
      *self._busy(),
    )
    self._changed = self._changed + 1 if self._differs(new) else 0
    if not self._changed or (self._said.kind and self._changed < _LASTING_ROWS):
      return ''
    self._said, self._changed = new, 0
    return new.text

  def _differs(self, new):
    """Whether a verdict says something else than the last one, not only another percentage."""
    if new.kind != self._said.kind:
      return True
    few, many = sorted([new.actors, self._said.actors])
    return few > 0 and many >= 2 * few and many - few > 1

  def _usual(self, name):
    values = [row[name] for row in self._rows if row[name] is not None]
    return statistics.median(values) if values else None  # A single odd row is no change.

  def _busy(self):
    """(how busy the processors are that actors and learner share, None where they do not; the same
    of the actors' hosts, a dict, None where they are the learner's)."""
    shares = collections.defaultdict(list)
    for row in self._rows:
      for host, share in row['processors_busy_by_host'].items():
        shares[host].append(share)
    means = {host: sum(values) / len(values) for host, values in shares.items()}
    if set(means) == {self._own_host}:
      return means[self._own_host], None
    return None, means


def verdict(*args, **kwargs):
  """As `_judged`, the sentence alone."""
  return _judged(*args, **kwargs).text


def _judged(
  learner_wait_fraction, actor_wait_fraction, num_actors, sample_reuse=1, processors_busy=None,
  busy_by_host=None,
):  # fmt: skip
  """Says who is the limit, and by how much.

  Args:
    learner_wait_fraction: share of time that learners wait for data, in [0, 1], or None.
    actor_wait_fraction: share of time that actors wait for room in the queue, or None.
    num_actors: connected actors, int.
    sample_reuse: how often a batch is learned from.
    processors_busy: where actors and learner have the same processors, the share of time that
      these are busy, in [0, 1]; None where they do not, or nobody knows.
    busy_by_host: the same of each of the actors' hosts, a dict, where they have their own.

  Returns:
    A `_Verdict`.
  """
  if learner_wait_fraction is None:
    return _Verdict(None, 0, '')
  learner, actor = learner_wait_fraction, actor_wait_fraction or 0.0
  if not num_actors:
    text = f'learners wait {learner:.0%} of the time for data: no actor is connected'
    return _Verdict('no actor', 0, text)
  if learner < _WAIT_THRESHOLD and actor < _WAIT_THRESHOLD:
    text = f'balanced: learners wait {learner:.0%} and actors {actor:.0%} of the time'
    return _Verdict('balanced', 0, text)
  if (
    learner >= _WAIT_THRESHOLD
    and actor >= _WAIT_THRESHOLD
    and (max(learner, actor) < 2 * min(learner, actor))
  ):
    text = (
      f'learners wait {learner:.0%} and actors {actor:.0%} of the time: what lies between '
      'them is the limit (network, parameter servers, weights)'
    )
    return _Verdict('between', 0, text)
  if actor > learner:
    text = f'actors wait {actor:.0%} of the time: the learner is the limit'
    return _Verdict('learner', 0, text)
  if processors_busy is not None and processors_busy >= _BUSY_THRESHOLD:
    text = (
      f'learners wait {learner:.0%} of the time for data, and the processors are busy for '
      f'{processors_busy:.0%}: this machine is the limit, more actors on it would not help'
    )
    return _Verdict('machine', 0, text)
  # n actors keep the learners busy for a share 1 - w of the time; n / (1 - w) would for all of it.
  share = min(learner, 0.99)
  more = max(round(num_actors * share / (1.0 - share)), 1)
  actors = 'actor' if more == 1 else 'actors'
  reuse = int(sample_reuse / (1.0 - min(learner, 0.75)))
  instead = f', and --sample_reuse={reuse} would cost no time' if reuse > sample_reuse else ''
  kind, where = _where(busy_by_host or {})
  text = (
    f'learners wait {learner:.0%} of the time for data: about {more} more {actors}{where} would '
    f'feed them{instead}'
  )
  return _Verdict(kind, more, text)


def _where(busy_by_host):
  """(kind of the verdict, where more actors have to be), from how busy the actors' hosts are."""
  busy = sorted(host for host, share in busy_by_host.items() if share >= _BUSY_THRESHOLD)
  if not busy:
    return 'actors', ''
  if len(busy) == len(busy_by_host):
    return 'hosts', ' on other hosts (the processors of theirs are busy)'
  return 'actors', f' on other hosts than {", ".join(busy)} (its processors are busy)'
