"""Rows of metrics: what they are made of, and what they say about the run."""

from __future__ import annotations

import socket
import time
from typing import Any

import tensorflow as tf

from reporting import statistics, writers
from reporting.bottleneck import BottleneckMonitor
from reporting.diagnostics import LearningDiagnostics
from reporting.level_shares import LevelShares
from roles.task import Task
from roles.wiring import Graph, LearnerSide
from runtime.sessions import run_within

# Columns of a metrics row that are also written to the chief's state file.
_STATE_KEYS = (
  'frames_per_sec',
  'environment_frames',
  'mean_return_100',
  'learner_wait_fraction',
  'actor_wait_fraction',
)
_ROWS_PER_CLUSTER_LINE = 6  # One line per minute by default.


class Rows:
  """Writes the rows of a run's metrics and episodes, and sentences about them.

  Args:
    task: the chief's task.
    graph: the task's graph.
    learner: the chief's learner.
    writer: writes the files in the run's folder.

  Attributes:
    statistics: of the next row, and of the last games.
    last_updates: updates of the run at the last row; -1 before the first one.
  """

  def __init__(self, task: Task, graph: Graph, learner: LearnerSide, writer: writers.RunWriter):
    self._task, self._graph, self._learner, self._writer = task, graph, learner, writer
    settings = graph.settings
    self.statistics = statistics.RunStatistics(level_names=settings.level_names)
    self.last_updates = -1
    self._diagnostics = LearningDiagnostics(
      settings.action,
      settings.new_unrolls * settings.unroll_length,
      settings.gradient_clipping,
    )
    self._level_shares = LevelShares(settings.level_names)
    self._bottleneck = BottleneckMonitor(settings.sample_reuse, socket.gethostname())
    self._reported = 0

  def write(self, session: tf.compat.v1.Session) -> dict[str, Any]:
    """Writes the row of the time since the last one, and the games that ended in it."""
    counters, learner = self._graph.counters, self._learner
    frames, updates, rate, entropy_cost, depth = run_within(
      session,
      [
        counters.environment_frames,
        counters.updates,
        learner.learning_rate,
        learner.entropy_cost,
        learner.queue_size,
      ],
    )
    row = self.statistics.row(
      int(frames), int(updates), float(rate), int(depth), float(entropy_cost)
    )
    unresponsive, now = self._task.unresponsive.since(), time.time()
    self.last_updates = int(updates)
    row['no_answer'] = ', '.join(f'{n} {now - since:.0f} s' for n, since in unresponsive.items())
    self._writer.write(row)
    for sentence in self._diagnostics.add(row):
      self._writer.message(sentence)
    self._writer.write_episodes(self.statistics.pop_episodes(int(frames)))
    self._task.heartbeat.update(
      **{name: row[name] for name in _STATE_KEYS}, trouble=self._writer.trouble
    )
    return row

  def report_waits(self, row: dict[str, Any]) -> None:
    """Says what slows the run down, which level starves, and once a minute how a cluster does."""
    is_local = self._task.cluster.is_local
    self._reported += 1
    if not is_local and self._reported % _ROWS_PER_CLUSTER_LINE == 0:
      self._writer.message(statistics.cluster_line(row))
    actors = self._task.options.num_actors if is_local else row['connected_actors']
    for text in (
      self._bottleneck.add(row, actors),
      self._level_shares.add(row['frames_share_by_level']),
    ):
      if text:
        self._writer.message(text)
