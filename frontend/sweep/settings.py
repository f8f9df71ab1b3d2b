"""From `--sweep=key=values` to the runs of a sweep; every function here is pure.

A grid has every combination of the values. A draw has a number of combinations at random, each
setting drawn by itself.

  learning_rate=1e-4,3e-4        these values
  seed=1..5                      whole numbers, both ends included
  entropy_cost=log:5e-5..1e-2    drawn, the logarithm evenly distributed
  discounting=uniform:0.9..0.99  drawn, evenly distributed
"""

import itertools
import math
import os
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from frontend.cluster import PLACEMENT_FLAGS
from frontend.errors import UserError
from frontend.host_side.sweep_folder import Run

# What a sweep sets itself, or what would make its runs something other than trainings.
_NOT_SWEPT = (*PLACEMENT_FLAGS, 'logdir', 'mode', 'cluster', 'only_check_args')
MOST_RUNS = 10_000
# Bytes of a folder's name; most file systems take 255.
_MOST_NAME_BYTES = 200
# Significant digits of a drawn number.
_DIGITS = 4


class Values(NamedTuple):
  """What a swept setting may be.

  Attributes:
    listed: its values as they were typed; empty for an interval.
    interval: (low, high), both above 0 if `is_log`; or None.
    is_log: whether the logarithm is evenly distributed.
  """

  listed: tuple[str, ...]
  interval: tuple[float, float] | None = None
  is_log: bool = False


def parse(words: Sequence[str]) -> dict[str, Values]:
  """Returns {setting: its values} of the `--sweep` flags, in their order.

  Raises:
    UserError: a word has another form, or a setting cannot be swept or comes twice.
  """
  found: dict[str, Values] = {}
  for word in words:
    key, equals, text = word.partition('=')
    key = key.lstrip('-')
    if not equals or not re.fullmatch(r'[A-Za-z]\w*', key) or not text:
      raise UserError(f'--sweep={word} is not of the form --sweep=learning_rate=1e-4,3e-4')
    if key in _NOT_SWEPT:
      raise UserError(f'--sweep={word}: --{key} cannot be swept, since the sweep sets it itself')
    if key in found:
      raise UserError(f'--sweep={word}: {key} is swept twice; write all its values in one --sweep')
    found[key] = _values(word, text)
  return found


def _values(word: str, text: str) -> Values:
  kind, colon, bounds = text.partition(':')
  if colon and kind in ('log', 'uniform'):
    return Values((), _interval(word, bounds, kind == 'log'), kind == 'log')
  whole = re.fullmatch(r'(-?\d{1,9})\.\.(-?\d{1,9})', text)
  if whole:
    first, last = int(whole[1]), int(whole[2])
    if first > last or last - first >= MOST_RUNS:
      raise UserError(f'--sweep={word}: a range goes up, over at most {MOST_RUNS:,} numbers')
    return Values(tuple(map(str, range(first, last + 1))))
  if '..' in text and ',' not in text:
    raise UserError(
      f'--sweep={word}: a range of numbers with a point is written log:{text} or uniform:{text}, '
      'with --sweep_random=N'
    )
  listed = tuple(text.split(','))
  twice = [value for value in listed if listed.count(value) > 1]
  if twice or '' in listed:
    what = f'{twice[0]!r} is there twice' if twice and twice[0] else 'a value is empty'
    raise UserError(f'--sweep={word}: {what}')
  return Values(listed)


def _interval(word: str, bounds: str, is_log: bool) -> tuple[float, float]:
  try:
    low, high = map(float, bounds.split('..'))
  except ValueError:
    raise UserError(f'--sweep={word}: an interval is written 5e-5..1e-2') from None
  if not (math.isfinite(low) and math.isfinite(high) and low < high) or (is_log and low <= 0):
    above = ', both above 0' if is_log else ''
    raise UserError(f'--sweep={word}: an interval goes from a number to a larger one{above}')
  return low, high


def grid(swept: Mapping[str, Values]) -> list[Run]:
  """Returns a run for every combination; the last setting changes fastest.

  Raises:
    UserError: a setting has an interval, or the combinations are too many.
  """
  for key, values in swept.items():
    if values.interval:
      raise UserError(f'--sweep={key}=...: an interval is drawn from, with --sweep_random=N')
  count = math.prod(len(values.listed) for values in swept.values())
  if count > MOST_RUNS:
    raise UserError(f'{count:,} combinations are swept; at most {MOST_RUNS:,} are possible')
  combinations = itertools.product(*(values.listed for values in swept.values()))
  return _named([dict(zip(swept, values)) for values in combinations])


def draw(swept: Mapping[str, Values], count: int, seed: int) -> list[Run]:
  """Returns `count` different runs, drawn with the seed; more of them begin with the same ones.

  Raises:
    UserError: there are not so many combinations.
  """
  generator = random.Random(seed)
  drawn: list[dict[str, str]] = []
  for _ in range(100 * count):
    settings = {key: _drawn(values, generator) for key, values in swept.items()}
    if settings not in drawn:
      drawn.append(settings)
    if len(drawn) == count:
      return _named(drawn)
  raise UserError(
    f'--sweep_random={count}: only {len(drawn)} different combinations were found; '
    'a sweep without --sweep_random has them all'
  )


def members(swept: Mapping[str, Values], count: int, seed: int) -> list[Run]:
  """Returns the members of a population, each with settings drawn from the values and a seed.

  Raises:
    UserError: the seed is swept, which every member has anyway.
  """
  if 'seed' in swept:
    raise UserError('--sweep=seed: every member of a population has a seed of its own already')
  generator = random.Random(seed)
  drawn = [{key: _drawn(values, generator) for key, values in swept.items()} for _ in range(count)]
  return [
    Run(f'member-{i}', {**settings, 'seed': str(seed + i - 1)})
    for i, settings in enumerate(drawn, 1)
  ]


def _drawn(values: Values, generator: random.Random) -> str:
  if values.interval is None:
    return generator.choice(values.listed)
  low, high = values.interval
  if values.is_log:
    number = math.exp(generator.uniform(math.log(low), math.log(high)))
  else:
    number = generator.uniform(low, high)
  return f'{min(high, max(low, number)):.{_DIGITS}g}'


def _named(combinations: Sequence[Mapping[str, str]]) -> list[Run]:
  """Returns runs whose folders' names are all different, upper and lower case being the same."""
  runs: list[Run] = []
  taken: set[str] = set()
  for settings in combinations:
    text = ','.join(f'{key}={value}' for key, value in settings.items())
    # No `/`, and nothing that a shell would expand.
    base = name = re.sub(r'[^A-Za-z0-9_=,.+-]', '_', text)[:_MOST_NAME_BYTES]
    number = 1
    while name.lower() in taken:
      number += 1
      name = f'{base}~{number}'
    taken.add(name.lower())
    runs.append(Run(name, dict(settings)))
  return runs


def session_name(tmux_sess: str, logdir: str) -> str:
  """Returns the name of a sweep's tmux session, which differs from that of other sweeps."""
  base = re.sub(r'[^A-Za-z0-9_-]', '_', os.path.basename(os.path.normpath(logdir)))[:40]
  return f'{tmux_sess}-{base}-{zlib.crc32(os.path.normpath(logdir).encode()):08x}'
