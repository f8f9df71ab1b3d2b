"""Any Gym id as a batch of N environments, stepped together by one operation of the graph.

Atari games get the treatment of IMPALA (Espeholt et al. 2018, arXiv 1802.01561), Table G.1, from
ale_py's vector environment (`envs/atari.py`). Every other environment runs in a process of its own
(`envs/process_batch.py`). Levels are checked before TensorFlow is there, so importing this module
does not import it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from envs import atari, process_batch
from structs import StepOutput, StepOutputInfo

if TYPE_CHECKING:
  import tensorflow as tf


class EnvironmentSpec(NamedTuple):
  """What an agent must know of a level.

  Attributes:
    level_name: the Gym id.
    observation_shape: of one environment's observation, (H, W, C) or (D,).
    observation_dtype: 'uint8' or 'float32'.
    num_actions: actions are 0 to num_actions - 1.
    num_action_repeats: environment frames per agent step.
    is_atari: whether ale_py plays it.
  """

  level_name: str
  observation_shape: tuple[int, ...]
  observation_dtype: str
  num_actions: int
  num_action_repeats: int
  is_atari: bool


def environment_spec(
  level_name: str, num_action_repeats: int = 0, width: int = 84, height: int = 84
) -> EnvironmentSpec:
  """Returns the `EnvironmentSpec` of a level, without TensorFlow.

  Ids `ALE/*-v5` have sticky actions, `*NoFrameskip-v4` (as in the paper) do not.

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


def stacks_frames(level_name: str) -> bool:
  """Returns whether observations of a level are stacks of frames, each with one new frame."""
  return atari.is_atari(level_name)


def most_frames(level_name: str, num_action_repeats: int, max_episode_frames: int) -> int:
  """Returns the environment frames after which a game is cut off where whole games are played.

  Args:
    level_name: as for `environment_spec`.
    num_action_repeats: frames per agent step.
    max_episode_frames: the limit set by the user; 0: 30 minutes of Atari, elsewhere as many agent
      steps.
  """
  atari_frames = atari.MAX_FRAMES
  if max_episode_frames or atari.is_atari(level_name):
    return max_episode_frames or atari_frames
  return atari_frames // atari.ACTION_REPEATS * num_action_repeats


def most_steps(level_name: str, num_action_repeats: int, max_episode_frames: int) -> int:
  """Returns the fewest agent steps of a game that is cut off after so many environment frames."""
  if atari.is_atari(level_name):
    max_episode_frames = max(1, max_episode_frames - atari.MAX_NOOPS)
  return -(-max_episode_frames // num_action_repeats)


def create_environment(
  level_name: str,
  num_envs: int,
  seed: int,
  num_action_repeats: int = 0,
  width: int = 84,
  height: int = 84,
  atari_overrides: dict[str, Any] | None = None,
  max_episode_frames: int | None = None,
) -> FlowEnvironment:
  """Returns a batch of environments as graph operations.

  Args:
    level_name: as for `environment_spec`.
    num_envs: N.
    seed: int >= 0 of the whole batch; environment i derives its own from (seed, i).
    num_action_repeats: frames per agent step; 0 means 4 for Atari and 1 elsewhere.
    width: of Atari observations, in pixels.
    height: of Atari observations, in pixels.
    atari_overrides: dict of arguments of `atari.AtariBatch`, for an Atari level only.
    max_episode_frames: after which a game is cut off, as by a time limit; None: as the level says.

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


def atari_arguments(
  level_name: str, num_action_repeats: int, width: int, height: int
) -> dict[str, Any] | None:
  """Returns the arguments of ale_py's vector environment; None for levels that are not Atari."""
  if not atari.is_atari(level_name):
    return None
  return atari.vector_arguments(level_name, num_action_repeats, width, height)


class FlowEnvironment:
  """A batch of N environments as graph operations; the state handed on forces the order of steps.

  Attributes:
    spec: EnvironmentSpec.
    num_envs: N.
  """

  def __init__(self, spec: EnvironmentSpec, batch: atari.AtariBatch | process_batch.ProcessBatch):
    """Takes a batch as `envs/batch.py` describes it."""
    self.spec = spec
    self.num_envs = batch.num_envs
    self._batch = batch
    self._closed = False
    self._lock = threading.Lock()  # A new session may start while a lost one still steps.

  @property
  def crashes(self) -> int:
    """Workers rebuilt so far."""
    return self._batch.crashes

  def initial(self) -> tuple[StepOutput, tf.Tensor]:
    """Builds the operation that starts all games anew.

    Returns:
      StepOutput of [N, ...] with done=True and zeros beside the observation, and the state.
    """
    import tensorflow as tf

    return self._call(self._batch.reset, [], tf.constant(0))

  def step(self, action: tf.Tensor, state: tf.Tensor) -> tuple[StepOutput, tf.Tensor]:
    """Builds one agent step of every environment.

    Args:
      action: int32 [N].
      state: from `initial` or the last `step`.

    Returns:
      StepOutput of [N, ...] and the new state.
    """
    return self._call(lambda action, _: self._batch.step(action), [action, state], state + 1)

  def close(self) -> None:
    """Ends the environments, also during a step; may be called twice."""
    self._closed = True
    self._batch.close()

  def _call(
    self, function: Callable[..., StepOutput], inputs: list[tf.Tensor], next_state: tf.Tensor
  ) -> tuple[StepOutput, tf.Tensor]:
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
    # The next step waits for the reward of this one.
    with tf.control_dependencies([reward]):
      next_state = tf.identity(next_state)
    return StepOutput(reward, info, done, observation), next_state

  def _run(self, function: Callable[..., StepOutput], *args: Any) -> tuple:
    with self._lock:
      if self._closed:
        raise RuntimeError(f'the environments of {self.spec.level_name} are closed')
      reward, info, done, observation = function(*args)
    return reward, *info, done, observation
