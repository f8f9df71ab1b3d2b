"""Any Gym id as a batch of N environments, stepped together by one operation of the TensorFlow graph.

Atari games get the treatment of IMPALA (Espeholt et al. 2018, arXiv 1802.01561), Table G.1, from
ale_py's vector environment.
"""

import collections
import os

import ale_py
import cv2
import gymnasium
import numpy as np
from ale_py import vector_env

StepOutput = collections.namedtuple('StepOutput', 'reward info done observation')
StepOutput.__doc__ = """What one step of N environments gives.

Attributes:
  reward: float32 [N], raw, the sum over the action's repeats.
  info: StepOutputInfo of [N].
  done: bool [N], the end of an episode for learning. A time limit (`truncated`) counts as one too: it
    is treated as terminal, with discount 0. When `done`, the observation is already the first of the
    next episode.
  observation: uint8 [N, H, W, C] or float32 [N, D].
"""

StepOutputInfo = collections.namedtuple('StepOutputInfo', 'episode_return episode_step game_over')
StepOutputInfo.__doc__ = """The score of each of N games.

Attributes:
  episode_return: float32 [N], raw score of the whole game so far, over all its lives.
  episode_step: int32 [N], agent steps of the whole game so far.
  game_over: bool [N], the game has ended; return and step are its totals and restart at 0 after this
    entry. `done` without `game_over` is a lost life (return and step go on), the entry before the
    first action, or a game that crashed and is not counted (return and step are 0).
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

gymnasium.register_envs(ale_py)


def environment_spec(level_name, num_action_repeats=0, width=84, height=84):
  """The `EnvironmentSpec` of a level, without TensorFlow.

  Args:
    level_name: Gym id.
    num_action_repeats: frames per agent step; 0 means 4 for Atari and 1 elsewhere.
    width: of Atari observations, in pixels.
    height: of Atari observations, in pixels.

  Raises:
    ValueError: the level is unknown or cannot be played.
  """
  repeats = num_action_repeats or ATARI_ACTION_REPEATS
  probe = _make_atari(level_name, 1, repeats, width, height)
  return EnvironmentSpec(
      level_name=level_name,
      observation_shape=(height, width, ATARI_FRAME_STACK),
      observation_dtype='uint8',
      num_actions=int(probe.single_action_space.n),
      num_action_repeats=repeats,
      is_atari=True,
  )


def create_environment(level_name, num_envs, seed, num_action_repeats=0, width=84, height=84):
  """A batch of environments as graph operations.

  Args:
    level_name: Gym id.
    num_envs: N.
    seed: int >= 0 of the whole batch; environment i derives its own from (seed, i).
    num_action_repeats: frames per agent step; 0 means 4 for Atari and 1 elsewhere.
    width: of Atari observations, in pixels.
    height: of Atari observations, in pixels.

  Returns:
    A `FlowEnvironment`.

  Raises:
    ValueError: the level is unknown or cannot be played.
  """
  spec = environment_spec(level_name, num_action_repeats, width, height)
  return FlowEnvironment(spec, AtariBatch(spec, environment_seeds(seed, num_envs)))


def environment_seeds(seed, num_envs):
  """int32 [num_envs]: the seed of each environment of a batch, derived from (seed, index)."""
  states = [np.random.SeedSequence([seed, i]).generate_state(1)[0] for i in range(num_envs)]
  return (np.array(states) >> 1).astype(np.int32)


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
    """Ends the environments; may be called twice."""
    self._batch.close()

  def _call(self, function, inputs, next_state):
    import tensorflow as tf

    output_types = (tf.float32, tf.float32, tf.int32, tf.bool, tf.bool, self.spec.observation_dtype)
    outputs = tf.numpy_function(
        lambda *args: tuple(_flatten(function(*args))), inputs, output_types, stateful=True
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


def _flatten(step_output):
  reward, info, done, observation = step_output
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

  def add(self, reward, game_over):
    """The StepOutputInfo after a step with float32 [N] rewards; ended games restart after it."""
    self._returns += reward
    self._steps += 1
    return self.report(game_over)

  def report(self, game_over):
    """The StepOutputInfo as it stands; games that are over restart after it."""
    info = StepOutputInfo(self._returns.copy(), self._steps.copy(), game_over)
    self.restart(game_over)
    return info


class AtariBatch:
  """N Atari games in ale_py's vector environment (C++ threads).

  Args:
    spec: EnvironmentSpec.
    seeds: int32 [N], for no-ops and sticky actions.
  """

  crashes = 0

  def __init__(self, spec, seeds):
    height, width, _ = spec.observation_shape
    self.num_envs = len(seeds)
    self._envs = _make_atari(
        spec.level_name, self.num_envs, spec.num_action_repeats, width, height
    )
    self._seeds = seeds
    self._totals = GameTotals(self.num_envs)
    self._frames = None  # int32 [N], emulator frames of the running game.

  def reset(self):
    """StepOutput of all games from the start; the seeds apply to the first call."""
    observation, info = self._envs.reset(seed=self._seeds)
    self._seeds = None
    self._frames = info['episode_frame_number']
    everywhere = np.ones(self.num_envs, bool)
    self._totals.restart(everywhere)
    return StepOutput(
        reward=np.zeros(self.num_envs, np.float32),
        info=self._totals.report(~everywhere),
        done=everywhere,
        observation=channels_last(observation),
    )

  def step(self, actions):
    """StepOutput after int32 [N] actions."""
    observation, reward, terminated, truncated, info = self._envs.step(actions)
    done = terminated | truncated
    # A lost life is `terminated` too. Only the end of a game starts the count of frames anew.
    game_over = truncated | (done & (info['episode_frame_number'] <= self._frames))
    self._frames = info['episode_frame_number']
    reward = reward.astype(np.float32)
    return StepOutput(
        reward, self._totals.add(reward, game_over), done, channels_last(observation)
    )

  def close(self):
    """Ends the threads; may be called twice."""
    self._envs = None


def _make_atari(level_name, num_envs, num_action_repeats, width, height):
  kwargs = gymnasium.spec(level_name).kwargs
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
  num_envs, channels, height, width = frames.shape
  planes = frames.reshape(num_envs, channels, height * width)
  merged = cv2.merge([planes[:, c] for c in range(channels)])
  return merged.reshape(num_envs, height, width, channels)
