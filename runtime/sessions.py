"""Sessions: server, opening and closing, calls with a limit, threads that share one.

The main thread never calls `session.run`: what may never return runs in a thread
(`common.background.BackgroundCall`, `Loops`), so that a signal is handled at once.
"""

import re
import threading
import time

import tensorflow as tf
from absl import logging

from runtime import listening, peers, placement
from runtime.process import RunFailed

ANSWER_SECS = 5.0  # For ps 0 to tell how far the run is; it may be gone since it was looked for.


def start_server(cluster, config):
  """The tf.distribute.Server of this task.

  Raises:
    BadInput: its port is in use.
  """
  address = cluster.address(cluster.name)
  peers.check_port(address)
  try:
    server = tf.distribute.Server(
      placement.cluster_spec(cluster), cluster.job, cluster.task, config=config, start=False
    )
    listening.restrict(cluster, int(server.target.rpartition(':')[2]))
    peers.give_up_lost_clients(int(server.target.rpartition(':')[2]))
    server.start()
    return server
  except tf.errors.OpError as e:
    raise RunFailed(f'{cluster.name} cannot serve at {address}: {e.message}') from e


def open_session(target, config, local_init_op, ready_op, fill=None):
  """A session in which every variable has a value; waits for the chief where it is not the chief.

  Args:
    target: of the server, '' in local training.
    config: tf.compat.v1.ConfigProto.
    local_init_op: for this task's own variables.
    ready_op: lists the global variables without a value.
    fill: the chief's, function of the session that gives the global variables their values.
  """
  manager = tf.compat.v1.train.SessionManager(
    local_init_op=local_init_op,
    ready_op=ready_op,
    ready_for_local_init_op=ready_op,
    graph=tf.compat.v1.get_default_graph(),
    recovery_wait_secs=1,
  )
  if not fill:
    return manager.wait_for_session(target, config=config)
  session = tf.compat.v1.Session(target, config=config)
  fill(session)
  session.run(local_init_op)
  return session


def close_session(*opened, secs=5.0):
  """Closes sessions, all at once; calls in flight are cancelled.

  Args:
    *opened: tf.compat.v1.Session.
    secs: after which those that do not close are given up.
  """
  deadline = time.monotonic() + secs
  threads = [threading.Thread(target=_close_quietly, args=(one,), daemon=True) for one in opened]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(max(0.0, deadline - time.monotonic()))


def _close_quietly(session):
  try:
    session.close()
  except tf.errors.OpError as e:
    logging.info('closing the session: %s', first_line(e))


def run_within(session, fetches, feed=None, secs=20.0):
  """`session.run` that fails with DeadlineExceededError after `secs`.

  In local training, where no peer can be lost, a busy machine has all the time it needs.
  """
  is_local = not session.sess_str
  options = tf.compat.v1.RunOptions(timeout_in_ms=0 if is_local else int(secs * 1000))
  return session.run(fetches, feed, options=options)


def lost_peer(error):
  """Whether an exception says that another task went away, is frozen or has not recovered yet."""
  return isinstance(
    error,
    (
      tf.errors.UnavailableError,
      tf.errors.AbortedError,
      tf.errors.CancelledError,
      tf.errors.DeadlineExceededError,
      tf.errors.FailedPreconditionError,
      tf.errors.OutOfRangeError,
    ),
  )


def first_line(error):
  """The first telling line of an exception's message."""
  lines = [line.strip('= ') for line in str(error).splitlines()]
  empty = re.compile(r'Graph execution error:|(\w+: )?From /job:|Detected at node |File "|Node: |$')
  telling = [line for line in lines if not empty.match(line)]
  return (telling or [type(error).__name__])[0]


class Loops:
  """Threads that share a session; the first to end, for whatever reason, ends the group."""

  def __init__(self):
    self._stop, self._ended = threading.Event(), threading.Event()
    self._threads, self._lock = [], threading.Lock()
    self.error = None

  def start(self, name, function, *args):
    """Runs `function(*args)` in a thread."""
    thread = threading.Thread(target=self._run, args=(function, args), name=name, daemon=True)
    self._threads.append(thread)
    thread.start()

  def _run(self, function, args):
    try:
      function(*args)
    except BaseException as e:  # Whatever it is, the main thread must hear of it.
      with self._lock:
        if self.error is None and not self._stop.is_set():
          self.error = e
    finally:
      self._ended.set()

  def should_stop(self):
    """Whether the loops are asked to come to an end."""
    return self._stop.is_set()

  def stop(self):
    """Asks the loops to come to an end; errors from now on are consequences and not kept."""
    with self._lock:
      self._stop.set()

  def wait(self, secs):
    """Waits for the first end of a loop; True if there was one."""
    return self._ended.wait(secs)

  def join(self, secs, names=None):
    """Waits for all loops, or those of these names; returns the names of those still running."""
    deadline = time.monotonic() + secs
    threads = [thread for thread in self._threads if names is None or thread.name in names]
    for thread in threads:
      thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]
