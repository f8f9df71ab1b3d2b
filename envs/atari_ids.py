"""Atari ids: each spelling that ale_py registers or used to, and who plays it with what arguments.

The spellings are those of OpenAI Gym and ale_py up to 0.10 (`PongNoFrameskip-v4`, `Pong-v0`,
`PongDeterministic-v4`, `Pong-ram-v4`, `ALE/Pong-v5`, `ALE/Pong-ram-v5`, ...). Version 0 and 5
have sticky actions; a name without `NoFrameskip` and `Deterministic` skips 2 to 4 frames at random.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import gymnasium

from common import keywords
from envs import level_ids
from structs import Level, level_of

# From Table G.1 of the IMPALA paper.
ACTION_REPEATS = 4
FRAME_STACK = 4
MAX_NOOPS = 30
MAX_FRAMES = 108_000  # 30 minutes at 60 frames per second.

_SPELLING = re.compile(
  r'(?:ale_py:)?(?P<ale>ALE/)?(?P<name>\w+?)(?P<ram>-ram)?'
  r'(?P<skip>NoFrameskip|Deterministic)?-v(?P<version>\d+)'
)
_RANDOM_SKIP = (2, 5)  # As in Python's range: 2 to 4 frames.
_STICKINESS = {0: 0.25, 4: 0.0, 5: 0.25}
# Keywords that ale_py's vector environment plays as its ordinary environment does, and keywords of
# the vector environment alone.
_SHARED = {'repeat_action_probability', 'full_action_space', 'max_num_frames_per_episode'}
_OF_VECTOR = {'noop_max', 'use_fire_reset', 'life_loss_info', 'maxpool'}
# What those take.
_VALUES = {
  'repeat_action_probability': (
    'a number from 0 to 1',
    lambda v: type(v) in (int, float) and 0 <= v <= 1,
  ),
  'max_num_frames_per_episode': ('a positive whole number', lambda v: type(v) is int and v > 0),
  'noop_max': ('a whole number from 0', lambda v: type(v) is int and v >= 0),
  'frameskip': (
    'a positive whole number, or [2, 5] for 2 to 4 at random',
    lambda value: _is_skip(value),
  ),
}
# Keywords whose observations are taken as Gymnasium gives them.
_OF_OBSERVATIONS = {'obs_type', 'sound_obs'}


class Played(NamedTuple):
  """How a level of Atari is played.

  Attributes:
    frames_per_step: emulator frames per agent step; the mean of a random skip.
    vector: arguments of ale_py's vector environment, JSON-serializable; None for an ordinary one.
    made_as: the level that a worker process makes.
    repeats: steps of that environment per agent step.
  """

  frames_per_step: int
  vector: dict[str, Any] | None
  made_as: Level
  repeats: int


def played(
  level: Level | str, num_action_repeats: int = 0, width: int = 84, height: int = 84
) -> Played | None:
  """Returns how a level is played, or None if it is not Atari.

  Images are played by ale_py's vector environment if it knows the keywords. Otherwise an ordinary
  environment is made: of images, with the same preprocessing by Gymnasium's wrappers; with wrappers
  of the user, of RAM, or with `obs_type`, as Gymnasium gives it.

  Args:
    level: `structs.Level`, or only its id.
    num_action_repeats: frames per agent step; 0 means those that the id promises, 4 for images of
      `NoFrameskip`.
    width: of preprocessed observations, in pixels.
    height: of preprocessed observations, in pixels.

  Raises:
    ValueError: a keyword has a wrong value, or `num_action_repeats` contradicts the frames that the
      level skips; the message begins with the flag.
  """
  level = level_of(level)
  promised = _promised(level.name)
  if promised is None:
    return None
  given = keywords.keywords_of(level.env_kwargs)
  _check(given)
  name, arguments = promised[0], {**promised[1], **given}
  skip = arguments['frameskip']
  ordinary = Level(
    name, imports=level.imports, observation_keys=level.observation_keys,
    action_masks=level.action_masks,
  )  # fmt: skip
  if level.env_wrappers:
    made = ordinary._replace(
      env_kwargs=keywords.as_keywords(arguments), env_wrappers=level.env_wrappers
    )
    repeats = num_action_repeats or 1
    return Played(repeats, None, made, repeats)
  frames = _frames(level.name, skip, num_action_repeats, 'frameskip' in given)
  raw = arguments['obs_type'] == 'ram' or bool(_OF_OBSERVATIONS & set(given))
  if not raw and frames is None:
    frames = ACTION_REPEATS
  frames = frames or 1
  is_random = not isinstance(skip, int)
  arguments['frameskip'] = skip if is_random else 1
  if not raw and not is_random and set(given) <= _SHARED | _OF_VECTOR | {'frameskip'}:
    return Played(frames, _vector(name, arguments, frames, width, height), ordinary, frames)
  if raw:
    made = ordinary._replace(env_kwargs=keywords.as_keywords(arguments))
    return Played(frames, None, made, 1 if is_random else frames)
  del arguments['obs_type']
  made = ordinary._replace(
    env_kwargs=keywords.as_keywords(arguments),
    env_wrappers=_preprocessing(arguments, 1 if is_random else frames, width, height),
  )
  return Played(frames, None, made, 1)


def most_frames(level: Level | str) -> int | None:
  """Returns the frames after which a game of Atari is cut off, or None if it is not Atari."""
  level = level_of(level)
  promised = _promised(level.name)
  if promised is None:
    return None
  given = keywords.keywords_of(level.env_kwargs)
  return {**promised[1], **given}['max_num_frames_per_episode']


def made_as(spec: Any) -> tuple[Level, int]:
  """Returns the level that a worker makes for `spec`, and its steps per agent step.

  Args:
    spec: EnvironmentSpec or a run's settings, of a level that no vector environment plays.
  """
  shape = spec.observation[0].shape
  size = (shape[1], shape[0]) if len(shape) == 3 else ()
  atari = played(spec.level, spec.num_action_repeats, *size)
  return (atari.made_as, atari.repeats) if atari else (spec.level, spec.num_action_repeats)


def _promised(level_name: str) -> tuple[str, dict[str, Any]] | None:
  """Returns (the id of version 5, the arguments that the id stands for), or None if not Atari."""
  found = _SPELLING.fullmatch(level_name)
  if not found or not level_ids.register_atari():
    return None
  name, version, skip = found['name'], int(found['version']), found['skip']
  newest = f'ALE/{name}-v5'
  if found['ale']:
    is_known = version == 5 and not skip and newest in gymnasium.registry
  else:
    is_known = version in (0, 4) and f'{name}NoFrameskip-v4' in gymnasium.registry
  if not is_known:
    return None
  spec = gymnasium.registry[newest]
  return newest, {
    'obs_type': 'ram' if found['ram'] else 'rgb',
    'repeat_action_probability': _STICKINESS[version],
    'full_action_space': False,
    'max_num_frames_per_episode': spec.kwargs['max_num_frames_per_episode'],
    'frameskip': _skipped(name, version, skip),
  }


def _skipped(name, version, skip):
  """Returns AtariEnv's `frameskip` of an id: a number, or the range of a random one."""
  if version == 5:
    return 4
  if skip == 'Deterministic':
    return 3 if name == 'SpaceInvaders' else 4  # With 4, its shots are invisible.
  return 1 if skip == 'NoFrameskip' else _RANDOM_SKIP


