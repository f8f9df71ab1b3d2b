"""Checkpoints: weights, optimizer slots and counters of a run, on its chief's disk.

checkpoints.json lists the kept checkpoints with their mean returns; `runtime.checkpoint_folder`
handles the files.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from absl import logging

from common import files
from runtime import checkpoint_folder
from runtime.checkpoint_folder import LIST, Saved, is_whole
from runtime.kept_checkpoints import Kept, SaveFailed, best_of
from runtime.process import BadInput, RunFailed, import_tensorflow

if TYPE_CHECKING:
  import numpy as np
  import tensorflow as tf

__all__ = ['LIST', 'Checkpoints', 'SaveFailed', 'Saved', 'is_whole']
_LAST, _BEST = 'last', 'best'


class Unsliced(Protocol):
  """Interface of `learning.sliced_weights.UnslicedVariables`."""

  sliced: Any
  variables: Any
  gather: Any
  scatter: Any


class Gone(RunFailed):
  """A run in training deleted a checkpoint while it was read."""


class Checkpoints:
  """Saves and restores the global variables of the default graph on the disk of this task.

  The saver is unsharded: with sharding, each parameter server would write to its own disk.

  Args:
    logdir: the run's folder.
    device: device of the task that reads and writes.
    whole: the unsliced weights and slots; None if no variable is sliced.
    before_save: called with the session before the variables are written.
    **kept: which checkpoints to keep, see `runtime.kept_checkpoints.Kept`.

  Attributes:
    variables: saved variables by name.
    is_due: see `Kept.is_due`.

  Raises:
    RunFailed: the folder cannot be read or written.
  """

  def __init__(
    self,
    logdir: str,
    device: str,
    whole: Unsliced | None = None,
    before_save: Callable[[tf.compat.v1.Session], None] = lambda session: None,
    **kept: Any,
  ):
    import tensorflow as tf

    self._before_save = before_save
    self._logdir, self._lock = logdir, threading.Lock()
    self._gather, self._scatter = (whole.gather, whole.scatter) if whole else ((), ())
    with tf.device(device + '/cpu:0' if device else '/cpu:0'):
      # TensorFlow would delete by age only, so it must not delete any.
      self.variables = saved_variables(whole)
      self._saver = tf.compat.v1.train.Saver(self.variables, sharded=False, max_to_keep=0)
    # Name of the checkpoint with the current values of the variables.
    self._current: str | None = None
    self._kept = Kept(logdir, listed(logdir), checkpoint_folder.look(logdir).written, **kept)
    self.is_due = self._kept.is_due

  def save(
    self, session: tf.compat.v1.Session, updates: int, mean_return_100: float | None = None
  ) -> Saved:
    """Writes a checkpoint named by the number of updates, and deletes those not to be kept.

    Its files are moved into the folder once all are on disk. Then it is listed, and after that
    others are deleted.

    Args:
      session: session of the variables.
      updates: number of updates so far.
      mean_return_100: see `Saved`.

    Returns:
      The checkpoint.

    Raises:
      SaveFailed: the checkpoint cannot be written.
    """
    with self._lock, session.graph.as_default():  # The default graph differs in each thread.
      if not self._is_saved(updates):
        self._before_save(session)
        session.run(self._gather)
        self._write(session, int(updates))
      self._kept.settle(mean_return_100)
      return self._kept.saved[-1]

  def _is_saved(self, updates: int) -> bool:
    """Returns whether the newest checkpoint has all updates."""
    newest = self._kept.saved[-1] if self._kept.saved else None
    return bool(newest) and newest.name == self._current and newest.updates == int(updates)

  def _write(self, session: tf.compat.v1.Session, updates: int) -> None:
    """Writes a checkpoint and adds it to the list in memory."""
    made = ''
    try:
      name = checkpoint_folder.free_name(self._logdir, updates)
      with checkpoint_folder.made_apart(self._logdir) as made:
        path = os.path.join(made, name)
        self._saver.save(session, path, write_meta_graph=False, write_state=False)
        new = _looked_into(path)._replace(updates=updates)
        checkpoint_folder.publish(self._logdir, made)
    except OSError as e:
      raise SaveFailed(e.strerror or str(e)) from e
    except Exception as e:
      if made and made in str(e):  # TensorFlow names the file that it could not write.
        raise SaveFailed(_reason(e)) from e
      raise
    self._kept.add(new)
    self._current = name

  def restore(self, session: tf.compat.v1.Session, path: str) -> None:
    """Restores the graph's variables from a checkpoint."""
    self._current = None
    self._saver.restore(session, path)
    session.run(self._scatter)
    self._current = os.path.basename(path)

  @staticmethod
  def exist(logdir: str) -> bool:
    """Returns whether `logdir` has a complete checkpoint; works without TensorFlow."""
    return Checkpoints.latest(logdir) is not None

  @staticmethod
  def latest(logdir: str) -> str | None:
    """Returns the path of the newest complete checkpoint or None; works without TensorFlow.

    Raises:
      RunFailed: the folder cannot be read.
    """
    names = checkpoint_folder.look(logdir).whole
    return os.path.join(logdir, names[-1]) if names else None

  @staticmethod
  def shapes(path: str) -> dict[str, list[int]]:
    """Returns {variable name: shape} for a checkpoint."""
    import tensorflow as tf

    return tf.train.load_checkpoint(path).get_variable_to_shape_map()

  @staticmethod
  def first_values(path: str, variables: Sequence[tf.Variable]) -> dict[tf.Tensor, np.ndarray]:
    """Returns a feed_dict that makes the initializers use the values of a checkpoint.

    Args:
      path: path of the checkpoint.
      variables: variables of a graph.

    Raises:
      BadInput: the checkpoint cannot be read or lacks one of the variables.
    """
    import tensorflow as tf

    try:
      reader = tf.train.load_checkpoint(path)
      values = [reader.get_tensor(v.op.name) for v in variables]
    except (ValueError, tf.errors.OpError) as e:
      raise BadInput(f'{path} has no weights that can be read: {e}') from None
    for v, value in zip(variables, values, strict=True):
      here, there = v.shape.as_list(), list(value.shape)
      if here != there:
        raise BadInput(f'{path} does not fit: {v.op.name} has shape {there} in it, {here} here')
    return {v.initializer.inputs[1]: value for v, value in zip(variables, values, strict=True)}

  @staticmethod
  def value(path: str, name: str) -> np.ndarray:
    """Returns the value of a variable in a checkpoint."""
    import tensorflow as tf

    return tf.train.load_checkpoint(path).get_tensor(name)


