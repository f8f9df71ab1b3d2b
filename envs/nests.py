"""Converts observations that are nests (Dict, Tuple) or single spaces to the arrays of agents."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs import observations
from envs.faults import Misfit
from envs.observations import View, described
from envs.spaces import TEXTS, kind_of
from structs import ACTION_MASK, NUM_WORDS, ArraySpec, as_observation

MOST_WORDS = 24  # Words of a text; the rest is left out.


class _Leaf(NamedTuple):
  path: tuple[str | int, ...]  # Keys of Dicts and indices of Tuples.
  view: View

  @property
  def name(self):
    return _name(self.path)


class Nest:
  """The conversion of an observation space to one or several arrays.

  Args:
    space: the observation space.
    keys: the leaves to take, by their path in the space ('image', 'sensors/0'), or a part of the
      space by the beginning of its path; () takes all but texts.
    channels: see `structs.Level`.

  Attributes:
    arrays: tuple of `ArraySpec`, in the order of the space.
    notes: sentences for the user that begin with "its observations".
    holds_mask: whether the space is a Dict with the key 'action_mask'.

  Raises:
    ValueError: no agent supports a leaf, or a key is not in the space; the text is the end of a
      sentence about the level.
  """

  def __init__(self, space: Any, keys: Sequence[str] = (), channels: int = 0):
    leaves = dict(_leaves(space))
    masks = [path for path in leaves if path[:1] == (ACTION_MASK,)]
    self.holds_mask = bool(masks)
    leaves = {path: leaf for path, leaf in leaves.items() if path not in masks}
    self._leaves = [
      _Leaf(path, observations.with_channels(_view(path, leaf), channels))
      for path, leaf in _chosen(leaves, keys).items()
    ]
    self._is_leaf = [leaf.path for leaf in self._leaves] == [()]
    self.arrays = tuple(
      ArraySpec(leaf.name, leaf.view.shape, leaf.view.dtype) for leaf in self._leaves
    )
    self.notes = [_about(leaf.name, note) for leaf in self._leaves for note in leaf.view.notes]
    self.notes += [
      f'its observations have a part without numbers, {_name(path)!r}, which is left out'
      for path, leaf in leaves.items()
      if _is_empty(leaf)
    ]

  def convert(self, observation: Any, strict: bool = False) -> Any:
    """Returns the array, or the tuple of arrays, of an observation.

    Args:
      observation: an observation of the environment.
      strict: whether bounds of the space are checked too.

    Raises:
      OutOfBounds: a number is outside of the bounds.
      Misfit: the observation does not fit the space otherwise.
    """
    if self._is_leaf:  # Quicker, and by far the most usual.
      return self._leaves[0].view.convert(observation, strict)
    return as_observation([_converted(leaf, observation, strict) for leaf in self._leaves])


def _leaves(space: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
  """Yields (path, space) of each leaf."""
  kind = kind_of(space)
  if kind == 'Dict':
    for key, part in space.spaces.items():
      yield from _leaves(part, (*path, key))
  elif kind == 'Tuple':
    for index, part in enumerate(space.spaces):
      yield from _leaves(part, (*path, index))
  else:
    yield path, space


def _chosen(leaves: dict[tuple, Any], keys: Sequence[str]) -> dict[tuple, Any]:
  empty = {_name(path) for path, space in leaves.items() if _is_empty(space)}
  leaves = {path: space for path, space in leaves.items() if not _is_empty(space)}
  if not keys:
    taken = {path: space for path, space in leaves.items() if not _is_text(space)}
    if not taken:
      can = '; --observation_keys can choose texts' if leaves else ''
      raise ValueError(f'has observations without numbers{can}')
    return taken
  names = {path: _name(path) for path in leaves}

  def matches(name, key):
    return name == key or name.startswith(key + '/')

  for key in keys:
    if not any(matches(name, key) for name in names.values()):
      if key in empty:
        raise ValueError(f'has no elements in its observation {key!r} (--observation_keys)')
      there = ', '.join(filter(None, names.values())) or 'no keys, it is one array'
      raise ValueError(f'has no observation {key!r} (--observation_keys); it has {there}')
  return {
    path: leaves[path] for path, name in names.items() if any(matches(name, key) for key in keys)
  }


def _name(path):
  return '/'.join(map(str, path))


def _is_text(space):
  return kind_of(space) in TEXTS


def _is_empty(space):
  """Returns whether a space is of arrays without elements."""
  return bool(space.shape) and 0 in space.shape


def _view(path, space):
  view = (
    View((MOST_WORDS,), 'int32', _words, []) if _is_text(space) else observations.view_of(space)
  )
  if view is None:
    text = observations.refusal(space)
    if path:
      text = f'{_about(_name(path), text)}; --observation_keys can leave it out'
    raise ValueError(text)
  return view


def _about(name, text):
  """Adds the name of a leaf to a sentence about it."""
  return text if not name else f'{text} (of its {name!r})'


def _words(text, strict=False):
  if not isinstance(text, str):
    raise Misfit(f'observation is {described(text)} where its space promises a text')
  words = np.zeros(MOST_WORDS, np.int32)
  for i, word in enumerate(text.lower().split()[:MOST_WORDS]):
    words[i] = 1 + zlib.crc32(word.encode()) % (NUM_WORDS - 1)
  return words


def _converted(leaf, observation, strict):
  for key in leaf.path:
    try:
      observation = observation[key]
    except (KeyError, IndexError, TypeError):
      raise Misfit(
        f'observation is {described(observation)} without {key!r}, which its space promises'
      ) from None
  try:
    return leaf.view.convert(observation, strict)
  except Misfit as misfit:
    raise type(misfit)(_about(leaf.name, str(misfit))) if leaf.name else misfit from None
