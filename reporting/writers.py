"""Writes the rows of a run to the terminal, CSV files and TensorBoard."""

import contextlib
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

from reporting import metrics
from reporting.csv_files import CsvFile, share_of_games
from reporting.events import EventFile
from reporting.own_observers import Observers
from reporting.terminal import Terminal, live_line

_SMOOTHING_SECS = 60.0  # "Time left" is based on the speed averaged over about this time.


def open_run(
  logdir: str | None,
  total_environment_frames: int,
  metrics_secs: float,
  stream: TextIO | None = None,
  tensorboard: bool = True,
  evaluations: bool = False,
  observers: Observers | None = None,
  seed: int | None = None,
) -> 'RunWriter':
  """Opens the files of a new or resumed run.

  Args:
    logdir: the run's folder, created if needed; None writes no file.
    total_environment_frames: frames at which the run ends.
    metrics_secs: seconds between two calls of `RunWriter.write`.
    stream: text stream for the terminal; None is standard output.
    tensorboard: whether to write an event file for TensorBoard.
    evaluations: whether to write evaluations.csv.
    observers: the user's observers, which get the same rows.
    seed: chooses the games that are written, if they are too many for all; None chooses anew.

  Raises:
    ValueError: one of the CSV files exists and has other columns.
  """
  screen = Terminal(sys.stdout if stream is None else stream)
  if logdir is None:
    return RunWriter(screen, total_environment_frames, metrics_secs)
  with contextlib.suppress(OSError):  # Opening is tried again with each row.
    os.makedirs(logdir, exist_ok=True)

  def csv(name: str, columns: tuple[str, ...]) -> CsvFile:
    return CsvFile(os.path.join(logdir, name), columns)

  return RunWriter(
    screen,
    total_environment_frames,
    metrics_secs,
    csv('metrics.csv', metrics.METRIC_COLUMNS),
    csv('episodes.csv', metrics.EPISODE_COLUMNS),
    EventFile(logdir) if tensorboard else None,
    csv('evaluations.csv', metrics.EVALUATION_COLUMNS) if evaluations else None,
    observers,
    seed,
  )


class _Sink:
  """A file of a run. Rows that cannot be written are dropped and counted; training continues.

  Args:
    name: the file in messages.
    file: None for no file.
    say: called with a sentence when writing fails and when it succeeds again.

  Attributes:
    lost: int, rows that could not be written so far.
    reason: str, why the last row could not be written, or ''.
  """

  def __init__(self, name: str, file: CsvFile | EventFile | None, say: Callable[[str], None]):
    self._name, self._file, self._say = name, file, say
    self.lost, self.reason = 0, ''

  @property
  def size(self) -> int:
    """Bytes of the CSV file so far."""
    return self._file.size if isinstance(self._file, CsvFile) else 0

  @property
  def last_frames(self) -> float:
    """Environment frames of the CSV file's last row when it was cut."""
    return self._file.last_frames if isinstance(self._file, CsvFile) else 0.0

  def write(self, *args: Any, rows: int = 1, method: str = 'write') -> None:
    """Calls `method` of the file with `args`, which hold so many rows."""
    if not self._file:
      return
    try:
      getattr(self._file, method)(*args)
    except (OSError, ValueError) as e:  # ValueError: the file turned out to have other columns.
      reason = getattr(e, 'strerror', None) or str(e)
      if reason != self.reason:
        self._say(f'{self._name} cannot be written: {reason}; training goes on without its rows')
      self.lost, self.reason = self.lost + rows, reason
    else:
      if self.reason:
        self._say(f'{self._name} is written again; {self.lost} rows are missing')
      self.reason = ''

  def close(self) -> None:
    """Closes the file; later writes do nothing."""
    if self._file:
      self._file.close()
    self._file = None


class _Speed:
  """The mean of frames/s over about _SMOOTHING_SECS.

  Rows before the first frames do not count, and the first row with frames is soon forgotten, since
  it covers a part of its interval only.

  Args:
    metrics_secs: seconds between two rows.
  """

  def __init__(self, metrics_secs: float):
    self._smoothing = min(1.0, metrics_secs / _SMOOTHING_SECS)
    self._mean, self._rows = 0.0, 0  # Rows since the first frames.

  def add(self, rate: float) -> float:
    """Adds the frames/s of a row; returns the mean, 0 before the first frames."""
    if not rate and not self._rows:
      return 0.0
    self._rows += 1
    share = max(self._smoothing, 1 / max(1, self._rows - 1))
    self._mean += share * (rate - self._mean)
    return self._mean


