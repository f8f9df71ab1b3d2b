"""Any Gymnasium or OpenAI Gym id in one process, its spaces adapted to what agents take.

Worker processes import this module, so it imports neither TensorFlow nor ale_py nor OpenCV by
itself. It also registers the environments of this project.
"""

import contextlib
import difflib
import importlib
import io
import random

import gymnasium
import numpy as np

gymnasium.register('impala/Catch-v0', entry_point='envs.catch:Catch')
gymnasium.register('impala/Memory-v0', entry_point='envs.memory:Memory')


class GymEnvironment:
  """One environment inside its worker process.

  Args:
    level_name: Gym id.
    seed: int, of the first reset.
    num_action_repeats: how often an action is repeated; rewards are summed.
    render_mode: of Gymnasium, or None.

  Raises:
    ValueError: the id is unknown, the environment cannot be made, or a space is not supported.
  """

  def __init__(self, level_name, seed, num_action_repeats, render_mode=None):
    self._env = _make(level_name)
    modes = self._env.metadata.get('render_modes') or []
    if render_mode:
      self._env.close()
      if render_mode not in modes:
        raise ValueError(
          f'level_name {level_name!r} cannot render {render_mode}; it renders '
          f'{", ".join(modes) or "nothing"}'
        )
      self._env = _make(level_name, render_mode=render_mode)
    self.render_fps = self._env.metadata.get('render_fps') or 30
    self._num_action_repeats = num_action_repeats
    self._shape, self._dtype, self._convert = _observation(level_name, self._env)
    self._first_action, self._num_actions = _actions(level_name, self._env)
    self._seed = seed
    self._truncated = False
    # For environments that know nothing of their own generators.
    random.seed(seed)
    np.random.seed(seed)

  def spec(self):
    """Observation shape, dtype and number of actions."""
    return self._shape, self._dtype, self._num_actions

  def reset(self):
    """The first observation of a new game."""
    observation, _ = self._env.reset(seed=self._seed)
    self._seed, self._truncated = None, False
    return self._checked(observation)

  def step(self, action):
    """(reward, done, game_over, observation), with `done` and `game_over` as in `StepOutput`.

    Where a game has ended, the observation is the first of the next one. A time limit is no end for
    learning: its last observation is shown, and the step after it only leads to the next game.
    """
    reward, done, game_over, observation = self._play(action)
    return reward, done, game_over, self._next(done, game_over, observation)

  def step_and_render(self, action):
    """As `step`, and the picture uint8 [H, W, 3], taken before the next game begins."""
    reward, done, game_over, observation = self._play(action)
    picture = self.render()
    return reward, done, game_over, self._next(done, game_over, observation), picture

  def render(self):
    """The picture of now, uint8 [H, W, 3]."""
    return np.asarray(self._env.render(), np.uint8)

  def _play(self, action):
    """As `step`, but with the last observation of a game that has ended."""
    if self._truncated:
      return 0.0, True, False, self.reset()
    total = 0.0
    for _ in range(self._num_action_repeats):
      observation, reward, terminated, truncated, _ = self._env.step(self._first_action + action)
      total += float(reward)
      if terminated or truncated:
        self._truncated = not terminated
        return (
          total,
          bool(terminated),
          True,
          observation if terminated else self._checked(observation),
        )
    return total, False, False, self._checked(observation)

  def _next(self, done, game_over, observation):
    return self.reset() if done and game_over else observation

  def close(self):
    """Closes the environment."""
    self._env.close()

  def _checked(self, observation):
    converted = self._convert(observation)
    if converted.shape != self._shape:
      raise ValueError(
        f'observation of shape {converted.shape} where the space promises {self._shape}'
      )
    return converted


def _make(level_name, **kwargs):
  gymnasium.logger.min_level = gymnasium.logger.ERROR
  module, separator, env_id = level_name.rpartition(':')
  try:
    if separator:
      importlib.import_module(module)
    return _make_registered(env_id, **kwargs)
  except Exception as error:
    if _is_unknown(error):
      closest = difflib.get_close_matches(env_id, _known_ids(), 3, cutoff=0.0)
      raise ValueError(
        f'level_name {level_name!r} is known to neither Gymnasium nor OpenAI Gym; the closest are '
        f'{", ".join(closest)}'
      ) from error
    reason = ' '.join(str(error).split())
    raise ValueError(
      f'level_name {level_name!r} cannot be made: {type(error).__name__}: {reason}'
    ) from error


def _make_registered(env_id, **kwargs):
  try:
    return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
  except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv):
    # Its checker uses np.bool8, which NumPy 2 no longer has.
    return _openai_gym().make(env_id, disable_env_checker=True, **kwargs)


def _openai_gym():
  # It prints a notice that it is no longer maintained.
  with contextlib.redirect_stderr(io.StringIO()):
    import gym
  gym.logger.set_level(gym.logger.ERROR)
  return gym


def _is_unknown(error):
  """Whether OpenAI Gym, which is asked last, does not have an id; old versions count as unknown."""
  errors = _openai_gym().error
  return isinstance(error, (errors.UnregisteredEnv, errors.DeprecatedEnv))


def _known_ids():
  import ale_py

  gymnasium.register_envs(ale_py)
  return sorted({*gymnasium.registry, *_openai_gym().envs.registry})


def _observation(level_name, env):
  """Shape, dtype and conversion of what an environment shows, by its space."""
  space = env.observation_space
  kind, shape, dtype = type(space).__name__, space.shape, space.dtype
  if kind == 'Discrete':
    one_hot = np.eye(int(space.n), dtype=np.float32)
    return (int(space.n),), 'float32', lambda value: one_hot[int(value) - int(space.start)]
  if kind == 'Box' and len(shape) == 3 and dtype == np.uint8:
    return shape, 'uint8', lambda value: np.asarray(value, np.uint8)
  if kind == 'Box' and len(shape) == 3 and dtype == np.bool_:
    return shape, 'uint8', lambda value: np.asarray(value, np.uint8) * np.uint8(255)
  if kind == 'Box' and len(shape) < 3:
    size = int(np.prod(shape))
    return (size,), 'float32', lambda value: np.asarray(value, np.float32).reshape(-1)
  raise ValueError(
    f'level_name {level_name!r} has the observation space {space}; supported are images (Box of '
    'height x width x channels, uint8 or bool), vectors (Box of up to two axes) and Discrete'
  )


def _actions(level_name, env):
  """First action and number of actions."""
  space = env.action_space
  if type(space).__name__ != 'Discrete':
    raise ValueError(
      f'level_name {level_name!r} has the action space {space}; supported is Discrete'
    )
  return int(space.start), int(space.n)
