"""How a run's variables get their first values: kept, from a checkpoint, or new.

Values on a parameter server are lost with its process, not with a connection to it. So a chief that
connects again, or is started again, first checks whether all values are still there.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from common import files
from runtime.shared_state import SharedState

KEPT = 'what the parameter servers hold'
_NAME = 'run_id'


def run_id(folder: str) -> str:
  """Returns a text that identifies the run in a folder; each start of its chief gets the same one.

  Args:
    folder: of the run, locked by its chief.
  """
  path = os.path.join(folder, _NAME)
  try:
    with open(path, encoding='utf-8') as file:
      if known := file.read().strip():
        return known
  except (OSError, ValueError):
    pass
  new = uuid.uuid4().hex
  try:
    files.write_whole(path, new + '\n')
  except OSError as e:  # Without it the chief's next process restores the last checkpoint.
    logging.warning('cannot write %s: %s', path, e.strerror)
  return new


class VariableInitializer:
  """Initializes the variables of a run, unless the parameter servers have kept their values.

  Args:
    shared: the shared state on ps 0.
    run: `run_id` of the run.
    init_op: initializes all variables with new values.
    init_feed: what `init_op` is fed.
    ready_op: names of the variables that are not initialized, a string vector.
    restore: function of (session, path of a checkpoint).
  """

  def __init__(
    self,
    shared: SharedState,
    run: str,
    init_op: tf.Operation | None,
    init_feed: dict[tf.Tensor, Any],
    ready_op: tf.Tensor | None,
    restore: Callable[[tf.compat.v1.Session, str], None] | None,
  ):
    self._shared, self._run = shared, run
    self._init_op, self._init_feed, self._ready_op = init_op, init_feed, ready_op
    self._restore = restore

  def initialize(self, session: tf.compat.v1.Session, path: str | None) -> str | None:
    """Initializes all variables if any has lost its value, so that the values belong together.

    Args:
      session: of the chief.
      path: of the last checkpoint, or None.

    Returns:
      Where the values come from: KEPT, `path`, or None if they are new.
    """
    if self._all_are_kept(session):
      return KEPT
    self._mark(session, '')  # Until all are initialized, the values do not belong together.
    if path:
      assert self._restore
      self._restore(session, path)
    else:
      session.run(self._init_op, self._init_feed)
    self._mark(session, self._run)
    return path

  def invalidate(self, session: tf.compat.v1.Session) -> None:
    """Makes the next `initialize` restore a checkpoint, since the current values may be wrong."""
    self._mark(session, '')

  def _mark(self, session: tf.compat.v1.Session, run: str) -> None:
    shared = self._shared
    session.run(shared.write_initialized_run, {shared.new_initialized_run: run})

  def _all_are_kept(self, session: tf.compat.v1.Session) -> bool:
    try:
      run = session.run(self._shared.initialized_run)
    except (tf.errors.FailedPreconditionError, tf.errors.NotFoundError):
      return False  # Ps 0 has been started since.
    return run.decode() == self._run and not session.run(self._ready_op).size
