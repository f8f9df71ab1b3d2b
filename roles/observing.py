"""Tells the observers of the user's how a run begins, goes on and ends; see docs/observers.md."""

from __future__ import annotations

import dataclasses
import os
import time

import tensorflow as tf

from reporting.own_observers import Observers
from roles.observers import Update
from roles.parts import Part
from roles.task import Task
from roles.wiring import Graph
from runtime.checkpoint_folder import Saved
from runtime.sessions import run_within


class Observing(Part):
  """A part of the chief; rows and games come to the observers from the records.

  Args:
    task: the chief's task.
    graph: the task's graph.
    logdir: the run's folder.
    origin: checkpoint whose weights a new run starts with, or None.
    observers: the observers.
  """

  def __init__(
    self, task: Task, graph: Graph, logdir: str, origin: str | None, observers: Observers
  ):
    self._task, self._graph, self._logdir, self._origin = task, graph, logdir, origin
    self._observers = observers

  def opened(self, session: tf.compat.v1.Session, path: str | None) -> None:
    """As `Part`: calls `on_start`."""
    start = dict(
      time=time.time(),
      logdir=self._logdir,
      environment_frames=run_within(session, self._graph.counters.environment_frames),
      resumed_from=path or self._origin,
      settings=dataclasses.asdict(self._graph.settings),
    )
    self._observers.start(start)

  def on_update(self, update: Update) -> None:
    """As `roles.observers.UpdateObserver`."""
    waits = dict(wait_secs=update.wait_secs, busy_secs=update.busy_secs)
    self._observers.send('on_update', {'time': time.time(), **update.values, **waits})

  def on_checkpoint(self, saved: Saved) -> None:
    """Takes a checkpoint that was written."""
    checkpoint = dict(
      time=time.time(),
      path=os.path.join(self._logdir, saved.name),
      updates=saved.updates,
      environment_frames=saved.frames,
      mean_return_100=saved.mean_return_100,
    )
    self._observers.send('on_checkpoint', checkpoint)

  def close(self, failed: bool) -> None:
    """As `Part`: calls `on_end` and waits for the observers."""
    interrupts = self._task.interrupts
    stopped = 'left' if interrupts.run_goes_on else 'stopped'
    outcome = stopped if interrupts.reason.startswith('SIG') else 'done'
    if failed:
      outcome, reason = 'failed', 'the run failed; what it printed last says why'
    else:
      reason = interrupts.reason
    self._observers.end(dict(time=time.time(), outcome=outcome, reason=reason))
