"""What learners and actors report, summed up: one row of metrics an interval.

Nothing in `reporting` knows where the numbers come from, and TensorFlow is never imported.
"""

import bisect
import collections
import math
import threading
import time

METRIC_COLUMNS = (
  'time',
  'environment_frames',
  'updates',
  'frames_per_sec',
  'mean_return_100',
  'policy_lag_mean',
  'policy_lag_max',
  'learner_wait_fraction',
  'actor_wait_fraction',
  'total_loss',
  'policy_loss',
  'baseline_loss',
  'entropy_loss',
  'gradient_norm',
  'learning_rate',
  'entropy_cost',
)
EPISODE_COLUMNS = (
  'time',
  'environment_frames',
  'level_name',
  'episode_return',
  'clipped_return',
  'episode_frames',
)
# Of what a checkpoint played while training went on; environment_frames are its own.
EVALUATION_COLUMNS = (
  'time',
  'environment_frames',
  'checkpoint',
  'protocol',
  'deterministic',
  'num_episodes',
  'mean_return',
  'mean_return_low',
  'mean_return_high',
  'median_return',
  'human_normalised_score',
)
_UPDATE_MEANS = (
  'total_loss',
  'policy_loss',
  'baseline_loss',
  'entropy_loss',
  'gradient_norm',
  'policy_lag_mean',
)
_CONNECTED_SECS = 20.0  # An actor that has not reported for longer does not count as connected.


class RunStatistics:
  """Collects what learners and actors report and sums it up, interval by interval. Thread-safe."""

  def __init__(self, window=100, clock=time.monotonic):
    """Nothing is known yet.

    Args:
      window: number of latest games that `mean_return_100` is the mean of.
      clock: callable that gives seconds; only differences are used.
    """
    self._lock = threading.Lock()
    self._clock = clock
    self._returns = collections.deque(maxlen=window)
    self._episodes = []  # (clock, time, report's dict) of games not handed out yet.
    self._updates_since = []  # (clock, environment frames) of updates since the last were.
    self._actors = _Actors()
    self._interval_start = clock()
    self._frames_at_start = 0
    self._clear_interval()

  def _clear_interval(self):
    self._sums = collections.defaultdict(float)
    self._num_updates = 0
    self._lag_max, self._lags = None, collections.defaultdict(list)  # By pass over a batch.
    self._waits = {'learner': [0.0, 0.0], 'actor': [0.0, 0.0]}  # [waiting, busy], seconds.

  def start(self, environment_frames, returns=()):
    """Begins the first interval now.

    Args:
      environment_frames: frames that the run had already, from its checkpoint.
      returns: episode returns that the run had already, the latest last; see `last_returns`.
    """
    with self._lock:
      self._interval_start = self._clock()
      self._frames_at_start = environment_frames
      self._updates_since.clear()
      self._returns.clear()
      self._returns.extend(returns)

  def add_update(self, update, wait_secs, busy_secs):
    """Takes in one update of a learner.

    Args:
      update: dict of floats: total_loss, policy_loss, baseline_loss, entropy_loss, gradient_norm,
        policy_lag_mean, policy_lag_max (lags in updates), pass (over its batch, from 1 on); and,
        where known, environment_frames after it.
      wait_secs: seconds that the learner waited for the batch.
      busy_secs: seconds that the rest of the update took.
    """
    with self._lock:
      self._num_updates += 1
      if 'environment_frames' in update:
        self._updates_since.append((self._clock(), int(update['environment_frames'])))
      for name in _UPDATE_MEANS:
        self._sums[name] += float(update[name])
      lag = float(update['policy_lag_max'])
      self._lag_max = lag if self._lag_max is None else max(self._lag_max, lag)
      self._lags[update['pass']].append(float(update['policy_lag_mean']))
      self._add_wait('learner', wait_secs, busy_secs)

  def add_learner_wait(self, wait_secs, busy_secs):
    """Takes in what another learner did since its report before, in seconds."""
    with self._lock:
      self._add_wait('learner', wait_secs, busy_secs)

  def add_actor_report(self, report):
    """Takes in what one actor task did since its report before.

    Args:
      report: dict(task=int, frames=int (new environment frames), wait_secs=float and
        busy_secs=float (new seconds waiting for the queue and not), crashes=int (environments
        rebuilt since this process began), pid=int, episodes=list of dict(level_name,
        episode_return, clipped_return, episode_frames; and secs_ago, since the game ended, 0 where
        it is missing)).
    """
    with self._lock:
      wall, now = time.time(), self._clock()
      self._actors.add(report, now)
      self._add_wait('actor', report['wait_secs'], report['busy_secs'])
      for episode in report['episodes']:
        self._returns.append(float(episode['episode_return']))
        secs_ago = float(episode.get('secs_ago', 0.0))
        self._episodes.append((now - secs_ago, wall - secs_ago, episode))

  def _add_wait(self, who, wait_secs, busy_secs):
    self._waits[who][0] += float(wait_secs)
    self._waits[who][1] += float(busy_secs)

  def row(self, environment_frames, updates, learning_rate, queue_depth=None, entropy_cost=None):
    """Sums up the interval since the row before and begins the next one.

    Args:
      environment_frames: frames trained on so far, int.
      updates: updates done so far, int.
      learning_rate: the current one, float.
      queue_depth: unrolls waiting on the learners' queues, or None.
      entropy_cost: the current weight of the entropy, float or None.

    Returns:
      A dict with METRIC_COLUMNS, and queue_depth, connected_actors, actor_restarts,
      environment_crashes, frames_per_sec_by_actor (a dict by task), policy_lag_by_pass (a dict,
      empty where each batch is learned from once). Losses, gradient norm and policy_lag_mean are
      means over the interval's updates. What is not known is None.
    """
    with self._lock:
      now = self._clock()
      secs = max(now - self._interval_start, 1e-9)
      # After a restart from a checkpoint the counter may stand lower than in the row before.
      new_frames = max(environment_frames - self._frames_at_start, 0)
      row = dict.fromkeys(METRIC_COLUMNS)
      row.update(
        time=time.time(),
        environment_frames=int(environment_frames),
        updates=int(updates),
        frames_per_sec=new_frames / secs,
        mean_return_100=_mean(self._returns),
        policy_lag_max=self._lag_max,
        learner_wait_fraction=_fraction(*self._waits['learner']),
        actor_wait_fraction=_fraction(*self._waits['actor']),
        learning_rate=float(learning_rate),
        entropy_cost=entropy_cost,
      )
      if self._num_updates:
        row.update({name: self._sums[name] / self._num_updates for name in _UPDATE_MEANS})
      row['policy_lag_by_pass'] = {}
      if len(self._lags) > 1:
        row['policy_lag_by_pass'] = {n: _mean(lags) for n, lags in sorted(self._lags.items())}
      row.update(self._actors.figures(now, secs), queue_depth=queue_depth)
      self._interval_start, self._frames_at_start = now, environment_frames
      self._clear_interval()
      return row

  def full_mean_return(self):
    """The mean return of the last `window` games, a float; None while there are fewer."""
    with self._lock:
      return _mean(self._returns) if len(self._returns) == self._returns.maxlen else None

  def pop_episodes(self, environment_frames):
    """Hands out the games that ended since the last call.

    Args:
      environment_frames: frames trained on so far.

    Returns:
      A list of dicts with EPISODE_COLUMNS, in the order in which the games ended. Their
      environment_frames are those after the next update, where there was one, and never go back.
    """
    with self._lock:
      episodes, self._episodes = self._episodes, []
      updates, self._updates_since = self._updates_since, []
    updates.append((math.inf, max([int(environment_frames), *(n for _, n in updates)])))
    return [
      _game(episode, wall, updates[bisect.bisect_left(updates, (ended,))][1])
      for ended, wall, episode in sorted(episodes, key=lambda entry: entry[0])
    ]


