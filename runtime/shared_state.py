"""What all tasks of a run read and write on the first parameter server."""

import contextlib
import functools
import json
import time

import tensorflow as tf
from absl import logging

from common.background import BackgroundCall
from runtime import peers, placement, sessions
from runtime.process import POLL_SECS, WAITING_SECS, RunFailed


class SharedState:
  """Settings, done flag, goodbyes and reports on the first parameter server, as graph operations.

  A goodbye is a task's deregistration: it needs the parameter servers no more. None of all this is
  saved: settings and the done flag are rewritten by the chief, reports are for the moment.
  """

  REPORTS = 1000

  def __init__(self, cluster):
    with tf.device(cluster.state_device):
      # Local variables are neither saved nor waited for.
      self.settings = self._variable('', 'shared_settings')
      self.done = self._variable(False, 'run_is_done')
      self.chief_left = self._variable(False, 'chief_has_left')
      roll = self._variable('', 'roll')
      held_run = self._variable('', 'held_run')
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
        roll.assign(''),
      )
      self.mark_done = tf.group(self.done.assign(True))
      self.mark_chief_left = tf.group(self.chief_left.assign(True))
      # Who is there, by the reports that the chief collects; another text each time that it does.
      self.roll = roll.read_value()
      self.new_roll = tf.compat.v1.placeholder(tf.string, [], 'new_roll')
      self.call_roll = tf.group(roll.assign(self.new_roll))
      self.dropped_so_far = self.dropped.read_value()
      self.is_done = self.done.read_value()
      self.chief_is_gone = self.chief_left.read_value()
      self.read_settings = self.settings.read_value()
      # Which run the variables on the parameter servers are of, '' while they are being filled.
      self.held_run = held_run.read_value()
      self.new_held_run = tf.compat.v1.placeholder(tf.string, [], 'new_held_run')
      self.write_held_run = tf.group(held_run.assign(self.new_held_run))

  def _build_register(self):
    """Listed tasks that have left, and spare actors that are there, each by name.

    A task may leave and come back as often as it likes: it is in a table or it is not.
    """
    self.task_name = tf.compat.v1.placeholder(tf.string, [], 'task_name')
    self.says_goodbye, self.returns, self.num_goodbyes = self._table('goodbyes')
    self.spare_actor_joins, self.spare_actor_leaves, self.num_spare_actors = self._table(
      'spare_actors'
    )

  def _table(self, shared_name):
    """(insert `task_name`, remove it, the number of names) of a table on ps 0."""
    table = tf.raw_ops.MutableHashTableV2(
      key_dtype=tf.string, value_dtype=tf.bool, shared_name=shared_name
    )
    name = self.task_name[None]
    return (
      tf.raw_ops.LookupTableInsertV2(table_handle=table, keys=name, values=[True]),
      tf.raw_ops.LookupTableRemoveV2(table_handle=table, keys=name),
      tf.raw_ops.LookupTableSizeV2(table_handle=table),
    )

  def join(self, session, cluster):
    """Registers a task, which needs the parameter servers from now on."""
    joins = self.spare_actor_joins if cluster.is_spare else self.returns
    session.run(joins, {self.task_name: cluster.name})

  @staticmethod
  def _variable(value, name):
    return tf.compat.v1.Variable(
      value, trainable=False, use_resource=True, collections=['shared_state'], name=name
    )


@functools.lru_cache(maxsize=1)
def _shared_state_alone(cluster):
  """(graph, `SharedState`) without a role's graph; kept, since it is asked twice a second."""
  with tf.Graph().as_default() as graph:
    return graph, SharedState(cluster)


@contextlib.contextmanager
def shared_state_session(cluster, target):
  """(session, `SharedState`); needs no other task than ps 0, and waits for ps 0."""
  config = placement.session_config(cluster)
  config.device_filters[:] = ['/job:ps/task:0']
  if target != f'grpc://{cluster.ps[0]}' or cluster.job == 'ps':  # Ps 0 cannot reach an actor.
    config.device_filters.append(cluster.own_device)
  graph, state = _shared_state_alone(cluster)
  with tf.compat.v1.Session(target, graph, config) as session:
    yield session, state


def read_shared_state(cluster, target):
  """(settings dict or None, whether the run is done), asked of ps 0 without a role's graph.

  Raises:
    tf.errors.OpError: ps 0 went away.
  """
  with shared_state_session(cluster, target) as (session, state):
    try:
      text, done = session.run([state.read_settings, state.is_done])
    except (tf.errors.FailedPreconditionError, tf.errors.NotFoundError):
      return None, False  # The chief has not been there yet.
  return (json.loads(text) if text else None), bool(done)


def say_goodbye(cluster, target):
  """Deregisters this task: it needs the parameter servers no more."""
  if cluster.job == 'actor':  # As its client: through its own server, ps 0 would have to ask it.
    target = f'grpc://{cluster.ps[0]}'
  with shared_state_session(cluster, target) as (session, state):
    leave = state.spare_actor_leaves if cluster.is_spare else state.says_goodbye
    sessions.run_within(session, leave, {state.task_name: cluster.name}, 5.0)


def read_shared_settings(cluster, target, wait_secs, should_stop):
  """The run's settings (a dict), read before this task builds its own graph.

  Waits until the chief has written them; None if told to stop.

  Raises:
    RunFailed: there were none within `wait_secs` (0 = no limit).
  """
  awaited = f'the settings of the run from learner:0 at {cluster.learner[0]}'
  began = said = time.monotonic()
  look = None
  while not should_stop():
    look = look or BackgroundCall(read_shared_state, cluster, target)
    if look.has_ended(POLL_SECS):
      try:
        settings, _ = look.result()
        if settings:
          return settings
      except Exception as e:
        if not sessions.lost_peer(e):
          raise
        logging.warning('%s lost ps:0 (%s), trying again', cluster.name, sessions.first_line(e))
        peers.wait_for_peers(cluster, ['ps:0'], wait_secs, should_stop)
      look = None
      time.sleep(POLL_SECS)
    now = time.monotonic()
    if now - said >= WAITING_SECS:
      logging.info('%s is waiting for %s', cluster.name, awaited)
      said = now
    if wait_secs and now - began > wait_secs:
      raise RunFailed(f'{cluster.name} waited {wait_secs} s (--wait_secs) in vain for {awaited}')
  return None
