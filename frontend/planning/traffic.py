"""A cluster's traffic, throughput and bottleneck, by arithmetic alone.

The model, which was measured (docs/results/update_cost, docs/results/scaling):
- An update moves, for each learner, the weights from the parameter servers and the gradients to
  them, in even slices. It spends computing, weights and gradients one after the other.
- A round of an actor loop fetches the weights if they are new, and sends one unroll of each
  environment to the actor's learner.
- Synchronous learners send at the same moment over the busiest link, and actors fetch the new
  weights at that moment. Asynchronous learners send when they are ready, and share a link with
  whoever uses it.
- Every host has one link with the same speed in and out; traffic within a host is free.
"""

import collections
import math
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import NamedTuple

from frontend.cluster import Cluster, actors_problem
from frontend.errors import UserError

ACTORS, COMPUTING, LINK = 'actors', 'computing', 'link'
KINDS = ('unrolls', 'weights', 'gradients')
# Largest number of learners, and of actors per learner, that is searched for another bottleneck.
MOST = 256

# An address, or (job, number) of a host that is only imagined.
HostId = Hashable
# {(kind, host, direction): bytes}, 0 if missing; see `bytes_per_update`.
Moved = dict[tuple[str, HostId, str], float]
# A host's link in one direction, `in` or `out`.
Way = tuple[HostId, str]


class Run(NamedTuple):
  """What is trained.

  Attributes:
    weight_bytes: size of all weights.
    slot_bytes: size of the optimiser's slots for all weights.
    unroll_bytes: size of one unroll as it is sent.
    unroll_frames: environment frames of one unroll.
    batch_size: unrolls per batch and learner, without replayed ones.
    sample_reuse: updates made of each batch.
    sync_learners: whether an update takes a batch of every learner.
  """

  weight_bytes: float
  slot_bytes: float
  unroll_bytes: float
  unroll_frames: int
  batch_size: int
  sample_reuse: int
  sync_learners: bool = True


class Speeds(NamedTuple):
  """What the hosts can do; math.inf (update_secs: 0) is no limit.

  Attributes:
    link_bytes_per_sec: of each host's link, in each direction.
    actor_frames_per_sec: environment frames/s of one actor task, with all its loops.
    update_secs: computing of one update of one learner.
  """

  link_bytes_per_sec: float
  actor_frames_per_sec: float
  update_secs: float


class Actor(NamedTuple):
  """An actor task on a host: `loops` loops of `envs` environments each."""

  host: HostId
  envs: int
  loops: int


class Placement(NamedTuple):
  """The host of each task; actor i feeds learner `i mod L`.

  Attributes:
    ps, learner: hosts by task index.
    actor: actors by task index.
  """

  ps: tuple[HostId, ...]
  learner: tuple[HostId, ...]
  actor: tuple[Actor, ...]


class Prediction(NamedTuple):
  """How a cluster would train.

  Attributes:
    updates_per_sec: with a batch of every learner if they are synchronous, else with a batch of
      one learner; math.inf without a limit.
    frames_per_sec: environment frames/s that are learned from.
    bottleneck: ACTORS, COMPUTING or LINK.
    host: whose link it is if `bottleneck` is LINK, else None.
    weights_secs, gradients_secs: time of an update on the busiest link, with the actors' fetches
      of weights. Of asynchronous learners: of the slowest, without waiting for others.
    bytes_per_sec: {host: {kind of KINDS: (in, out)}} over its link.
  """

  updates_per_sec: float
  frames_per_sec: float
  bottleneck: str
  host: HostId | None
  weights_secs: float
  gradients_secs: float
  bytes_per_sec: dict[HostId, dict[str, tuple[float, float]]]


def placement_of(cluster: Cluster, actors: Sequence[tuple[int, int]]) -> Placement:
  """Returns the placement of a cluster's tasks.

  Args:
    cluster: what the CSV describes.
    actors: (environments per loop, loops) of each actor.

  Raises:
    UserError: a learner has no actor.
  """
  problem = actors_problem(cluster)
  if problem:
    raise UserError(problem)
  hosts = {(task.job, task.index): host.address for host in cluster.hosts for task in host.tasks}
  by_job = {
    job: [host for _, host in sorted((i, host) for (j, i), host in hosts.items() if j == job)]
    for job in Placement._fields
  }
  placed = (Actor(host, *actor) for host, actor in zip(by_job['actor'], actors, strict=True))
  return Placement(tuple(by_job['ps']), tuple(by_job['learner']), tuple(placed))


def ps_bytes(placement: Placement, run: Run) -> float:
  """Returns the size of the weights and slots that each parameter server holds."""
  return (run.weight_bytes + run.slot_bytes) / len(placement.ps)


