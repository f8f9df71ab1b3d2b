"""A parameter server's life: it serves until the run is done and everybody has left."""

import collections
import contextlib
import time

import tensorflow as tf
from absl import logging

from runtime import links, peers, placement, sessions, shared_state
from runtime.heartbeat import Heartbeat
from runtime.process import POLL_SECS
from runtime.sessions import ANSWER_SECS, Attempt

PATIENCE_SECS = 20.0  # For the chief's last checkpoint, after a signal to a parameter server.
LATECOMER_SECS = 15.0  # For the others to leave, after the chief has.

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
  reason = serve_to_the_end(cluster, server.target, interrupts, heartbeat.silence)
  logging.info('%s leaves: %s', cluster.name, reason)


def serve_to_the_end(cluster, target, interrupts, silence):
  """Waits until the run is done and the others have said goodbye (deregistered).

  The parameter servers are the last to go: sessions of the others cannot close without them.
  After a signal the chief has PATIENCE_SECS for its last checkpoint, and so have spare actors for
  hearing of the end, since they belong to other jobs, which got no signal.

  Returns:
    The reason of the end, for the log.
  """
  everybody = len(cluster.learner) + len(cluster.actor)
  if cluster.task == 0:  # The other parameter servers ask it, so it goes after them.
    everybody += len(cluster.ps) - 1
  deadline = question = None
  asking = _Asking(cluster, target, silence)
  while True:
    if question is None:
      question, asked = Attempt(asking.how_far), time.monotonic()
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
        Attempt(shared_state.say_goodbye, cluster, target).has_ended(ANSWER_SECS)
      return 'the run is done and everybody has left'
    if deadline is None and (interrupts.is_set() or chief_is_gone):
      deadline = now + (PATIENCE_SECS if interrupts.is_set() else LATECOMER_SECS)
    if deadline is not None and now > deadline:
      if not interrupts.is_set():
        return 'the run is done; some tasks never took their leave'
      who = 'spare actors' if chief_is_gone else 'the chief'
      return f'{interrupts.reason}, and {who} did not leave within {PATIENCE_SECS:.0f} s'
    if interrupts.is_set() and chief_is_gone and not phase.spare_actors:
      return f'{interrupts.reason}, and the chief has left'
    time.sleep(POLL_SECS)


class _Asking:
  """Asks ps 0, in one session: one for each question costs more than all else of an idle server."""

  def __init__(self, cluster, target, silence):
    self._cluster, self._target, self._silence = cluster, target, silence
    self._beats = None
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
      *phase, beats = sessions.run_within(self._session, [*fetches, state.beats])
      self._heard(beats)
      return _HowFar(*phase)
    except tf.errors.FailedPreconditionError:  # No chief has been there.
      return None
    except tf.errors.OpError:
      self._give_up()
      return None

  def _heard(self, beats):
    if self._cluster.task > 0:
      self._silence.answered('ps:0')
    self._silence.looked(['learner:0'] if beats != self._beats else [])
    self._beats = beats

  def _give_up(self):
    with contextlib.suppress(tf.errors.OpError):
      self._open.close()
    self._open = None
