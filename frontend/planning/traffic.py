"""What a cluster moves over its links, how fast it learns, and which part of it is the limit.

Arithmetic alone; nothing is asked or read. The laws were measured (docs/results/update_cost,
docs/results/scaling): per update and learner the weights come from the parameter servers and the
gradients go there, in even slices; per round of an actor loop the weights come once, if they are
new, and one unroll of each environment goes to the actor's learner. An update takes computing,
weights and gradients, one after the other. Learners that update together send at the same moment,
over the busiest link, and actors fetch the new weights when they do; the others each when they are
ready, and share a link with whoever is on it.
Every host has one link, as fast in as out; what stays on a host costs nothing.
"""

import collections
import math

ACTORS, COMPUTING, LINK = 'actors', 'computing', 'link'
KINDS = ('unrolls', 'weights', 'gradients')
# How far the search for the next limit goes: learners, and actors of a learner.
MOST = 256

Run = collections.namedtuple(
  'Run',
  'weight_bytes slot_bytes unroll_bytes unroll_frames batch_size sample_reuse sync_learners',
  defaults=[True],
)
Run.__doc__ = """What is trained, in plain numbers.

Attributes:
  weight_bytes, slot_bytes: of all weights, and of the optimiser's slots of all weights.
  unroll_bytes: one unroll as it is sent.
  unroll_frames: environment frames of an unroll.
  batch_size: unrolls per batch and learner.
  sample_reuse: updates that are made of each batch.
  sync_learners: whether learners update together.
"""

Speeds = collections.namedtuple('Speeds', 'link_bytes_per_sec actor_frames_per_sec update_secs')
Speeds.__doc__ = """What the hosts can do; math.inf (update_secs: 0) is no limit.

Attributes:
  link_bytes_per_sec: of the link of each host, in each direction.
  actor_frames_per_sec: environment frames/s of one actor task, with all its loops.
  update_secs: one update of one learner, computing only.
"""

Actor = collections.namedtuple('Actor', 'host envs loops')
Actor.__doc__ = """An actor task on a host: `loops` loops of `envs` environments each."""

Places = collections.namedtuple('Places', 'ps learner actor')
Places.__doc__ = """Who is where: tuples, by index, of host, host and `Actor`.

Hosts compare equal where they are the same; actor i feeds learner `i mod L`."""

Prediction = collections.namedtuple(
  'Prediction',
  'updates_per_sec frames_per_sec limit host weights_secs gradients_secs bytes_per_sec',
)
Prediction.__doc__ = """How a cluster would train.

Attributes:
  updates_per_sec: with a batch of every learner where they update together, else with a batch of
    one; math.inf without limit.
  frames_per_sec: environment frames/s that are learned from.
  limit: ACTORS, COMPUTING or LINK, which bends first.
  host: whose link it is where `limit` is LINK, else None.
  weights_secs, gradients_secs: what an update spends on the busiest link, with the weights of
    actors (where learners do not update together: of the learner that spends most, if nobody else
    is in its way).
  bytes_per_sec: {host: {kind of KINDS: (in, out)}} over its link.
"""


def places(cluster, actors):
  """The `Places` of a cluster.

  Args:
    cluster: `frontend.cluster.Cluster`.
    actors: list of (environments of a loop, loops), one for each actor.

  Raises:
    ValueError: a learner has no actor.
  """
  hosts = {(task.job, task.index): host.address for host in cluster.hosts for task in host.tasks}
  by_job = {
    job: [host for _, host in sorted((i, host) for (j, i), host in hosts.items() if j == job)]
    for job in Places._fields
  }
  if len(by_job['actor']) < len(by_job['learner']):
    raise ValueError(
      f'the CSV has {len(by_job["learner"])} learners, but only {len(by_job["actor"])} actors: '
      'every learner needs an actor of its own'
    )
  placed = (Actor(host, *actor) for host, actor in zip(by_job['actor'], actors, strict=True))
  return Places(tuple(by_job['ps']), tuple(by_job['learner']), tuple(placed))


