"""runtime.sessions: calls with a limit."""

import threading

import pytest
import tensorflow as tf

from runtime import sessions

LIMIT_SECS = 0.2


@pytest.fixture
def call():
  """A function of a session's target that runs an operation for longer than its limit."""
  go_on = threading.Event()

  def run(target):
    def late():
      go_on.wait(5 * LIMIT_SECS)
      return 7.0

    with tf.Graph().as_default(), tf.compat.v1.Session(target) as session:
      return sessions.run_within(session, tf.numpy_function(late, [], tf.float64), secs=LIMIT_SECS)

  yield run
  go_on.set()


def test_a_peer_that_does_not_answer_in_time_is_given_up(call):
  server = tf.distribute.Server.create_local_server()
  with pytest.raises(tf.errors.DeadlineExceededError) as info:
    call(server.target)
  assert sessions.lost_peer(info.value)


def test_local_training_on_a_busy_machine_is_waited_for(call):
  assert call('') == 7.0
