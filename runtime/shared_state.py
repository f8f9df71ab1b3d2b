"""State on the first parameter server (ps 0) that all tasks of a run share."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from common.background import BackgroundCall
from runtime import peers, placement, sessions
from runtime.cluster import Cluster
from runtime.process import POLL_SECS, WAITING_SECS
from runtime.waiting import wait_for


class SharedState:
  """Graph operations on the settings, done flag, register of tasks and reports on ps 0.

  None of these are in checkpoints: the chief rewrites the settings and the done flag whenever it
  connects, and reports are short-lived.

  Attributes:
    settings, done, chief_left, dropped: tf.Variable.
    report, how_many, task_name, new_settings, new_roll_call, new_initialized_run: placeholders of
      the operations below.
    send_report: enqueues `report`, or counts it as dropped if the queue of reports is full.
    num_reports: int32, reports in the queue; take_reports: dequeues `how_many` of them, strings.
    registers, deregisters: for the listed task `task_name`; a deregistered task no longer needs the
      parameter servers.
    spare_actor_registers, spare_actor_deregisters: the same for an unlisted actor.
    num_deregistered, num_spare_actors: int64.
    write_settings: stores `new_settings` and resets the flags for a new session of the chief.
    mark_done, mark_chief_left: set the flags that `is_done` and `chief_is_gone` read.
    roll_call: string, see `UnresponsiveTasks.roll_call`; write_roll_call stores `new_roll_call`.
    initialized_run: string, id of the run whose values the parameter servers hold; '' while the
      variables are being initialized. write_initialized_run stores `new_initialized_run`.
  """

  REPORTS = 1000  # Capacity of the queue.

  def __init__(self, cluster: Cluster):
    with tf.device(cluster.state_device):
      # Local variables are not in checkpoints, and sessions do not wait for their initialization.
      self.settings = self._variable('', 'shared_settings')
      self.done = self._variable(False, 'run_is_done')
      self.chief_left = self._variable(False, 'chief_has_left')
      roll_call = self._variable('', 'roll_call')
      initialized_run = self._variable('', 'initialized_run')
      self._reports = tf.queue.FIFOQueue(self.REPORTS, [tf.string], [[]], shared_name='reports')
      self.dropped = self._variable(tf.zeros([], tf.int64), 'dropped_reports')
      self.report = tf.compat.v1.placeholder(tf.string, [], 'report')
      self.send_report = tf.cond(
        self._reports.size() < self.REPORTS,
        lambda: tf.group(self._reports.enqueue(self.report)),
        lambda: tf.group(self.dropped.assign_add(1)),
      )
      self.num_reports = self._reports.size()
      self.how_many = tf.compat.v1.placeholder(tf.int32, [], 'how_many')
      self.take_reports = self._reports.dequeue_many(self.how_many)
      self._build_register()
      self.new_settings = tf.compat.v1.placeholder(tf.string, [], 'new_settings')
      self.write_settings = tf.group(
        self.settings.assign(self.new_settings),
        self.done.assign(False),
        self.chief_left.assign(False),
        self.dropped.assign(0),
        roll_call.assign(''),
      )
      self.mark_done = tf.group(self.done.assign(True))
      self.mark_chief_left = tf.group(self.chief_left.assign(True))
      self.roll_call = roll_call.read_value()
      self.new_roll_call = tf.compat.v1.placeholder(tf.string, [], 'new_roll_call')
      self.write_roll_call = tf.group(roll_call.assign(self.new_roll_call))
      self.dropped_so_far = self.dropped.read_value()
      self.is_done = self.done.read_value()
      self.chief_is_gone = self.chief_left.read_value()
      self.read_settings = self.settings.read_value()
      self.initialized_run = initialized_run.read_value()
      self.new_initialized_run = tf.compat.v1.placeholder(tf.string, [], 'new_initialized_run')
      self.write_initialized_run = tf.group(initialized_run.assign(self.new_initialized_run))

  def _build_register(self) -> None:
    """Builds tables of names: deregistered listed tasks, and registered spare actors.

    Unlike counters, tables stay correct if a task leaves and returns several times.
    """
    self.task_name = tf.compat.v1.placeholder(tf.string, [], 'task_name')
    self.deregisters, self.registers, self.num_deregistered = self._table('deregistered')
    self.spare_actor_registers, self.spare_actor_deregisters, self.num_spare_actors = self._table(
      'spare_actors'
    )

  def _table(self, shared_name: str) -> tuple[tf.Operation, tf.Operation, tf.Tensor]:
    """Returns (insert `task_name`, remove it, the number of names) of a table on ps 0."""
    table = tf.raw_ops.MutableHashTableV2(
      key_dtype=tf.string, value_dtype=tf.bool, shared_name=shared_name
    )
    name = self.task_name[None]
    return (
      tf.raw_ops.LookupTableInsertV2(table_handle=table, keys=name, values=[True]),
      tf.raw_ops.LookupTableRemoveV2(table_handle=table, keys=name),
      tf.raw_ops.LookupTableSizeV2(table_handle=table),
    )

  def register(self, session: tf.compat.v1.Session, cluster: Cluster) -> None:
    """Registers this task as needing the parameter servers."""
    registers = self.spare_actor_registers if cluster.is_spare else self.registers
    session.run(registers, {self.task_name: cluster.name})

  @staticmethod
  def _variable(value: Any, name: str) -> tf.Variable:
    return tf.compat.v1.Variable(
      value, trainable=False, use_resource=True, collections=['shared_state'], name=name
    )


@functools.lru_cache(maxsize=1)
def _shared_state_graph(cluster: Cluster) -> tuple[tf.Graph, SharedState]:
  """Returns a graph of the shared state only; cached, since it is used twice a second."""
  with tf.Graph().as_default() as graph:
    return graph, SharedState(cluster)


@contextlib.contextmanager
def shared_state_session(
  cluster: Cluster, target: str
) -> Iterator[tuple[tf.compat.v1.Session, SharedState]]:
  """Opens a session that needs only ps 0, and waits for it.

  Yields:
    (the session, the shared state in its graph).
  """
  config = placement.session_config(cluster)
  config.device_filters[:] = ['/job:ps/task:0']
  if target != f'grpc://{cluster.ps[0]}' or cluster.job == 'ps':  # Ps 0 cannot reach an actor.
    config.device_filters.append(cluster.own_device)
  graph, state = _shared_state_graph(cluster)
  with tf.compat.v1.Session(target, graph, config) as session:
    yield session, state


def read_shared_state(cluster: Cluster, target: str) -> tuple[dict[str, Any] | None, bool]:
  """Reads the settings and the done flag from ps 0, without a role's graph.

  Returns:
    (settings, or None if the chief has not written them yet; whether the run is done).

  Raises:
    tf.errors.OpError: ps 0 has disappeared.
  """
  with shared_state_session(cluster, target) as (session, state):
    try:
      text, done = session.run([state.read_settings, state.is_done])
    except (tf.errors.FailedPreconditionError, tf.errors.NotFoundError):
      return None, False  # The chief has not connected yet.
  return (json.loads(text) if text else None), bool(done)


def deregister(cluster: Cluster, target: str) -> None:
  """Deregisters this task from the parameter servers."""
  if cluster.job == 'actor':  # As a client of ps 0, which cannot connect to an actor's server.
    target = f'grpc://{cluster.ps[0]}'
  with shared_state_session(cluster, target) as (session, state):
    deregisters = state.spare_actor_deregisters if cluster.is_spare else state.deregisters
    sessions.run_within(session, deregisters, {state.task_name: cluster.name}, 5.0)


def read_shared_settings(
  cluster: Cluster, target: str, wait_secs: float, should_stop: Callable[[], bool]
) -> dict[str, Any] | None:
  """Waits for the chief to write the run's settings; called before this task builds its graph.

  Returns:
    The parsed JSON of `roles.settings.announced`, or None if stopped first.

  Raises:
    RunFailed: the chief wrote no settings within `wait_secs` (0 = no limit).
  """
  look: BackgroundCall | None = None

  def settings() -> dict[str, Any] | None:
    nonlocal look
    look = look or BackgroundCall(read_shared_state, cluster, target)
    if not look.has_ended(POLL_SECS):
      return None
    ended, look = look, None
    try:
      return ended.result()[0]
    except Exception as e:
      if not sessions.lost_peer(e):
        raise
      logging.warning('%s lost ps:0 (%s), trying again', cluster.name, sessions.first_line(e))
      peers.wait_for_peers(cluster, ['ps:0'], wait_secs, should_stop)
      return None

  return wait_for(
    settings,
    lambda: f'the settings of the run from learner:0 at {cluster.learner[0]}',
    cluster.name,
    should_stop,
    wait_secs,
    quiet_secs=WAITING_SECS,
  )