class RunWriter:
  """Writes rows to the terminal and to the files of a run; see `open_run`. Thread-safe.

  It closes the files that it was given, each of which may be None.
  """

  def __init__(
    self,
    screen: Terminal,
    total_environment_frames: int,
    metrics_secs: float,
    metrics_file: CsvFile | None = None,
    episodes: CsvFile | None = None,
    events: EventFile | None = None,
    evaluations: CsvFile | None = None,
    observers: Observers | None = None,
    seed: int | None = None,
  ):
    self._seed = seed
    self._lock = threading.RLock()
    self._screen = screen
    self._total_frames = total_environment_frames
    self._speed, self._drawn = _Speed(metrics_secs), random.Random()
    self._metrics = _Sink('metrics.csv', metrics_file, self.message)
    self._episodes = _Sink('episodes.csv', episodes, self.message)
    self._evaluations = _Sink('evaluations.csv', evaluations, self.message)
    self._events = _Sink("TensorBoard's event file", events, self.message)
    self._sinks = self._metrics, self._episodes, self._evaluations, self._events
    self._checkpoint_trouble = ''
    self._observers = observers or Observers({})
    self._observers.report_to(self.message)

  @property
  def trouble(self) -> str:
    """What could not be written, in a few words; '' if everything was."""
    lost = sum(sink.lost for sink in self._sinks)
    reason = next((sink.reason for sink in self._sinks if sink.reason), '')
    rows = f'{lost} rows not recorded' + (f': {reason}' if reason else '') if lost else ''
    return '; '.join(filter(None, [self._checkpoint_trouble, rows]))

  def set_checkpoint_trouble(self, text: str) -> None:
    """Sets why checkpoints cannot be written, for the live line; '' if they can."""
    self._checkpoint_trouble = text

  def begin(self, environment_frames: int, settings: Mapping[str, Any]) -> None:
    """Marks the start of a new or resumed run in TensorBoard.

    Args:
      environment_frames: frames at the start; events beyond them are void.
      settings: shown as hyperparameters.
    """
    with self._lock:
      self._events.write(environment_frames, settings, rows=0, method='begin')

  def cut(self, environment_frames: int) -> None:
    """Removes the rows of metrics.csv with more frames, and the games after the last row left."""
    with self._lock:
      self._metrics.write(environment_frames, rows=0, method='cut')
      self._episodes.write(self._metrics.last_frames, rows=0, method='cut')

  def write(self, row: Mapping[str, Any]) -> None:
    """Writes a row of `RunStatistics.row` everywhere and shows it on the terminal."""
    with self._lock:
      self._metrics.write([row])
      self._observers.send('on_metrics', row)
      figures = (*metrics.METRICS, *metrics.CLUSTER_METRICS)
      self._write_events(figures, row)
      speed = self._speed.add(row['frames_per_sec'])
      long, short = (live_line(row, self._total_frames, speed, s) for s in (False, True))
      trouble = self.trouble
      self._screen.show(
        *(f'{long}  {trouble}', f'{trouble}  {short}') if trouble else (long, short)
      )

  def _write_events(self, figures: Iterable[metrics.Metric], row: Mapping[str, Any]) -> None:
    scalars = metrics.scalars(figures, row)
    self._events.write(row['time'], row['environment_frames'], scalars)

  def write_episodes(self, episodes: Iterable[Mapping[str, Any]]) -> None:
    """Writes games of `RunStatistics.pop_episodes`: all, or a random share of too many."""
    with self._lock:
      episodes = list(episodes)
      for episode in episodes:
        self._observers.send('on_game', episode)
      if self._seed is not None and episodes:  # A resumed run draws as one that was not stopped.
        self._drawn.seed(f'{self._seed} {episodes[0]["environment_frames"]}')
      share = share_of_games(self._episodes.size)
      episodes = [episode for episode in episodes if self._drawn.random() < share]
      if episodes:
        self._episodes.write(episodes, rows=len(episodes))
      for episode in episodes:
        self._write_events(metrics.EPISODE_METRICS, episode)

  def write_evaluation(self, row: Mapping[str, Any]) -> None:
    """Writes a row of `metrics.EVALUATION_METRICS`."""
    with self._lock:
      self._evaluations.write([row])
      self._observers.send('on_evaluation', row)
      self._write_events(metrics.EVALUATION_METRICS, row)

  def message(self, text: str) -> None:
    """Prints a line above the live line."""
    with self._lock:
      self._screen.print(text)

  def end_line(self) -> None:
    """Ends the live line; no more rows follow."""
    with self._lock:
      self._screen.finish()

  def close(self) -> None:
    """Ends the live line and closes the files. May be called twice."""
    with self._lock:
      self._screen.finish()
      for sink in self._sinks:
        sink.close()
