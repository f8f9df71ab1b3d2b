"""Aggregates the reports of learners and actors into one row of metrics per interval."""

import bisect
import collections
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reporting.level_scores import LevelScores, mean
from reporting.metrics import METRIC_COLUMNS, UPDATE_MEANS

# Figures of an update of which a row has the maximum.
_MAXIMA = ('policy_lag_max', 'replayed_lag_max')
_CONNECTED_SECS = 20.0  # An actor that was silent for longer does not count as connected.


class RunStatistics:
  """Collects the reports of learners and actors and aggregates them per interval. Thread-safe.

  Args:
    window: number of latest games (of each level) over which `mean_return_100` averages.
    clock: returns seconds; only differences are used.
    level_names: ids of the run's levels; () if there is one.
  """

  def __init__(
    self,
    window: int = 100,
    clock: Callable[[], float] = time.monotonic,
    level_names: Sequence[str] = (),
  ):
    self._lock, self._clock = threading.Lock(), clock
    self._levels = LevelScores(level_names, window)
    self._games = _FinishedGames()
    self._actors = _Actors()
    self._updates, self._waits = _Updates(), _Waits()
    self._interval_start, self._frames_at_start = clock(), 0

  def start(self, environment_frames: int, games: Iterable[tuple[str, float]] = ()) -> None:
    """Begins the first interval.

    Args:
      environment_frames: frames of the checkpoint that the run resumes from; 0 for a new run.
      games: level and return of the run's last games, the latest last; see `csv_files.last_games`.
    """
    with self._lock:
      self._interval_start, self._frames_at_start = self._clock(), environment_frames
      self._games.forget_updates()
      self._levels.start(games)

  def state(self) -> dict[str, Any]:
    """Returns what later rows and games depend on but for times, which JSON can hold.

    Each game must have been followed by an update.
    """
    with self._lock:
      games = [{**game, 'time': None} for game in self._games.rows(0)]
      return dict(**self._updates.state(), levels=self._levels.state(), games=games)

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes on from a state; its games get the present time."""
    with self._lock:
      self._updates, self._waits = _Updates(), _Waits()
      self._updates.set_state(state)
      self._levels.set_state(state['levels'])
      self._games.begin_with(state['games'])

  def add_update(self, update: Mapping[str, Any], wait_secs: float, busy_secs: float) -> None:
    """Adds one update of the chief's learner.

    Args:
      update: floats by name: all of UPDATE_MEANS, policy_lag_max (in updates), pass (over the
        batch, counted from 1) and, where known, environment_frames after the update. Those of
        replayed unrolls (replayed_lag_...) may be missing.
      wait_secs: seconds that the learner waited for the batch.
      busy_secs: seconds that the rest of the update took.
    """
    with self._lock:
      if 'environment_frames' in update:
        self._games.add_update(self._clock(), int(update['environment_frames']))
      self._updates.add(update)
      self._waits.add('learner', wait_secs, busy_secs)

  def add_learner_wait(self, wait_secs: float, busy_secs: float) -> None:
    """Adds the seconds that another learner waited and worked since its last report."""
    with self._lock:
      self._waits.add('learner', wait_secs, busy_secs)

  def add_actor_report(self, report: Mapping[str, Any]) -> None:
    """Adds what one actor task did since its last report.

    Args:
      report: task (int), pid (int), frames (int, new environment frames), frames_by_level (dict,
        the same by level, optional), wait_secs and busy_secs (floats, new seconds in which it
        waited for the queue and in which it did not), crashes (int, environments rebuilt since the
        process started), host and processors_busy (str and float, optional), and episodes: a list
        of dicts of level_name, episode_return, clipped_return, episode_frames and secs_ago (seconds
        since the game ended, default 0).
    """
    with self._lock:
      wall, now = time.time(), self._clock()
      self._actors.add(report, now)
      self._levels.add_frames(report.get('frames_by_level', {}))
      self._waits.add('actor', report['wait_secs'], report['busy_secs'])
      for episode in report['episodes']:
        self._levels.add(episode['level_name'], episode['episode_return'])
        secs_ago = float(episode.get('secs_ago', 0.0))
        self._games.add(now - secs_ago, wall - secs_ago, episode)

  def row(
    self,
    environment_frames: int,
    updates: int,
    learning_rate: float,
    queue_depth: int | None = None,
    entropy_cost: float | None = None,
  ) -> dict[str, Any]:
    """Sums up the interval since the last row and begins the next one.

    Args:
      environment_frames, updates: so far.
      learning_rate: the current one.
      queue_depth: unrolls in the learners' queues.
      entropy_cost: the current weight of the entropy loss.

    Returns:
      A value for each of `metrics.METRICS` and `metrics.CLUSTER_METRICS`; None where it is not
      known. policy_lag_by_pass is empty if each batch is learned from once.
    """
    with self._lock:
      now = self._clock()
      secs = max(now - self._interval_start, 1e-9)
      row: dict[str, Any] = dict.fromkeys(METRIC_COLUMNS)
      row.update(
        time=time.time(),
        environment_frames=int(environment_frames),
        updates=int(updates),
        # After a restart from a checkpoint the counter may be lower than in the last row.
        frames_per_sec=max(environment_frames - self._frames_at_start, 0) / secs,
        mean_return_100=self._levels.mean_return(),
        learner_wait_fraction=self._waits.fraction('learner'),
        actor_wait_fraction=self._waits.fraction('actor'),
        learning_rate=float(learning_rate),
        entropy_cost=entropy_cost,
        queue_depth=queue_depth,
        **self._updates.figures(),
        **self._actors.figures(now, secs),
        **self._levels.figures(),
      )
      self._interval_start, self._frames_at_start = now, environment_frames
      self._updates, self._waits = _Updates(), _Waits()
      return row

  def mean_return(self) -> float | None:
    """Returns `mean_return_100` of a row."""
    with self._lock:
      return self._levels.mean_return()

  def best_by(self) -> float | None:
    """Returns what the best checkpoint has most of, see `LevelScores.best_by`."""
    with self._lock:
      return self._levels.best_by()

  def pop_episodes(self, environment_frames: int) -> list[dict[str, Any]]:
    """Returns the games that ended since the last call, in the order in which they ended.

    Args:
      environment_frames: frames trained on so far.

    Returns:
      Dicts of EPISODE_COLUMNS. A game's environment_frames are those after the first update that
      followed it; they never decrease.
    """
    with self._lock:
      games, self._games = self._games.rows(environment_frames), _FinishedGames()
      return games


class _Updates:
  """Updates of the chief's learner in one interval."""

  def __init__(self):
    self._number = 0
    self._sums: dict[str, float] = collections.defaultdict(float)
    self._maxima: dict[str, float | None] = dict.fromkeys(_MAXIMA)
    self._lags: dict[int, list[float]] = collections.defaultdict(list)  # By pass over a batch.

  def add(self, update: Mapping[str, Any]) -> None:
    """Adds an update; see `RunStatistics.add_update`."""
    self._number += 1
    for name in UPDATE_MEANS:
      if name in update:
        self._sums[name] += float(update[name])
    for name, before in self._maxima.items():
      if name in update:
        now = float(update[name])
        self._maxima[name] = now if before is None else max(before, now)
    self._lags[update['pass']].append(float(update['policy_lag_mean']))

  def figures(self) -> dict[str, Any]:
    """Returns a row's figures of updates."""
    means = {name: total / self._number for name, total in self._sums.items()}
    by_pass = {number: mean(lags) for number, lags in sorted(self._lags.items())}
    return dict(**means, **self._maxima, policy_lag_by_pass=by_pass if len(by_pass) > 1 else {})

  def state(self) -> dict[str, Any]:
    """Returns what `set_state` takes, which JSON can hold."""
    return dict(
      sums=dict(self._sums),
      num_updates=self._number,
      maxima=self._maxima,
      lags={str(number): lags for number, lags in self._lags.items()},
    )

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes on from a state."""
    self._number = int(state['num_updates'])
    self._sums.update({name: float(total) for name, total in state['sums'].items()})
    self._maxima.update({name: state['maxima'][name] for name in _MAXIMA})
    self._lags.update({int(number): list(lags) for number, lags in state['lags'].items()})


class _Waits:
  """Seconds in which learners and actors waited, and in which they did not, in one interval."""

  def __init__(self):
    self._secs = {'learner': [0.0, 0.0], 'actor': [0.0, 0.0]}  # [waiting, busy].

  def add(self, who: str, wait_secs: float, busy_secs: float) -> None:
    """Adds seconds of a learner or an actor."""
    self._secs[who][0] += float(wait_secs)
    self._secs[who][1] += float(busy_secs)

  def fraction(self, who: str) -> float | None:
    """Returns the share of waiting, in [0, 1]; None if nobody has reported."""
    waiting, busy = self._secs[who]
    return waiting / (waiting + busy) if waiting + busy > 0 else None


class _FinishedGames:
  """Games that are in no row of episodes.csv yet, and the updates that followed them."""

  def __init__(self):
    # (clock, time, the report's dict).
    self._games: list[tuple[float, float, Mapping[str, Any]]] = []
    self._earlier: list[dict[str, Any]] = []  # Rows of games before the process began.
    self._updates: list[tuple[float, int]] = []  # (clock, environment frames).

  def begin_with(self, games: Iterable[Mapping[str, Any]]) -> None:
    """Begins with games that `rows` returned in an earlier process; they get the present time."""
    self._earlier = [_game(game, time.time(), int(game['environment_frames'])) for game in games]

  def forget_updates(self) -> None:
    """Forgets all updates, after a restart."""
    self._updates.clear()

  def add(self, clock: float, ended: float, game: Mapping[str, Any]) -> None:
    """Adds a game of an actor's report."""
    self._games.append((clock, ended, game))

  def add_update(self, clock: float, environment_frames: int) -> None:
    """Adds an update, after which so many frames were trained on."""
    self._updates.append((clock, environment_frames))

  def rows(self, environment_frames: int) -> list[dict[str, Any]]:
    """Returns the rows of all games; see `RunStatistics.pop_episodes`."""
    updates = list(self._updates)
    updates.append((math.inf, max([int(environment_frames), *(n for _, n in updates)])))
    return self._earlier + [
      _game(episode, wall, updates[bisect.bisect_left(updates, (ended,))][1])
      for ended, wall, episode in sorted(self._games, key=lambda entry: entry[0])
    ]


