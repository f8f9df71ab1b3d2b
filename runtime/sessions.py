"""A task's server and sessions: opening, closing, time limits, threads that share a session.

The main thread never blocks in `session.run`. Calls that may never return run in other threads
(`common.background.BackgroundCall`, `Loops`), so that signals are handled at once.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import tensorflow as tf
from absl import logging

from runtime import listening, peers, placement
from runtime.cluster import Cluster
from runtime.process import RunFailed

ANSWER_SECS = 5.0  # Time limit of a query to ps 0, which may have disappeared.


def start_server(cluster: Cluster, config: tf.compat.v1.ConfigProto) -> tf.distribute.Server:
  """Starts the server of this task.

  Raises:
    BadInput: the port is in use.
    RunFailed: the server cannot listen.
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


def open_session(
  target: str,
  config: tf.compat.v1.ConfigProto,
  local_init_op: tf.Operation,
  ready_op: tf.Tensor,
  initialize: Callable[[tf.compat.v1.Session], Any] | None = None,
) -> tf.compat.v1.Session:
  """Opens a session of the default graph once all variables are initialized.

  Args:
    target: the server's target; '' in local training.
    config: configuration of the session.
    local_init_op: initializes this task's local variables.
    ready_op: string vector, names of the uninitialized global variables.
    initialize: on the chief, initializes the global variables in the given session; None in other
      tasks, which wait for the chief.
  """
  manager = tf.compat.v1.train.SessionManager(
    local_init_op=local_init_op,
    ready_op=ready_op,
    ready_for_local_init_op=ready_op,
    graph=tf.compat.v1.get_default_graph(),
    recovery_wait_secs=1,
  )
  if not initialize:
    return manager.wait_for_session(target, config=config)
  session = tf.compat.v1.Session(target, config=config)
  initialize(session)
  session.run(local_init_op)
  return session


def close_session(*opened: tf.compat.v1.Session, secs: float = 5.0) -> None:
  """Closes sessions concurrently, which cancels their pending calls.

  Args:
    *opened: the sessions.
    secs: time limit of the wait.
  """
  deadline = time.monotonic() + secs
  threads = [threading.Thread(target=_close_quietly, args=(one,), daemon=True) for one in opened]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(max(0.0, deadline - time.monotonic()))


def _close_quietly(session: tf.compat.v1.Session) -> None:
  try:
    session.close()
  except tf.errors.OpError as e:
    logging.info('closing the session: %s', first_line(e))


def run_within(
  session: tf.compat.v1.Session,
  fetches: Any,
  feed: dict[tf.Tensor, Any] | None = None,
  secs: float = 20.0,
) -> Any:
  """Calls `session.run` with a time limit; local training has no limit.

  Raises:
    tf.errors.DeadlineExceededError: the call took longer than `secs`.
  """
  is_local = not session.sess_str
  options = tf.compat.v1.RunOptions(timeout_in_ms=0 if is_local else int(secs * 1000))
  return session.run(fetches, feed, options=options)


def lost_peer(error: BaseException) -> bool:
  """Returns whether an error means that another task is dead, frozen, or not yet initialized."""
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


def first_line(error: BaseException) -> str:
  """Returns the first informative line of an exception's message."""
  lines = [line.strip('= ') for line in str(error).splitlines()]
  empty = re.compile(r'Graph execution error:|(\w+: )?From /job:|Detected at node |File "|Node: |$')
  telling = [line for line in lines if not empty.match(line)]
  return (telling or [type(error).__name__])[0]


class Loops:
  """Threads that share a session; when one ends, for any reason, all are asked to stop.

  Attributes:
    error: first exception raised by a loop before `stop`, or None.
  """

  def __init__(self):
    self._stop, self._ended = threading.Event(), threading.Event()
    self._threads: list[threading.Thread] = []
    self._lock = threading.Lock()
    self.error: BaseException | None = None

  def start(self, name: str, function: Callable[..., Any], *args: Any) -> None:
    """Runs `function(*args)` in a new thread with this name."""
    thread = threading.Thread(target=self._run, args=(function, args), name=name, daemon=True)
    self._threads.append(thread)
    thread.start()

  def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
      function(*args)
    except BaseException as e:  # The main thread decides how to handle it.
      with self._lock:
        if self.error is None and not self._stop.is_set():
          self.error = e
    finally:
      self._ended.set()

  def should_stop(self) -> bool:
    """Returns whether the loops have been asked to end."""
    return self._stop.is_set()

  def stop(self) -> None:
    """Asks the loops to end; later errors are consequences and are ignored."""
    with self._lock:
      self._stop.set()

  def wait(self, secs: float) -> bool:
    """Waits for the first loop to end; returns whether one has."""
    return self._ended.wait(secs)

  def join(self, secs: float, names: Collection[str] | None = None) -> list[str]:
    """Waits for the named loops (default: all); returns the names of those still running."""
    deadline = time.monotonic() + secs
    threads = [thread for thread in self._threads if names is None or thread.name in names]
    for thread in threads:
      thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]
