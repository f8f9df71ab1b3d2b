"""Batches of Atari games, preprocessed as in IMPALA, from ale_py's vector environment.

The preprocessing is that of Table G.1 of Espeholt et al. 2018, arXiv 1802.01561. ale_py and OpenCV
are imported lazily.
"""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np

from envs import atari_ids
from envs.batch import GameTotals, environment_seed
from structs import ActionPart, ArraySpec, Level, StepOutput


def is_atari(level: Level | str) -> bool:
  """Returns whether a level is an Atari game that ale_py's vector environment plays."""
  played = atari_ids.played(level)
  return played is not None and played.vector is not None


def probe(
  level: Level | str, num_action_repeats: int, width: int, height: int
) -> tuple[tuple[ArraySpec, ...], tuple[ActionPart, ...]]:
  """Returns the arrays of an observation, and the parts of an action, of an Atari level.

  Args:
    level: an Atari game.
    num_action_repeats: frames per agent step.
    width: of observations, in pixels.
    height: of observations, in pixels.
  """
  envs = _make(1, vector_arguments(level, num_action_repeats, width, height))
  stack = ArraySpec('', (height, width, atari_ids.FRAME_STACK), 'uint8')
  return (stack,), (ActionPart('discrete', int(envs.single_action_space.n)),)


class AtariBatch:
  """N Atari games in ale_py's vector environment (C++ threads).

  Args:
    spec: EnvironmentSpec.
    num_envs: N.
    seed: int >= 0, seeds the no-ops and sticky actions of the batch.
    **overrides: arguments of ale_py's vector environment that replace those of the level.
  """

  crashes = 0

  def __init__(self, spec: Any, num_envs: int, seed: int, **overrides: Any):
    height, width, _ = spec.observation[0].shape
    self.num_envs = num_envs
    arguments = vector_arguments(spec.level, spec.num_action_repeats, width, height)
    self._envs: Any = _make(num_envs, arguments | overrides)
    self._seeds = np.array([environment_seed(seed, i) for i in range(num_envs)], np.int32)
    self._totals = GameTotals(num_envs)
    self._frames = None  # int32 [N], emulator frames of the running games.
    self._never = np.zeros(num_envs, bool)

  def reset(self) -> StepOutput:
    """Restarts all games and returns their first StepOutput; only the first call is seeded."""
    observation, info = self._envs.reset(seed=self._seeds)
    self._seeds = None
    self._frames = info['episode_frame_number']
    return self._totals.first(channels_last(observation))

  def step(self, actions: np.ndarray) -> StepOutput:
    """Returns the StepOutput after `actions`, int32 [N]."""
    observation, reward, terminated, truncated, info = self._envs.step(actions)
    done = terminated | truncated
    # A lost life also sets `terminated`. Only the end of a game resets the frame count.
    game_over = truncated | (done & (info['episode_frame_number'] <= self._frames))
    self._frames = info['episode_frame_number']
    return self._totals.next(
      reward.astype(np.float32), done, game_over, self._never, channels_last(observation)
    )

  def why_not_set(self) -> str:
    """Returns why the state of the games cannot be set."""
    return "ale_py's vector environment gives no access to its games"

  def close(self) -> None:
    """Stops the threads; may be called twice."""
    self._envs = None


def vector_arguments(
  level: Level | str, num_action_repeats: int, width: int, height: int
) -> dict[str, Any]:
  """Returns a JSON-serializable dict of arguments of ale_py's vector environment for a level.

  Args:
    level: an Atari game that it plays.
    num_action_repeats: frames per agent step.
    width: of observations, in pixels.
    height: of observations, in pixels.
  """
  played = atari_ids.played(level, num_action_repeats, width, height)
  assert played is not None and played.vector is not None, level
  return played.vector


def coloured(
  level: Level | str, num_action_repeats: int, **overrides: Any
) -> tuple[Any, list[str]]:
  """Returns one game in its original colours and size, and the names of its actions.

  Args:
    level: an Atari game.
    num_action_repeats: frames per agent step.
    **overrides: see `AtariBatch`.

  Returns:
    A tuple (ale_py's vector environment with one game, list of action names). Observations are RGB
    frames, uint8, with trailing dimensions [H, W, 3].
  """
  arguments = vector_arguments(level, num_action_repeats, 84, 84)
  shown: Any = gymnasium.make(
    'ALE/Pong-v5', game=arguments['game'], full_action_space=arguments['full_action_space']
  )
  height, width, _ = shown.observation_space.shape
  names = shown.unwrapped.get_action_meanings()
  shown.close()
  size = dict(img_height=height, img_width=width, grayscale=False, stack_num=1)
  return _make(1, arguments | size | overrides), names


def _make(num_envs: int, arguments: dict[str, Any]) -> Any:
  import ale_py
  from ale_py import vector_env

  ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
  return vector_env.AtariVectorEnv(
    num_envs=num_envs,
    num_threads=min(num_envs, len(os.sched_getaffinity(0))),
    # The other modes restart the game at every lost life or spend a step on the restart.
    autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    **arguments,
  )


def channels_last(frames: np.ndarray) -> np.ndarray:
  """Transposes uint8 [N, C, H, W] to [N, H, W, C]; C is at most 4.

  For 32 stacks of Atari frames, OpenCV takes 0.04 ms, numpy 0.63 ms and TensorFlow 0.49 ms.
  """
  import cv2

  num_envs, channels, height, width = frames.shape
  planes = frames.reshape(num_envs, channels, height * width)
  merged = cv2.merge([planes[:, c] for c in range(channels)])
  return merged.reshape(num_envs, height, width, channels)
