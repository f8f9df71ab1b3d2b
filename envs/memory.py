"""Any Gym id as a batch of N environments, stepped together by one operation of the graph.

Atari games get the treatment of IMPALA (Espeholt et al. 2018, arXiv 1802.01561), Table G.1, from
ale_py's vector environment. Every other environment runs in a process of its own. This module is
imported there too, so it imports neither TensorFlow nor ale_py nor OpenCV by itself.
"""

import collections
import contextlib
import difflib
import functools
import importlib
import io
import os
import random
import threading

import gymnasium
import numpy as np
from absl import logging

import py_process

StepOutput = collections.namedtuple('StepOutput', 'reward info done observation')
StepOutput.__doc__ = """What one step of N environments gives.

Attributes:
  reward: float32 [N], raw, the sum over the action's repeats.
  info: StepOutputInfo of [N].
  done: bool [N], the end of an episode for learning. A time limit (`truncated`) counts as one
    too: it is treated as terminal, with discount 0. When `done`, the observation is already the
    first of the next episode.
  observation: uint8 [N, H, W, C] (bool images as 0 and 255) or float32 [N, D] (vectors flattened,
    Discrete observations one-hot).
"""

StepOutputInfo = collections.namedtuple('StepOutputInfo', 'episode_return episode_step game_over')
StepOutputInfo.__doc__ = """The score of each of N games.

Attributes:
  episode_return: float32 [N], raw score of the whole game so far, over all its lives.
  episode_step: int32 [N], agent steps of the whole game so far.
  game_over: bool [N], the game has ended; return and step are its totals and restart at 0 after
    this entry. `done` without `game_over` is a lost life (return and step go on), the entry before
    the first action, or a game that crashed and is not counted (return and step are 0).
"""

EnvironmentSpec = collections.namedtuple(
  'EnvironmentSpec',
  'level_name observation_shape observation_dtype num_actions num_action_repeats is_atari',
)
EnvironmentSpec.__doc__ = """What an agent must know of a level.

Attributes:
  level_name: the Gym id.
  observation_shape: tuple of one environment's observation, (H, W, C) or (D,).
  observation_dtype: 'uint8' or 'float32'.
  num_actions: actions are 0 to num_actions - 1.
  num_action_repeats: environment frames per agent step.
  is_atari: whether ale_py plays it.
"""

# IMPALA, Table G.1.
ATARI_ACTION_REPEATS = 4
ATARI_FRAME_STACK = 4
ATARI_MAX_NOOPS = 30
_ATARI_ENTRY_POINT = 'ale_py.env:AtariEnv'

# So many crashes of one environment without a game played to its end, and the batch gives up.
MAX_CRASHES_IN_A_ROW = 10


def environment_spec(level_name, num_action_repeats=0, width=84, height=84):
  """The `EnvironmentSpec` of a level, without TensorFlow.

  Sticky actions are the id's own: `ALE/*-v5` has them, `*NoFrameskip-v4` (as in the paper) has not.

  Args:
    level_name: Gym id, in Gymnasium or else in OpenAI Gym; `module:Id` imports the module first.
    num_action_repeats: frames per agent step; 0 means 4 for Atari and 1 elsewhere.
    width: of Atari observations, in pixels; other images keep their own size.
    height: of Atari observations, in pixels.

  Raises:
    ValueError: the level is unknown, cannot be made, or has spaces that no agent here can play.
  """
  if _atari_kwargs(level_name) is None:
    shape, dtype, num_actions = _probe(level_name)
    return EnvironmentSpec(level_name, shape, dtype, num_actions, num_action_repeats or 1, False)
  repeats = num_action_repeats or ATARI_ACTION_REPEATS
  envs = _make_atari(level_name, 1, repeats, width, height)
  shape, num_actions = (height, width, ATARI_FRAME_STACK), int(envs.single_action_space.n)
  return EnvironmentSpec(level_name, shape, 'uint8', num_actions, repeats, True)


