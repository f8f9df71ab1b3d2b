"""Plays a game with the exported policy in this folder, and prints its return.

Needs tensorflow and numpy; ale-py for an Atari game, gymnasium for any other environment, which
the modules in the folder `trainer` make. Packages of environments are found on PYTHONPATH. The
modules that policy.json names under "environment" are imported: those of `module:Id`, of imports
and of env_wrappers.
"""

import argparse
import json
import os
import sys
from typing import Any

import numpy as np


class Atari:
  """One Atari game, played as ale_py's gymnasium class does, but without gymnasium."""

  def __init__(self, policy: dict[str, Any], seed: int):
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
    self._seed, self._frames = seed, 0

  def reset(self) -> dict[str, np.ndarray]:
    """Starts a game; returns the input of its first observation, [1, H, W, stack]."""
    observation, info = self._games.reset([0], [self._seed])
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
  """Any other environment, which the modules in `trainer` make and convert as in training."""

  def __init__(self, policy: dict[str, Any], seed: int):
    from envs.gym_env import GymEnvironment
    from structs import Level

    made = dict(policy['environment'])
    repeats = made.pop('num_action_repeats')
    arrays = policy['observation']
    self._inputs = [array['input'] for array in arrays]
    masked = any(array['name'] == 'action_mask' for array in arrays)
    try:
      self._env = GymEnvironment(Level(**made), seed, repeats, masked=masked)
    except ValueError as error:  # A package is missing, for instance.
      sys.exit(str(error))

  def _named(self, observation: Any) -> dict[str, np.ndarray]:
    """Returns the inputs of the model by name, [1, ...] each."""
    arrays = observation if isinstance(observation, tuple) else (observation,)
    return {name: array[None] for name, array in zip(self._inputs, arrays, strict=True)}

  def reset(self) -> dict[str, np.ndarray]:
    """Starts a game; returns the inputs of its first observation."""
    return self._named(self._env.reset())

  def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
    """Like `Atari.step`; there are no lives."""
    reward, done, over, observation = self._env.step(action)
    return self._named(observation), reward, done, over


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
  kind, seed = Atari if policy['atari'] else Gymnasium, int.from_bytes(os.urandom(3), 'big')
  game = kind(policy, seed)
  observation = game.reset()
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
  sys.path.insert(1, os.path.join(folder, 'trainer'))
  print('return', play(folder, given.max_steps, given.level_name))
