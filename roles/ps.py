"""A parameter server's life: it serves until the run is done and everybody has left."""

import collections
import time

import tensorflow as tf
from absl import logging

from runtime import peers, placement, sessions, shared_state
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
  heartbeat.phase('serving')
  logging.info('%s serves at %s', cluster.name, cluster.address(cluster.name))
  reason = serve_to_the_end(cluster, server.target, interrupts)
  logging.info('%s leaves: %s', cluster.name, reason)


def serve_to_the_end(cluster, target, interrupts):
  """Waits until the run is done and the others have said goodbye (deregistered).

  The parameter servers are the last to go: sessions of the others cannot close without them.
  After a signal the chief has PATIENCE_SECS for its last checkpoint.

  Returns:
    The reason of the end, for the log.
  """
  everybody = len(cluster.learner) + len(cluster.actor)
  if cluster.task == 0:  # The other parameter servers ask it, so it goes after them.
    everybody += len(cluster.ps) - 1
  deadline = question = None
  while True:
    if question is None:
      question, asked = Attempt(_ask_how_far, cluster, target), time.monotonic()
    answered, now = question.has_ended(POLL_SECS), time.monotonic()
    if not answered and now - asked < ANSWER_SECS:
      continue
    phase = None
    if answered:
      phase, question = question.result(), None
    if phase is None and interrupts.is_set():
      return f'{interrupts.reason}, and no chief is connected'
    if phase and phase.chief_is_gone and phase.goodbyes >= everybody and not phase.spare_actors:
      if cluster.task > 0:
        Attempt(shared_state.say_goodbye, cluster, target).has_ended(ANSWER_SECS)
      return 'the run is done and everybody has left'
    if deadline is None and (interrupts.is_set() or (phase and phase.chief_is_gone)):
      deadline = now + (PATIENCE_SECS if interrupts.is_set() else LATECOMER_SECS)
    if deadline is not None and now > deadline:
      if interrupts.is_set():
        return f'{interrupts.reason}, and the chief did not leave within {PATIENCE_SECS:.0f} s'
      return 'the run is done; some tasks never took their leave'
    if interrupts.is_set() and phase and phase.chief_is_gone:
      return f'{interrupts.reason}, and the chief has left'
    time.sleep(POLL_SECS)


def _ask_how_far(cluster, target):
  """How far the run's end has come, or None while no chief has been there or ps 0 is away."""
  if cluster.task > 0 and not peers.is_up(cluster.ps[0]):
    return None
  try:
    with shared_state.shared_state_session(cluster, target) as (session, state):
      fetches = [
        state.is_done,
        state.chief_is_gone,
        state.num_goodbyes,
        state.num_spare_actors,
      ]
      return _HowFar(*sessions.run_within(session, fetches))
  except tf.errors.OpError:
    return None
