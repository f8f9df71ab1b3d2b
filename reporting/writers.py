"""Where the rows of a run are written: the terminal, CSV files and TensorBoard, all at once."""

import contextlib
import os
import random
import sys
import threading

from reporting.csv_files import CsvFile, share_of_games
from reporting.events import EventFile
from reporting.statistics import EPISODE_COLUMNS, EVALUATION_COLUMNS, METRIC_COLUMNS
from reporting.terminal import Terminal, live_line

_SMOOTHING_SECS = 60.0  # The speed that "time left" is based on is averaged over about this time.


# TensorBoard sorts groups of tags by name: what a run is worth comes first.
_RETURNS = '1_return/'


def open_run(
  logdir, total_environment_frames, metrics_secs, stream=None, tensorboard=True, evaluations=False
):
  """Opens the files of a run, a new one or one that is resumed.

  Args:
    logdir: the run's folder, created if needed; None writes no file.
    total_environment_frames: frames at which the run ends.
    metrics_secs: seconds between two rows, the caller's rhythm.
    stream: text stream for the terminal; None is standard output.
    tensorboard: whether event files for TensorBoard are written.
    evaluations: whether there will be any, for evaluations.csv.

  Returns:
    A `RunWriter`.

  Raises:
    ValueError: one of the CSV files is there already, with other columns.
  """
  screen = Terminal(sys.stdout if stream is None else stream)
  if logdir is None:
    return RunWriter(screen, total_environment_frames, metrics_secs)
  with contextlib.suppress(OSError):  # Whatever cannot be opened is tried again with each row.
    os.makedirs(logdir, exist_ok=True)
  metrics = CsvFile(os.path.join(logdir, 'metrics.csv'), METRIC_COLUMNS)
  episodes = CsvFile(os.path.join(logdir, 'episodes.csv'), EPISODE_COLUMNS)
  played = None
  if evaluations:
    played = CsvFile(os.path.join(logdir, 'evaluations.csv'), EVALUATION_COLUMNS)
  events = EventFile(logdir) if tensorboard else None
  files = metrics, episodes, events, played
  return RunWriter(screen, total_environment_frames, metrics_secs, *files)


class _Sink:
  """A file of a run. A record is not the run: what cannot be written is counted, and that is all.

  Args:
    name: of the file, for sentences.
    file: has `write` and `close`; None for no file.
    say: function of a sentence.

  Attributes:
    lost: rows that could not be written so far, int.
    reason: why the last one could not, '' where it could.
  """

  def __init__(self, name, file, say):
    self._name, self._file, self._say = name, file, say
    self.lost, self.reason = 0, ''

  @property
  def size(self):
    """Bytes of the file."""
    return self._file.size if self._file else 0

  def write(self, *args, rows=1, by='write'):
    """As this method of the file, of so many rows."""
    if not self._file:
      return
    try:
      getattr(self._file, by)(*args)
    except (OSError, ValueError) as e:  # ValueError: other columns, seen late.
      reason = getattr(e, 'strerror', None) or str(e)
      if reason != self.reason:
        self._say(f'{self._name} cannot be written: {reason}; training goes on without its rows')
      self.lost, self.reason = self.lost + rows, reason
    else:
      if self.reason:
        self._say(f'{self._name} is written again; {self.lost} rows are missing')
      self.reason = ''

  def close(self):
    """Closes the file; nothing is written from now on."""
    if self._file:
      self._file.close()
    self._file = None


class _Speed:
  """The mean of frames/s over about _SMOOTHING_SECS.

  Rows before the first frames say nothing of it, and the row in which frames began says too little.

  Args:
    metrics_secs: seconds between two rows.
  """

  def __init__(self, metrics_secs):
    self._smoothing = min(1.0, metrics_secs / _SMOOTHING_SECS)
    self._mean, self._rows = 0.0, 0  # Of the rows with or after the first frames.

  def add(self, rate):
    """Takes the frames/s of a row; returns the mean, 0 before the first frames."""
    if not rate and not self._rows:
      return 0.0
    self._rows += 1
    share = max(self._smoothing, 1 / max(1, self._rows - 1))
    self._mean += share * (rate - self._mean)
    return self._mean