def create_environment(level_name, num_envs, seed, num_action_repeats=0, width=84, height=84):
  """A batch of environments as graph operations.

  Args:
    level_name: as for `environment_spec`.
    num_envs: N.
    seed: int >= 0 of the whole batch; environment i derives its own from (seed, i).
    num_action_repeats: frames per agent step; 0 means 4 for Atari and 1 elsewhere.
    width: of Atari observations, in pixels.
    height: of Atari observations, in pixels.

  Returns:
    A `FlowEnvironment`.

  Raises:
    ValueError: as for `environment_spec`.
  """
  spec = environment_spec(level_name, num_action_repeats, width, height)
  batch_class = AtariBatch if spec.is_atari else ProcessBatch
  return FlowEnvironment(spec, batch_class(spec, num_envs, seed))


def environment_seed(*entropy):
  """An int below 2**31 that depends on every one of the given ints >= 0."""
  return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)


class FlowEnvironment:
  """A batch of N environments as graph operations; the state handed on forces the order of steps.

  Attributes:
    spec: EnvironmentSpec.
    num_envs: N.
  """

  def __init__(self, spec, batch):
    """Takes a batch that has num_envs, crashes, reset(), step(actions) and close()."""
    self.spec = spec
    self.num_envs = batch.num_envs
    self._batch = batch
    self._closed = False
    self._lock = threading.Lock()  # A new session may start while a lost one still steps.

  @property
  def crashes(self):
    """Workers rebuilt so far."""
    return self._batch.crashes

  def initial(self):
    """Starts all games anew when it is evaluated.

    Returns:
      StepOutput of [N, ...] with done=True and zeros beside the observation, and the state.
    """
    import tensorflow as tf

    return self._call(self._batch.reset, [], tf.constant(0))

  def step(self, action, state):
    """One agent step of every environment.

    Args:
      action: int32 [N].
      state: what `initial` or the `step` before gave.

    Returns:
      StepOutput of [N, ...] and the new state.
    """
    return self._call(lambda action, _: self._batch.step(action), [action, state], state + 1)

  def close(self):
    """Ends the environments, also during a step; may be called twice."""
    self._closed = True
    self._batch.close()

  def _call(self, function, inputs, next_state):
    import tensorflow as tf

    output_types = (tf.float32, tf.float32, tf.int32, tf.bool, tf.bool, self.spec.observation_dtype)
    outputs = tf.numpy_function(
      lambda *args: self._run(function, *args), inputs, output_types, stateful=True
    )
    shapes = [[self.num_envs]] * 5 + [[self.num_envs, *self.spec.observation_shape]]
    for output, shape in zip(outputs, shapes):
      output.set_shape(shape)
    reward, episode_return, episode_step, game_over, done, observation = outputs
    info = StepOutputInfo(episode_return, episode_step, game_over)
    # The next step cannot begin before this one has given its reward.
    with tf.control_dependencies([reward]):
      next_state = tf.identity(next_state)
    return StepOutput(reward, info, done, observation), next_state

  def _run(self, function, *args):
    with self._lock:
      if self._closed:
        raise RuntimeError(f'the environments of {self.spec.level_name} are closed')
      reward, info, done, observation = function(*args)
    return reward, *info, done, observation


class GameTotals:
  """Return and length of N running games."""

  def __init__(self, num_envs):
    self._returns = np.zeros(num_envs, np.float32)
    self._steps = np.zeros(num_envs, np.int32)

  def restart(self, which):
    """Counts from 0 again where the bool [N] `which` is set."""
    self._returns[which] = 0
    self._steps[which] = 0

  def first(self, observation):
    """The StepOutput before the first action; all games restart."""
    everywhere = np.ones(len(self._steps), bool)
    self.restart(everywhere)
    return StepOutput(
      np.zeros_like(self._returns), self._info(~everywhere), everywhere, observation
    )

  def next(self, reward, done, game_over, crashed, observation):
    """The StepOutput after an action; games that are over restart after it, crashed ones before."""
    self._returns += reward
    self._steps += 1
    self.restart(crashed)
    info = self._info(game_over)
    self.restart(game_over)
    return StepOutput(reward, info, done, observation)

  def _info(self, game_over):
    return StepOutputInfo(self._returns.copy(), self._steps.copy(), game_over)


