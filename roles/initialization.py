"""Initializes the variables of a run: keeps their values, restores a checkpoint, or starts anew.

A parameter server loses its values when its process ends, not when a connection breaks. So a chief
that reconnects or restarts first checks whether all values still exist.
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
  """Returns the id of the run in a folder; it is the same at every start of the chief.

  Args:
    folder: the run's folder, locked by its chief.
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
  except OSError as e:  # Without the file, a restarted chief restores the last checkpoint.
    logging.warning('cannot write %s: %s', path, e.strerror)
  return new


class VariableInitializer:
  """Initializes the variables of a run, unless the parameter servers have kept their values.

  Args:
    shared: the shared state on ps 0.
    run: the run's id, from `run_id`.
    init_op: initializes all variables with new values.
    init_feed: feed_dict of `init_op`.
    ready_op: string vector, names of the uninitialized variables.
    restore: function of (session, checkpoint path) that restores all variables.
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
    """Initializes all variables if any has lost its value, so that they stay consistent.

    Args:
      session: the chief's session.
      path: path of the last checkpoint, or None.

    Returns:
      The source of the values: KEPT, `path`, or None for new values.
    """
    if self._all_are_kept(session):
      return KEPT
    self._mark(session, '')  # The values are inconsistent until all are initialized.
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
      return False  # Ps 0 has restarted in the meantime.
    return run.decode() == self._run and not session.run(self._ready_op).size
