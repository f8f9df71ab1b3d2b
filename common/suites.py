"""The levels of a run: ids with commas, or a suite, which is a file of ids in `suites/`."""

from __future__ import annotations

import functools
import json
import os
from typing import Any, NamedTuple

# The folder of the suites.
FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'suites')


class Suite(NamedTuple):
  """Levels under one name, and what they need.

  Attributes:
    name: what `--level_name` calls it.
    about: where the levels and their reference scores come from.
    package: name of the package that has the levels, as pip knows it.
    imports: what registers them, see `--import`; '' for nothing.
    levels: id -> dict of `kwargs` (keywords of that environment), `random` and `reference` (returns
      that count as 0 and 1); each may be missing.
  """

  name: str
  about: str
  package: str
  imports: str
  levels: dict[str, dict[str, Any]]


def names() -> list[str]:
  """Returns the names of all suites."""
  return sorted(name[:-5] for name in os.listdir(FOLDER) if name.endswith('.json'))


@functools.cache
def find(name: str) -> Suite | None:
  """Returns the suite of a name, or None if there is none."""
  if not name.isidentifier() or name not in names():
    return None
  with open(os.path.join(FOLDER, name + '.json'), encoding='utf-8') as file:
    content = json.load(file)
  return Suite(
    name, content['about'], content['package'], content.get('imports', ''), content['levels']
  )


def canonical_levels(text: str) -> str:
  """Returns the one spelling of `--level_name`, ids with commas or the name of a suite.

  Raises:
    ValueError: an id is empty, or is there twice; the message completes "is".
  """
  levels = [level.strip() for level in text.split(',')]
  if len(levels) > 1 and not all(levels):
    raise ValueError('not a list of ids: one of them is empty')
  twice = [level for level in levels if levels.count(level) > 1]
  if twice:
    raise ValueError(f'not a list of different ids: {twice[0]} is there twice')
  inside = [level for level in levels if len(levels) > 1 and find(level)]
  if inside:
    raise ValueError(f'not a list of ids: {inside[0]} is a suite, which stands alone')
  return ','.join(levels)


def level_names(text: str) -> tuple[str, ...]:
  """Returns the ids that `--level_name` means, one or several."""
  suite = find(text)
  return tuple(suite.levels) if suite else tuple(text.split(','))


@functools.cache
def reference_scores(level_name: str) -> tuple[float, float] | None:
  """Returns the returns that count as 0 and 1 for a level of a suite, or None if none says them."""
  for name in names():
    suite = find(name)
    scores = suite.levels.get(level_name, {}) if suite else {}
    if 'reference' in scores:
      return float(scores['random']), float(scores['reference'])
  return None