# Atari.


class AtariBatch:
  """N Atari games in ale_py's vector environment (C++ threads).

  Args:
    spec: EnvironmentSpec.
    num_envs: N.
    seed: of the batch, for no-ops and sticky actions.
  """

  crashes = 0

  def __init__(self, spec, num_envs, seed):
    height, width, _ = spec.observation_shape
    self.num_envs = num_envs
    self._envs = _make_atari(spec.level_name, num_envs, spec.num_action_repeats, width, height)
    self._seeds = np.array([environment_seed(seed, i) for i in range(num_envs)], np.int32)
    self._totals = GameTotals(num_envs)
    self._frames = None  # int32 [N], emulator frames of the running game.
    self._never = np.zeros(num_envs, bool)

  def reset(self):
    """StepOutput of all games from the start; the seeds apply to the first call."""
    observation, info = self._envs.reset(seed=self._seeds)
    self._seeds = None
    self._frames = info['episode_frame_number']
    return self._totals.first(channels_last(observation))

  def step(self, actions):
    """StepOutput after int32 [N] actions."""
    observation, reward, terminated, truncated, info = self._envs.step(actions)
    done = terminated | truncated
    # A lost life is `terminated` too. Only the end of a game starts the count of frames anew.
    game_over = truncated | (done & (info['episode_frame_number'] <= self._frames))
    self._frames = info['episode_frame_number']
    return self._totals.next(
      reward.astype(np.float32), done, game_over, self._never, channels_last(observation)
    )

  def close(self):
    """Ends the threads; may be called twice."""
    self._envs = None


def _atari_kwargs(level_name):
  """The registered arguments of an Atari id, None for any other id."""
  import ale_py

  gymnasium.register_envs(ale_py)
  spec = gymnasium.registry.get(level_name.removeprefix('ale_py:'))
  if spec is None or spec.entry_point != _ATARI_ENTRY_POINT:
    return None
  if not isinstance(spec.kwargs['frameskip'], int):
    raise ValueError(
      f'level_name {level_name!r} repeats actions a random number of times; its games with a fixed '
      f'number are {spec.name}NoFrameskip-{"v4" if spec.version == 4 else "v0"} and '
      f'ALE/{spec.name}-v5'
    )
  return spec.kwargs


def _make_atari(level_name, num_envs, num_action_repeats, width, height):
  import ale_py
  from ale_py import vector_env

  kwargs = _atari_kwargs(level_name)
  ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
  return vector_env.AtariVectorEnv(
    kwargs['game'],
    num_envs,
    num_threads=min(num_envs, len(os.sched_getaffinity(0))),
    max_num_frames_per_episode=kwargs['max_num_frames_per_episode'],
    repeat_action_probability=kwargs['repeat_action_probability'],
    full_action_space=kwargs['full_action_space'],
    # The other modes restart the whole game at a lost life, or spend a step on the restart.
    autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    life_loss_info=True,
    reward_clipping=False,
    img_height=height,
    img_width=width,
    stack_num=ATARI_FRAME_STACK,
    frameskip=num_action_repeats,
    noop_max=ATARI_MAX_NOOPS,
  )


def channels_last(frames):
  """uint8 [N, C, H, W] -> [N, H, W, C], C at most 4.

  OpenCV interleaves 32 stacks of Atari frames in 0.04 ms; numpy's transpose takes 0.63 ms and
  TensorFlow's 0.49 ms.
  """
  import cv2

  num_envs, channels, height, width = frames.shape
  planes = frames.reshape(num_envs, channels, height * width)
  merged = cv2.merge([planes[:, c] for c in range(channels)])
  return merged.reshape(num_envs, height, width, channels)


# Every other environment.