def _game(episode: Mapping[str, Any], ended: float, environment_frames: int) -> dict[str, Any]:
  """Returns the row of episodes.csv for a game in an actor's report."""
  return dict(
    time=ended,
    environment_frames=environment_frames,
    level_name=episode['level_name'],
    episode_return=float(episode['episode_return']),
    clipped_return=float(episode['clipped_return']),
    episode_frames=int(episode['episode_frames']),
  )


class _Actors:
  """Tracks which actor tasks are connected or restarted, and how fast each one plays."""

  def __init__(self):
    self._last_report: dict[int, float] = {}  # Task to the clock at its latest report.
    self._pids: dict[int, int] = {}  # Task to the process id in its latest report.
    self._crashes: dict[tuple[int, int], int] = {}  # (task, pid) to environments rebuilt so far.
    self._restarts = 0
    self._frames = collections.Counter()  # Task to new frames in this interval.
    # Host to the shares of time that its processors were busy in this interval.
    self._busy: dict[str, list[float]] = collections.defaultdict(list)

  def add(self, report: Mapping[str, Any], now: float) -> None:
    """Adds a report; see `RunStatistics.add_actor_report`."""
    task, pid = report['task'], report['pid']
    if self._pids.get(task, pid) != pid:
      self._restarts += 1
    self._pids[task] = pid
    self._last_report[task] = now
    self._crashes[task, pid] = max(report['crashes'], self._crashes.get((task, pid), 0))
    self._frames[task] += int(report['frames'])
    if report.get('processors_busy') is not None:
      self._busy[report['host']].append(report['processors_busy'])

  def figures(self, now: float, secs: float) -> dict[str, Any]:
    """Returns a row's figures of actors after an interval of `secs`, and begins the next one."""
    connected = [task for task, seen in self._last_report.items() if now - seen <= _CONNECTED_SECS]
    frames, self._frames = self._frames, collections.Counter()
    busy, self._busy = self._busy, collections.defaultdict(list)
    return dict(
      connected_actors=len(connected),
      actor_restarts=self._restarts,
      environment_crashes=sum(self._crashes.values()),
      frames_per_sec_by_actor={task: frames[task] / secs for task in sorted(connected)},
      processors_busy_by_host={host: mean(shares) for host, shares in sorted(busy.items())},
    )


def cluster_line(row: Mapping[str, Any]) -> str:
  """Returns one line with the figures of a row that do not fit into the live line."""
  rates = ', '.join(f'{task}: {rate:.0f}' for task, rate in row['frames_per_sec_by_actor'].items())
  return (
    f'frames/s by actor: {rates or "none"}  connected {row["connected_actors"]}  '
    f'restarts {row["actor_restarts"]}  environment crashes {row["environment_crashes"]}'
  )
