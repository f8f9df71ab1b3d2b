"""Rows of metrics become a terminal line, CSV files, TensorBoard events, a run record, a picture.

`RunStatistics` turns what learners and actors report into one row per interval, `open_run` gives
the writer of such rows, `verdict` says in a sentence who waits for whom, and `plot_learning_curve`
draws what the files hold. Nothing here knows where the numbers come from, and TensorFlow is never
imported: TensorBoard's own record writer and its protocol buffers are enough for event files.
"""

import collections
import csv
import datetime
import errno
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
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
)
EPISODE_COLUMNS = (
  'time',
  'environment_frames',
  'level_name',
  'episode_return',
  'clipped_return',
  'episode_frames',
)

_UPDATE_MEANS = (
  'total_loss',
  'policy_loss',
  'baseline_loss',
  'entropy_loss',
  'gradient_norm',
  'policy_lag_mean',
)
_LINE_SECS = 30.0  # Without a terminal: at most one line in this time.
_SMOOTHING_SECS = 60.0  # The speed that "time left" is based on is averaged over about this time.
_CONNECTED_SECS = 60.0  # An actor that has not reported for longer does not count as connected.
_WAIT_THRESHOLD = 0.1  # A share of waiting below this one is not worth a word.
_DISTRIBUTIONS = (
  'tensorflow',
  'dm-sonnet',
  'gymnasium',
  'ale-py',
  'gym',
  'numpy',
  'opencv-python-headless',
  'tensorboard',
)


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
    self._episodes = []  # (time, report's dict) of games not handed out yet.
    self._last_report = {}  # task -> clock at its latest report.
    self._pids = {}  # task -> pid in its latest report.
    self._crashes = {}  # (task, pid) -> environments rebuilt so far.
    self._restarts = 0
    self._interval_start = clock()
    self._frames_at_start = 0
    self._clear_interval()

  def _clear_interval(self):
    self._sums = collections.defaultdict(float)
    self._num_updates = 0
    self._lag_max = None
    self._waits = {'learner': [0.0, 0.0], 'actor': [0.0, 0.0]}  # [waiting, busy], seconds.
    self._frames_by_actor = collections.Counter()

  def start(self, environment_frames, returns=()):
    """Begins the first interval now.

    Args:
      environment_frames: frames that the run had already, from its checkpoint.
      returns: episode returns that the run had already, the latest last; see `last_returns`.
    """
    with self._lock:
      self._interval_start = self._clock()
      self._frames_at_start = environment_frames
      self._returns.clear()
      self._returns.extend(returns)

  def add_update(self, update, wait_secs, busy_secs):
    """Takes in one update of a learner.

    Args:
      update: dict of floats: total_loss, policy_loss, baseline_loss, entropy_loss, gradient_norm,
        policy_lag_mean, policy_lag_max (lags in updates).
      wait_secs: seconds that the learner waited for the batch.
      busy_secs: seconds that the rest of the update took.
    """
    with self._lock:
      self._num_updates += 1
      for name in _UPDATE_MEANS:
        self._sums[name] += float(update[name])
      lag = float(update['policy_lag_max'])
      self._lag_max = lag if self._lag_max is None else max(self._lag_max, lag)
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
        episode_return, clipped_return, episode_frames)).
    """
    now = time.time()
    task, pid = report['task'], report['pid']
    with self._lock:
      if self._pids.get(task, pid) != pid:
        self._restarts += 1
      self._pids[task] = pid
      self._last_report[task] = self._clock()
      self._crashes[task, pid] = max(report['crashes'], self._crashes.get((task, pid), 0))
      self._frames_by_actor[task] += int(report['frames'])
      self._add_wait('actor', report['wait_secs'], report['busy_secs'])
      for episode in report['episodes']:
        self._returns.append(float(episode['episode_return']))
        self._episodes.append((now, episode))

  def _add_wait(self, who, wait_secs, busy_secs):
    self._waits[who][0] += float(wait_secs)
    self._waits[who][1] += float(busy_secs)

  def row(self, environment_frames, updates, learning_rate, queue_depth=None):
    """Sums up the interval since the row before and begins the next one.

    Args:
      environment_frames: frames trained on so far, int.
      updates: updates done so far, int.
      learning_rate: the current one, float.
      queue_depth: unrolls waiting on the learners' queues, or None.

    Returns:
      A dict with METRIC_COLUMNS, and queue_depth, connected_actors, actor_restarts,
      environment_crashes, frames_per_sec_by_actor (a dict by task). Losses, gradient norm and
      policy_lag_mean are means over the interval's updates. What is not known is None.
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
      )
      if self._num_updates:
        row.update({name: self._sums[name] / self._num_updates for name in _UPDATE_MEANS})
      row.update(self._cluster_figures(now, secs), queue_depth=queue_depth)
      self._interval_start, self._frames_at_start = now, environment_frames
      self._clear_interval()
      return row

  def _cluster_figures(self, now, secs):
    connected = [task for task, seen in self._last_report.items() if now - seen <= _CONNECTED_SECS]
    return dict(
      connected_actors=len(connected),
      actor_restarts=self._restarts,
      environment_crashes=sum(self._crashes.values()),
      frames_per_sec_by_actor={
        task: self._frames_by_actor[task] / secs for task in sorted(connected)
      },
    )

  def pop_episodes(self, environment_frames):
    """Hands out the games that ended since the last call.

    Args:
      environment_frames: frames trained on so far, written beside each game.

    Returns:
      A list of dicts with EPISODE_COLUMNS, in the order in which the games were reported.
    """
    with self._lock:
      episodes, self._episodes = self._episodes, []
    return [
      dict(
        time=seen,
        environment_frames=int(environment_frames),
        level_name=episode['level_name'],
        episode_return=float(episode['episode_return']),
        clipped_return=float(episode['clipped_return']),
        episode_frames=int(episode['episode_frames']),
      )
      for seen, episode in episodes
    ]


