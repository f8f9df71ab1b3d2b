"""Makes environments from Gym ids and suggests the right id for an unknown one."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import re
from collections.abc import Iterable
from typing import Any

import gymnasium

from common import own_code
from envs import faults

_VERSION = re.compile(r'-v(\d+)$')


def make(level_name: str, **kwargs: Any) -> Any:
  """Returns an environment from Gymnasium, or from OpenAI Gym if Gymnasium does not know the id.

  Args:
    level_name: a Gym id; `module:Id` imports the module first.
    **kwargs: arguments of `gymnasium.make`.

  Raises:
    ValueError: the environment cannot be made; for an unknown id, the message suggests others.
  """
  gymnasium.logger.min_level = gymnasium.logger.ERROR
  module, separator, env_id = level_name.rpartition(':')
  try:
    if separator:
      importlib.import_module(module)
    return _make_registered(env_id, **kwargs)
  except Exception as error:
    raise ValueError(f'level_name {level_name!r} {_reason(module, env_id, error)}') from error


def _make_registered(env_id, **kwargs):
  try:
    return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
  except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as unknown:
    gym = _openai_gym()
    if gym is None:
      raise
    try:
      # OpenAI Gym's checker uses np.bool8, which NumPy 2 has removed.
      return gym.make(env_id, disable_env_checker=True, **kwargs)
    except Exception as error:
      raise error from unknown


def _openai_gym() -> Any:
  """Returns the module of OpenAI Gym, or None if it is not installed."""
  try:
    # On import, OpenAI Gym prints a notice that it is no longer maintained.
    with contextlib.redirect_stderr(io.StringIO()):
      import gym
  except ImportError:
    return None
  package: Any = gym
  package.logger.set_level(package.logger.ERROR)
  return package


def _reason(module, env_id, error):
  """Returns why an environment could not be made, as the end of a sentence."""
  if _is_unknown(error):
    closest = difflib.get_close_matches(env_id, _known_ids(), 3, cutoff=0.0)
    right = working_id(env_id, _known_ids())
    meant = f'the id that works is {right}; ' if right and right != env_id else ''
    return (
      f'is known to neither Gymnasium nor OpenAI Gym; {meant}'
      f'{own_code.hidden_by(module)}{_left_out()}the closest are {", ".join(closest)}'
    )
  if isinstance(error.__cause__, gymnasium.error.DeprecatedEnv):
    right = working_id(env_id, gymnasium.registry)
    return f'is an id of an old version; the id that works is {right}'
  text = ' '.join(str(error).split())
  if isinstance(error, ModuleNotFoundError) and error.name:
    text += own_code.where_to_put(error.name, module)
  return f'cannot be made: {type(error).__name__}{faults.place(error)}: {faults.installable(text)}'


def _is_unknown(error):
  """Returns whether `error` means an unknown id or version in OpenAI Gym, which is tried last."""
  gym = _openai_gym()
  errors = gym.error if gym else gymnasium.error
  return isinstance(error, (errors.UnregisteredEnv, errors.DeprecatedEnv))


def register_atari() -> bool:
  """Registers the Atari ids with Gymnasium; returns whether ale-py is installed."""
  try:
    import ale_py
  except ImportError:
    return False
  gymnasium.register_envs(ale_py)
  return True


def _left_out():
  """Returns a note about Atari games if ale-py is not installed, or ''."""
  if register_atari():
    return ''
  return 'games of Atari need the package ale-py, which is not installed here; '


def _known_ids():
  register_atari()
  gym = _openai_gym()
  return sorted({*gymnasium.registry, *(gym.envs.registry if gym else ())})


def working_id(env_id: str, known_ids: Iterable[str]) -> str | None:
  """Returns the newest registered id of the game that `env_id` names, or ''.

  Args:
    env_id: an outdated or informal id, such as LunarLander-v2, pong, space_invaders or cartpole-v1.
    known_ids: all registered ids.
  """
  same_game = [known for known in known_ids if _key(known) == _key(env_id)]
  if not same_game:
    return ''
  atari = [known for known in same_game if 'NoFrameskip' in known or known.startswith('ALE/')]
  if atari:  # The paper uses NoFrameskip ids.
    kind = 'ALE/' if env_id.startswith('ALE/') else 'NoFrameskip'
    same_game = [known for known in atari if kind in known] or atari
  return max(same_game, key=lambda known: int((_VERSION.search(known) or [0, -1])[1]))


def _key(env_id):
  """Returns the name of the game in an id, without version, mode, case and separators."""
  name = _VERSION.sub('', env_id).lower().removeprefix('ale/')
  for mode in ('noframeskip', 'deterministic'):
    name = name.removesuffix(mode)
  return re.sub(r'[-_ ]', '', name)
