"""The checkpoints in a folder: the list (checkpoints.json), TensorFlow's record, and the files.

Works without TensorFlow. A checkpoint consists of an index file and data files, which share a name
and differ in their endings. Only the process that holds the folder's lock changes anything.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from absl import logging

from common import files
from runtime.process import RunFailed

LIST = 'checkpoints.json'
RECORD = 'checkpoint'  # TensorFlow's own record of the newest checkpoint.
PREFIX = 'model.ckpt'
_MADE_IN, _DAMAGED = '.saving-', 'damaged-'
_OURS = re.compile(re.escape(PREFIX) + r'-(\d+)(?:-\d+)?')
_PART = re.compile(r'(.+)\.(index|data-\d+-of-\d+)')
# Files that TensorFlow and earlier versions of this module leave behind if killed while writing.
_HALF_WRITTEN = re.compile(
  rf'{re.escape(PREFIX)}.*\.tempstate\d+|{RECORD}\.tmp\w+|{re.escape(LIST)}\.new'
)


class Saved(NamedTuple):
  """A checkpoint on disk.

  Attributes:
    name: name of its files, without their endings.
    frames, updates: environment frames and updates trained so far.
    mean_return_100: mean raw return of the last 100 games; None if there were fewer or if it is not
      known.
    for_ever: whether it is never deleted (--keep_checkpoint_every_frames).
  """

  name: str
  frames: int
  updates: int
  mean_return_100: float | None
  for_ever: bool


class Found(NamedTuple):
  """The checkpoints in a folder.

  Attributes:
    written: entries of the list, whether or not their files exist; None without a readable list.
    whole: names of the complete checkpoints, newest last.
    torn: names of incomplete checkpoints: those with only an index, or listed with only data.
    problem: why the list cannot be used, or ''.
  """

  written: list[Saved] | None
  whole: list[str]
  torn: list[str]
  problem: str


def look(folder: str) -> Found:
  """Returns the checkpoints in a folder; a missing folder has none.

  Raises:
    RunFailed: the folder cannot be read.
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


def _in_order(
  whole: Sequence[str], written: Sequence[Saved] | None, named: Sequence[str]
) -> list[str]:
  """Returns the names of complete checkpoints, newest last.

  Args:
    whole: names in any order.
    written: entries of the list, or None.
    named: names in TensorFlow's record, newest last.
  """
  listed = [saved.name for saved in written or ()]
  updates = {saved.name: saved.updates for saved in written or ()}
  last = updates[listed[-1]] if listed else -1
  unlisted = sorted((name for name in whole if name not in updates), key=_updates)
  # Unlisted ones with more updates than all listed ones are from a process that was then killed.
  older = [name for name in unlisted if _updates(name) <= last]
  newer = [name for name in unlisted if _updates(name) > last]
  order = [*older, *(name for name in listed if name in whole), *newer]
  newest = named[-1] if named else None
  if newest in order and newest != (listed or [None])[-1]:
    # It was saved but not listed, or the user made it the newest to resume from it.
    order.remove(newest)
    order.append(newest)
  return order


def _updates(name: str) -> int:
  ours = _OURS.fullmatch(name)
  return int(ours[1]) if ours else -1


def is_whole(path: str) -> bool:
  """Returns whether all files of the checkpoint exist."""
  return os.path.basename(path) in look(os.path.dirname(path)).whole


def parts_of(path: str) -> list[str]:
  """Returns the paths of the checkpoint's files, the index first.

  Raises:
    RunFailed: the folder cannot be read.
  """
  folder, own = os.path.split(path)
  parts = [_PART.fullmatch(name) for name in sorted(_names(folder), reverse=True)]
  return [os.path.join(folder, part[0]) for part in parts if part and part[1] == own]


def _names(folder: str) -> set[str]:
  try:
    return files.names(folder)
  except OSError as e:
    raise RunFailed(f'{folder} cannot be listed, nothing is changed: {e.strerror}') from None


def read_file(path: str) -> bytes:
  """Returns the bytes of a file.

  Raises:
    RunFailed: it cannot be read.
    FileNotFoundError: it does not exist.
  """
  try:
    return files.read(path)
  except FileNotFoundError:
    raise
  except OSError as e:
    raise RunFailed(f'{path} cannot be read, nothing is changed: {e.strerror}') from None


def _named_by_tensorflow(folder: str, there: Iterable[str]) -> list[str]:
  """Returns the names in TensorFlow's record, newest last, without importing TensorFlow."""
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


