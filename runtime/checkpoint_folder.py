"""Which checkpoints a folder has: the list, TensorFlow's record, and the files themselves.

Nothing here needs TensorFlow. A checkpoint is an index and its data; it is known by what they are
called without their endings. Only the process that has the folder's lock changes anything.
"""

import collections
import contextlib
import json
import os
import re
import tempfile

from absl import logging

from common import files
from runtime.process import RunFailed

LIST = 'checkpoints.json'
RECORD = 'checkpoint'  # TensorFlow's own: which one is the newest.
PREFIX = 'model.ckpt'
_MADE_IN, _DAMAGED = '.saving-', 'damaged-'
_OURS = re.compile(re.escape(PREFIX) + r'-(\d+)(?:-\d+)?')
_PART = re.compile(r'(.+)\.(index|data-\d+-of-\d+)')
# What TensorFlow, and earlier versions of this module, leave where they are killed while writing.
_HALF_WRITTEN = re.compile(
  rf'{re.escape(PREFIX)}.*\.tempstate\d+|{RECORD}\.tmp\w+|{re.escape(LIST)}\.new'
)

Saved = collections.namedtuple('Saved', 'name frames updates mean_return_100 for_ever')
Saved.__doc__ = """A checkpoint on disk.

Attributes:
  name: of its files, without their endings.
  frames, updates: int, environment frames and updates that it was trained for.
  mean_return_100: float, raw return of the last 100 games before it; None where there were fewer,
    or it is not known.
  for_ever: bool, it is never deleted (--keep_checkpoint_every_frames).
"""

Found = collections.namedtuple('Found', 'written whole torn problem')
Found.__doc__ = """What a folder has.

Attributes:
  written: list of `Saved`, what the list says whether the files are there or not; None where there
    is no list, or nothing can be made of it.
  whole: names of the checkpoints whose files are all there, the newest last.
  torn: names of those that have an index alone, or are on the list and have their data alone.
  problem: '' or why nothing can be made of the list that is there.
"""


def look(folder):
  """What checkpoints a folder has, as `Found`; it has none where it is not there.

  Raises:
    RunFailed: the disk does not tell.
  """
  there = _names(folder)
  written, problem = _read_list(folder, there)
  parts = collections.defaultdict(set)
  for name in there:
    if part := _PART.fullmatch(name):
      parts[part[1]].add(part[2].partition('-')[0])
  listed, named = [saved.name for saved in written or ()], _named_by_tensorflow(folder, there)
  ours = [name for name in parts if _OURS.fullmatch(name)]
  candidates = dict.fromkeys([*listed, *named, *ours])
  whole = [name for name in candidates if parts.get(name) == {'index', 'data'}]
  torn = [
    name
    for name in candidates
    if len(parts.get(name, ())) == 1 and (name in listed or parts[name] == {'index'})
  ]
  if written and whole and not set(listed) & set(whole):
    written, problem = None, 'names none of the checkpoints that are there'
  return Found(written, _in_order(whole, written, named), torn, problem)


def _in_order(whole, written, named):
  """Names, the newest last.

  Args:
    whole: names in any order.
    written: list of `Saved`, or None.
    named: names in TensorFlow's record, the newest last.
  """
  listed = [saved.name for saved in written or ()]
  updates = {saved.name: saved.updates for saved in written or ()}
  last = updates[listed[-1]] if listed else -1
  unlisted = sorted((name for name in whole if name not in updates), key=_updates)
  # One that has more updates than all on the list was saved by a process that was then killed.
  older = [name for name in unlisted if _updates(name) <= last]
  newer = [name for name in unlisted if _updates(name) > last]
  order = [*older, *(name for name in listed if name in whole), *newer]
  newest = named[-1] if named else None
  if newest in order and newest != (listed or [None])[-1]:
    # Saved, and not listed; or made the newest by hand: who does so goes on from there.
    order.remove(newest)
    order.append(newest)
  return order


def _updates(name):
  ours = _OURS.fullmatch(name)
  return int(ours[1]) if ours else -1


def is_whole(path):
  """Whether all files of a checkpoint are there."""
  return os.path.basename(path) in look(os.path.dirname(path)).whole


def parts_of(path):
  """Paths of the files of a checkpoint, the index first.

  Raises:
    RunFailed: the disk does not tell.
  """
  folder, own = os.path.split(path)
  parts = [_PART.fullmatch(name) for name in sorted(_names(folder), reverse=True)]
  return [os.path.join(folder, part[0]) for part in parts if part and part[1] == own]


def _names(folder):
  try:
    return files.names(folder)
  except OSError as e:
    raise RunFailed(f'{folder} cannot be listed, nothing is changed: {e.strerror}') from None


def read_file(path):
  """The bytes of a file that was seen to be there.

  Raises:
    RunFailed: the disk does not give them.
    FileNotFoundError: it has gone.
  """
  try:
    return files.read(path)
  except FileNotFoundError:
    raise
  except OSError as e:
    raise RunFailed(f'{path} cannot be read, nothing is changed: {e.strerror}') from None


def _named_by_tensorflow(folder, there):
  """Names in TensorFlow's own record, the newest last: our own reading needs no import of it."""
  if RECORD not in there:
    return []
  try:
    text = read_file(os.path.join(folder, RECORD)).decode('utf-8', 'replace')
  except FileNotFoundError:
    return []
  paths = re.findall(r'^(all_)?model_checkpoint_paths?: "(.*)"$', text, re.M)
  names = {os.path.basename(path): None for is_one_of_all, path in paths if is_one_of_all}
  newest = [os.path.basename(path) for is_one_of_all, path in paths if not is_one_of_all]
  return [name for name in names if name not in newest] + newest