def _mean(values):
  return sum(values) / len(values) if values else None


def _fraction(wait_secs, busy_secs):
  return wait_secs / (wait_secs + busy_secs) if wait_secs + busy_secs > 0 else None


def verdict(learner_wait_fraction, actor_wait_fraction, num_actors):
  """Says who is the limit, and by how much.

  Args:
    learner_wait_fraction: share of time that learners wait for data, in [0, 1], or None.
    actor_wait_fraction: share of time that actors wait for room in the queue, or None.
    num_actors: connected actors, int.

  Returns:
    One sentence; '' while it is not known how long the learners wait.
  """
  if learner_wait_fraction is None:
    return ''
  learner, actor = learner_wait_fraction, actor_wait_fraction or 0.0
  if not num_actors:
    return f'learners wait {learner:.0%} of the time for data: no actor is connected'
  if learner < _WAIT_THRESHOLD and actor < _WAIT_THRESHOLD:
    return f'balanced: learners wait {learner:.0%} and actors {actor:.0%} of the time'
  if (
    learner >= _WAIT_THRESHOLD
    and actor >= _WAIT_THRESHOLD
    and (max(learner, actor) < 2 * min(learner, actor))
  ):
    return (
      f'learners wait {learner:.0%} and actors {actor:.0%} of the time: what lies between '
      'them is the limit (network, parameter servers, weights)'
    )
  if actor > learner:
    return f'actors wait {actor:.0%} of the time: the learner is the limit'
  # n actors keep the learners busy for a share 1 - w of the time; n / (1 - w) would for all of it.
  share = min(learner, 0.99)
  more = max(round(num_actors * share / (1.0 - share)), 1)
  actors = 'actor' if more == 1 else 'actors'
  return (
    f'learners wait {learner:.0%} of the time for data: about {more} more {actors} would feed them'
  )


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


def open_run(logdir, total_environment_frames, metrics_secs, stream=None, tensorboard=True):
  """Opens the files of a run, a new one or one that is resumed.

  Args:
    logdir: the run's folder, created if needed; None writes no file.
    total_environment_frames: frames at which the run ends.
    metrics_secs: seconds between two rows, the caller's rhythm.
    stream: text stream for the terminal; None is standard output.
    tensorboard: whether event files for TensorBoard are written.

  Returns:
    A `RunWriter`.

  Raises:
    ValueError: metrics.csv or episodes.csv is there already, with other columns.
  """
  terminal = _Terminal(sys.stdout if stream is None else stream)
  if logdir is None:
    return RunWriter(terminal, total_environment_frames, metrics_secs)
  os.makedirs(logdir, exist_ok=True)
  metrics = _CsvFile(os.path.join(logdir, 'metrics.csv'), METRIC_COLUMNS)
  episodes = _CsvFile(os.path.join(logdir, 'episodes.csv'), EPISODE_COLUMNS)
  events = _EventFile(logdir) if tensorboard else None
  return RunWriter(terminal, total_environment_frames, metrics_secs, metrics, episodes, events)