class ProcessBatch:
  """N environments, each in a process of its own, stepped at the same time.

  One that crashes (its process dies, or it raises an exception) is rebuilt: its game is not counted
  and the others go on.

  Args:
    spec: EnvironmentSpec.
    num_envs: N.
    seed: of the batch.

  Attributes:
    crashes: environments rebuilt so far.

  Raises:
    py_process.WorkerError: an environment cannot be constructed.
  """

  def __init__(self, spec, num_envs, seed):
    self.num_envs = num_envs
    self.crashes = 0
    self._spec, self._seed = spec, seed
    self._totals = GameTotals(num_envs)
    self._crashes_in_a_row = np.zeros(num_envs, np.int32)
    self._closed = False
    self._lock = threading.Lock()  # Nothing is rebuilt while or after the batch is closed.
    self._workers = [self._worker(i) for i in range(num_envs)]
    py_process.start_all(self._workers)

  def reset(self):
    """StepOutput of all games from the start; the seeds apply to the first call."""
    results = py_process.call_all(self._workers, 'reset', [()] * self.num_envs)
    for i, result in enumerate(results):
      if isinstance(result, py_process.WorkerError):
        results[i] = self._rebuild(i, result)
    return self._totals.first(np.stack(results))

  def step(self, actions):
    """StepOutput after int32 [N] actions."""
    results = py_process.call_all(self._workers, 'step', [(int(a),) for a in actions])
    crashed = np.zeros(self.num_envs, bool)
    for i, result in enumerate(results):
      if isinstance(result, py_process.WorkerError):
        crashed[i] = True
        results[i] = 0.0, True, self._rebuild(i, result)
    reward, done, observation = zip(*results)
    done = np.array(done)
    game_over = done & ~crashed
    self._crashes_in_a_row[game_over] = 0
    return self._totals.next(
      np.array(reward, np.float32), done, game_over, crashed, np.stack(observation)
    )

  def close(self):
    """Ends the processes; may be called twice."""
    self._closed = True
    with self._lock:
      py_process.close_all(self._workers)

  def _worker(self, i, *attempt):
    seed = environment_seed(self._seed, i, *attempt)
    return py_process.Worker(
      GymEnvironment, self._spec.level_name, seed, self._spec.num_action_repeats
    )

  def _rebuild(self, i, error):
    """Replaces environment i until one starts; returns its first observation."""
    while True:
      self._count_crash(i, error)
      with self._lock:
        if self._closed:
          raise RuntimeError(f'the environments of {self._spec.level_name} are closed') from error
        self._workers[i].close()
        # Another seed than before, or the same game might crash the same way.
        self._workers[i] = self._worker(i, self.crashes)
        try:
          self._workers[i].start()
          return self._workers[i].call('reset')
        except py_process.WorkerError as next_error:
          error = next_error

  def _count_crash(self, i, error):
    if self._closed:
      return
    self.crashes += 1
    self._crashes_in_a_row[i] += 1
    if self._crashes_in_a_row[i] >= MAX_CRASHES_IN_A_ROW:
      raise RuntimeError(
        f'environment {i} of {self._spec.level_name} crashed {MAX_CRASHES_IN_A_ROW} times in a '
        f'row, the last time because {error}'
      ) from error
    logging.warning(
      'environment %d of %s crashed and is rebuilt, its game is not counted: %s',
      i,
      self._spec.level_name,
      error,
    )


@functools.cache
def _probe(level_name):
  """Observation shape, dtype and number of actions, found out in a process of its own."""
  worker = py_process.Worker(GymEnvironment, level_name, 0, 1)
  try:
    worker.start()
    return worker.call('spec')
  except py_process.WorkerDied as error:
    raise ValueError(f'level_name {level_name!r} cannot be made: {error}') from error
  except py_process.WorkerError as error:
    raise ValueError(error.message) from error
  finally:
    worker.close()