def ps_bytes(there, run):
  """Weights and slots that each parameter server holds, in bytes."""
  return (run.weight_bytes + run.slot_bytes) / len(there.ps)


def bytes_per_update(there, run):
  """What crosses the links for one batch of every learner.

  Returns:
    Counter of {(kind, host, direction): bytes}: direction 'in' or 'out', kind one of KINDS, or
    'acting' for the weights that actors fetch.
  """
  moved = collections.Counter()

  def move(kind, source, target, size):
    if source != target:
      moved[kind, source, 'out'] += size
      moved[kind, target, 'in'] += size

  num_learners = len(there.learner)
  piece = run.weight_bytes / len(there.ps)
  for learner in there.learner:
    for ps in there.ps:
      move('weights', ps, learner, piece)
      move('gradients', learner, ps, piece)
  for i, actor in enumerate(there.actor):
    unrolls = run.batch_size / run.sample_reuse / _actors_of(there, i % num_learners)
    move('unrolls', actor.host, there.learner[i % num_learners], unrolls * run.unroll_bytes)
    # A loop fetches nothing while the weights are unchanged.
    changes = 1 if run.sync_learners else num_learners
    fetches = min(unrolls / actor.envs, actor.loops * changes)
    for ps in there.ps:
      move('acting', ps, actor.host, fetches * piece)
  return moved


def _actors_of(there, learner):
  return len(range(learner, len(there.actor), len(there.learner)))


def predict(there, run, speeds):
  """The `Prediction` for `Places`, a `Run` and `Speeds`."""
  moved = bytes_per_update(there, run)
  link = speeds.link_bytes_per_sec
  exchanges = _exchanges(there, run, moved)
  frames = run.batch_size * run.unroll_frames / run.sample_reuse  # Of an update, for each learner.
  acting = [_actors_of(there, j) for j in range(len(there.learner))]
  fewest = min(acting) if run.sync_learners else sum(acting) / len(acting)
  rounds, limit, host = min(
    [
      _learners_limit(exchanges, speeds.update_secs, link)
      if run.sync_learners
      else _limit_of_each(moved, exchanges, speeds),
      _fullest_link(moved, link),
      (fewest * speeds.actor_frames_per_sec / frames, ACTORS, None),
    ],
    key=lambda one: one[0],
  )
  slowest = max(exchanges, key=_most)
  return Prediction(
    rounds if run.sync_learners else rounds * len(there.learner),
    rounds * frames * len(there.learner),
    limit,
    host,
    _most(slowest, ['weights']) / link,
    _most(slowest, ['gradients']) / link,
    _rates(moved, rounds, there),
  )


def _exchanges(there, run, moved):
  """What crosses the links at the same time, as `bytes_per_update`: of all learners, or of each."""
  if run.sync_learners:
    return [moved]
  return [
    bytes_per_update(there._replace(learner=(host,), actor=()), run) for host in there.learner
  ]


def _crossing(moved, kind):
  """{(host, direction): bytes} of the links that carry this kind, with what does so meanwhile.

  Actors that waited at a full queue fetch the new weights when the learners do.
  """
  meanwhile = 'acting' if kind == 'weights' else None
  return {
    (host, way): size + moved[meanwhile, host, way]
    for (of, host, way), size in moved.items()
    if of == kind
  }


def _most(moved, kinds=('weights', 'gradients')):
  """The bytes of these kinds on the links where they are most, one kind after the other."""
  return sum(max(_crossing(moved, kind).values(), default=0) for kind in kinds)


def _learners_limit(exchanges, computing_secs, link):
  """(updates/s of a learner, what most of an update is spent on, the host of that link or None)."""
  (moved,) = exchanges
  transfer_secs = _most(moved) / link
  secs = computing_secs + transfer_secs
  rate = 1 / secs if secs else math.inf
  if computing_secs >= transfer_secs:
    return rate, COMPUTING, None
  by_host = collections.Counter()
  for kind in ('weights', 'gradients'):
    for (host, _), size in _crossing(moved, kind).items():
      by_host[host] += size
  return rate, LINK, max(by_host, key=by_host.get)