class RunWriter:
  """Writes rows to the terminal and to the files of a run; see `open_run`. Thread-safe."""

  def __init__(
    self, screen, total_environment_frames, metrics_secs, metrics=None, episodes=None, events=None,
    evaluations=None,
  ):  # fmt: skip
    """Takes over the opened files, each of which may be missing (None)."""
    self._lock = threading.RLock()
    self._screen = screen
    self._total_frames = total_environment_frames
    self._speed, self._drawn = _Speed(metrics_secs), random.Random()
    self._metrics = _Sink('metrics.csv', metrics, self.message)
    self._episodes = _Sink('episodes.csv', episodes, self.message)
    self._evaluations = _Sink('evaluations.csv', evaluations, self.message)
    self._events = _Sink("TensorBoard's event file", events, self.message)
    self._sinks = self._metrics, self._episodes, self._evaluations, self._events
    self._checkpoint_trouble = ''

  @property
  def trouble(self):
    """What of the run is not on disk, in a few words; '' where all is."""
    lost = sum(sink.lost for sink in self._sinks)
    reason = next((sink.reason for sink in self._sinks if sink.reason), '')
    rows = f'{lost} rows not recorded' + (f': {reason}' if reason else '') if lost else ''
    return '; '.join(filter(None, [self._checkpoint_trouble, rows]))

  def set_checkpoint_trouble(self, text):
    """Sets what the live line says about checkpoints that cannot be written, or ''."""
    self._checkpoint_trouble = text

  def begin(self, environment_frames, settings):
    """Tells TensorBoard that the run begins, or goes on, with so many frames.

    Args:
      environment_frames: int.
      settings: dict, shown as hyperparameters.
    """
    with self._lock:
      self._events.write(environment_frames, settings, rows=0, by='begin')

  def write(self, row):
    """Writes a row of `RunStatistics.row` everywhere and shows it on the terminal."""
    with self._lock:
      self._metrics.write([row])
      self._events.write(row['time'], row['environment_frames'], _row_scalars(row))
      speed = self._speed.add(row['frames_per_sec'])
      long, short = (live_line(row, self._total_frames, speed, s) for s in (False, True))
      trouble = self.trouble
      self._screen.show(
        *(f'{long}  {trouble}', f'{trouble}  {short}') if trouble else (long, short)
      )

  def write_episodes(self, episodes):
    """Writes the games of `RunStatistics.pop_episodes`: all, or a share where they are too many."""
    with self._lock:
      share = share_of_games(self._episodes.size)
      episodes = [episode for episode in episodes if self._drawn.random() < share]
      if episodes:
        self._episodes.write(episodes, rows=len(episodes))
      for episode in episodes:
        self._events.write(
          episode['time'], episode['environment_frames'], _episode_scalars(episode)
        )

  def write_evaluation(self, row):
    """Writes a row of EVALUATION_COLUMNS."""
    with self._lock:
      self._evaluations.write([row])
      tag = f'{_RETURNS}evaluations/{row["protocol"]}/'
      names = [name for name in EVALUATION_COLUMNS if name.endswith(('_return', '_score'))]
      scalars = {tag + name: row[name] for name in names if row[name] is not None}
      self._events.write(row['time'], row['environment_frames'], scalars)

  def message(self, text):
    """Prints a line of its own to the terminal; the live line goes on below it."""
    with self._lock:
      self._screen.print(text)

  def end_line(self):
    """Leaves the last live line standing: no more rows come."""
    with self._lock:
      self._screen.finish()

  def close(self):
    """Leaves the last live line standing and closes the files. May be called twice."""
    with self._lock:
      self._screen.finish()
      for sink in self._sinks:
        sink.close()


def _row_scalars(row):
  """The numbers of a row by TensorBoard tag."""
  scalars = {}
  for name, value in row.items():
    group = 'metrics/' if name in METRIC_COLUMNS else 'cluster/'
    tag = (_RETURNS if name == 'mean_return_100' else group) + name
    if isinstance(value, dict):
      scalars.update({f'{tag}/{key}': item for key, item in value.items()})
    elif value is not None and name not in ('time', 'environment_frames', 'no_answer'):
      scalars[tag] = value
  return scalars


def _episode_scalars(episode):
  """The numbers of a game by TensorBoard tag."""
  level = episode['level_name']
  others = {f'episodes/{level}/{n}': episode[n] for n in ('clipped_return', 'episode_frames')}
  return {f'{_RETURNS}{level}/episode_return': episode['episode_return'], **others}