class GymEnvironment:
  """One environment inside its worker process.

  Args:
    level_name: Gym id.
    seed: int, of the first reset.
    num_action_repeats: how often an action is repeated; rewards are summed.

  Raises:
    ValueError: the id is unknown, the environment cannot be made, or a space is not supported.
  """

  def __init__(self, level_name, seed, num_action_repeats):
    self._env = _make(level_name)
    self._num_action_repeats = num_action_repeats
    self._shape, self._dtype, self._convert = _observation(level_name, self._env)
    self._first_action, self._num_actions = _actions(level_name, self._env)
    self._seed = seed
    # For environments that know nothing of their own generators.
    random.seed(seed)
    np.random.seed(seed)

  def spec(self):
    """Observation shape, dtype and number of actions."""
    return self._shape, self._dtype, self._num_actions

  def reset(self):
    """The first observation of a new game."""
    observation, _ = self._env.reset(seed=self._seed)
    self._seed = None
    return self._checked(observation)

  def step(self, action):
    """(reward, done, observation); when done, the observation is the first of the next game."""
    total = 0.0
    for _ in range(self._num_action_repeats):
      observation, reward, terminated, truncated, _ = self._env.step(self._first_action + action)
      total += float(reward)
      if terminated or truncated:
        return total, True, self.reset()
    return total, False, self._checked(observation)

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


def _make(level_name):
  gymnasium.logger.min_level = gymnasium.logger.ERROR
  module, separator, env_id = level_name.rpartition(':')
  try:
    if separator:
      importlib.import_module(module)
    return _make_registered(env_id)
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


def _make_registered(env_id):
  try:
    return gymnasium.make(env_id, disable_env_checker=True)
  except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv):
    # Its checker uses np.bool8, which NumPy 2 no longer has.
    return _openai_gym().make(env_id, disable_env_checker=True)


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


# Two environments that are cheap enough for tests.


class Catch(gymnasium.Env):
  """A ball falls down a board of 10 x 5; the paddle below must be under it in the end.

  The rules of bsuite (Osband et al. 2019, arXiv 1908.03568): 9 steps, actions left, stay, right,
  reward +1 for a catch and -1 for a miss, at the end.
  """

  rows, columns = 10, 5

  def __init__(self):
    shape = (self.rows, self.columns, 1)
    self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
    self.action_space = gymnasium.spaces.Discrete(3)

  def reset(self, *, seed=None, options=None):
    """The ball starts in a random column, the paddle in the middle."""
    super().reset(seed=seed)
    self._ball = [0, int(self.np_random.integers(self.columns))]
    self._paddle = self.columns // 2
    return self._board(), {}

  def step(self, action):
    """Moves the paddle by action - 1 and the ball down."""
    self._paddle = min(max(self._paddle + int(action) - 1, 0), self.columns - 1)
    self._ball[0] += 1
    landed = self._ball[0] == self.rows - 1
    reward = (1.0 if self._ball[1] == self._paddle else -1.0) if landed else 0.0
    return self._board(), reward, landed, False, {}

  def _board(self):
    board = np.zeros((self.rows, self.columns, 1), np.uint8)
    board[tuple(self._ball)] = 255
    board[self.rows - 1, self._paddle] = 255
    return board


class Memory(gymnasium.Env):
  """One of two cues is shown, and named again when the query comes `delay` steps later.

  Actions are wait, first cue, second cue. Before the query anything but wait ends the game with -1;
  at the query the shown cue gives +1, all else -1. An agent sees its last action, which could serve
  as its memory; as waiting is the only action that keeps the game going, it carries nothing, and
  without memory the expected return is 0 at best. Observation: float32 [first cue, second cue,
  query].
  """

  delay = 5
  wait = 0

  def __init__(self):
    self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (3,), np.float32)
    self.action_space = gymnasium.spaces.Discrete(3)

  def reset(self, *, seed=None, options=None):
    """Shows a random cue."""
    super().reset(seed=seed)
    self._cue = int(self.np_random.integers(2))
    self._step = 0
    return self._shown(), {}

  def step(self, action):
    """Waits for the query, or answers."""
    asked = self._step == self.delay
    right = int(action) == (1 + self._cue if asked else self.wait)
    self._step += 1
    reward = -1.0 if not right else float(asked)
    return self._shown(), reward, asked or not right, False, {}

  def _shown(self):
    return np.float32(
      [
        self._step == 0 and self._cue == 0,
        self._step == 0 and self._cue == 1,
        self._step == self.delay,
      ]
    )


gymnasium.register('impala/Catch-v0', entry_point='environments:Catch')
gymnasium.register('impala/Memory-v0', entry_point='environments:Memory')
