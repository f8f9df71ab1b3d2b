"""How a task gets its sessions: it agrees on settings, waits for peers, and connects again."""

import collections
import contextlib
import time

import tensorflow as tf
from absl import logging

from common.background import BackgroundCall
from roles.filling import Filling, run_id
from roles.settings import adopted
from runtime import checkpoints, peers, sessions, shared_state
from runtime.checkpoints import Checkpoints
from runtime.process import POLL_SECS, WAITING_SECS
from runtime.sessions import ANSWER_SECS, first_line, lost_peer

Agreement = collections.namedtuple('Agreement', 'settings start_frames')
Agreement.__doc__ = """`roles.settings.Settings`, and the environment frames when the run began or
was resumed."""


def agree_as_chief(task, claim):
  """What the run is, from the chief's command line and checkpoint; None if told to stop first.

  Args:
    task: `roles.task.Task`.
    claim: `roles.resuming.RunLock`.

  Raises:
    BadInput: the folder's checkpoints are damaged, all of them.
    RunFailed: the disk does not tell which there are.
  """
  path = checkpoints.take_over(claim.logdir)
  _wait_for(task, task.cluster.peers)
  if task.interrupts.is_set():
    return None
  frames = int(Checkpoints.value(path, 'environment_frames')) if path else 0
  return Agreement(claim.settings, frames)


def agree_with_chief(task):
  """What the run is, as the chief announced it; None if told to stop first.

  Raises:
    BadInput: this task's command line contradicts it.
  """
  _wait_for(task, ['ps:0'])
  announcement = shared_state.read_shared_settings(
    task.cluster, task.target, task.options.wait_secs, task.interrupts.is_set
  )
  if not announcement:
    return None
  return Agreement(adopted(announcement, task.options), announcement['start_frames'])


def _wait_for(task, names):
  task.heartbeat.phase('waiting for peers')
  peers.wait_for_peers(task.cluster, names, task.options.wait_secs, task.interrupts.is_set)


