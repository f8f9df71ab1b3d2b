"""Any Gym id as a batch of N environments, stepped together by one operation of the graph.

Atari games get the treatment of IMPALA (Espeholt et al. 2018, arXiv 1802.01561), Table G.1, from
ale_py's vector environment (`envs/atari.py`). Every other environment runs in a process of its own
(`envs/process_batch.py`). Levels are checked before TensorFlow is there, so importing this module
does not import it.
"""

import collections
import threading

from envs import atari, process_batch
from structs import StepOutput, StepOutputInfo

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
  is_atari = atari.is_atari(level_name)
  if is_atari:
    repeats = num_action_repeats or atari.ACTION_REPEATS
    observation_and_actions = atari.probe(level_name, repeats, width, height)
  else:
    repeats = num_action_repeats or 1
    observation_and_actions = process_batch.probe(level_name)
  return EnvironmentSpec(level_name, *observation_and_actions, repeats, is_atari)


def stacks_frames(level_name):
  """Whether the observations of a level are stacks, each with one frame that is new."""
  return atari.is_atari(level_name)


def most_frames(level_name, num_action_repeats, max_episode_frames):
  """Environment frames after which a game that is played to its end is cut off all the same.

  Args:
    level_name: as for `environment_spec`.
    num_action_repeats: frames per agent step.
    max_episode_frames: what was asked for; 0: 30 minutes of Atari, of others as many agent steps.
  """
  atari_frames = atari.MAX_FRAMES
  if max_episode_frames or atari.is_atari(level_name):
    return max_episode_frames or atari_frames
  return atari_frames // atari.ACTION_REPEATS * num_action_repeats


def most_steps(level_name, num_action_repeats, max_episode_frames):
  """Agent steps of a game that is cut off after so many environment frames, at least."""
  if atari.is_atari(level_name):
    max_episode_frames = max(1, max_episode_frames - atari.MAX_NOOPS)
  return -(-max_episode_frames // num_action_repeats)


def create_environment(
  level_name,
  num_envs,
  seed,
  num_action_repeats=0,
  width=84,
  height=84,
  atari_overrides=None,
  max_episode_frames=None,
):
  """A batch of environments as graph operations.

  Args:
    level_name: as for `environment_spec`.
    num_envs: N.
    seed: int >= 0 of the whole batch; environment i derives its own from (seed, i).
    num_action_repeats: frames per agent step; 0 means 4 for Atari and 1 elsewhere.
    width: of Atari observations, in pixels.
    height: of Atari observations, in pixels.
    atari_overrides: dict of arguments of `atari.AtariBatch`, for an Atari level only.
    max_episode_frames: after which a game is cut off, as by a time limit; None: as the level says.

  Returns:
    A `FlowEnvironment`.

  Raises:
    ValueError: as for `environment_spec`.
  """
  spec = environment_spec(level_name, num_action_repeats, width, height)
  limit = max_episode_frames or 0
  if spec.is_atari:
    limits = dict(max_num_frames_per_episode=limit) if limit else {}
    batch = atari.AtariBatch(spec, num_envs, seed, **(atari_overrides or {}) | limits)
  else:
    batch = process_batch.ProcessBatch(spec, num_envs, seed, -(-limit // spec.num_action_repeats))
  return FlowEnvironment(spec, batch)


def atari_arguments(level_name, num_action_repeats, width, height):
  """What ale_py's vector environment is given for an Atari level; None for any other."""
  if not atari.is_atari(level_name):
    return None
  return atari.vector_arguments(level_name, num_action_repeats, width, height)


class FlowEnvironment:
  """A batch of N environments as graph operations; the state handed on forces the order of steps.

  Attributes:
    spec: EnvironmentSpec.
    num_envs: N.
  """

  def __init__(self, spec, batch):
    """Takes a batch as `envs/batch.py` describes it."""
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