def last_returns(logdir, environment_frames, window=100):
  """Raw returns of the last games in a run's episodes.csv, so that a resumed run goes on from them.

  Args:
    logdir: the run's folder; without an episodes.csv there were no games.
    environment_frames: where the run resumes, int; games of frames that were lost do not count.
    window: how many at most.

  Returns:
    A list of floats, the latest last.
  """
  return [
    float(game['episode_return'])
    for game in _read_games(logdir)
    if int(game['environment_frames']) <= environment_frames
  ][-window:]


class RunWriter:
  """Writes rows to the terminal and to the files of a run; see `open_run`. Thread-safe."""

  def __init__(
    self, terminal, total_environment_frames, metrics_secs, metrics=None, episodes=None, events=None
  ):
    """Takes over the opened files, each of which may be missing (None)."""
    self._lock = threading.RLock()
    self._terminal = terminal
    self._total_frames = total_environment_frames
    self._smoothing = min(1.0, metrics_secs / _SMOOTHING_SECS)
    self._speed = None
    self._metrics, self._episodes, self._events = metrics, episodes, events

  def write(self, row):
    """Writes a row of `RunStatistics.row` everywhere and shows it on the terminal."""
    with self._lock:
      if self._metrics:
        self._metrics.write([row])
      if self._events:
        self._events.write(row['time'], row['environment_frames'], _row_scalars(row))
      rate = row['frames_per_sec']
      self._speed = (
        rate if self._speed is None else (self._speed + self._smoothing * (rate - self._speed))
      )
      self._terminal.show(
        *(_live_line(row, self._total_frames, self._speed, short) for short in (False, True))
      )

  def write_episodes(self, episodes):
    """Writes the games of `RunStatistics.pop_episodes`."""
    with self._lock:
      if self._episodes:
        self._episodes.write(episodes)
      if self._events:
        for episode in episodes:
          self._events.write(
            episode['time'],
            episode['environment_frames'],
            {
              f'episodes/{episode["level_name"]}/{name}': episode[name]
              for name in ('episode_return', 'clipped_return', 'episode_frames')
            },
          )

  def message(self, text):
    """Prints a line of its own to the terminal; the live line goes on below it."""
    with self._lock:
      self._terminal.print(text)

  def close(self):
    """Leaves the last live line standing and closes the files. May be called twice."""
    with self._lock:
      self._terminal.finish()
      for file in (self._metrics, self._episodes, self._events):
        if file:
          file.close()
      self._metrics = self._episodes = self._events = None


def _row_scalars(row):
  """The numbers of a row by TensorBoard tag."""
  scalars = {}
  for name, value in row.items():
    tag = ('metrics/' if name in METRIC_COLUMNS else 'cluster/') + name
    if isinstance(value, dict):
      scalars.update({f'{tag}/{key}': item for key, item in value.items()})
    elif value is not None and name not in ('time', 'environment_frames'):
      scalars[tag] = value
  return scalars


def _live_line(row, total_frames, speed, short):
  """One line about a row; parts that are not known yet are left out. Two forms: long, short."""
  frames = row['environment_frames']
  rate, lag, loss = row['frames_per_sec'], row['policy_lag_mean'], row['total_loss']
  game_return, depth = row['mean_return_100'], row.get('queue_depth')
  parts = [
    f'{_count(frames)}/{_count(total_frames)}' + ('' if short else ' frames'),
    f'{rate:.0f}/s' if short else f'{rate:.0f} frames/s',
  ]
  if speed > 0 and frames < total_frames:
    parts.append(f'{_duration((total_frames - frames) / speed)} left')
  if game_return is not None:
    parts.append(f'R {game_return:.3g}' if short else f'return(100) {game_return:.3g}')
  if loss is not None:
    parts.append(f'loss {loss:.3g}')
  if lag is not None:
    parts.append(f'lag {lag:.3g}')
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


def _percent(fraction):
  return '' if fraction is None else f'{fraction:.0%}'


def _count(number):
  """12300000 -> '12.3M'."""
  for size, unit in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if number >= size:
      return f'{number / size:.1f}{unit}'
  return str(number)


def _duration(secs):
  """3900 -> '1h05m'."""
  secs = int(secs)
  for size, unit, part, part_unit in (
    (86400, 'd', 3600, 'h'),
    (3600, 'h', 60, 'm'),
    (60, 'm', 1, 's'),
  ):
    if secs >= size:
      return f'{secs // size}{unit}{secs % size // part:02d}{part_unit}'
  return f'{secs}s'


