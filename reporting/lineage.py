"""Reads and writes the history of a member of a population: `population.jsonl` in its folder.

Line 1 has the settings with which the member began; each further line is a comparison with another
member, at the end of a round of frames.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from common import files
from runtime.process import RunFailed

FILE = 'population.jsonl'


class Comparison(NamedTuple):
  """A comparison of a member with another one; or its beginning, if nothing is compared.

  Attributes:
    time: Unix seconds.
    frames: the member's environment frames.
    settings: the settings that it goes on with.
    mean_return, score: its recent mean return, raw and normalised; None if not known.
    other: the other member's name; None if there was nobody to compare with.
    other_frames, other_return, other_score: the other's, as far as there was one.
    copied: whether the other's weights and settings were taken.
  """

  time: float
  frames: int
  settings: dict[str, float]
  mean_return: float | None = None
  score: float | None = None
  other: str | None = None
  other_frames: int | None = None
  other_return: float | None = None
  other_score: float | None = None
  copied: bool = False


def read(folder: str) -> list[Comparison]:
  """Returns the history of the member in a folder; [] if it is none.

  Raises:
    RunFailed: the file cannot be read, or was not written by a member.
  """
  path = os.path.join(folder, FILE)
  try:
    lines = files.read(path).decode().splitlines()
    return [_checked(Comparison(**json.loads(line))) for line in lines]
  except (FileNotFoundError, NotADirectoryError):
    return []
  except OSError as e:
    raise RunFailed(f'{path} cannot be read: {e.strerror}') from None
  except (ValueError, TypeError, RecursionError):
    raise RunFailed(f'{path} is not the history of a member of a population') from None


def _checked(made: Comparison) -> Comparison:
  """Returns a comparison; raises TypeError if a value has another type than it was written with."""
  is_sound = isinstance(made.settings, dict) and isinstance(made.frames, int)
  if not is_sound or not isinstance(made.time, float | int):
    raise TypeError('a field of another type')
  return made


def write(folder: str, history: list[Comparison]) -> None:
  """Replaces the history of the member in a folder.

  Raises:
    RunFailed: it cannot be written; the earlier one is unchanged.
  """
  path = os.path.join(folder, FILE)
  text = ''.join(json.dumps(made._asdict()) + '\n' for made in history)
  try:
    files.write_whole(path, text)
  except OSError as e:
    raise RunFailed(f'{path} cannot be written: {e.strerror}') from None


def sentence(made: Comparison) -> str:
  """Returns what came of a comparison, for a person."""
  own = 'unknown' if made.score is None else f'{made.score:.3g}'
  if made.other is None:
    text = f'at {made.frames} frames, there was no other member to compare with'
  else:
    what = 'copied it' if made.copied else 'kept its own weights'
    text = (
      f'at {made.frames} frames, score {own}, compared with {made.other} ({made.other_score:.3g}) '
      f'and {what}'
    )
  return f'{text}; goes on with ' + ' '.join(f'{n}={v:.4g}' for n, v in made.settings.items())