def _frames(level_name, skip, num_action_repeats, is_given):
  """Returns the frames per agent step; None if neither the level nor the command says it."""
  if isinstance(skip, int):
    if is_given and num_action_repeats not in (0, skip):
      raise ValueError(
        f'--num_action_repeats={num_action_repeats} contradicts the frameskip {skip} of '
        '--env_kwargs: leave one of the two out'
      )
    return num_action_repeats or (skip if is_given or skip > 1 else None)
  low, high = skip
  mean = round((low + high - 1) / 2)
  if num_action_repeats not in (0, mean):
    raise ValueError(
      f'--num_action_repeats={num_action_repeats} contradicts {level_name}, which skips {low} to '
      f'{high - 1} frames at random: leave it out, or take the id with NoFrameskip'
    )
  return mean


def _check(given: dict[str, Any]) -> None:
  for name, value in given.items():
    right, is_right = _VALUES.get(name, ('true or false', lambda v: isinstance(v, bool)))
    if name in _SHARED | _OF_VECTOR | {'frameskip'} and not is_right(value):
      raise ValueError(f'--env_kwargs={keywords.as_keywords(given)}: {name} is not {right}')


def _is_skip(value):
  if isinstance(value, tuple):
    return [type(n) for n in value] == [int, int] and 0 < value[0] < value[1]
  return type(value) is int and value > 0


def _vector(name, arguments, frames, width, height):
  """Returns the arguments of the vector environment."""
  own = {name: value for name, value in arguments.items() if name in _SHARED | _OF_VECTOR}
  return (
    dict(
      game=gymnasium.registry[name].kwargs['game'],
      life_loss_info=True,
      reward_clipping=False,
      img_height=height,
      img_width=width,
      stack_num=FRAME_STACK,
      frameskip=frames,
      noop_max=MAX_NOOPS,
    )
    | own
  )


def _preprocessing(arguments, frame_skip, width, height):
  """Returns Gymnasium's wrappers that make the vector environment's observations."""
  noops = 0 if arguments.get('continuous') else MAX_NOOPS  # They are choices of a Discrete space.
  preprocessing = dict(noop_max=noops, frame_skip=frame_skip, screen_size=[width, height])
  return keywords.as_wrappers(
    [
      keywords.Wrapper('gymnasium.wrappers.AtariPreprocessing', preprocessing),
      keywords.Wrapper('gymnasium.wrappers.FrameStackObservation', {'stack_size': FRAME_STACK}),
    ]
  )