class _Terminal:
  """A text stream: one line that is rewritten on a terminal, a line every 30 s elsewhere.

  Training never ends because nobody reads: a closed or broken stream is given up silently.
  """

  def __init__(self, stream):
    self._stream = stream
    self._live = bool(stream) and _answers(stream.isatty) and os.environ.get('TERM') != 'dumb'
    self._live_shown = False
    self._pending = None  # A line not shown yet, off a terminal.
    self._next_line = -math.inf

  def show(self, line, short_line):
    """Shows the state of the run; the short form where the long one is too wide."""
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

  def print(self, text):
    """Prints a line that stays."""
    self._put(('\r\x1b[K' if self._live_shown else '') + text + '\n')
    self._live_shown = False

  def finish(self):
    """Ends the live line, or prints the last state that was held back."""
    if self._live_shown:
      self._put('\n')
    elif self._pending is not None:
      self._put(self._pending + '\n')
    self._live_shown, self._pending = False, None

  def _put(self, text):
    if self._stream is None:
      return
    encoding = getattr(self._stream, 'encoding', None) or 'utf-8'
    try:
      self._stream.write(text.encode(encoding, 'replace').decode(encoding))
      self._stream.flush()
    except (OSError, ValueError) as error:  # ValueError: the stream was closed.
      if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.EINTR):
        return
      _discard_buffered(self._stream)
      self._stream = None


def _answers(method):
  """What `method` returns; False where the stream is closed already."""
  try:
    return method()
  except (OSError, ValueError):
    return False


def _width(stream):
  """Columns of the terminal behind a stream; 80 where it does not tell."""
  try:
    return os.get_terminal_size(stream.fileno()).columns or 80
  except (OSError, ValueError, AttributeError):
    return 80


def _discard_buffered(stream):
  """What is still buffered for a broken pipe must not turn the exit code into 120 at the end."""
  if stream is sys.stdout and not stream.closed:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class _CsvFile:
  """A CSV file that later starts of the run append to. Each row is on disk when `write` returns."""

  def __init__(self, path, columns):
    self._columns = columns
    _repair_last_line(path)
    header = _read_header(path)
    if header and header != list(columns):
      raise ValueError(
        f'{path} has the columns {",".join(header)}, but this version writes '
        f'{",".join(columns)}: move the file away or choose another --logdir.'
      )
    self._file = open(path, 'a', newline='', encoding='utf-8')
    self._writer = csv.writer(self._file, lineterminator='\n')
    if not header:
      self._writer.writerow(columns)
      self._file.flush()

  def write(self, rows):
    """Appends rows, dicts that have at least the columns."""
    self._writer.writerows([[_cell(row[name], name) for name in self._columns] for row in rows])
    self._file.flush()

  def close(self):
    """Closes the file."""
    self._file.close()


def _repair_last_line(path):
  """Cuts off the half line that a killed process may have left behind."""
  if os.path.exists(path):
    with open(path, 'rb+') as file:
      file.truncate(file.read().rfind(b'\n') + 1)


def _read_header(path):
  if not os.path.exists(path):
    return []
  with open(path, newline='', encoding='utf-8') as file:
    return next(csv.reader(file), [])


def _cell(value, name):
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:.3f}' if name == 'time' else f'{value:.8g}'
  return value


class _EventFile:
  """TensorBoard's event file, through TensorBoard's own record writer."""

  def __init__(self, logdir):
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer import record_writer

    self._event, self._summary = event_pb2.Event, summary_pb2.Summary
    now = time.time()
    name = f'events.out.tfevents.{now:017.6f}.{platform.node()}.{os.getpid()}'
    self._writer = record_writer.RecordWriter(open(os.path.join(logdir, name), 'wb'))
    self._add(self._event(wall_time=now, file_version='brain.Event:2'))

  def write(self, wall_time, step, scalars):
    """Adds scalars, a dict by tag, at a step (environment frames)."""
    values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    self._add(self._event(wall_time=wall_time, step=step, summary=self._summary(value=values)))

  def _add(self, event):
    self._writer.write(event.SerializeToString())
    self._writer.flush()

  def close(self):
    """Closes the file."""
    self._writer.close()


def write_run_json(logdir, flags, extra):
  """Records how this start of a run came about in `run.json`; earlier starts are kept in it.

  The file holds the latest start (time, flags, versions, git commit, machine, `extra`) and, under
  'starts', all earlier ones, oldest first. Environment variables are not recorded.

  Args:
    logdir: the run's folder, created if needed.
    flags: dict of flag values.
    extra: dict of further entries.
  """
  os.makedirs(logdir, exist_ok=True)
  path = os.path.join(logdir, 'run.json')
  earlier = read_run_json(path)
  starts = earlier.pop('starts', []) + ([earlier] if earlier else [])
  start = dict(
    started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
    flags=flags,
    versions=_versions(),
    git_commit=_git_commit(),
    machine=_machine(),
    **extra,
  )
  with open(path + '.new', 'w', encoding='utf-8') as file:
    json.dump(dict(start, starts=starts), file, indent=2, default=str)
    file.write('\n')
  os.replace(path + '.new', path)


