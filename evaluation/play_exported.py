"""Plays a game with the exported policy in this folder, and prints its return.

Needs tensorflow and numpy; ale-py for an Atari game, gymnasium for any other environment.
Packages of environments are found on PYTHONPATH. The modules that policy.json names under
"environment" are imported: those of `module:Id`, of --import and of --env_wrappers.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
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

  def reset(self, seed: int) -> np.ndarray:
    """Starts a game; returns its first observation [1, H, W, stack]."""
    observation, info = self._games.reset([0], [seed])
    self._frames = info['episode_frame_number'][0]
    return np.moveaxis(observation, 1, -1)  # [1, stack, H, W] -> [1, H, W, stack].

  def step(self, action: int) -> tuple[np.ndarray, float, bool, bool]:
    """Returns (observation, reward, whether a life or the game ended, whether the game ended)."""
    self._games.send(np.array([action]), np.ones(1, np.float32))
    observation, reward, terminated, truncated, info = self._games.recv()
    frames, before = info['episode_frame_number'][0], self._frames
    self._frames = frames
    # At the end of the game the count restarts.
    over = bool(truncated[0] or terminated[0] and frames <= before)
    done = bool(terminated[0] or truncated[0])
    return np.moveaxis(observation, 1, -1), float(reward[0]), done, over


class Gymnasium:
  """Any other environment, with each action repeated as in training."""

  def __init__(self, policy: dict[str, Any]):
    import gymnasium

    self._env = _made(policy['environment'])
    self._policy = policy
    space = self._env.observation_space
    self._discrete = space if isinstance(space, gymnasium.spaces.Discrete) else None
    self._array = policy['observation'][0]
    is_image = self._array['dtype'] == 'uint8'
    # Images with small maximum values were multiplied up to 255 in training too.
    self._factor = max(1, 255 // max(1, int(np.max(space.high)))) if is_image else 1
    self._channels_first = is_image and space.shape != tuple(self._array['shape'])

  def _converted(self, seen: Any) -> np.ndarray:
    shape = self._array['shape']
    if self._discrete is not None:
      seen = np.eye(shape[0])[int(seen) - int(self._discrete.start)]
    seen = np.asarray(seen)
    seen = seen.astype(np.uint8) * 255 if seen.dtype == np.bool_ else seen * self._factor
    if self._channels_first and seen.ndim == 3:  # [C, H, W] -> [H, W, C].
      seen = np.moveaxis(seen, 0, -1)
    return seen.reshape([1, *shape]).astype(self._array['dtype'])

  def reset(self, seed: int) -> np.ndarray:
    """Starts an episode; returns its first observation [1, ...]."""
    return self._converted(self._env.reset(seed=seed)[0])

  def step(self, action: int) -> tuple[np.ndarray, float, bool, bool]:
    """Like `Atari.step`; the last two are equal."""
    total, over = 0.0, False
    space = self._env.action_space
    chosen = np.dtype(space.dtype).type(int(space.start) + action)
    for _ in range(self._policy['environment']['repeats']):
      observation, reward, terminated, truncated, _ = self._env.step(chosen)
      total, over = total + float(np.asarray(reward).item()), bool(terminated or truncated)
      if over:
        break
    return self._converted(observation), total, over, over


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
    if environment['id'].startswith(f'{plugin.name}/'):
      plugin.load()()
  env = gymnasium.make(
    environment['id'], disable_env_checker=True, **_tuples(environment['kwargs'])
  )
  for path, kwargs in environment['wrappers']:
    module, _, name = path.rpartition('.')
    env = getattr(importlib.import_module(module), name)(env, **_tuples(kwargs))
  return env


def _tuples(kwargs: dict[str, Any]) -> dict[str, Any]:
  """Returns keywords with tuples in place of lists, as training reads them."""
  return {name: tuple(v) if isinstance(v, list) else v for name, v in kwargs.items()}


def play(folder: str, max_steps: int = 0) -> float:
  """Plays one game with sampled actions; returns its return.

  Args:
    folder: of the export.
    max_steps: agent steps after which the game is cut off; 0: never.
  """
  import tensorflow as tf  # Takes seconds.

  with open(os.path.join(folder, 'policy.json'), encoding='utf-8') as file:
    policy = json.load(file)
  signatures = tf.saved_model.load(folder).signatures
  game = Atari(policy) if policy['atari'] else Gymnasium(policy)
  observation = game.reset(seed=int.from_bytes(os.urandom(3), 'big'))
  state = signatures['initial_state'](batch_size=tf.constant(1))['state']
  action, reward, done, total, over = 0, 0.0, True, 0.0, False
  steps = 0
  while not over and not (max_steps and steps == max_steps):
    out = signatures['step'](
      observation=tf.constant(observation),
      last_action=tf.constant([action], tf.int32),
      last_reward=tf.constant([reward], tf.float32),
      done=tf.constant([done]),
      state=state,
    )
    action, state = int(out['action'][0]), out['state']
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
  given, rest = parser.parse_known_args()
  if unknown := [word for word in rest if word.startswith('-')]:
    parser.error(f'unrecognized arguments: {" ".join(unknown)}')
  print('return', play(os.path.dirname(os.path.abspath(__file__)), given.max_steps))