def saved_variables(whole: Unsliced | None = None) -> dict[str, tf.Variable]:
  """Returns the variables that a checkpoint of the default graph holds, by name.

  Args:
    whole: `sliced_weights.UnslicedVariables`, or None if no variable is sliced.
  """
  import tensorflow as tf

  sliced = {v.ref() for v in whole.sliced} if whole else ()
  single = {v.op.name: v for v in tf.compat.v1.global_variables() if v.ref() not in sliced}
  return {**single, **(whole.variables if whole else {})}


def listed(logdir: str) -> list[Saved]:
  """Returns the complete checkpoints in `logdir`, newest last.

  Frames and updates of unlisted checkpoints are read with TensorFlow: a run of an earlier version
  has no list, and a process may be killed between saving and listing.

  Raises:
    RunFailed: the folder cannot be read.
  """
  found = checkpoint_folder.look(logdir)
  known, checkpoints = {saved.name: saved for saved in found.written or ()}, []
  for name in found.whole:
    path = os.path.join(logdir, name)
    if name in known:
      checkpoints.append(known[name])
      continue
    reason = damage(path)
    try:
      checkpoints += [] if reason else [_looked_into(path)]
    except Exception as e:  # From TensorFlow; the run may just have deleted the checkpoint.
      reason = _reason(e)
    if reason and is_whole(path):
      logging.warning('%s is left out: %s', path, reason)
  return checkpoints


def take_over(logdir: str) -> str | None:
  """Cleans up the checkpoints of a folder for a chief that holds its lock.

  Removes half-written files of killed processes. Moves away damaged checkpoints newer than the
  newest readable one, and a damaged list, with a warning for each.

  Returns:
    The path of the newest readable checkpoint; None if there is no checkpoint.

  Raises:
    BadInput: all checkpoints are damaged.
    RunFailed: the folder cannot be read or changed.
  """
  checkpoint_folder.tidy(logdir)
  found = checkpoint_folder.look(logdir)
  useless = dict.fromkeys(found.torn, 'a file of it is missing')
  newest = None
  for name in reversed(found.whole):
    if not (reason := damage(os.path.join(logdir, name))):
      newest = os.path.join(logdir, name)
      break
    useless[name] = reason
  if useless and not newest:
    raise BadInput(_none_can_be_read(logdir, useless) + ', or move them away to begin anew')
  for name, reason in useless.items():
    kept_as = checkpoint_folder.set_aside(os.path.join(logdir, name))
    logging.warning(
      '%s cannot be used (%s): it is kept in %s, and the run goes on from %s',
      os.path.join(logdir, name),
      reason,
      kept_as,
      newest,
    )
  if not found.whole and found.written is None:
    # From now on, a missing list means that it was lost.
    with contextlib.suppress(OSError):
      checkpoint_folder.write_list(logdir, [], None)
  return newest