def _read_list(folder, there):
  """(list of `Saved` or None, '' or why what is there is none)."""
  if LIST not in there:
    return None, ''
  try:
    entries = json.loads(read_file(os.path.join(folder, LIST)))['checkpoints']
    checkpoints = [Saved(**entry) for entry in entries]
    return [_checked(saved) for saved in checkpoints], ''
  except FileNotFoundError:
    return None, ''
  except (ValueError, TypeError, KeyError, RecursionError):
    return None, 'is no list of checkpoints'


def _checked(saved):
  """An entry of the list; TypeError if a field has another type."""
  types = dict(name=str, frames=int, updates=int, for_ever=bool)
  if not all(type(getattr(saved, field)) is its for field, its in types.items()):
    raise TypeError('a field of another type')
  if saved.mean_return_100 is not None:
    saved = saved._replace(mean_return_100=float(saved.mean_return_100))
  return saved._replace(name=os.path.basename(saved.name))


def write_list(folder, checkpoints, best):
  """Writes the list of checkpoints. May raise OSError.

  Args:
    folder: of the run.
    checkpoints: list of `Saved`, the newest last.
    best: the best among them, or None.
  """
  content = {
    'best': best.name if best else None,
    'checkpoints': [saved._asdict() for saved in checkpoints],
  }
  files.write_whole(os.path.join(folder, LIST), json.dumps(content, indent=2) + '\n')


def free_name(folder, updates):
  """A name for a new checkpoint; never that of one that is there. May raise OSError."""
  taken = {part[1] for name in files.names(folder) if (part := _PART.fullmatch(name))}
  name, number = f'{PREFIX}-{updates}', 2
  while name in taken:
    name, number = f'{PREFIX}-{updates}-{number}', number + 1
  return name


@contextlib.contextmanager
def made_apart(folder):
  """A new folder in which a checkpoint is written before it is published; removed at the end."""
  made = tempfile.mkdtemp(prefix=_MADE_IN, dir=folder)
  try:
    yield made
  finally:
    _remove_made(made)


def publish(folder, made, name):
  """Moves a checkpoint to where it belongs, once all of it is on disk.

  Args:
    folder: of the run.
    made: folder of `made_apart` that has the files of this checkpoint alone.
    name: of the checkpoint.

  Raises:
    OSError: no other checkpoint has changed.
  """
  parts = sorted(os.listdir(made), key=lambda part: part.endswith('.index'))
  for part in parts:
    files.sync(os.path.join(made, part))
  for part in parts:  # The index last.
    os.rename(os.path.join(made, part), os.path.join(folder, part))
  files.sync_folder(folder)


def write_record(folder, name):
  """Makes a checkpoint TensorFlow's newest. May raise OSError."""
  record = f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
  files.write_whole(os.path.join(folder, RECORD), record)


def delete(path):
  """Deletes a checkpoint that is on no list any more: the index first."""
  with contextlib.suppress(OSError, RunFailed):  # Training goes on with a file too many.
    for part in parts_of(path):
      os.remove(part)


def set_aside(path):
  """Moves what cannot be used to where nobody takes it for a checkpoint, or the list.

  Args:
    path: of a checkpoint, which gets a folder of its own, or of the list, which gets another name.

  Returns:
    The name of that folder or file.

  Raises:
    RunFailed: the disk does not let it.
  """
  folder, own = os.path.split(path)
  there, new, number = _names(folder), _DAMAGED + own, 2
  while new in there:
    new, number = f'{_DAMAGED}{number}-{own}', number + 1
  target = os.path.join(folder, new)
  try:
    if own == LIST:
      os.rename(path, target)
    else:
      os.mkdir(target)
      for part in reversed(parts_of(path)):  # The index last: a kill leaves that alone at most.
        os.rename(part, os.path.join(target, os.path.basename(part)))
    files.sync_folder(folder)
  except OSError as e:
    raise RunFailed(f'{path} cannot be moved to {target}: {e.strerror}') from None
  return new


def tidy(folder):
  """Removes what a killed process has left half written, and sets a list aside that is none.

  Raises:
    RunFailed: the disk does not tell, or does not let it.
  """
  for name in _names(folder):
    path = os.path.join(folder, name)
    if name.startswith(_MADE_IN):
      _remove_made(path)
    elif _HALF_WRITTEN.fullmatch(name):
      with contextlib.suppress(OSError):
        os.remove(path)
  files.sweep(folder, LIST, RECORD)
  found = look(folder)
  if found.problem:
    new = set_aside(os.path.join(folder, LIST))
    path = os.path.join(folder, LIST)
    logging.warning(
      '%s %s: it is kept as %s, and a new one is made from the checkpoints that are there',
      path,
      found.problem,
      new,
    )
  elif found.written is not None:
    _remove_data_without_index(folder, found)


def _remove_data_without_index(folder, found):
  """What a process that was killed while it deleted, or published, a checkpoint has left."""
  known = {*found.whole, *found.torn}
  for name in _names(folder):
    part = _PART.fullmatch(name)
    if part and _OURS.fullmatch(part[1]) and part[1] not in known:
      with contextlib.suppress(OSError):
        os.remove(os.path.join(folder, name))


def _remove_made(made):
  """Removes a folder of `made_apart`; a symbolic link, or one with folders in it, stays."""
  with contextlib.suppress(OSError):
    for name in [] if os.path.islink(made) else os.listdir(made):
      os.remove(os.path.join(made, name))
    os.rmdir(made)
