"""Makes environments from Gym ids and suggests the right id for an unknown one."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.metadata
import io
import re
import sys
from collections.abc import Iterable
from typing import Any

import gymnasium
from gymnasium.envs import registration

from common import keywords, own_code
from envs import older_gym, wrapping
from structs import Level, level_of

# module, or module:function -> whether its first import or call may have registered an environment.
# True for a module that was imported before `make` was called.
_may_have_registered: dict[str, bool] = {}

_VERSION = re.compile(r'-v(\d+)$')


def make(level: Level | str, made_as: Level | None = None, **kwargs: Any) -> Any:
  """Returns an environment from Gymnasium, or from OpenAI Gym if Gymnasium does not know the id.

  The level's imports come first, then the module of `module:Id`. If Gymnasium does not know the
  id, the plug-ins of installed packages are loaded (entry points `gymnasium.envs`).

  Args:
    level: `structs.Level`, or only its id; messages name it.
    made_as: what is made in its place, if that differs.
    **kwargs: arguments of `gymnasium.make`, which go before the level's own.

  Raises:
    ValueError: the environment cannot be made; the message begins with the flag to blame, or with
      "level_name". For an unknown id, it suggests others.
  """
  gymnasium.logger.min_level = gymnasium.logger.ERROR
  level = level_of(level)
  made_as = made_as or level
  for name in _imports_of(made_as):
    _watched(name, functools.partial(wrapping.run_imports, name))
  module, separator, env_id = made_as.name.rpartition(':')
  given = keywords.keywords_of(made_as.env_kwargs)
  try:
    if separator:
      _watched(module, functools.partial(importlib.import_module, module))
    make_it = functools.partial(_make_registered, env_id)
    env = wrapping.called(make_it, {**given, **kwargs})
  except Exception as error:
    raise ValueError(_sentence(level, module, env_id, given, error)) from error
  wrapped = wrapping.wrapped(env, made_as.env_wrappers)
  if isinstance(env, gymnasium.Env) or isinstance(wrapped, gymnasium.Env):
    return wrapped
  return older_gym.adapted(wrapped)  # Wrappers of OpenAI Gym may have another API.


def _imports_of(level):
  """Returns a level's imports, a list of module or module:function."""
  return [*filter(None, keywords.canonical_imports(level.imports).split(','))]


def _watched(name, run):
  """Calls `run`; the first time, records whether it may have registered an environment.

  Args:
    name: module, or module:function.
    run: function that imports the module, and calls the function.
  """
  if name in _may_have_registered:
    run()
    return
  module = name.partition(':')[0]
  may_have = _may_have_registered.get(module, module in sys.modules)
  before = _registered()
  run()
  changed = any(before.get(key) is not spec for key, spec in _registered().items())
  _may_have_registered[name] = may_have or changed


def _registered():
  """Returns the specs by (registry, id), without those that OpenAI Gym registers on its import."""
  gym = sys.modules.get('gym.envs.registration')
  of_gym = getattr(gym, 'registry', {}).items()
  return {
    **{('gymnasium', env_id): spec for env_id, spec in gymnasium.registry.items()},
    **{('gym', i): spec for i, spec in of_gym if not str(spec.entry_point).startswith('gym.')},
  }


def _make_registered(env_id, /, **kwargs):
  try:
    return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
  except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as unknown:
    load_plugins()
    if env_id in gymnasium.registry:
      return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    gym = _openai_gym()
    if gym is None:
      raise
    try:
      return _made_by_gym(gym, env_id, **kwargs)
    except Exception as error:
      raise error from unknown


def _made_by_gym(gym, env_id, /, **kwargs):
  try:
    # OpenAI Gym's checker uses np.bool8, which NumPy 2 has removed.
    return older_gym.adapted(gym.make(env_id, disable_env_checker=True, **kwargs))
  except TypeError as error:
    if 'render_mode' not in kwargs or 'render_mode' not in str(error):
      raise
    kwargs.pop('render_mode')  # Before version 0.26, environments were not made for one mode.
    return _made_by_gym(gym, env_id, **kwargs)


@functools.cache
def load_plugins() -> None:
  """Registers the environments of Atari and of all packages with entry points `gymnasium.envs`.

  Gymnasium loaded these itself before version 1.0. One that fails is left out.
  """
  register_atari()
  for plugin in importlib.metadata.entry_points(group='gymnasium.envs'):
    is_global = plugin.name.startswith('__')
    space = contextlib.nullcontext() if is_global else registration.namespace(plugin.name)
    with space, contextlib.suppress(Exception):  # Only then is the namespace left.
      plugin.load()()


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


def _sentence(level, module, env_id, given, error):
  """Returns why an environment could not be made."""
  which = f'level_name {level.name!r}'
  if _is_unknown(error):
    closest = difflib.get_close_matches(env_id, _known_ids(), 3, cutoff=0.0)
    right = working_id(env_id, _known_ids())
    meant = f'the id that works is {right}; ' if right and right != env_id else ''
    if not meant:
      meant = _about_imports(level, module)
    return (
      f'{which} is known to neither Gymnasium nor OpenAI Gym; {meant}{own_code.hidden_by(module)}'
      f'{_left_out()}the closest are {", ".join(closest)}'
    )
  if isinstance(error.__cause__, gymnasium.error.DeprecatedEnv):
    right = working_id(env_id, gymnasium.registry)
    return f'{which} is an id of an old version; the id that works is {right}'
  if given and isinstance(error, TypeError):
    own = {name: value for name, value in given.items() if name != 'max_episode_steps'}
    if wrong := wrapping.unknown_keywords(_entry_point(env_id), own):
      return f'--env_kwargs={level.env_kwargs} does not fit {level.name}: {wrong}'
  missing = wrapping.not_found(error, module)
  with_it = f' with --env_kwargs={level.env_kwargs}' if level.env_kwargs else ''
  return f'{which} cannot be made{with_it}: {wrapping.reason(error)}{missing}'


def _about_imports(level, module):
  """Returns which imports may register the id, as the beginning of a sentence, or ''."""
  names = [*filter(None, [module]), *_imports_of(level)]
  if not names:
    return 'ids of a package that registers them on import need --import=PACKAGE; '
  if any(_may_have_registered.get(name, True) for name in names):
    return ''
  return (
    f'importing {" and ".join(names)} registered no environment; if one of '
    f'{"its" if len(names) == 1 else "their"} modules or functions does, name that: '
    '--import=PACKAGE.MODULE or --import=PACKAGE:FUNCTION; '
  )


def _entry_point(env_id):
  """Returns the class or function that makes an environment, or None."""
  spec = gymnasium.registry.get(env_id)
  try:
    entry_point: Any = spec.entry_point if spec else None
    return (
      registration.load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    )
  except Exception:
    return None


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
  ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # It prints a banner otherwise.
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
