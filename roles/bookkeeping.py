"""The books of a run: what its tasks report, and what the chief records of it.

`Reports` runs in every task and sends once a second; `Records` runs in the chief, collects, and
writes metrics, games and verdicts.
"""

import json
import math
import os
import socket
import threading
import time

import tensorflow as tf

from reporting import csv_files, curves, statistics, writers
from reporting.learning_signs import LearningSigns
from reporting.verdicts import Verdicts
from roles import resuming
from roles.settings import announced
from runtime.process import POLL_SECS, WAITING_SECS, BadInput
from runtime.processors import ProcessorUse
from runtime.sessions import ANSWER_SECS, run_within

_REPORT_SECS = 1.0
_HEARD_SECS = 8.0  # Who reports, also while it leaves, was heard within these.
# What the state file tells of a row.
_STATE_KEYS = (
  'frames_per_sec',
  'environment_frames',
  'mean_return_100',
  'learner_wait_fraction',
  'actor_wait_fraction',
)
_ROWS_PER_CLUSTER_LINE = 6  # Once a minute, by default.


class Reports:
  """What this task tells the chief, once a second; and what it hears: whether the run is done.

  Args:
    task: `roles.task.Task`.
    graph: `roles.wiring.Graph`.
    queue: of unrolls, whose size is looked at.
    outbox: `roles.outbox.Outbox`.

  Attributes:
    crashes: function without arguments, environments that this task rebuilt so far.
  """

  def __init__(self, task, graph, queue, outbox):
    self._task, self._graph, self._outbox = task, graph, outbox
    self._queue_size = queue.size()
    self._lock, self._seen_full = threading.Lock(), -math.inf
    self.crashes = lambda: 0
    self._clear()
    self._sent, self._processors = time.monotonic(), ProcessorUse()

  def _clear(self):
    self._steps, self._wait_secs, self._busy_secs, self._episodes = 0, 0.0, 0.0, []

  def add_unroll(self, unroll):
    """Takes an actor loop's report of one unroll."""
    with self._lock:
      self._steps += unroll['steps']
      self._wait_secs += unroll['wait_secs']
      self._busy_secs += unroll['busy_secs']
      now = time.monotonic()
      self._episodes += [(now, episode) for episode in unroll['episodes']]

  def add_wait(self, wait_secs, busy_secs):
    """Takes a learner's report of one update."""
    with self._lock:
      self._wait_secs += wait_secs
      self._busy_secs += busy_secs

  def queue_is_full(self):
    """Whether the queue of unrolls was full when an actor looked, which it does once a second."""
    return time.monotonic() - self._seen_full < WAITING_SECS

  def run(self, session, should_stop):
    """Sends and listens until told to stop."""
    shared, cluster = self._graph.shared, self._task.cluster
    sends = cluster.is_local or not cluster.is_chief  # A chief in a cluster knows what it did.
    while not should_stop():
      if sends:
        self.send()
      if not cluster.is_chief:
        done, roll = session.run([shared.is_done, shared.roll])
        self._task.heartbeat.silence.called(roll)
        if done:
          self._task.interrupts.set('the run is done')
          return
      if cluster.job == 'actor':
        self._look_at_queue(session)
      time.sleep(_REPORT_SECS)
    if sends:  # The games of the last second; where a peer was lost, nobody hears of them.
      self.send()

  def send(self):
    """Sends what is to be told since the last report."""
    self._outbox.send_report(self._next())

  def _look_at_queue(self, session):
    try:
      size = run_within(session, self._queue_size, secs=ANSWER_SECS)
    except tf.errors.DeadlineExceededError:
      return  # Its learner does not answer; whether the run is done, ps 0 knows.
    if size >= self._graph.settings.queue_capacity:
      self._seen_full = time.monotonic()

  def _next(self):
    """The report since the last one, as text."""
    cluster, now = self._task.cluster, time.monotonic()
    with self._lock:
      frames = self._steps * self._graph.settings.num_action_repeats
      report = dict(
        job=cluster.job or 'actor',
        task=max(0, cluster.task),
        pid=os.getpid(),
        frames=frames,
        wait_secs=self._wait_secs,
        busy_secs=self._busy_secs,
        episodes=[dict(e, secs_ago=round(now - ended, 3)) for ended, e in self._episodes],
        crashes=self.crashes(),
        host=socket.gethostname(),
        processors_busy=self._processors.share(),
        leaves=self._task.interrupts.is_set(),
      )
      self._clear()
    if cluster.job == 'actor':
      self._task.heartbeat.facts['frames_per_sec'] = frames / (now - self._sent)
    self._sent = now
    return json.dumps(report)


