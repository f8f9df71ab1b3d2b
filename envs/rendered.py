"""One game whose picture is rendered for people, in addition to the agent's observations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from acting import worker_process
from envs import atari, atari_ids, faults
from envs.batch import GameTotals, environment_seed
from envs.gym_env import GymEnvironment
from structs import arrays_of, as_observation, is_masked, num_actions

_ATARI_FRAMES_PER_SEC = 60


class _RenderedAtari:
  """An Atari game, and a copy in colour that gets the same seed and actions."""

  def __init__(self, spec, seed, max_episode_frames=0):
    limit = dict(max_num_frames_per_episode=max_episode_frames) if max_episode_frames else {}
    self._game = atari.AtariBatch(spec, 1, seed, **limit)
    self._twin: Any
    self._twin, self.action_names = atari.coloured(spec.level, spec.num_action_repeats, **limit)
    self._seeds = np.array([environment_seed(seed, 0)], np.int32)
    self.frames_per_sec = _ATARI_FRAMES_PER_SEC / spec.num_action_repeats

  def reset(self):
    observation, _ = self._twin.reset(seed=self._seeds)
    self._seeds = None
    self.picture = observation.reshape(observation.shape[-3:])
    return self._game.reset()

  def step(self, action):
    actions = np.array([action], np.int32)
    output = self._game.step(actions)
    observation, *_, info = self._twin.step(actions)
    # After the end of a game, `observation` is the first of the next game.
    if output.info.game_over[0] and 'final_obs' in info:
      observation = np.asarray(info['final_obs'][0])
    self.picture = observation.reshape(observation.shape[-3:])
    return output

  def close(self):
    self._game.close()
    self._twin = None


class _RenderedGym:
  """An environment that renders `rgb_array`, in a process of its own."""

  def __init__(self, spec, seed, max_episode_frames=0):
    self._level_name = spec.level.name
    made_as, repeats = atari_ids.made_as(spec)
    self._worker = worker_process.Worker(
      GymEnvironment,
      spec.level,
      environment_seed(seed, 0),
      repeats,
      'rgb_array',
      -(-max_episode_frames // spec.num_action_repeats),
      is_masked(spec.observation),
      made_as,
    )
    try:
      self._worker.start()
    except worker_process.WorkerError as error:
      raise ValueError(error.message) from error
    self._totals = GameTotals(1)
    self.action_names = [str(i) for i in range(num_actions(spec.action))]
    self.frames_per_sec = self._call('render_fps') / repeats
    if atari_ids.most_frames(spec.level) and not spec.level.env_wrappers:
      self.frames_per_sec = _ATARI_FRAMES_PER_SEC / spec.num_action_repeats

  def reset(self):
    observation = self._call('reset')
    self.picture = self._call('render')
    return self._totals.first(_batch_of_one(observation))

  def step(self, action):
    reward, done, game_over, observation, self.picture = self._call('step_and_render', action)
    done, game_over = np.array([done]), np.array([game_over])
    anew = done & ~game_over
    return self._totals.next(
      np.array([reward], np.float32), done, game_over, anew, _batch_of_one(observation)
    )

  def close(self):
    self._worker.close()

  def _call(self, method: str, *args: Any) -> Any:
    try:
      return self._worker.call(method, *args)
    except worker_process.WorkerError as error:
      died = isinstance(error, worker_process.WorkerDied)
      reason = f'its process {error.message}' if died else error.message
      raise faults.EnvironmentFault(f'{self._level_name}: {reason}') from error


def _batch_of_one(observation):
  return as_observation([array[None] for array in arrays_of(observation)])


class GamesInTurn:
  """Plays games of several levels, one level after the other, with the interface of one game.

  The step after the last game of a level ignores its action and starts the next level.

  Args:
    games: from `open_game`, one of each level.
    games_of_each: games of each level.

  Attributes:
    level_id: index of the level that is played.
  """

  def __init__(self, games: Sequence[Any], games_of_each: int):
    self._games, self._games_of_each = games, games_of_each
    self.level_id, self._played = 0, 0

  @property
  def picture(self) -> np.ndarray:
    """See `open_game`, like what follows."""
    return self._games[self.level_id].picture

  @property
  def action_names(self) -> list[str]:
    """See above."""
    return self._games[self.level_id].action_names

  @property
  def frames_per_sec(self) -> float:
    """That of the first level."""
    return self._games[0].frames_per_sec

  def reset(self) -> Any:
    """See above."""
    return self._games[self.level_id].reset()

  def step(self, action: Any) -> Any:
    """See above."""
    if self._played == self._games_of_each and self.level_id + 1 < len(self._games):
      self.level_id, self._played = self.level_id + 1, 0
      return self.reset()
    output = self._games[self.level_id].step(action)
    self._played += bool(output.info.game_over[0])
    return output

  def close(self) -> None:
    """See above."""
    for game in self._games:
      game.close()


def open_game(spec: Any, seed: int, max_episode_frames: int = 0) -> Any:
  """Opens one game that is rendered, and resets it.

  Args:
    spec: EnvironmentSpec.
    seed: int >= 0.
    max_episode_frames: environment frames after which a game is truncated; 0 means the level's own
      limit.

  Returns:
    An object with
      reset(): returns a StepOutput of [1, ...].
      step(action): returns a StepOutput of [1, ...]; `action` is one action, see `AgentOutput`.
      picture: uint8 [H, W, 3], the game after the last `reset` or `step`. When a step ends a game,
        it shows the end of that game.
      action_names: list of str.
      frames_per_sec: agent steps per second of game time.
      close(): closes the game.

  Raises:
    ValueError: the environment does not render `rgb_array`, or a package for rendering is missing.
  """
  is_atari = atari.is_atari(spec.level)
  game = (_RenderedAtari if is_atari else _RenderedGym)(spec, seed, max_episode_frames)
  try:
    game.reset()
  except Exception as error:
    game.close()
    text = ' '.join(str(error).split()).removeprefix(f'{spec.level.name}: ')
    raise ValueError(f'level_name {spec.level.name!r} cannot render rgb_array: {text}') from error
  return game