def _limit_of_each(moved, exchanges, speeds):
  """As `_learners_limit`, for learners that do not update together.

  A closed queueing network by mean value analysis (Reiser and Lavenberg 1980): learners compute,
  then queue at the link where weights are most, and at that of the gradients; what else is on these
  links takes its share.
  """
  count, link = len(exchanges), speeds.link_bytes_per_sec
  totals, demands = _by_way(moved), {}
  for kind in ('weights', 'gradients'):
    ways = {(host, way): size for (of, host, way), size in moved.items() if of == kind}
    if ways:
      way = max(ways, key=lambda way: (ways[way], totals[way]))
      demands[way] = totals[way] / count / link
  alone = sum(map(_most, exchanges)) / count / link
  thinking = speeds.update_secs + max(0.0, alone - sum(demands.values()))
  queued, rate = dict.fromkeys(demands, 0.0), math.inf
  for learners in range(1, count + 1):
    spent = {way: secs * (1 + queued[way]) for way, secs in demands.items()}
    cycle = thinking + sum(spent.values())
    rate = learners / cycle if cycle else math.inf
    queued = {way: rate * secs if secs else 0.0 for way, secs in spent.items()}
  if math.isinf(rate) or speeds.update_secs * rate >= count / 2:
    return rate / count, COMPUTING, None
  return rate / count, LINK, max(demands, key=demands.get)[0]


def _by_way(moved):
  """Counter of {(host, direction): bytes of all kinds}."""
  ways = collections.Counter()
  for (_, host, direction), size in moved.items():
    ways[host, direction] += size
  return ways


def _fullest_link(moved, link):
  """(updates/s at which the first link is full in one direction, LINK, its host)."""
  ways = _by_way(moved)
  if not ways:
    return math.inf, LINK, None
  (host, direction), size = max(ways.items(), key=lambda item: item[1])
  return link / size, LINK, host


def _rates(moved, updates, there):
  hosts = dict.fromkeys([*there.ps, *there.learner, *(actor.host for actor in there.actor)])

  def rate(kind, host, direction):
    kinds = ('weights', 'acting') if kind == 'weights' else (kind,)
    size = sum(moved[one, host, direction] for one in kinds)
    return size * updates if size else 0.0

  return {
    host: {kind: (rate(kind, host, 'in'), rate(kind, host, 'out')) for kind in KINDS}
    for host in hosts
  }


# Other sizes of the same cluster.


def resized(there, learners, actors_per_learner):
  """The `Places` with another number of learners and of actors for each.

  Those that are added have a host of their own each, and actors are as the last one is; the
  parameter servers stay.
  """
  hosts = [*there.learner, *(('learner', i) for i in range(len(there.learner), learners))]
  count, last = learners * actors_per_learner, there.actor[-1]
  added = (last._replace(host=('actor', i)) for i in range(len(there.actor), count))
  return Places(there.ps, tuple(hosts[:learners]), (*there.actor, *added)[:count])


def enough_actors(there, run, speeds):
  """The fewest actors per learner that are no limit, with the `Prediction`; None above MOST."""
  return _first(1, lambda n: resized(there, len(there.learner), n), ACTORS, run, speeds)


def next_limit(there, run, speeds):
  """The fewest learners above today's with another limit, with the `Prediction`; None above MOST.

  Every learner has as many actors as the one with the fewest has today.
  """
  num_learners = len(there.learner)
  each = len(there.actor) // num_learners
  now = predict(there, run, speeds).limit
  return _first(num_learners + 1, lambda n: resized(there, n, each), now, run, speeds)


def _first(low, make, limit, run, speeds):
  """(n, prediction) of the smallest n from `low` to MOST where `limit` is none any more, or None.

  Halves the range each time: once a limit is none, it stays so.
  """
  high = MOST + 1
  found = None
  while low < high:
    middle = (low + high) // 2 if found else min(MOST, high)
    prediction = predict(make(middle), run, speeds)
    if prediction.limit != limit:
      high, found = middle, (middle, prediction)
    else:
      low = middle + 1
  return found
