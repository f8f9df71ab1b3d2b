"""Plays a game with the exported policy in this folder, and prints its return.

Needs tensorflow and numpy; ale-py for an Atari game, gymnasium for any other environment.
Packages of environments are found on PYTHONPATH. The modules that policy.json names under
"environment" are imported: those of `module:Id`, of --import and of --env_wrappers.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import json
import os
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np


class Atari:
  """One Atari game, played as ale_py's gymnasium class does, but without gymnasium."""

  def __init__(self, policy: dict[str, Any]):
    from ale_py import roms
    from ale_py._ale_py import ALEVectorInterface

    settings = dict(policy['atari'])
    self._games = ALEVectorInterface(
      rom_path=roms.get_rom_path(settings.pop('game')),
      num_envs=1,
      frame_skip=settings.pop('frameskip'),
      max_episode_steps=settings.pop('max_num_frames_per_episode'),
      autoreset_mode='SameStep',
      **settings,
    )
    self._frames = 0

  def reset(self, seed: int) -> dict[str, np.ndarray]:
    """Starts a game; returns the input of its first observation, [1, H, W, stack]."""
    observation, info = self._games.reset([0], [seed])
    self._frames = info['episode_frame_number'][0]
    return dict(
      observation=np.moveaxis(observation, 1, -1)
    )  # [1, stack, H, W] -> [1, H, W, stack].

  def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
    """Returns (input of the observation, reward, life or game ended, game ended)."""
    self._games.send(np.array([action]).astype(int), np.ones(1, np.float32))
    observation, reward, terminated, truncated, info = self._games.recv()
    frames, before = info['episode_frame_number'][0], self._frames
    self._frames = frames
    # At the end of the game the count restarts.
    over = bool(truncated[0] or terminated[0] and frames <= before)
    done = bool(terminated[0] or truncated[0])
    return dict(observation=np.moveaxis(observation, 1, -1)), float(reward[0]), done, over