def read_run_json(path):
  """The record so far.

  Args:
    path: a run's run.json.

  Returns:
    Its dict; {} where there is none, or one that cannot be read (that is moved aside).
  """
  try:
    with open(path, encoding='utf-8') as file:
      return json.load(file)
  except FileNotFoundError:
    return {}
  except ValueError:
    os.replace(path, path + '.unreadable')
    return {}


def _versions():
  versions = {'python': platform.python_version()}
  for name in _DISTRIBUTIONS:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  return versions


def _git_commit():
  """The commit of the sources, with '-dirty' when files differ from it; None outside of git."""
  folder = os.path.dirname(os.path.abspath(__file__))
  try:
    return subprocess.run(
      ['git', '-C', folder, 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    ).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return None


def _machine():
  return dict(
    system=f'{platform.system()} {platform.release()}',
    architecture=platform.machine(),
    processor=_processor(),
    cores=os.cpu_count(),
    memory_bytes=os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'),
  )


def _processor():
  """The processor's name where the system tells, as in /proc/cpuinfo of Linux."""
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
  except OSError:
    names = []
  return names[0] if names else platform.processor()


def plot_learning_curve(logdirs, path):
  """Draws returns, waits, policy lag and loss over frames from the CSV files of one or more runs.

  Rows that a restart from an earlier checkpoint made void are left out.

  Args:
    logdirs: a run's folder, or a list of them.
    path: the picture's file name, such as learning_curve.png.

  Raises:
    ValueError: a folder has no metrics.csv, or one without rows.
  """
  import matplotlib.backends.backend_agg
  import matplotlib.figure

  logdirs = [logdirs] if isinstance(logdirs, (str, os.PathLike)) else list(logdirs)
  figure = matplotlib.figure.Figure(figsize=(9, 11), layout='constrained')
  matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  axes = figure.subplots(4, 1, sharex=True, height_ratios=(3, 1, 1, 1))
  for number, logdir in enumerate(logdirs):
    _plot_run(axes, logdir, f'C{number}')
  labels = ('return of a game', 'share of time waiting', 'policy lag (updates)', 'loss')
  for axis, label in zip(axes, labels):
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize='small')
  axes[1].set_ylim(0, 1)
  axes[-1].set_xlabel('environment frames (million)')
  figure.savefig(path, dpi=100)


def _plot_run(axes, logdir, color):
  rows = _read_csv(os.path.join(logdir, 'metrics.csv'))
  if not rows:
    raise ValueError(f'{os.path.join(logdir, "metrics.csv")} has no rows yet: nothing to plot.')
  name = os.path.basename(os.path.abspath(logdir))
  axes[0].plot(
    *_curve(_read_games(logdir), 'episode_return'), '.', color=color, markersize=2, alpha=0.25
  )
  axes[0].plot(*_curve(rows, 'mean_return_100'), color=color, label=f'{name}: mean of 100')
  axes[1].plot(*_curve(rows, 'learner_wait_fraction'), color=color, label=f'{name}: learner')
  axes[1].plot(
    *_curve(rows, 'actor_wait_fraction'), color=color, linestyle='--', label=f'{name}: actors'
  )
  axes[2].plot(*_curve(rows, 'policy_lag_mean'), color=color, label=name)
  axes[3].plot(*_curve(rows, 'total_loss'), color=color, label=name)


def _curve(rows, column):
  """Million frames and values of a column, as two lists; empty cells become gaps."""
  return (
    [float(row['environment_frames']) / 1e6 for row in rows],
    [float(row[column] or 'nan') for row in rows],
  )


def _read_games(logdir):
  """Rows of a run's episodes.csv, as `_read_csv` gives them; none where it is missing."""
  path = os.path.join(logdir, 'episodes.csv')
  return _read_csv(path) if os.path.exists(path) else []


def _read_csv(path):
  """Rows of a run's CSV file as dicts of strings, those before a step back in frames dropped."""
  try:
    with open(path, newline='', encoding='utf-8') as file:
      rows = list(csv.DictReader(file))
  except FileNotFoundError:
    raise ValueError(f'{path} does not exist: nothing to plot.') from None
  kept, limit = [], math.inf
  for row in reversed(rows):
    frames = float(row['environment_frames'] or 'nan')
    if frames <= limit and None not in row.values():  # A short row is being written right now.
      kept.append(row)
      limit = frames
  return kept[::-1]