class Connection:
  """Opens the sessions of a role, one after another; notices meanwhile if the run is over.

  Args:
    task: `roles.task.Task`.
    parts: list of `roles.parts.Part`, told of every session.
    chief: the `roles.parts.Chief` among them, or None.
  """

  def __init__(self, task, parts, chief):
    v1 = tf.compat.v1
    self._task, self._parts, self._chief = task, parts, chief
    self._tf_graph = v1.get_default_graph()
    init_op = v1.global_variables_initializer()
    self._local_init_op = v1.local_variables_initializer()
    self._ready_op = v1.report_uninitialized_variables(v1.global_variables())
    if chief:
      self._filling = Filling(
        chief.shared,
        'local' if task.cluster.is_local else run_id(chief.logdir),
        init_op,
        chief.first_values,
        self._ready_op,
        chief.checkpoints.restore,
      )
    self._look = None  # At the shared state, while connecting.

  def open(self):
    """A session with everything in place, or None if the end came first."""
    task, cluster = self._task, self._task.cluster
    task.heartbeat.phase('connecting')
    while True:
      self._wait_for_peers()
      attempt = BackgroundCall(self._open_session)
      self._wait_for_answer(attempt)
      if self.run_is_over():
        logging.info('%s leaves: %s', cluster.name, task.interrupts.reason)
        self.say_goodbye()
        return None
      try:
        session, origin = attempt.result()
      except Exception as e:
        if cluster.is_local or not lost_peer(e):
          raise
        self.remember_loss(e)
        time.sleep(POLL_SECS)
        continue
      resumed = f', resumed from {origin}' if origin else ''
      logging.info('%s is connected%s', cluster.name, resumed)
      return session

  def _wait_for_peers(self):
    cluster = self._task.cluster
    if not cluster.peers:
      return
    _wait_for(self._task, [name for name in cluster.peers if name.startswith('ps')])
    peers.wait_for_peers(cluster, cluster.peers, self._task.options.wait_secs, self.run_is_over)
    if not self._task.interrupts.is_set():
      logging.info('%s connects: all its peers are up', cluster.name)

  def _wait_for_answer(self, attempt):
    """Peers may go between the look at them and the session, which then waits for ever."""
    cluster, said = self._task.cluster, time.monotonic()
    while not attempt.has_ended(POLL_SECS) and not self.run_is_over():
      if time.monotonic() - said >= WAITING_SECS:
        said = time.monotonic()
        filled = '' if cluster.is_chief else ', and for learner:0 to fill the variables'
        awaited = ', '.join(cluster.peers)
        logging.info('%s is waiting for an answer of %s%s', cluster.name, awaited, filled)

  def _open_session(self):
    """(session, what the chief resumed from as `Filling.fill` says, None of others)."""
    origin = None

    def fill(session):
      nonlocal origin
      origin = self._filling.fill(session, Checkpoints.latest(self._chief.logdir))

    with self._tf_graph.as_default():
      session = sessions.open_session(
        self._task.target,
        self._task.config,
        self._local_init_op,
        self._ready_op,
        fill if self._chief else None,
      )
    for part in self._parts:
      part.opened(session, origin)
    return session, origin

  def run_is_over(self):
    """Whether there is nothing left to connect to: ps 0 says so, or a signal came."""
    cluster, interrupts = self._task.cluster, self._task.interrupts
    if cluster.is_local:
      return interrupts.is_set()
    if cluster.is_chief:  # It connects even after a signal: to tell the others.
      return interrupts.is_set() and bool(peers.missing_peers(cluster, cluster.peers))
    if self._look is None:
      self._look = BackgroundCall(shared_state.read_shared_state, cluster, self._task.target)
    if self._look.has_ended(POLL_SECS):
      look, self._look = self._look, None
      try:
        if look.result()[1]:
          interrupts.set('the run is done')
      except Exception as e:
        if not lost_peer(e):
          raise
    return interrupts.is_set()

  def remember_loss(self, error):
    """Logs that a peer was lost, and keeps the reason for the state file."""
    reason = first_line(error)
    self._task.heartbeat.facts['last_error'] = reason
    logging.warning('%s lost a peer and connects again: %s', self._task.cluster.name, reason)

  def failed(self, session):
    """The run cannot go on as it is: its chief's next process restores the last checkpoint."""
    if self._chief:
      letting_go = BackgroundCall(self._filling.let_go, session)
      if letting_go.has_ended(ANSWER_SECS):
        with contextlib.suppress(tf.errors.OpError):
          letting_go.result()

  def drop(self, loops, session):
    """Ends the loops of a session that failed, and closes it; gives up if the run is over."""
    loops.stop()
    closing = BackgroundCall(self._close, loops, session)
    # A session may not close before its peers are back; they will not be if the run is over.
    while not closing.has_ended(POLL_SECS) and not self.run_is_over():
      pass

  def _close(self, loops, session):
    self.close_sessions(session)
    # None of them may meet those of the next session.
    while running := loops.join(WAITING_SECS):
      logging.info('%s waits for its loops to end: %s', self._task.cluster.name, ', '.join(running))

  def close_sessions(self, session):
    """Closes a session of this connection, and with it those that the parts have opened."""
    sessions.close_session(session, *(one for part in self._parts for one in part.disconnect()))

  def say_goodbye(self):
    """Deregisters this task at ps 0, if that answers; not one that will be back."""
    cluster = self._task.cluster
    will_be_back = self._task.interrupts.run_goes_on and not cluster.is_spare
    if cluster.is_local or will_be_back:
      return
    goodbye = BackgroundCall(shared_state.say_goodbye, cluster, self._task.target)
    try:
      if goodbye.has_ended(ANSWER_SECS):
        goodbye.result()
      else:
        logging.info('%s left without a goodbye: no answer from ps:0', cluster.name)
    except tf.errors.OpError as e:
      logging.info('%s left without a goodbye: %s', cluster.name, first_line(e))
