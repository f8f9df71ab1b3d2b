"""Checkpoints: the weights, optimiser slots and counters of a run on the disk of its chief.

checkpoints.json beside them lists those that are kept, and what each of them is worth; see
`runtime.checkpoint_folder` for the files.
"""

import contextlib
import os
import sys
import threading

from absl import logging

from common import files
from runtime import checkpoint_folder
from runtime.checkpoint_folder import LIST, Saved, is_whole
from runtime.kept_checkpoints import Kept, SaveFailed, best_of
from runtime.process import BadInput, RunFailed, import_tensorflow

__all__ = ['LIST', 'Checkpoints', 'SaveFailed', 'Saved', 'is_whole']
_LAST, _BEST = 'last', 'best'


class Gone(RunFailed):
  """A checkpoint was deleted while it was read: by a run that still trains."""


class Checkpoints:
  """Saves and restores the global variables of the graph, through this task, onto its own disk.

  Unsharded: sharded savers let every parameter server write to a disk that nobody else can read.

  Args:
    logdir: folder.
    device: of the task that reads and writes.
    whole: `sliced_weights.UnslicedVariables` of the sliced weights, or None.
    in_use: function of a checkpoint's name, whether somebody reads it, so that it must stay.
    **kept: which are kept, see `runtime.kept_checkpoints.Kept`.

  Attributes:
    variables: {name: tf.Variable} of what is saved.
    is_due: function of environment frames, see `Kept`.

  Raises:
    RunFailed: the folder cannot be read or written.
  """

  def __init__(self, logdir, device, whole=None, in_use=lambda name: False, **kept):
    import tensorflow as tf

    self._logdir, self._lock = logdir, threading.Lock()
    self._gather, self._scatter = (whole.gather, whole.scatter) if whole else ((), ())
    with tf.device(device + '/cpu:0' if device else '/cpu:0'):
      # TensorFlow deletes none: it would only know how old they are.
      self.variables = saved_variables(whole)
      self._saver = tf.compat.v1.train.Saver(self.variables, sharded=False, max_to_keep=0)
    self._current = None  # Name of the checkpoint that has just what the variables have.
    self._kept = Kept(
      logdir, listed(logdir), checkpoint_folder.look(logdir).written, in_use, **kept
    )
    self.is_due = self._kept.is_due

  def save(self, session, updates, mean_return_100=None):
    """Writes a checkpoint named by the number of updates, and deletes what need not be kept.

    It is written apart and has its name once all of it is on disk; then it is listed, and only then
    others are deleted.

    Returns:
      Its `Saved`.

    Args:
      session: tf.compat.v1.Session.
      updates: int.
      mean_return_100: see `Saved`.

    Raises:
      SaveFailed: the disk does not take it.
    """
    with self._lock, session.graph.as_default():  # Graphs in force are known to one thread only.
      if not self._is_saved(updates):
        session.run(self._gather)
        self._write(session, int(updates))
      self._kept.settle(mean_return_100)
      return self._kept.saved[-1]

  def _is_saved(self, updates):
    """Whether the newest has all that there is: no update has been made since."""
    newest = self._kept.saved[-1] if self._kept.saved else None
    return bool(newest) and newest.name == self._current and newest.updates == int(updates)

  def _write(self, session, updates):
    """Writes a checkpoint, and puts it on the list in memory."""
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

  def restore(self, session, path):
    """Gives the graph's variables the values of a checkpoint; as tf.compat.v1.train.Saver."""
    self._current = None
    self._saver.restore(session, path)
    session.run(self._scatter)
    self._current = os.path.basename(path)

  @staticmethod
  def exist(logdir):
    """Whether there is a whole checkpoint in `logdir`; without TensorFlow."""
    return Checkpoints.latest(logdir) is not None

  @staticmethod
  def latest(logdir):
    """The path of the newest whole checkpoint in `logdir`, or None; without TensorFlow.

    Raises:
      RunFailed: the disk does not tell.
    """
    names = checkpoint_folder.look(logdir).whole
    return os.path.join(logdir, names[-1]) if names else None

  @staticmethod
  def shapes(path):
    """{variable name: shape list} of a checkpoint."""
    import tensorflow as tf

    return tf.train.load_checkpoint(path).get_variable_to_shape_map()

  @staticmethod
  def first_values(path, variables):
    """What the initializer of some variables is fed for them to begin as in a checkpoint.

    Args:
      path: of a checkpoint.
      variables: list of tf.Variable of a graph.

    Returns:
      {tensor: numpy array}.

    Raises:
      BadInput: it cannot be read, or has not these variables.
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
  def value(path, name):
    """A variable's value in a checkpoint, a numpy array."""
    import tensorflow as tf

    return tf.train.load_checkpoint(path).get_tensor(name)