class Gymnasium:
  """Any other environment, with each action repeated as in training."""

  def __init__(self, policy: dict[str, Any]):
    self._env = _made(policy['environment'])
    self._policy = policy

  def _converted(self, seen: Any, info: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the inputs of the model by name, [1, ...] each."""
    inputs = {}
    for array in self._policy['observation']:
      value, space = seen, self._env.observation_space
      if array['name'] == 'action_mask' and 'action_mask' in info:
        value, space = info['action_mask'], None
      else:
        for key in filter(None, array['name'].split('/')):
          key = int(key) if isinstance(value, (tuple, list)) else key
          value, space = value[key], space.spaces[key]
      inputs[array['input']] = as_array(value, space, array)[None]
    return inputs

  def reset(self, seed: int) -> dict[str, np.ndarray]:
    """Starts an episode; returns the inputs of its first observation."""
    return self._converted(*self._env.reset(seed=seed))

  def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
    """Like `Atari.step`; the last two are equal."""
    total, over = 0.0, False
    chosen, _ = as_element(action.reshape(-1), self._env.action_space)
    for _ in range(self._policy['environment']['repeats']):
      observation, reward, terminated, truncated, info = self._env.step(chosen)
      total, over = total + float(np.asarray(reward).item()), bool(terminated or truncated)
      if over:
        break
    return self._converted(observation, info), total, over, over


class OpenAIGym:
  """An environment that only OpenAI Gym knows, of any version, with the API of Gymnasium."""

  def __init__(self, env_id: str, kwargs: dict[str, Any]):
    import gym  # pyright: ignore[reportMissingImports]

    env = _called(functools.partial(gym.make, env_id, disable_env_checker=True), kwargs)
    self._env, self._limit, self._steps = env.unwrapped, env.spec.max_episode_steps, 0
    self.observation_space, self.action_space = env.observation_space, env.action_space

  def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
    """Returns (observation, info)."""
    self._steps = 0
    takes_seed = 'seed' in inspect.signature(self._env.reset).parameters
    if not takes_seed:
      with contextlib.suppress(AttributeError, TypeError):  # No `seed`, or one without arguments.
        self._env.seed(seed)
    result = self._env.reset(**{'seed': seed} if takes_seed else {})
    is_newer = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
    return result if is_newer else (result, {})

  def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """Returns (observation, reward, terminated, truncated, info)."""
    observation, reward, *ends, info = self._env.step(action)
    self._steps += 1
    is_late = bool(self._limit) and self._steps >= self._limit
    return observation, reward, bool(ends[0]), is_late or any(ends[1:]), info


def kind_of(space: Any) -> str:
  """Returns the name of the class of Gymnasium that a space, or one of a subclass, is of."""
  kinds = ('Discrete', 'MultiDiscrete', 'MultiBinary', 'Box', 'Dict', 'Tuple')
  return next((cls.__name__ for cls in type(space).__mro__ if cls.__name__ in kinds), '')


def as_array(value: Any, space: Any, array: dict[str, Any]) -> np.ndarray:
  """Returns one array of an observation as in training.

  Args:
    value: the part of the observation that it is made from.
    space: the space of that part; None for an action mask.
    array: its shape and dtype, from policy.json.
  """
  kind, shape = kind_of(space), array['shape']
  if array['dtype'] == 'bool':  # An action mask, perhaps one for each part of the action.
    pieces = value if isinstance(value, (tuple, list)) else [value]
    return np.concatenate([np.asarray(piece).reshape(-1) for piece in pieces]) != 0
  if array['dtype'] == 'int32':  # Words; 0 is no word.
    words = [1 + zlib.crc32(word.encode()) % 4095 for word in value.lower().split()[: shape[0]]]
    return np.array(words + [0] * (shape[0] - len(words)), np.int32)
  value = np.asarray(value)
  if kind in ('Discrete', 'MultiDiscrete'):
    sizes = np.atleast_1d(space.n if kind == 'Discrete' else space.nvec).reshape(-1)
    chosen = (value - space.start).reshape(-1)
    return np.concatenate([np.eye(n, dtype=np.float32)[i] for n, i in zip(sizes, chosen)])
  if len(shape) == 3:
    sides = tuple(shape[:2])
    if value.ndim == 4:  # A stack, [K, H, W, C] or [K, C, H, W] -> [H, W, K * C].
      channels_last = value.shape[1:3] == sides
      value = value.transpose((1, 2, 0, 3) if channels_last else (2, 3, 0, 1)).reshape(*sides, -1)
    elif space.shape[:2] != sides and value.ndim == 3:  # [C, H, W] -> [H, W, C].
      value = np.moveaxis(value, 0, -1)
    largest = max(abs(float(np.min(space.low))), abs(float(np.max(space.high))))
    if array['dtype'] == 'float32':  # Divided by its bound in training too.
      value = value / (largest if 1 < largest < np.inf else 1.0)
    elif value.dtype == np.bool_:
      value = value.astype(np.uint8) * 255
    else:  # Images with small maximum values were multiplied up to 255 in training too.
      value = value * max(1, 255 // max(1, int(largest)))
    if value.ndim == 3:  # Channels that another level has are zeros.
      value = np.pad(value, ((0, 0), (0, 0), (0, shape[2] - value.shape[2])))
  return value.reshape(shape).astype(array['dtype'])


def as_element(action: np.ndarray, space: Any) -> tuple[Any, np.ndarray]:
  """Returns (an element of an action space, the rest of the action).

  Args:
    action: numbers in the order of the space; of a Box in [-1, 1], where 1 is its upper bound.
    space: the action space, or a part of it.
  """
  kind = kind_of(space)
  if kind in ('Dict', 'Tuple'):
    keys = list(space.spaces) if kind == 'Dict' else range(len(space.spaces))
    elements = {}
    for key in keys:
      elements[key], action = as_element(action, space.spaces[key])
    return elements if kind == 'Dict' else tuple(elements.values()), action
  size = 1 if kind == 'Discrete' else int(np.prod(space.shape))
  own, rest = action[:size], action[size:]
  if kind == 'Discrete':
    return np.dtype(space.dtype).type(int(space.start) + int(own[0])), rest
  own = own.reshape(space.shape)
  if kind == 'MultiDiscrete':
    own = own + space.start
  elif kind == 'Box':
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded = (np.abs(low) < 1e6) & (np.abs(high) < 1e6)
    with np.errstate(invalid='ignore', over='ignore'):
      own = np.where(bounded, (low + high) / 2 + (high - low) / 2 * own, own)
    own = np.clip(own, low, high)
    own = np.rint(own) if space.dtype.kind in 'iu' else own
  return own.astype(space.dtype), rest


def _made(environment: dict[str, Any]) -> Any:
  """Returns the environment of the training: imports, id and keywords, then the wrappers."""
  import gymnasium

  for module, function in environment['imports']:
    imported = importlib.import_module(module)
    if function:
      getattr(imported, function)()
  if environment['id'].startswith('ALE/'):
    import ale_py

    gymnasium.register_envs(ale_py)
  for plugin in importlib.metadata.entry_points(group='gymnasium.envs'):
    known = environment['id'] in gymnasium.registry
    if environment['id'].startswith(f'{plugin.name}/') and not known:
      plugin.load()()
  make = functools.partial(gymnasium.make, environment['id'], disable_env_checker=True)
  try:
    env = _called(make, environment['kwargs'])
  except gymnasium.error.UnregisteredEnv:
    env = OpenAIGym(environment['id'], environment['kwargs'])
  for path, kwargs in environment['wrappers']:
    module, _, name = path.rpartition('.')
    wrapper = getattr(importlib.import_module(module), name)
    env = _called(functools.partial(wrapper, env), kwargs)
  return env


def _called(function: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
  """Returns `function(**kwargs)` with tuples, or else arrays, in place of lists, as in training."""
  lists = {name for name, value in kwargs.items() if isinstance(value, list)}
  try:
    return function(**{name: tuple(v) if name in lists else v for name, v in kwargs.items()})
  except (TypeError, AttributeError):
    if not lists:
      raise
    return function(**{name: np.array(v) if name in lists else v for name, v in kwargs.items()})


def _of_level(policy: dict[str, Any], level_name: str) -> dict[str, Any]:
  """Returns the entries of policy.json that make a level's environment."""
  levels = {level['level_name']: level for level in policy.get('levels', [policy])}
  if level_name and level_name not in levels:
    sys.exit(f'--level_name={level_name} is none of {", ".join(levels)}')
  level = levels[level_name] if level_name else next(iter(levels.values()))
  return {'atari': level['atari'], 'environment': level['environment']}


def play(folder: str, max_steps: int = 0, level_name: str = '') -> float:
  """Plays one game with sampled actions; returns its return.

  Args:
    folder: of the export.
    max_steps: agent steps after which the game is cut off; 0: never.
    level_name: of an agent for several levels, the one that is played; '': the first.
  """
  import tensorflow as tf  # Takes seconds.

  with open(os.path.join(folder, 'policy.json'), encoding='utf-8') as file:
    policy = json.load(file)
  signatures = tf.saved_model.load(folder).signatures
  if level_name or 'levels' in policy:
    policy.update(_of_level(policy, level_name))
  game = Atari(policy) if policy['atari'] else Gymnasium(policy)
  observation = game.reset(seed=int.from_bytes(os.urandom(3), 'big'))
  state = signatures['initial_state'](batch_size=tf.constant(1))['state']
  reward, done, total, over = 0.0, True, 0.0, False
  fed = signatures['step'].structured_input_signature[1]['last_action']
  action = np.zeros(fed.shape[1:])
  steps = 0
  while not over and not (max_steps and steps == max_steps):
    out = signatures['step'](
      **{name: tf.constant(array) for name, array in observation.items()},
      last_action=tf.constant(np.asarray([action]), fed.dtype),
      last_reward=tf.constant([reward], tf.float32),
      done=tf.constant([done]),
      state=state,
    )
    action, state = out['action'].numpy()[0], out['state']
    observation, reward, done, over = game.step(action)
    total += reward
    steps += 1
    if steps % 10_000 == 0:
      print(f'{steps} agent steps, return so far {total:g}', file=sys.stderr, flush=True)
  return total


if __name__ == '__main__':
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--max_steps', type=int, default=0, help='agent steps after which the game is cut off; 0: never'
  )
  parser.add_argument(
    '--level_name', default='', help='of an agent for several levels, the one that is played'
  )
  given, rest = parser.parse_known_args()
  if unknown := [word for word in rest if word.startswith('-')]:
    parser.error(f'unrecognized arguments: {" ".join(unknown)}')
  folder = os.path.dirname(os.path.abspath(__file__))
  print('return', play(folder, given.max_steps, given.level_name))
