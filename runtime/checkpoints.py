"""Checkpoints: the weights, optimiser slots and counters of a run on the disk of its chief.

checkpoints.json beside them lists those that are kept, and what each of them is worth.
"""

import collections
import contextlib
import glob
import json
import os
import re
import sys
import threading

from runtime.process import BadInput, import_tensorflow

LIST = 'checkpoints.json'
_LAST, _BEST = 'last', 'best'

Saved = collections.namedtuple('Saved', 'name frames updates mean_return_100 for_ever')
Saved.__doc__ = """A checkpoint on disk.

Attributes:
  name: of its files, without their endings.
  frames, updates: int, environment frames and updates that it was trained for.
  mean_return_100: float, raw return of the last 100 games before it; None where there were fewer,
    or it is not known.
  for_ever: bool, it is never deleted (--keep_checkpoint_every_frames).
"""


class Checkpoints:
  """Saves and restores the global variables of the graph, through this task, onto its own disk.

  Unsharded: sharded savers let every parameter server write to a disk that nobody else can read.

  Args:
    logdir: folder.
    device: of the task that reads and writes.
    keep: the newest so many are kept; the best of all that were saved is, too.
    keep_every_frames: environment frames between those that are never deleted; 0: there are none.
    whole: `sliced_weights.Whole`, how values in slices are saved; None where there are none.

  Attributes:
    variables: {name: tf.Variable} of what is saved.
    in_use: function of a name, whether somebody reads that checkpoint, so that it must stay.

  Raises:
    BadInput: the folder's list of checkpoints cannot be read.
  """

  PREFIX = 'model.ckpt'

  def __init__(self, logdir, device, keep=3, keep_every_frames=0, whole=None):
    import tensorflow as tf

    self._logdir, self._keep, self._every = logdir, keep, keep_every_frames
    self._gather, self._scatter = (whole.gather, whole.scatter) if whole else ((), ())
    self._lock, self.in_use = threading.Lock(), lambda name: False
    with tf.device(device + '/cpu:0' if device else '/cpu:0'):
      # TensorFlow deletes none: it would only know how old they are.
      self.variables = saved_variables(whole)
      self._saver = tf.compat.v1.train.Saver(
        self.variables, sharded=False, max_to_keep=0, save_relative_paths=True
      )
    self._saved, written = [], _read_list(logdir)
    for saved in listed(logdir):
      for_ever = saved.for_ever or (saved not in written and self.is_due(saved.frames))
      self._saved.append(saved._replace(for_ever=for_ever))
    if self._saved != written:  # Of a version without the list, or the last process was killed.
      for lost in {saved.name for saved in written} - {saved.name for saved in self._saved}:
        _delete(os.path.join(logdir, lost))
      _write_list(logdir, self._saved)

  def is_due(self, frames):
    """Whether one that is never deleted has to be saved at so many environment frames."""
    before = self._saved[-1].frames if self._saved else 0
    return bool(self._every) and frames // self._every > before // self._every

  def save(self, session, updates, mean_return_100=None):
    """Writes a checkpoint named by the number of updates, and deletes what need not be kept.

    Returns:
      Its `Saved`.

    Args:
      session: tf.compat.v1.Session.
      updates: int.
      mean_return_100: see `Saved`.
    """
    path = os.path.join(self._logdir, self.PREFIX)
    with self._lock, session.graph.as_default():  # Graphs in force are known to one thread only.
      session.run(self._gather)
      path = self._saver.save(session, path, global_step=int(updates), write_meta_graph=False)
      self._take_in(_looked_into(path, mean_return_100))
      return self._saved[-1]

  def restore(self, session, path):
    """Gives the graph's variables the values of a checkpoint; as tf.compat.v1.train.Saver."""
    self._saver.restore(session, path)
    session.run(self._scatter)

  def _take_in(self, new):
    """Puts the newest checkpoint on the list; files go before the list that names them does."""
    earlier = [saved for saved in self._saved if saved.name == new.name]  # Saved once more.
    self._saved = [saved for saved in self._saved if saved.name != new.name]
    for_ever = self.is_due(new.frames) or any(saved.for_ever for saved in earlier)
    if new.mean_return_100 is None and earlier:
      new = new._replace(mean_return_100=earlier[0].mean_return_100)
    self._saved.append(new._replace(for_ever=for_ever))
    kept = {*self._saved[-self._keep :], best_of(self._saved)}
    for old in [s for s in self._saved if not (s.for_ever or s in kept or self.in_use(s.name))]:
      _delete(os.path.join(self._logdir, old.name))
      self._saved.remove(old)
    _write_list(self._logdir, self._saved)

  @staticmethod
  def exist(logdir):
    """Whether there is a whole checkpoint in `logdir`; without TensorFlow."""
    return Checkpoints.latest(logdir) is not None

  @staticmethod
  def latest(logdir):
    """The path of the newest whole checkpoint in `logdir`, or None; without TensorFlow."""
    names = [*(saved.name for saved in _read_list(logdir)), *_named_by_tensorflow(logdir)]
    paths = [os.path.join(logdir, name) for name in names]
    return next(filter(is_whole, reversed(paths)), None)

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
    whole: `sliced_weights.Whole`, stands for the variables in slices; None where there are none.
  """
  import tensorflow as tf

  sliced = {v.ref() for v in whole.sliced} if whole else ()
  single = {v.op.name: v for v in tf.compat.v1.global_variables() if v.ref() not in sliced}
  return {**single, **(whole.variables if whole else {})}


def best_of(checkpoints):
  """The first of the greatest `mean_return_100` in a list of `Saved`; None where none is known."""
  known = [saved for saved in checkpoints if saved.mean_return_100 is not None]
  return max(known, key=lambda saved: saved.mean_return_100, default=None)


def listed(logdir):
  """The whole checkpoints in `logdir`, a list of `Saved`, the newest last.

  What the list on disk does not know is looked into, by TensorFlow: a run of an earlier version has
  no list, and a process may be killed between saving and listing.

  Raises:
    BadInput: the list on disk is none.
  """
  known = {saved.name: saved for saved in _read_list(logdir)}
  names = _named_by_tensorflow(logdir)
  unknown = [name for name in names if name not in known]
  paths = {name: os.path.join(logdir, name) for name in [*known, *unknown]}
  whole = [name for name in paths if is_whole(paths[name])]
  # Who made an older one the newest, by hand in TensorFlow's file, goes on from there.
  whole.sort(key=lambda name: name == (names or [None])[-1])
  return [known.get(name) or _looked_into(paths[name]) for name in whole]


def is_choice(text):
  """Whether a text says which checkpoint: 'last', 'best' or a number of environment frames."""
  return text in (_LAST, _BEST) or text.isdecimal()


def find(logdir, choice, asked):
  """The path of a checkpoint.

  Args:
    logdir: folder that has one.
    choice: see `is_choice`.
    asked: str, what the user wrote.

  Raises:
    BadInput: there is no such checkpoint; the sentence says which there are.
  """
  if choice == _LAST:
    return Checkpoints.latest(logdir)
  checkpoints = listed(logdir)
  best = best_of(checkpoints)
  if choice == _BEST:
    found, missing = best, 'none that was saved after 100 games, so it is not known which is best'
  else:
    of_frames = {saved.frames: saved for saved in checkpoints}
    found, missing = of_frames.get(int(choice)), f'none of {choice} frames'
  if not found:
    there = ', '.join(f'{s.frames}{" (best)" if s == best else ""}' for s in checkpoints)
    raise BadInput(f'{asked}: of the checkpoints in {logdir} {missing}; there are those of {there}')
  return os.path.join(logdir, found.name)


def _looked_into(path, mean_return_100=None):
  if 'tensorflow' not in sys.modules:  # For a refusal that is one line.
    import_tensorflow()
  frames, updates = (
    int(Checkpoints.value(path, name)) for name in ('environment_frames', 'global_step')
  )
  return Saved(os.path.basename(path), frames, updates, mean_return_100, False)


def _named_by_tensorflow(logdir):
  """Names in TensorFlow's own record, the newest last: our own reading needs no import of it."""
  try:
    with open(os.path.join(logdir, 'checkpoint'), encoding='utf-8') as file:
      text = file.read()
  except OSError:
    return []
  paths = re.findall(r'^(all_)?model_checkpoint_paths?: "(.*)"$', text, re.M)
  names = {os.path.basename(path): None for is_one_of_all, path in paths if is_one_of_all}
  newest = [os.path.basename(path) for is_one_of_all, path in paths if not is_one_of_all]
  return [name for name in names if name not in newest] + newest


