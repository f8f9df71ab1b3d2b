"""The parameter server role: serves until the run is done and all other tasks have left."""

from __future__ import annotations

import contextlib
import math
import time
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from common.background import BackgroundCall
from roles.settings import Options
from runtime import links, peers, placement, sessions, shared_state
from runtime.cluster import Cluster
from runtime.heartbeat import Heartbeat
from runtime.process import POLL_SECS, Interrupts, RunFailed
from runtime.sessions import ANSWER_SECS
from runtime.unresponsive import UnresponsiveTasks
from runtime.waiting import timed_out

PATIENCE_SECS = 20.0  # Time for the chief to start ending the run after this task got a signal.
LATECOMER_SECS = 15.0  # Time for the other tasks to leave after the chief has left.
_LOOK_SECS = 2.0  # Interval between checks whether the chief is present.


class _RunState(NamedTuple):
  """The progress of the run's shutdown, read from ps 0; see `SharedState`."""

  is_done: bool
  chief_is_gone: bool
  num_deregistered: int
  num_spare_actors: int


def run(cluster: Cluster, options: Options, interrupts: Interrupts) -> None:
  """Serves until the run is done and all other tasks have left.

  Args:
    cluster: the cluster and this parameter server's index in it.
    options: this task's options.
    interrupts: requests to end.
  """
  unresponsive = UnresponsiveTasks(cluster)
  heartbeat = Heartbeat(cluster, unresponsive, options.state_dir)
  server = sessions.start_server(cluster, placement.session_config(cluster, options.threads))
  links.watch(cluster, server.target, unresponsive)
  heartbeat.phase('serving')
  logging.info('%s serves at %s', cluster.name, cluster.address(cluster.name))
  interrupts.describe_end('leaving once the chief has saved a checkpoint')
  reason = serve_to_the_end(cluster, server.target, interrupts, unresponsive, options.wait_secs)
  logging.info('%s leaves: %s', cluster.name, reason)


def serve_to_the_end(
  cluster: Cluster,
  target: str,
  interrupts: Interrupts,
  unresponsive: UnresponsiveTasks,
  wait_secs: float = 0,
) -> str:
  """Waits until the run is done and the other tasks have deregistered.

  Parameter servers leave last, since the sessions of the other tasks cannot close without them.
  After a signal, the chief has PATIENCE_SECS to start ending the run, and unlimited time to save
  its last checkpoint. Spare actors belong to other jobs, which got no signal; they have
  PATIENCE_SECS to notice the end.

  Args:
    cluster: the cluster and this task's index in it.
    target: gRPC target of this task's server.
    interrupts: requests to end.
    unresponsive: records which tasks have answered.
    wait_secs: longest absence of the chief; 0 = no limit.

  Returns:
    Why this task leaves, for the log.

  Raises:
    RunFailed: the chief was absent for longer than `wait_secs`.
  """
  others = len(cluster.learner) + len(cluster.actor)
  if cluster.task == 0:  # The other parameter servers query ps 0, so it leaves last.
    others += len(cluster.ps) - 1
  deadline = question = None
  asked = 0.0
  ps_0, chief = _StateOnPs0(cluster, target, unresponsive), _Chief(cluster, wait_secs)
  while True:
    if question is None:
      question, asked = BackgroundCall(ps_0.read), time.monotonic()
    answered, now = question.has_ended(POLL_SECS), time.monotonic()
    if not answered and now - asked < ANSWER_SECS:
      continue
    state = None
    if answered:
      state, question = question.result(), None
    if state is None and interrupts.is_set():
      return f'{interrupts.reason}, and no chief is connected'
    chief_is_gone = state is not None and state.chief_is_gone
    all_left = state is not None and state.num_deregistered >= others
    has_spare_actors = state is not None and state.num_spare_actors > 0
    if chief_is_gone and all_left and not has_spare_actors:
      if cluster.task > 0:
        BackgroundCall(shared_state.deregister, cluster, target).has_ended(ANSWER_SECS)
      return 'the run is done and everybody has left'
    if deadline is None and (interrupts.is_set() or chief_is_gone):
      deadline = now + (PATIENCE_SECS if interrupts.is_set() else LATECOMER_SECS)
    if not chief_is_gone:
      chief.check_present()
    is_saving = state is not None and state.is_done and not chief_is_gone and chief.is_up()
    if deadline is not None and now > deadline and not is_saving:
      if not interrupts.is_set():
        return 'the run is done; some tasks never deregistered'
      who = 'spare actors' if chief_is_gone else 'the chief'
      return f'{interrupts.reason}, and {who} did not leave within {PATIENCE_SECS:.0f} s'
    if interrupts.is_set() and chief_is_gone and not has_spare_actors:
      return f'{interrupts.reason}, and the chief has left'
    time.sleep(POLL_SECS)


class _Chief:
  """Checks whether the chief is present.

  Args:
    cluster: gives the chief's address.
    wait_secs: see `serve_to_the_end`.
  """

  def __init__(self, cluster: Cluster, wait_secs: float):
    self._cluster, self._wait_secs = cluster, wait_secs
    self._looked, self._seen, self._is_missing = -math.inf, time.monotonic(), False

  def is_up(self) -> bool:
    """Returns whether the chief listens on its port."""
    return peers.is_up(self._cluster.learner[0])

  def check_present(self) -> None:
    """Checks every few seconds; raises RunFailed if the chief was absent for too long."""
    now = time.monotonic()
    if not self._wait_secs or now - self._looked < min(_LOOK_SECS, self._wait_secs / 2):
      return
    self._looked = now
    if self.is_up():
      self._seen, self._is_missing = now, False
      return
    awaited = f'learner:0 at {self._cluster.learner[0]}'
    if not self._is_missing:
      logging.info('%s is waiting for %s', self._cluster.name, awaited)
      self._is_missing = True
    if now - self._seen > self._wait_secs:
      raise RunFailed(timed_out(self._cluster.name, self._wait_secs, awaited))


class _StateOnPs0:
  """Reads the state of the run from ps 0.

  All reads share one session: opening one per read would cost more than everything else that an
  idle server does.
  """

  def __init__(self, cluster: Cluster, target: str, unresponsive: UnresponsiveTasks):
    self._cluster, self._target, self._unresponsive = cluster, target, unresponsive
    self._stack: contextlib.ExitStack | None = None  # Closes the session.
    self._opened: tuple[tf.compat.v1.Session, shared_state.SharedState] | None = None

  def read(self) -> _RunState | None:
    """Returns the state, or None if no chief has connected yet or ps 0 does not answer."""
    if self._cluster.task > 0 and not peers.is_up(self._cluster.ps[0]):
      return None
    try:
      if self._stack is None:
        self._stack = contextlib.ExitStack()
        opening = shared_state.shared_state_session(self._cluster, self._target)
        self._opened = self._stack.enter_context(opening)
      assert self._opened
      session, shared = self._opened
      fetches = [
        shared.is_done,
        shared.chief_is_gone,
        shared.num_deregistered,
        shared.num_spare_actors,
        shared.roll_call,
      ]
      *state, roll_call = sessions.run_within(session, fetches)
      if self._cluster.task > 0:
        self._unresponsive.answered('ps:0')
      self._unresponsive.saw_roll_call(roll_call)
      return _RunState(*state)
    except tf.errors.FailedPreconditionError:  # No chief has connected yet.
      return None
    except tf.errors.OpError:
      self._close()
      return None

  def _close(self) -> None:
    if self._stack:
      with contextlib.suppress(tf.errors.OpError):
        self._stack.close()
    self._stack = None