def bytes_per_update(placement: Placement, run: Run) -> Moved:
  """Returns what crosses the links for one batch of every learner.

  Returns:
    {(kind, host, direction): bytes}, 0 if missing: direction 'in' or 'out', kind one of KINDS, or
    'acting' for the weights that actors fetch.
  """
  moved: Moved = collections.defaultdict(float)

  def move(kind: str, source: HostId, target: HostId, size: float) -> None:
    if source != target:
      moved[kind, source, 'out'] += size
      moved[kind, target, 'in'] += size

  num_learners = len(placement.learner)
  piece = run.weight_bytes / len(placement.ps)
  for learner in placement.learner:
    for ps in placement.ps:
      move('weights', ps, learner, piece)
      move('gradients', learner, ps, piece)
  for i, actor in enumerate(placement.actor):
    unrolls = run.batch_size / run.sample_reuse / _actors_of(placement, i % num_learners)
    move('unrolls', actor.host, placement.learner[i % num_learners], unrolls * run.unroll_bytes)
    # A loop fetches weights only if they changed.
    changes = 1 if run.sync_learners else num_learners
    fetches = min(unrolls / actor.envs, actor.loops * changes)
    for ps in placement.ps:
      move('acting', ps, actor.host, fetches * piece)
  return moved


def _actors_of(placement: Placement, learner: int) -> int:
  """Number of actors that feed a learner."""
  return len(range(learner, len(placement.actor), len(placement.learner)))


def predict(placement: Placement, run: Run, speeds: Speeds) -> Prediction:
  """Returns the throughput and the bottleneck of a cluster."""
  moved = bytes_per_update(placement, run)
  link = speeds.link_bytes_per_sec
  exchanges = _exchanges(placement, run, moved)
  frames = run.batch_size * run.unroll_frames / run.sample_reuse  # Per update and learner.
  acting = [_actors_of(placement, j) for j in range(len(placement.learner))]
  fewest = min(acting) if run.sync_learners else sum(acting) / len(acting)
  rounds, bottleneck, host = min(
    [
      _sync_rate(exchanges[0], speeds.update_secs, link)
      if run.sync_learners
      else _async_rate(moved, exchanges, speeds),
      _fullest_link(moved, link),
      (fewest * speeds.actor_frames_per_sec / frames, ACTORS, None),
    ],
    key=lambda one: one[0],
  )
  slowest = max(exchanges, key=_transfer_bytes)
  return Prediction(
    rounds if run.sync_learners else rounds * len(placement.learner),
    rounds * frames * len(placement.learner),
    bottleneck,
    host,
    _most(slowest, ['weights']) / link,
    _most(slowest, ['gradients']) / link,
    _rates(moved, rounds, placement),
  )


def _exchanges(placement: Placement, run: Run, moved: Moved) -> list[Moved]:
  """What crosses the links at the same time: of all synchronous learners, else of each learner."""
  if run.sync_learners:
    return [moved]
  return [
    bytes_per_update(placement._replace(learner=(host,), actor=()), run)
    for host in placement.learner
  ]


def _crossing(moved: Moved, kind: str) -> dict[Way, float]:
  """{way: bytes} of the links that carry this kind, with what crosses them at the same time.

  Actors that waited for room in the queue fetch the new weights when the learners do.
  """
  return {
    (host, way): size + (moved.get(('acting', host, way), 0.0) if kind == 'weights' else 0.0)
    for (of, host, way), size in moved.items()
    if of == kind
  }


def _transfer_bytes(moved: Moved) -> float:
  """Bytes that an update sends over its busiest links, weights and then gradients."""
  return _most(moved, ('weights', 'gradients'))


def _most(moved: Moved, kinds: Collection[str]) -> float:
  """The sum over kinds of the bytes on the link where the kind is most."""
  return sum(max(_crossing(moved, kind).values(), default=0) for kind in kinds)


def _sync_rate(
  moved: Moved, computing_secs: float, link: float
) -> tuple[float, str, HostId | None]:
  """Returns (updates/s, COMPUTING or LINK, whichever takes longer, the host of that link)."""
  transfer_secs = _transfer_bytes(moved) / link
  secs = computing_secs + transfer_secs
  rate = 1 / secs if secs else math.inf
  if computing_secs >= transfer_secs:
    return rate, COMPUTING, None
  by_host: dict[HostId, float] = collections.defaultdict(float)
  for kind in ('weights', 'gradients'):
    for (host, _), size in _crossing(moved, kind).items():
      by_host[host] += size
  return rate, LINK, max(by_host, key=lambda host: by_host[host])