class _Inbox:
  """The reports that wait on ps 0, where the chief says who is there whenever it looks.

  Args:
    shared: `runtime.shared_state.SharedState`.
    results: `reporting.statistics.RunStatistics`, for what the reports say.
    silence: `runtime.silence.Silence`, for who sent one.
    say: function of a sentence.
  """

  def __init__(self, shared, results, silence, say):
    self._shared, self._results, self._silence = shared, results, silence
    self._lock, self._say, self._dropped = threading.Lock(), say, 0
    self._heard = {}  # Task -> when its last report was taken.

  def heard(self, name):
    """Whether the task's last report was taken within _HEARD_SECS."""
    return time.monotonic() - self._heard.get(name, -math.inf) < _HEARD_SECS

  def take(self, session):
    """Takes all that wait."""
    shared = self._shared
    with self._lock:  # Another thread would take what this one has counted.
      fetches = [shared.num_reports, shared.dropped_so_far, shared.call_roll]
      roll = {shared.new_roll: self._silence.call()}
      waiting, dropped, _ = run_within(session, fetches, roll)
      self._tell_dropped(int(dropped))
      texts = []
      if waiting:
        texts = run_within(session, shared.take_reports, {shared.how_many: int(waiting)})
      leave = {}
      for report in map(json.loads, texts):
        leave[f'{report["job"]}:{report["task"]}'] = report['leaves']
        self._heard[f'{report["job"]}:{report["task"]}'] = time.monotonic()
        self._add(report)
      self._silence.looked([name for name, leaves in leave.items() if not leaves])
      for name in [name for name, leaves in leave.items() if leaves]:
        self._silence.left(name)

  def _tell_dropped(self, dropped):
    if dropped > self._dropped:
      self._say(
        f'{dropped - self._dropped} reports of tasks were dropped, since {self._shared.REPORTS} '
        'waited for the chief already: their games are in no record'
      )
    self._dropped = dropped

  def _add(self, report):
    if report['job'] == 'actor':
      self._results.add_actor_report(report)
    else:
      self._results.add_learner_wait(report['wait_secs'], report['busy_secs'])


