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


def test_the_first_line_of_an_error_says_what_went_wrong():
  with tf.Graph().as_default():
    queue = tf.queue.FIFOQueue(1, [tf.float32], [[]], name='q')
    close, enqueue = queue.close(), queue.enqueue(1.0)
    with tf.compat.v1.Session(tf.distribute.Server.create_local_server().target) as session:
      session.run(close)
      with pytest.raises(tf.errors.CancelledError) as info:
        session.run(enqueue)
  assert 'Detected at node' in str(info.value)
  assert sessions.first_line(info.value).endswith('is closed.')