def _read_list(folder: str, there: Iterable[str]) -> tuple[list[Saved] | None, str]:
  """Returns (entries of the list or None, why the list cannot be used or '')."""
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


def _checked(saved: Saved) -> Saved:
  """Returns an entry of the list; raises TypeError if a field has the wrong type."""
  types = dict(name=str, frames=int, updates=int, for_ever=bool)
  if not all(type(getattr(saved, field)) is its for field, its in types.items()):
    raise TypeError('a field of another type')
  if saved.mean_return_100 is not None:
    saved = saved._replace(mean_return_100=float(saved.mean_return_100))
  return saved._replace(name=os.path.basename(saved.name))


def write_list(folder: str, checkpoints: Sequence[Saved], best: Saved | None) -> None:
  """Writes the list of checkpoints.

  Args:
    folder: the run's folder.
    checkpoints: entries, newest last.
    best: the best entry, or None.

  Raises:
    OSError: the list cannot be written.
  """
  content = {
    'best': best.name if best else None,
    'checkpoints': [saved._asdict() for saved in checkpoints],
  }
  files.write_whole(os.path.join(folder, LIST), json.dumps(content, indent=2) + '\n')


def free_name(folder: str, updates: int) -> str:
  """Returns an unused name for a new checkpoint; raises OSError if the folder is unreadable."""
  taken = {part[1] for name in files.names(folder) if (part := _PART.fullmatch(name))}
  name, number = f'{PREFIX}-{updates}', 2
  while name in taken:
    name, number = f'{PREFIX}-{updates}-{number}', number + 1
  return name


@contextlib.contextmanager
def made_apart(folder: str) -> Iterator[str]:
  """Yields a new temporary folder in which to write a checkpoint before `publish`."""
  made = tempfile.mkdtemp(prefix=_MADE_IN, dir=folder)
  try:
    yield made
  finally:
    _remove_made(made)


def publish(folder: str, made: str) -> None:
  """Syncs the files of a checkpoint to disk, then moves them into the run's folder.

  Args:
    folder: the run's folder.
    made: temporary folder from `made_apart` with the files of this checkpoint only.

  Raises:
    OSError: a file cannot be moved; the other checkpoints are unchanged.
  """
  parts = sorted(os.listdir(made), key=lambda part: part.endswith('.index'))
  for part in parts:
    files.sync(os.path.join(made, part))
  for part in parts:  # The index comes last.
    os.rename(os.path.join(made, part), os.path.join(folder, part))
  files.sync_folder(folder)


def write_record(folder: str, name: str) -> None:
  """Makes a checkpoint the newest in TensorFlow's record; may raise OSError."""
  record = f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
  files.write_whole(os.path.join(folder, RECORD), record)


def delete(path: str) -> None:
  """Deletes the files of a checkpoint that is no longer on the list, the index first."""
  with contextlib.suppress(OSError, RunFailed):  # A leftover file does no harm.
    for part in parts_of(path):
      os.remove(part)


def set_aside(path: str) -> str:
  """Moves a damaged checkpoint into its own folder, or renames a damaged list.

  Args:
    path: path of the checkpoint or the list.

  Returns:
    The name of the new folder or file.

  Raises:
    RunFailed: a file cannot be moved.
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
      for part in reversed(parts_of(path)):  # Index last: if killed, at most the index is left.
        os.rename(part, os.path.join(target, os.path.basename(part)))
    files.sync_folder(folder)
  except OSError as e:
    raise RunFailed(f'{path} cannot be moved to {target}: {e.strerror}') from None
  return new


def tidy(folder: str) -> None:
  """Removes files that a killed process left half written, and renames a damaged list.

  Raises:
    RunFailed: the folder cannot be read or changed.
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


def _remove_data_without_index(folder: str, found: Found) -> None:
  """Removes files of a process that was killed while deleting or publishing a checkpoint."""
  known = {*found.whole, *found.torn}
  for name in _names(folder):
    part = _PART.fullmatch(name)
    if part and _OURS.fullmatch(part[1]) and part[1] not in known:
      with contextlib.suppress(OSError):
        os.remove(os.path.join(folder, name))


def _remove_made(made: str) -> None:
  """Removes a folder of `made_apart`, unless it is a symbolic link or contains folders."""
  with contextlib.suppress(OSError):
    for name in [] if os.path.islink(made) else os.listdir(made):
      os.remove(os.path.join(made, name))
    os.rmdir(made)
