"""The chief's records of a run: turns the reports of all tasks into metrics and episodes."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from reporting import csv_files, curves, statistics, writers
from reporting.own_observers import Observers
from roles import resuming
from roles.observers import EndOfRun, Update
from roles.reports import Reports
from roles.rows import Rows
from roles.settings import Settings, announced
from roles.task import Task
from roles.wiring import Graph, LearnerSide
from runtime.process import POLL_SECS, BadInput
from runtime.sessions import run_within
from runtime.shared_state import SharedState
from runtime.unresponsive import UnresponsiveTasks

_HEARD_SECS = 8.0  # A task is alive if its last report is at most this old.


def open_writer(lock: resuming.RunLock, observers: Observers) -> writers.RunWriter:
  """Opens the record files in a run's folder.

  Args:
    lock: lock on the folder.
    observers: the user's observers, which get the same rows.

  Raises:
    BadInput: a CSV file there has other columns.
  """
  try:
    return writers.open_run(
      lock.logdir,
      lock.settings.total_environment_frames,
      lock.options.metrics_secs,
      evaluations=bool(lock.options.eval_every_frames),
      observers=observers,
      seed=lock.settings.seed if lock.settings.deterministic_training else None,
    )
  except ValueError as e:
    raise BadInput(f'--logdir={lock.logdir}: {e}') from None


class Inbox:
  """Fetches the reports queued on ps 0, and announces which tasks are present.

  Args:
    shared: the shared state on ps 0.
    results: receives the contents of the reports.
    unresponsive: records which tasks have reported.
    say: shows a sentence to the user.
  """

  def __init__(
    self,
    shared: SharedState,
    results: statistics.RunStatistics,
    unresponsive: UnresponsiveTasks,
    say: Callable[[str], None],
  ):
    self._shared, self._results, self._unresponsive = shared, results, unresponsive
    self._lock, self._say, self._dropped = threading.Lock(), say, 0
    self._heard: dict[str, float] = {}  # Task -> time.monotonic() of its last fetched report.
    self._update_secs: dict[str, float] = {}  # Learner -> how long its update lasted then.

  def heard(self, name: str) -> bool:
    """Returns whether a report of the task was fetched within the last _HEARD_SECS."""
    return time.monotonic() - self._heard.get(name, -math.inf) < _HEARD_SECS

  def update_secs(self, name: str) -> float:
    """Returns how long a learner's current update has lasted, in seconds.

    Args:
      name: of another learner, such as 'learner:1'. 0.0 if it is silent, or in no update.
    """
    return self._update_secs.get(name, 0.0) if self.heard(name) else 0.0

  def take(self, session: tf.compat.v1.Session) -> None:
    """Fetches all queued reports."""
    shared = self._shared
    with self._lock:  # Two threads would fetch the same number, and one would block for ever.
      fetches = [shared.num_reports, shared.dropped_so_far, shared.write_roll_call]
      feed = {shared.new_roll_call: self._unresponsive.roll_call()}
      waiting, dropped, _ = run_within(session, fetches, feed)
      self._report_dropped(int(dropped))
      texts = []
      if waiting:
        texts = run_within(session, shared.take_reports, {shared.how_many: int(waiting)})
      leaves: dict[str, bool] = {}
      for report in map(json.loads, texts):
        name = f'{report["job"]}:{report["task"]}'
        leaves[name] = report['leaves']
        self._heard[name] = time.monotonic()
        self._update_secs[name] = report['update_secs']
        self._add(report)
      self._unresponsive.saw_reports(
        [name for name, is_leaving in leaves.items() if not is_leaving]
      )
      for name in [name for name, is_leaving in leaves.items() if is_leaving]:
        self._unresponsive.forget(name)

  def _report_dropped(self, dropped: int) -> None:
    if dropped > self._dropped:
      self._say(
        f'{dropped - self._dropped} reports of tasks were dropped, since {self._shared.REPORTS} '
        'waited for the chief already: their games are in no record'
      )
    self._dropped = dropped

  def _add(self, report: dict[str, Any]) -> None:
    if report['job'] == 'actor':
      self._results.add_actor_report(report)
    else:
      self._results.add_learner_wait(report['wait_secs'], report['busy_secs'])


class Records:
  """Collects the reports of all tasks and writes metrics, episodes and messages of a run.

  Args:
    task: the chief's task.
    graph: the task's graph.
    learner: the chief's learner.
    lock: lock on the run's folder.
    writer: writes the files in that folder.
    end_of_run: checked with the frames of all learners.
    reports: of this task's actors, if a row comes after --metrics_updates updates
      (--deterministic_training); None if it comes after --metrics_secs.

  Attributes:
    statistics: of the current row, and of the last games.
    inbox: the reports of the other tasks.
  """

  def __init__(
    self,
    task: Task,
    graph: Graph,
    learner: LearnerSide,
    lock: resuming.RunLock,
    writer: writers.RunWriter,
    end_of_run: EndOfRun,
    reports: Reports | None = None,
  ):
    self._reports = reports
    self._task, self._graph, self._learner, self._logdir = task, graph, learner, lock.logdir
    self._writer, self._end_of_run, self._row_secs = writer, end_of_run, task.options.metrics_secs
    self._next_row = time.monotonic() + self._row_secs
    self._rows = Rows(task, graph, learner, writer)
    self.statistics = self._rows.statistics
    self.inbox = Inbox(graph.shared, self.statistics, task.unresponsive, writer.message)
    for sentence in lock.notices:
      writer.message(sentence)

  def begin(
    self, session: tf.compat.v1.Session, path: str | None, origin: str | None = None
  ) -> int:
    """Announces the run's settings and frame count on a new session.

    Args:
      session: the chief's session.
      path: source of the resumed values, see `roles.parts.Part.opened`; None for a new run.
      origin: checkpoint whose weights a new run starts with, or None.

    Returns:
      The environment frames so far.
    """
    shared = self._graph.shared
    frames = int(session.run(self._graph.counters.environment_frames))
    announcement = announced(self._graph.settings, frames)
    session.run(shared.write_settings, {shared.new_settings: announcement})
    if self._reports:
      self._writer.cut(frames)
    window = 100 * len(self._graph.settings.level_names)
    games = _earlier_games(self._logdir, frames, window, self.message)
    self.statistics.start(frames, games)
    self._writer.begin(frames, dataclasses.asdict(self._graph.settings))
    new = f'new run from the weights of {origin}' if origin else 'new run'
    where = f'resumed at {frames} frames from {path}' if path else new
    self._writer.message(f'{self._logdir}: {where}; learns on {self._learner.device_names}')
    if self._learner.replay:
      self._writer.message(self._learner.replay.described())
    return frames

  def on_update(self, update: Update) -> None:
    """Adds one update to the next row of metrics; see `roles.observers`."""
    if self._reports:
      self.statistics.add_actor_report(self._reports.take(ends_now=True))
    self.statistics.add_update(update.values, update.wait_secs, update.busy_secs)
    if self._reports and not update.values['updates'] % self._task.options.metrics_updates:
      self._rows.report_waits(self._rows.write(update.session))

  def run(self, session: tf.compat.v1.Session, should_stop: Callable[[], bool]) -> None:
    """Collects reports and writes rows until `should_stop` or the last frame."""
    while not should_stop():
      if self._reports:
        time.sleep(POLL_SECS)
        continue
      self.inbox.take(session)
      # Other learners may reach the last frame while the chief's learner waits for data.
      frames = run_within(session, self._graph.counters.environment_frames)
      if self._end_of_run.reached(frames):
        return
      now = time.monotonic()
      if now >= self._next_row:
        self._next_row = now + self._row_secs
        self._rows.report_waits(self._rows.write(session))
      time.sleep(POLL_SECS)

  def add_evaluation(self, row: dict[str, Any]) -> None:
    """Writes a row of `reporting.metrics.EVALUATION_METRICS`."""
    self._writer.write_evaluation(row)
    self._writer.message(_line_of_evaluation(row))

  def message(self, text: str) -> None:
    """Prints a sentence above the live line."""
    self._writer.message(text)

  def set_trouble(self, text: str) -> None:
    """Shows a checkpoint problem in the live line and the state file; '' clears it."""
    self._writer.set_checkpoint_trouble(text)
    self._task.heartbeat.update(trouble=self._writer.trouble)

  def heard(self, session: tf.compat.v1.Session, names: Iterable[str]) -> bool:
    """Returns whether any of these tasks still reports; for use after `run` has ended."""
    self.inbox.take(session)
    return any(map(self.inbox.heard, names))

  def mean_return_100(self) -> float | None:
    """Returns the mean return of the last 100 games, or None if there were fewer.

    Of several levels with reference scores, it is their mean capped score.
    """
    return self.statistics.best_by()

  def collect(self, session: tf.compat.v1.Session) -> None:
    """Fetches the reports that arrived after `run` ended."""
    self.inbox.take(session)

  def finish(self, session: tf.compat.v1.Session, unsaved: str = '') -> None:
    """Fetches the last reports, then writes the last row and the summary line.

    Args:
      session: the chief's session.
      unsaved: why the last checkpoint is missing, or ''.
    """
    self.inbox.take(session)
    counters, settings = self._graph.counters, self._graph.settings
    frames, updates = run_within(session, [counters.environment_frames, counters.updates])
    mean_return = self.statistics.mean_return()
    is_done = frames >= settings.total_environment_frames
    if not self._reports or (is_done and updates != self._rows.last_updates):
      self._rows.write(session)
    self._task.heartbeat.write()  # The process may end before the file is rewritten in its turn.
    self._writer.end_line()
    done = int(frames), int(updates), mean_return
    self._writer.message(_summary(*done, self._task, settings, self._logdir, unsaved))

  def close(self) -> None:
    """Closes the files and draws the learning curve."""
    self._writer.close()
    _draw(self._logdir, self.message)


def _line_of_evaluation(row: dict[str, Any]) -> str:
  low, high = row['mean_return_low'], row['mean_return_high']
  interval = '' if low is None else f' (95% interval {low:.2f} to {high:.2f})'
  score, capped = row['mean_score'], row['mean_capped_score']
  scores = '' if score is None else f', mean score {score:.1%} ({capped:.1%} capped)'
  return (
    f'evaluation at {row["environment_frames"]} frames: {row["num_episodes"]} games, mean '
    f'{row["mean_return"]:.2f}{interval}{scores}'
  )


def _earlier_games(
  logdir: str, frames: int, window: int, say: Callable[[str], None]
) -> list[tuple[str, float]]:
  """Returns level and return of the run's last games; says so if they cannot be read."""
  try:
    return csv_files.last_games(logdir, frames, window)
  except (OSError, ValueError, KeyError) as e:
    say(f'the last games in {logdir} cannot be read, training goes on without them: {e}')
    return []


def _draw(logdir: str, say: Callable[[str], None]) -> None:
  """Draws learning_curve.png; a failure does not fail the run."""
  try:
    curves.plot_learning_curve(logdir, os.path.join(logdir, 'learning_curve.png'))
  except Exception as e:
    say(f'learning_curve.png is not drawn: {e}; --mode=plot draws it')


def _summary(
  frames: int,
  updates: int,
  games: float | None,
  task: Task,
  settings: Settings,
  logdir: str,
  unsaved: str,
) -> str:
  """Returns the run's last line: why it ended, its results, and the command to resume it."""
  resumes = ''
  is_left = frames < settings.total_environment_frames
  if task.cluster.is_local and is_left and not task.options.population_dir:
    resumes = f'; this goes on with it: {resuming.command(logdir, dataclasses.asdict(settings))}'
  return (
    f'{task.interrupts.reason}: {frames} frames, {updates} updates, mean '
    f'return of the last 100 games {"unknown" if games is None else format(games, ".2f")}; '
    + (f'no checkpoint of it: {unsaved}' if unsaved else f'checkpoint in {logdir}{resumes}')
  )
