"""A parameter server's life: it serves until the run is done and everybody has left."""

import collections
import contextlib
import math
import time

import tensorflow as tf
from absl import logging

from common.background import BackgroundCall
from runtime import links, peers, placement, sessions, shared_state
from runtime.heartbeat import Heartbeat
from runtime.process import POLL_SECS, RunFailed
from runtime.sessions import ANSWER_SECS

PATIENCE_SECS = 20.0  # For the chief to begin its end, after a signal to a parameter server.
LATECOMER_SECS = 15.0  # For the others to leave, after the chief has.
_LOOK_SECS = 2.0  # Between two looks for the chief.

_HowFar = collections.namedtuple('_HowFar', 'is_done chief_is_gone goodbyes spare_actors')


def run(cluster, options, interrupts):
  """Serves until the run is done and everybody has left.

  Args:
    cluster: `runtime.cluster.Cluster`, with this parameter server's place in it.
    options: `roles.settings.Options`.
    interrupts: `runtime.process.Interrupts`.
  """
  heartbeat = Heartbeat(cluster, options.state_dir)
  server = sessions.start_server(cluster, placement.session_config(cluster, options.threads))
  links.watch(cluster, server.target, heartbeat.silence)
  heartbeat.phase('serving')
  logging.info('%s serves at %s', cluster.name, cluster.address(cluster.name))
  interrupts.at_end = 'leaving once the chief has saved a checkpoint'
  reason = serve_to_the_end(
    cluster, server.target, interrupts, heartbeat.silence, options.wait_secs
  )
  logging.info('%s leaves: %s', cluster.name, reason)


def serve_to_the_end(cluster, target, interrupts, silence, wait_secs=0):
  """Waits until the run is done and the others have said goodbye (deregistered).

  The parameter servers are the last to go: sessions of the others cannot close without them.
  After a signal the chief has PATIENCE_SECS to begin its end, and then as long as it takes for its
  last checkpoint. Spare actors have PATIENCE_SECS for hearing of the end, since they belong to
  other jobs, which got no signal.

  Args:
    cluster: `runtime.cluster.Cluster`.
    target: of this task's server.
    interrupts: `runtime.process.Interrupts`.
    silence: `runtime.silence.Silence`, told who has answered.
    wait_secs: how long the chief may be away at a time; 0: for ever.

  Returns:
    The reason of the end, for the log.

  Raises:
    RunFailed: the chief was away for longer.
  """
  everybody = len(cluster.learner) + len(cluster.actor)
  if cluster.task == 0:  # The other parameter servers ask it, so it goes after them.
    everybody += len(cluster.ps) - 1
  deadline = question = None
  asking, chief = _Asking(cluster, target, silence), _Chief(cluster, wait_secs)
  while True:
    if question is None:
      question, asked = BackgroundCall(asking.how_far), time.monotonic()
    answered, now = question.has_ended(POLL_SECS), time.monotonic()
    if not answered and now - asked < ANSWER_SECS:
      continue
    phase = None
    if answered:
      phase, question = question.result(), None
    if phase is None and interrupts.is_set():
      return f'{interrupts.reason}, and no chief is connected'
    chief_is_gone = phase is not None and phase.chief_is_gone
    if chief_is_gone and phase.goodbyes >= everybody and not phase.spare_actors:
      if cluster.task > 0:
        BackgroundCall(shared_state.say_goodbye, cluster, target).has_ended(ANSWER_SECS)
      return 'the run is done and everybody has left'
    if deadline is None and (interrupts.is_set() or chief_is_gone):
      deadline = now + (PATIENCE_SECS if interrupts.is_set() else LATECOMER_SECS)
    if not chief_is_gone:
      chief.check_there()
    saves = phase is not None and phase.is_done and not chief_is_gone and chief.is_up()
    if deadline is not None and now > deadline and not saves:
      if not interrupts.is_set():
        return 'the run is done; some tasks never took their leave'
      who = 'spare actors' if chief_is_gone else 'the chief'
      return f'{interrupts.reason}, and {who} did not leave within {PATIENCE_SECS:.0f} s'
    if interrupts.is_set() and chief_is_gone and not phase.spare_actors:
      return f'{interrupts.reason}, and the chief has left'
    time.sleep(POLL_SECS)


class _Chief:
  """Whether the chief is there.

  Args:
    cluster: `runtime.cluster.Cluster`.
    wait_secs: see `serve_to_the_end`.
  """

  def __init__(self, cluster, wait_secs):
    self._cluster, self._wait_secs = cluster, wait_secs
    self._looked, self._seen, self._said = -math.inf, time.monotonic(), False

  def is_up(self):
    """Whether it listens."""
    return peers.is_up(self._cluster.learner[0])

  def check_there(self):
    """Looks for it now and then; RunFailed where it has been away for too long."""
    now = time.monotonic()
    if not self._wait_secs or now - self._looked < min(_LOOK_SECS, self._wait_secs / 2):
      return
    self._looked = now
    if self.is_up():
      self._seen, self._said = now, False
      return
    awaited = f'learner:0 at {self._cluster.learner[0]}'
    if not self._said:
      logging.info('%s is waiting for %s', self._cluster.name, awaited)
      self._said = True
    if now - self._seen > self._wait_secs:
      raise RunFailed(
        f'{self._cluster.name} waited {self._wait_secs:g} s (--wait_secs) in vain for {awaited}'
      )


class _Asking:
  """Asks ps 0, in one session: one for each question costs more than all else of an idle server."""

  def __init__(self, cluster, target, silence):
    self._cluster, self._target, self._silence = cluster, target, silence
    self._open = self._session = None

  def how_far(self):
    """How far the run's end has come, or None while no chief has been there or ps 0 is away."""
    if self._cluster.task > 0 and not peers.is_up(self._cluster.ps[0]):
      return None
    try:
      if self._open is None:
        self._open = contextlib.ExitStack()
        session = shared_state.shared_state_session(self._cluster, self._target)
        self._session, self._state = self._open.enter_context(session)
      state = self._state
      fetches = [state.is_done, state.chief_is_gone, state.num_goodbyes, state.num_spare_actors]
      *phase, roll = sessions.run_within(self._session, [*fetches, state.roll])
      if self._cluster.task > 0:
        self._silence.answered('ps:0')
      self._silence.called(roll)
      return _HowFar(*phase)
    except tf.errors.FailedPreconditionError:  # No chief has been there.
      return None
    except tf.errors.OpError:
      self._give_up()
      return None

  def _give_up(self):
    with contextlib.suppress(tf.errors.OpError):
      self._open.close()
    self._open = None
