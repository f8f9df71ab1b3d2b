"""What a run's variables begin with: what the parameter servers hold, a checkpoint, or new values.

Values are lost with the process of a parameter server, not with a connection to it. So a chief that
connects again, or is started again, first looks whether all of them are still there.
"""

import os
import uuid

import tensorflow as tf
from absl import logging

from common import files

HELD = 'what the parameter servers hold'
_NAME = 'run_id'


def run_id(folder):
  """A text that tells the run in a folder from all others; the same for each start of its chief.

  Args:
    folder: of the run, which its chief has to itself.
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
  except OSError as e:  # The chief's next process will restore the last checkpoint.
    logging.warning('cannot write %s: %s', path, e.strerror)
  return new


class Filling:
  """Gives the variables of a run their values, where they have lost them.

  Args:
    shared: `runtime.shared_state.SharedState`.
    run: `run_id` of the run.
    init_op: gives all variables new values.
    init_feed: dict, what `init_op` is fed.
    ready_op: lists the variables without a value.
    restore: function of (session, path of a checkpoint).
  """

  def __init__(self, shared, run, init_op, init_feed, ready_op, restore):
    self._shared, self._run = shared, run
    self._init_op, self._init_feed, self._ready_op = init_op, init_feed, ready_op
    self._restore = restore

  def fill(self, session, path):
    """Fills what is empty; all of it where a part is, so that the values belong together.

    Args:
      session: tf.compat.v1.Session of the chief.
      path: of the last checkpoint, or None.

    Returns:
      Where the values are from: HELD, `path`, or None where they are new.
    """
    if self._all_is_held(session):
      return HELD
    self._mark(session, '')  # Until all have their values, they do not belong together.
    if path:
      self._restore(session, path)
    else:
      session.run(self._init_op, self._init_feed)
    self._mark(session, self._run)
    return path

  def let_go(self, session):
    """From now on what the parameter servers hold is not trusted: a checkpoint will be restored."""
    self._mark(session, '')

  def _mark(self, session, run):
    session.run(self._shared.write_held_run, {self._shared.new_held_run: run})

  def _all_is_held(self, session):
    try:
      run = session.run(self._shared.held_run)
    except (tf.errors.FailedPreconditionError, tf.errors.NotFoundError):
      return False  # ps 0 has been started since.
    return run.decode() == self._run and not session.run(self._ready_op).size