class Records:
  """The chief's book-keeping: reports from all, metrics, games, verdicts.

  Args:
    task: the chief's `roles.task.Task`.
    graph: `roles.wiring.Graph`.
    side: the chief's `roles.wiring.LearnerSide`.
    claim: `roles.resuming.RunLock`, on the run's folder.

  Raises:
    BadInput: the folder has a CSV file of these names with other columns.
  """

  def __init__(self, task, graph, side, claim):
    self._task, self._graph, self._side, self._logdir = task, graph, side, claim.logdir
    self._total, self._secs = graph.settings.total_environment_frames, task.options.metrics_secs
    self._statistics = statistics.RunStatistics()
    try:
      self._writer = writers.open_run(
        claim.logdir, self._total, self._secs, evaluations=bool(task.options.eval_every_frames)
      )
    except ValueError as e:
      raise BadInput(f'--logdir={claim.logdir}: {e}') from None
    settings = graph.settings
    self._signs = LearningSigns(
      settings.num_actions,
      settings.batch_size * settings.unroll_length,
      settings.gradient_clipping,
    )
    self._next_row, self._rows = time.monotonic() + self._secs, 0
    self._verdicts = Verdicts(settings.sample_reuse, socket.gethostname())
    silence = task.heartbeat.silence
    silence.say = self._writer.message
    self._inbox = _Inbox(graph.shared, self._statistics, silence, self.message)
    for sentence in claim.told:
      self._writer.message(sentence)

  def begin(self, session, path, origin=None):
    """Announces the run on a new session: the shared settings, and where the frames stand.

    Args:
      session: tf.compat.v1.Session.
      path: what was resumed from, as `roles.parts.Part.opened` is told, or None.
      origin: of the checkpoint whose weights a new run begins with, or None.

    Returns:
      int, the environment frames so far.
    """
    shared = self._graph.shared
    frames = int(session.run(self._graph.counters.environment_frames))
    announcement = announced(self._graph.settings, frames)
    session.run(shared.write_settings, {shared.new_settings: announcement})
    self._statistics.start(frames, _earlier_returns(self._logdir, frames, self.message))
    self._writer.begin(frames, self._graph.settings._asdict())
    new = f'new run from the weights of {origin}' if origin else 'new run'
    where = f'resumed at {frames} frames from {path}' if path else new
    self._writer.message(f'{self._logdir}: {where}; learns on {self._side.device_names}')
    return frames

  def add_update(self, values, wait_secs, busy_secs):
    """Takes the numbers of one update."""
    self._statistics.add_update(values, wait_secs, busy_secs)

  def run(self, session, should_stop):
    """Collects and writes until told to stop, or until all frames are done."""
    while not should_stop():
      self._inbox.take(session)
      # Other learners may reach the last frame while the chief's own waits for data.
      frames = run_within(session, self._graph.counters.environment_frames)
      if self._task.end_if_done(frames, self._total):
        return
      now = time.monotonic()
      if now >= self._next_row:
        self._next_row = now + self._secs
        row = self._write_row(session)
        self._rows += 1
        self._say_who_waits(row)
      time.sleep(POLL_SECS)

  def _write_row(self, session):
    counters, side = self._graph.counters, self._side
    frames, updates, rate, entropy_cost, depth = run_within(
      session,
      [
        counters.environment_frames,
        counters.updates,
        side.learning_rate,
        side.entropy_cost,
        side.queue_size,
      ],
    )
    row = self._statistics.row(
      int(frames), int(updates), float(rate), int(depth), float(entropy_cost)
    )
    self._task.heartbeat.facts.update({name: row[name] for name in _STATE_KEYS})
    silent, now = self._task.heartbeat.silence.who(), time.time()
    row['no_answer'] = ', '.join(f'{n} {now - since:.0f} s' for n, since in silent.items())
    self._writer.write(row)
    for sentence in self._signs.add(row):
      self._writer.message(sentence)
    self._writer.write_episodes(self._statistics.pop_episodes(int(frames)))
    self._task.heartbeat.facts['trouble'] = self._writer.trouble
    return row

  def _say_who_waits(self, row):
    is_local = self._task.cluster.is_local
    if not is_local and self._rows % _ROWS_PER_CLUSTER_LINE == 0:
      self._writer.message(statistics.cluster_line(row))
    actors = self._task.options.num_actors if is_local else row['connected_actors']
    if text := self._verdicts.add(row, actors):
      self._writer.message(text)

  def add_evaluation(self, row):
    """Takes a row of `reporting.statistics.EVALUATION_COLUMNS`."""
    self._writer.write_evaluation(row)
    self._writer.message(_line_of_evaluation(row))

  def message(self, text):
    """Says a sentence above the live line."""
    self._writer.message(text)

  def trouble(self, text):
    """Has the live line and the state file say what is wrong with checkpoints; '' for nothing."""
    self._writer.checkpoint_trouble = text
    self._task.heartbeat.facts['trouble'] = self._writer.trouble

  def heard(self, session, names):
    """Whether one of these tasks gives signs of life, once `run` has ended."""
    self._inbox.take(session)
    return any(map(self._inbox.heard, names))

  def mean_return_100(self, session=None):
    """The mean return of the last 100 games, a float; None while there are fewer.

    Args:
      session: to collect with what was not collected yet, once `run` has ended.
    """
    if session:
      self._inbox.take(session)
    return self._statistics.full_mean_return()

  def finish(self, session, unsaved=''):
    """Writes the last row and the summary line.

    Args:
      session: to collect with what was not collected yet.
      unsaved: why there is no last checkpoint, or ''.
    """
    self._inbox.take(session)
    row = self._write_row(session)
    self._writer.end_line()
    self._writer.message(_summary(row, self._task, self._graph.settings, self._logdir, unsaved))

  def close(self):
    """Closes the files and draws the learning curve."""
    self._writer.close()
    _draw(self._logdir, self.message)


def _line_of_evaluation(row):
  low, high = row['mean_return_low'], row['mean_return_high']
  interval = '' if low is None else f' (95% interval {low:.2f} to {high:.2f})'
  return (
    f'evaluation at {row["environment_frames"]} frames: {row["num_episodes"]} games, mean '
    f'{row["mean_return"]:.2f}{interval}'
  )


def _earlier_returns(logdir, frames, say):
  """Returns of the last games so far; none where they cannot be read, which is said."""
  try:
    return csv_files.last_returns(logdir, frames)
  except (OSError, ValueError, KeyError) as e:
    say(f'the last games in {logdir} cannot be read, training goes on without them: {e}')
    return []


def _draw(logdir, say):
  """Draws learning_curve.png; whatever a picture meets, the run is done."""
  try:
    curves.plot_learning_curve(logdir, os.path.join(logdir, 'learning_curve.png'))
  except Exception as e:
    say(f'learning_curve.png is not drawn: {e}; --mode=plot draws it')


def _summary(row, task, settings, logdir, unsaved):
  """The last line of a run: why it ended, where it stands, and what goes on with it."""
  games, resumes = row['mean_return_100'], ''
  if task.cluster.is_local and row['environment_frames'] < settings.total_environment_frames:
    resumes = f'; this goes on with it: {resuming.command(logdir, settings.level_name)}'
  return (
    f'{task.interrupts.reason}: {row["environment_frames"]} frames, {row["updates"]} updates, mean '
    f'return of the last 100 games {"unknown" if games is None else format(games, ".2f")}; '
    + (f'no checkpoint of it: {unsaved}' if unsaved else f'checkpoint in {logdir}{resumes}')
  )
