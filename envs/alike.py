"""Makes the levels of a run alike, so that one agent plays all of them.

Games of Atari get the full set of 18 actions. An observation's image with fewer channels than
that of another level gets channels of zeros. Other differences are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common import keywords
from envs import atari_ids
from structs import ArraySpec, Level, described


def with_all_actions(levels: Sequence[Level]) -> list[Level]:
  """Returns the levels, with all 18 actions if there are several and all are games of Atari."""
  if len(levels) == 1 or not all(atari_ids.most_frames(level) for level in levels):
    return list(levels)
  full = {'full_action_space': True}
  return [level._replace(env_kwargs=keywords.joined(full, level.env_kwargs)) for level in levels]


def padded(arrays: Sequence[ArraySpec], channels: int) -> tuple[ArraySpec, ...]:
  """Returns the arrays of an observation whose images have at least so many channels."""
  return tuple(
    array._replace(shape=(*array.shape[:2], max(array.shape[2], channels)))
    if len(array.shape) == 3
    else array
    for array in arrays
  )


def image_channels(arrays: Sequence[ArraySpec]) -> int:
  """Returns the channels of an observation's only image; 0 if it has no image, or several."""
  channels = [array.shape[2] for array in arrays if len(array.shape) == 3]
  return channels[0] if len(channels) == 1 else 0


def most_channels(specs: Sequence[Any]) -> int:
  """Returns the channels to which images are padded; 0 where that is needless or no help.

  Args:
    specs: `EnvironmentSpec` of each level.
  """
  most = max(image_channels(spec.observation) for spec in specs)
  differ = len({spec.observation for spec in specs}) > 1
  alike = len({padded(spec.observation, most) for spec in specs}) == 1
  return most if differ and alike else 0


def difference(specs: Sequence[Any]) -> str:
  """Returns a sentence about the first level that differs from the first one, or ''.

  Args:
    specs: `EnvironmentSpec` of each level, already padded.
  """
  first = specs[0]
  for spec in specs[1:]:
    what = _difference(first, spec)
    if what:
      return f'one agent cannot play {first.level.name} and {spec.level.name}: {what}'
  return ''


def _difference(one, other):
  if one.observation != other.observation:
    return f'their observations are {described(one.observation)} and {described(other.observation)}'
  if one.action != other.action:
    return f'their actions are {described(one.action)} and {described(other.action)}'
  if one.num_action_repeats != other.num_action_repeats:
    return (
      f'an agent step is {one.num_action_repeats} and {other.num_action_repeats} frames; '
      '--num_action_repeats sets it'
    )
  return ''