def _async_rate(
  moved: Moved, exchanges: Sequence[Moved], speeds: Speeds
) -> tuple[float, str, HostId | None]:
  """As `_sync_rate`, for one of several asynchronous learners.

  Mean value analysis of a closed queueing network (Reiser and Lavenberg 1980): learners compute,
  then queue at the link with most of the weights, and at that with most of the gradients; other
  traffic on these links adds to the demand.
  """
  count, link = len(exchanges), speeds.link_bytes_per_sec
  totals = _by_way(moved)
  demands: dict[Way, float] = {}
  for kind in ('weights', 'gradients'):
    ways = {(host, way): size for (of, host, way), size in moved.items() if of == kind}
    if ways:
      way = max(ways, key=lambda way: (ways[way], totals[way]))
      demands[way] = totals[way] / count / link
  alone = sum(map(_transfer_bytes, exchanges)) / count / link
  thinking = speeds.update_secs + max(0.0, alone - sum(demands.values()))
  queued, rate = dict.fromkeys(demands, 0.0), math.inf
  for learners in range(1, count + 1):
    spent = {way: secs * (1 + queued[way]) for way, secs in demands.items()}
    cycle = thinking + sum(spent.values())
    rate = learners / cycle if cycle else math.inf
    queued = {way: rate * secs if secs else 0.0 for way, secs in spent.items()}
  if math.isinf(rate) or speeds.update_secs * rate >= count / 2:
    return rate / count, COMPUTING, None
  return rate / count, LINK, max(demands, key=lambda way: demands[way])[0]


def _by_way(moved: Moved) -> dict[Way, float]:
  """{way: bytes of all kinds}."""
  ways: dict[Way, float] = collections.defaultdict(float)
  for (_, host, direction), size in moved.items():
    ways[host, direction] += size
  return ways


def _fullest_link(moved: Moved, link: float) -> tuple[float, str, HostId | None]:
  """Returns (updates/s at which the first link is full in one direction, LINK, its host)."""
  ways = _by_way(moved)
  if not ways:
    return math.inf, LINK, None
  (host, direction), size = max(ways.items(), key=lambda item: item[1])
  return link / size, LINK, host


def _rates(
  moved: Moved, updates: float, placement: Placement
) -> dict[HostId, dict[str, tuple[float, float]]]:
  """`Prediction.bytes_per_sec`, at so many updates/s."""
  hosts = dict.fromkeys(
    [*placement.ps, *placement.learner, *(actor.host for actor in placement.actor)]
  )

  def rate(kind: str, host: HostId, direction: str) -> float:
    kinds = ('weights', 'acting') if kind == 'weights' else (kind,)
    size = sum(moved.get((one, host, direction), 0.0) for one in kinds)
    return size * updates if size else 0.0

  return {
    host: {kind: (rate(kind, host, 'in'), rate(kind, host, 'out')) for kind in KINDS}
    for host in hosts
  }


# ---- Other sizes of the same cluster. ------------------------------------------------------------


def resized(placement: Placement, learners: int, actors_per_learner: int) -> Placement:
  """Returns the placement with other numbers of learners and of actors per learner.

  Added tasks have a host of their own each, and added actors are like the last one. The parameter
  servers stay.
  """
  hosts = [*placement.learner, *(('learner', i) for i in range(len(placement.learner), learners))]
  count, last = learners * actors_per_learner, placement.actor[-1]
  added = (last._replace(host=('actor', i)) for i in range(len(placement.actor), count))
  return Placement(placement.ps, tuple(hosts[:learners]), (*placement.actor, *added)[:count])


def enough_actors(placement: Placement, run: Run, speeds: Speeds) -> tuple[int, Prediction] | None:
  """Returns the fewest actors per learner that are not the bottleneck; None above MOST."""
  return _first(1, lambda n: resized(placement, len(placement.learner), n), ACTORS, run, speeds)


def next_bottleneck(
  placement: Placement, run: Run, speeds: Speeds
) -> tuple[int, Prediction] | None:
  """Returns the smallest larger number of learners with another bottleneck; None above MOST.

  Every learner has as many actors as the one with the fewest in `placement`.
  """
  num_learners = len(placement.learner)
  each = len(placement.actor) // num_learners
  now = predict(placement, run, speeds).bottleneck
  return _first(num_learners + 1, lambda n: resized(placement, n, each), now, run, speeds)


def _first(
  low: int, make: Callable[[int], Placement], bottleneck: str, run: Run, speeds: Speeds
) -> tuple[int, Prediction] | None:
  """Returns the smallest n from `low` to MOST whose bottleneck differs, with its prediction.

  By bisection: a bottleneck that has gone does not come back for larger n.
  """
  high = MOST + 1
  found: tuple[int, Prediction] | None = None
  while low < high:
    middle = (low + high) // 2 if found else min(MOST, high)
    prediction = predict(make(middle), run, speeds)
    if prediction.bottleneck != bottleneck:
      high, found = middle, (middle, prediction)
    else:
      low = middle + 1
  return found