def is_whole(path):
  """Whether both files are there; the index is written last, and deleted first."""
  return os.path.exists(path + '.index') and bool(glob.glob(glob.escape(path) + '.data-*'))


def _delete(path):
  for file in (path + '.index', *glob.glob(glob.escape(path) + '.data-*')):
    with contextlib.suppress(OSError):  # Training goes on with a file too many.
      os.remove(file)


def _read_list(logdir):
  """The list on disk as it is, whether the files are there or not; [] without one."""
  path = os.path.join(logdir, LIST)
  try:
    with open(path, encoding='utf-8') as file:
      entries = json.load(file)['checkpoints']
    checkpoints = [Saved(**entry) for entry in entries]
  except FileNotFoundError:
    return []
  except (OSError, ValueError, TypeError, KeyError):
    raise BadInput(f'{path} is no list of checkpoints: move it away') from None
  return [saved._replace(name=os.path.basename(saved.name)) for saved in checkpoints]


def _write_list(logdir, checkpoints):
  path, best = os.path.join(logdir, LIST), best_of(checkpoints)
  content = {
    'best': best.name if best else None,
    'checkpoints': [saved._asdict() for saved in checkpoints],
  }
  with open(path + '.new', 'w', encoding='utf-8') as file:
    json.dump(content, file, indent=2)
    file.write('\n')
  os.replace(path + '.new', path)
