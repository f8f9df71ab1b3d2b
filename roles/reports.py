"""The report that a task sends to the chief once a second."""

from __future__ import annotations

import collections
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from roles.observers import Update
from roles.sending import ReportSender
from roles.task import Task
from roles.wiring import ActorSide, Graph
from runtime.process import WAITING_SECS
from runtime.processors import ProcessorUse
from runtime.sessions import ANSWER_SECS, run_within

_REPORT_SECS = 1.0


class Reports:
  """Collects and sends this task's reports, and notices when the run is done.

  Args:
    task: this task.
    graph: the task's graph.
    queue_size: int32 scalar tensor, unrolls in the queue that this task feeds or reads.
    sender: sends reports to ps 0.
    actors: this task's actors, for the number of crashed environments; None if it has none.
  """

  def __init__(
    self,
    task: Task,
    graph: Graph,
    queue_size: tf.Tensor,
    sender: ReportSender,
    actors: ActorSide | None = None,
  ):
    self._task, self._graph, self._sender, self._actors = task, graph, sender, actors
    self._queue_size = queue_size
    self._lock, self._seen_full = threading.Lock(), -math.inf
    self._clear()
    self._sent, self._processors = time.monotonic(), ProcessorUse()

  def _clear(self) -> None:
    self._steps: collections.Counter[str] = collections.Counter()  # Of each level.
    self._wait_secs, self._busy_secs = 0.0, 0.0
    self._episodes: list[tuple[float, dict[str, Any]]] = []  # (time.monotonic() of end, episode).

  def add_unroll(self, unroll: dict[str, Any]) -> None:
    """Adds an actor loop's report of one unroll, see `acting.actor.ActorLoop.run`."""
    with self._lock:
      self._steps[unroll['level_name']] += unroll['steps']
      self._wait_secs += unroll['wait_secs']
      self._busy_secs += unroll['busy_secs']
      now = time.monotonic()
      self._episodes += [(now, episode) for episode in unroll['episodes']]

  def on_update(self, update: Update) -> None:
    """Adds the wait and busy times of one update; see `roles.observers`."""
    with self._lock:
      self._wait_secs += update.wait_secs
      self._busy_secs += update.busy_secs

  def queue_is_full(self) -> bool:
    """Returns whether an actor found the queue full within the last WAITING_SECS."""
    return time.monotonic() - self._seen_full < WAITING_SECS

  def run(self, session: tf.compat.v1.Session, should_stop: Callable[[], bool]) -> None:
    """Sends a report every second until `should_stop` or until the run is done."""
    shared, cluster = self._graph.shared, self._task.cluster
    sends = cluster.is_local or not cluster.is_chief  # A cluster's chief records its own updates.
    while not should_stop():
      if sends:
        self.send()
      if not cluster.is_chief:
        done, roll_call = session.run([shared.is_done, shared.roll_call])
        self._task.unresponsive.saw_roll_call(roll_call)
        if done:
          self._task.interrupts.set('the run is done')
          return
      if cluster.job == 'actor':
        self._look_at_queue(session)
      time.sleep(_REPORT_SECS)
    if sends:  # Episodes of the last second; they are lost if a peer was lost.
      self.send()

  def send(self) -> None:
    """Sends what has happened since the last report."""
    self._sender.send(json.dumps(self.take()))

  def _look_at_queue(self, session: tf.compat.v1.Session) -> None:
    try:
      size = run_within(session, self._queue_size, secs=ANSWER_SECS)
    except tf.errors.DeadlineExceededError:
      return  # The learner does not answer, but ps 0 still shows whether the run is done.
    if size >= self._graph.settings.queue_capacity:
      self._seen_full = time.monotonic()

  def take(self, ends_now: bool = False) -> dict[str, Any]:
    """Returns the report of the time since the last report.

    Args:
      ends_now: whether games count as ended now, and not when their unrolls were sent.
    """
    cluster, now = self._task.cluster, time.monotonic()
    with self._lock:
      repeats = self._graph.settings.num_action_repeats
      by_level = {level: steps * repeats for level, steps in self._steps.items()}
      frames = sum(by_level.values())
      report = dict(
        job=cluster.job or 'actor',
        task=max(0, cluster.task),
        pid=os.getpid(),
        frames=frames,
        frames_by_level=by_level,
        wait_secs=self._wait_secs,
        busy_secs=self._busy_secs,
        episodes=[
          dict(e, secs_ago=0.0 if ends_now else round(now - ended, 3))
          for ended, e in self._episodes
        ],
        crashes=self._actors.crashes() if self._actors else 0,
        host=socket.gethostname(),
        processors_busy=self._processors.share(),
        leaves=self._task.interrupts.is_set(),
        update_secs=self._task.heartbeat.secs_in('update'),
      )
      self._clear()
    if cluster.job == 'actor':
      self._task.heartbeat.update(frames_per_sec=frames / (now - self._sent))
    self._sent = now
    return report