def saved_variables(whole=None):
  """{name: tf.Variable} of what a checkpoint of the graph holds.

  Args:
    whole: `sliced_weights.UnslicedVariables` of the sliced weights, or None.
  """
  import tensorflow as tf

  sliced = {v.ref() for v in whole.sliced} if whole else ()
  single = {v.op.name: v for v in tf.compat.v1.global_variables() if v.ref() not in sliced}
  return {**single, **(whole.variables if whole else {})}


def listed(logdir):
  """The whole checkpoints in `logdir`, a list of `Saved`, the newest last.

  What the list on disk does not know is looked into, by TensorFlow: a run of an earlier version has
  no list, and a process may be killed between saving and listing.

  Raises:
    RunFailed: the disk does not tell.
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
    except Exception as e:  # Of TensorFlow: its run may just have deleted it.
      reason = _reason(e)
    if reason and is_whole(path):
      logging.warning('%s is left out: %s', path, reason)
  return checkpoints


def take_over(logdir):
  """Puts the checkpoints of a folder in order for a chief that has its lock.

  What killed processes have left half written goes. A newest checkpoint that cannot be used is set
  aside, with a sentence, until one can; and so is a list that is none.

  Returns:
    The path of the newest checkpoint, all of which can be read; None where there is none.

  Raises:
    BadInput: there are checkpoints, but none can be used.
    RunFailed: the disk does not tell, or does not let it.
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
    # From now on a list that is missing is one that was lost.
    with contextlib.suppress(OSError):
      checkpoint_folder.write_list(logdir, [], None)
  return newest


def _none_can_be_read(logdir, useless):
  reasons = '; '.join(f'{name}: {reason}' for name, reason in useless.items())
  return f'none of the checkpoints in {logdir} can be used ({reasons}): bring back a copy of one'


def damage(path):
  """Why a checkpoint cannot be used, '' where it can: all of it is read, and TensorFlow checks it.

  Raises:
    RunFailed: the disk does not let it be read, which says nothing of the checkpoint.
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


def _reason(error):
  """What TensorFlow says of a file, without the graph's part of it, on one line."""
  text = getattr(error, 'message', None) or str(error)
  if 'Read less bytes than requested' in text:
    return 'it is cut off'
  lines = [line.strip() for line in text.splitlines()]
  of_a_file = [line for line in lines if '; ' in line and line.startswith(('/', '.'))]
  if of_a_file:  # /runs/a/model.ckpt-7.index; No space left on device
    return of_a_file[0].rpartition('; ')[2]
  return next(filter(None, lines), type(error).__name__)


def is_choice(text):
  """Whether a text says which checkpoint: 'last', 'best' or a number of environment frames."""
  return text in (_LAST, _BEST) or text.isdecimal()


def find(logdir, choice, asked, check=False):
  """The path of a checkpoint.

  Args:
    logdir: folder that has one.
    choice: see `is_choice`.
    asked: str, what the user wrote.
    check: whether all of it is read, by TensorFlow; of the last the newest that can be used is
      taken, with a sentence. Nothing is changed on disk.

  Raises:
    BadInput: there is no such checkpoint, or it is damaged; the sentence says which there are.
    Gone: it was deleted meanwhile.
    RunFailed: the disk does not tell.
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


def _newest_to_use(logdir, asked):
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


def _damage_that_stays(path):
  """As `damage`; raises Gone where the checkpoint was deleted meanwhile."""
  reason = damage(path)
  if reason and not is_whole(path):
    raise Gone(f'{path} was deleted before it could be read')
  return reason


def _looked_into(path):
  _load_tensorflow()
  frames, updates = (
    int(Checkpoints.value(path, name)) for name in ('environment_frames', 'global_step')
  )
  return Saved(os.path.basename(path), frames, updates, None, False)


def _load_tensorflow():
  if 'tensorflow' not in sys.modules:  # For a refusal that is one line.
    import_tensorflow()