def _none_can_be_read(logdir: str, useless: Mapping[str, str]) -> str:
  reasons = '; '.join(f'{name}: {reason}' for name, reason in useless.items())
  return f'none of the checkpoints in {logdir} can be used ({reasons}): bring back a copy of one'


def damage(path: str) -> str:
  """Reads a whole checkpoint with TensorFlow's checksums; returns why it is unusable, or ''.

  Raises:
    RunFailed: the disk cannot be read; the checkpoint may be good.
  """
  for part in checkpoint_folder.parts_of(path):
    try:
      size = files.read_through(part)
    except FileNotFoundError:
      return f'{os.path.basename(part)} is not there any more'
    except OSError as e:
      raise RunFailed(f'{part} cannot be read, nothing is changed: {e.strerror}') from None
    if not size:
      return f'{os.path.basename(part)} is empty'
  _load_tensorflow()
  import tensorflow as tf

  try:
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)
  except Exception as e:  # TensorFlow raises OpError, IndexError and RuntimeError.
    return _reason(e)
  return ''


def _reason(error: BaseException) -> str:
  """Returns TensorFlow's message about a file as one line."""
  text = getattr(error, 'message', None) or str(error)
  if 'Read less bytes than requested' in text:
    return 'it is cut off'
  lines = [line.strip() for line in text.splitlines()]
  of_a_file = [line for line in lines if '; ' in line and line.startswith(('/', '.'))]
  if of_a_file:  # /runs/a/model.ckpt-7.index; No space left on device
    return of_a_file[0].rpartition('; ')[2]
  return next(filter(None, lines), type(error).__name__)


def is_choice(text: str) -> bool:
  """Returns whether a text selects a checkpoint: 'last', 'best' or a number of frames."""
  return text in (_LAST, _BEST) or text.isdecimal()


def find(logdir: str, choice: str, asked: str, check: bool = False) -> str | None:
  """Returns the path of a checkpoint; changes nothing on disk.

  Args:
    logdir: folder with checkpoints.
    choice: see `is_choice`.
    asked: the user's words, for messages.
    check: whether to read the whole checkpoint; 'last' then skips damaged ones with a warning.

  Raises:
    BadInput: the checkpoint does not exist or is damaged; the message lists the existing ones.
    Gone: the checkpoint was deleted while it was read.
    RunFailed: the folder cannot be read.
  """
  if choice == _LAST:
    return _newest_to_use(logdir, asked) if check else Checkpoints.latest(logdir)
  checkpoints = listed(logdir)
  best = best_of(checkpoints)
  if choice == _BEST:
    found, missing = best, 'none that was saved after 100 games, so it is not known which is best'
  else:
    of_frames = {saved.frames: saved for saved in checkpoints}
    found, missing = of_frames.get(int(choice)), f'none of {choice} frames'
  there = ', '.join(f'{s.frames}{" (best)" if s == best else ""}' for s in checkpoints)
  if not found:
    raise BadInput(f'{asked}: of the checkpoints in {logdir} {missing}; there are those of {there}')
  path = os.path.join(logdir, found.name)
  if check and (reason := _damage_that_stays(path)):
    raise BadInput(f'{asked}: {path} is damaged ({reason}); there are those of {there}')
  return path


def _newest_to_use(logdir: str, asked: str) -> str | None:
  useless = {}
  for name in reversed(checkpoint_folder.look(logdir).whole):
    path = os.path.join(logdir, name)
    if not (reason := _damage_that_stays(path)):
      return path
    useless[name] = reason
    logging.warning('%s cannot be used (%s): the one before it is taken', path, reason)
  if useless:
    raise BadInput(f'{asked}: {_none_can_be_read(logdir, useless)}')
  return None


def _damage_that_stays(path: str) -> str:
  """Returns `damage(path)`; raises Gone if the checkpoint was deleted in the meantime."""
  reason = damage(path)
  if reason and not is_whole(path):
    raise Gone(f'{path} was deleted before it could be read')
  return reason


def _looked_into(path: str) -> Saved:
  _load_tensorflow()
  frames, updates = (
    int(Checkpoints.value(path, name)) for name in ('environment_frames', 'global_step')
  )
  return Saved(os.path.basename(path), frames, updates, None, False)


def _load_tensorflow() -> None:
  if 'tensorflow' not in sys.modules:  # Hides TensorFlow's loading messages.
    import_tensorflow()