def _game(episode, ended, environment_frames):
  """A game of an actor's report as a dict with EPISODE_COLUMNS."""
  return dict(
    time=ended,
    environment_frames=environment_frames,
    level_name=episode['level_name'],
    episode_return=float(episode['episode_return']),
    clipped_return=float(episode['clipped_return']),
    episode_frames=int(episode['episode_frames']),
  )


class _Actors:
  """The actor tasks of a run: who is connected, who began anew, how fast each of them plays."""

  def __init__(self):
    self._last_report = {}  # task -> clock at its latest report.
    self._pids = {}  # task -> pid in its latest report.
    self._crashes = {}  # (task, pid) -> environments rebuilt so far.
    self._restarts = 0
    self._frames = collections.Counter()  # task -> new frames in this interval.
    self._busy = collections.defaultdict(list)  # host -> how busy it was in this interval.

  def add(self, report, now):
    """Takes in a report, see `RunStatistics.add_actor_report`."""
    task, pid = report['task'], report['pid']
    if self._pids.get(task, pid) != pid:
      self._restarts += 1
    self._pids[task] = pid
    self._last_report[task] = now
    self._crashes[task, pid] = max(report['crashes'], self._crashes.get((task, pid), 0))
    self._frames[task] += int(report['frames'])
    if report.get('processors_busy') is not None:
      self._busy[report['host']].append(report['processors_busy'])

  def figures(self, now, secs):
    """What a row says of actors after an interval of so many seconds; begins the next one."""
    connected = [task for task, seen in self._last_report.items() if now - seen <= _CONNECTED_SECS]
    frames, self._frames = self._frames, collections.Counter()
    busy, self._busy = self._busy, collections.defaultdict(list)
    return dict(
      connected_actors=len(connected),
      actor_restarts=self._restarts,
      environment_crashes=sum(self._crashes.values()),
      frames_per_sec_by_actor={task: frames[task] / secs for task in sorted(connected)},
      processors_busy_by_host={host: _mean(shares) for host, shares in sorted(busy.items())},
    )


def _mean(values):
  return sum(values) / len(values) if values else None


def _fraction(wait_secs, busy_secs):
  return wait_secs / (wait_secs + busy_secs) if wait_secs + busy_secs > 0 else None


def cluster_line(row):
  """The figures of a cluster that the live line has no room for.

  Args:
    row: a dict from `RunStatistics.row`.

  Returns:
    One line: frames/s by actor, connected actors, restarts and environment crashes.
  """
  rates = ', '.join(f'{task}: {rate:.0f}' for task, rate in row['frames_per_sec_by_actor'].items())
  return (
    f'frames/s by actor: {rates or "none"}  connected {row["connected_actors"]}  '
    f'restarts {row["actor_restarts"]}  environment crashes {row["environment_crashes"]}'
  )
