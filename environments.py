"""Makes batches of N environments from a Gym id; one graph operation steps a whole batch.

Atari games are preprocessed as in IMPALA (Espeholt et al. 2018, arXiv 1802.01561, Table G.1) and
run in ale_py's vector environment (`envs/atari.py`) where it knows their id and keywords
(`envs/atari_ids.py`). All other environments run in worker processes
(`envs/process_batch.py`). Importing this module does not import TensorFlow, so that levels can be
checked quickly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from envs import alike, atari, atari_ids, probing, process_batch
from structs import (
  ActionPart,
  ArraySpec,
  Level,
  StepOutput,
  StepOutputInfo,
  arrays_of,
  as_observation,
  level_of,
  num_actions,
)

if TYPE_CHECKING:
  import tensorflow as tf


class EnvironmentSpec(NamedTuple):
  """The observations and actions of a level.

  Attributes:
    level: `structs.Level`.
    observation: tuple of `ArraySpec`, the arrays of one environment's observation.
    action: tuple of `ActionPart`, the parts of an action.
    num_action_repeats: environment frames per agent step.
    is_atari: whether ale_py's vector environment plays the level.
  """

  level: Level
  observation: tuple[ArraySpec, ...]
  action: tuple[ActionPart, ...]
  num_action_repeats: int
  is_atari: bool

  @property
  def observation_shape(self) -> tuple[int, ...]:
    """The shape of an observation of one array, (H, W, C) or (D,)."""
    (array,) = self.observation
    return array.shape

  @property
  def observation_dtype(self) -> str:
    """The dtype of an observation of one array."""
    (array,) = self.observation
    return array.dtype

  @property
  def num_actions(self) -> int:
    """The number of actions of a Discrete space, else 0."""
    return num_actions(self.action)


def environment_spec(
  level: Level | str, num_action_repeats: int = 0, width: int = 84, height: int = 84
) -> EnvironmentSpec:
  """Returns the `EnvironmentSpec` of a level, without importing TensorFlow.

  Ids `ALE/*-v5` have sticky actions. Ids `*NoFrameskip-v4`, as in the paper, do not. The other
  spellings of Atari ids are in `envs/atari_ids.py`.

  Args:
    level: `structs.Level`, or only its id.
    num_action_repeats: frames per agent step; 0 means what the id promises for Atari (4 for images
      of `NoFrameskip`) and 1 for other levels.
    width: of Atari observations, in pixels; other images keep their size.
    height: of Atari observations, in pixels.

  Raises:
    ValueError: the level is unknown, cannot be made, or has spaces that no agent supports.
  """
  level = level_of(level)
  played = atari_ids.played(level, num_action_repeats, width, height)
  repeats = played.frames_per_step if played else num_action_repeats or 1
  is_atari = played is not None and played.vector is not None
  if is_atari:
    observation, action = atari.probe(level, repeats, width, height)
  else:
    observation, action = probing.probe(level, played.made_as if played else None)[:2]
  observation = alike.padded(observation, level.channels)
  return EnvironmentSpec(level, observation, action, repeats, is_atari)


def specs_alike(
  levels: Sequence[Level], num_action_repeats: int = 0, width: int = 84, height: int = 84
) -> list[EnvironmentSpec]:
  """Returns the specs of the levels of one agent, whose spaces and action repeats are equal.

  Args:
    levels: one or several. Several get all actions and padded images, see `envs/alike.py`.
    num_action_repeats, width, height: see `environment_spec`.

  Raises:
    ValueError: as `environment_spec`, or the levels differ.
  """
  size = num_action_repeats, width, height
  specs = [environment_spec(level, *size) for level in alike.with_all_actions(levels)]
  if channels := alike.most_channels(specs):
    specs = [environment_spec(s.level._replace(channels=channels), *size) for s in specs]
  if reason := alike.difference(specs):
    raise ValueError(reason)
  return specs


def spec_with(level: Level, spaces: Any) -> EnvironmentSpec:
  """Returns the spec of a level whose spaces are known, without making the environment.

  Args:
    level: the level.
    spaces: EnvironmentSpec or a run's settings: observation, action, num_action_repeats.
  """
  return EnvironmentSpec(
    level, spaces.observation, spaces.action, spaces.num_action_repeats, atari.is_atari(level)
  )


def stacks_frames(levels: Sequence[Level | str]) -> bool:
  """Returns whether each observation of all levels is a stack of frames with one new frame."""
  return all(map(atari.is_atari, levels))


def most_frames(level: Level | str, num_action_repeats: int, max_episode_frames: int) -> int:
  """Returns the environment frames after which a game is truncated in evaluation and videos.

  Args:
    level: see `environment_spec`.
    num_action_repeats: frames per agent step.
    max_episode_frames: the user's limit. 0 means the level's own, 108,000 frames (30 minutes), for
      Atari, and 27,000 agent steps for other levels.
  """
  others = atari_ids.MAX_FRAMES // atari_ids.ACTION_REPEATS * num_action_repeats
  return max_episode_frames or atari_ids.most_frames(level) or others


def most_steps(level: Level | str, num_action_repeats: int, max_episode_frames: int) -> int:
  """Returns the minimum number of agent steps in a game truncated by `max_episode_frames`.

  Args:
    level: see `environment_spec`.
    num_action_repeats: frames per agent step.
    max_episode_frames: environment frames after which a game is truncated; for Atari these include
      up to `atari_ids.MAX_NOOPS` no-ops, which are not agent steps.
  """
  if atari.is_atari(level):
    max_episode_frames = max(1, max_episode_frames - atari_ids.MAX_NOOPS)
  return -(-max_episode_frames // num_action_repeats)


def create_environment(
  level: Level | str,
  num_envs: int,
  seed: int,
  num_action_repeats: int = 0,
  width: int = 84,
  height: int = 84,
  atari_overrides: dict[str, Any] | None = None,
  max_episode_frames: int | None = None,
  envs_per_worker: int = 1,
  own_generators: bool = False,
) -> FlowEnvironment:
  """Returns a batch of environments with graph operations.

  Args:
    level: see `environment_spec`.
    num_envs: N.
    seed: int >= 0; environment i derives its own seed from (seed, i).
    num_action_repeats: see `environment_spec`.
    width: see `environment_spec`.
    height: see `environment_spec`.
    atari_overrides: keyword arguments of `atari.AtariBatch`; ignored for other levels.
    max_episode_frames: environment frames after which a game is truncated; None means the level's
      own limit.
    envs_per_worker: see `process_batch.ProcessBatch`; ignored for Atari.
    own_generators: see `process_batch.ProcessBatch`; ignored for Atari.

  Raises:
    ValueError: see `environment_spec`.
  """
  spec = environment_spec(level, num_action_repeats, width, height)
  limit = max_episode_frames or 0
  if spec.is_atari:
    limits = dict(max_num_frames_per_episode=limit) if limit else {}
    batch = atari.AtariBatch(spec, num_envs, seed, **(atari_overrides or {}) | limits)
  else:
    steps = -(-limit // spec.num_action_repeats)
    batch = process_batch.ProcessBatch(spec, num_envs, seed, steps, envs_per_worker, own_generators)
  return FlowEnvironment(spec, batch)


def atari_arguments(
  level: Level | str, num_action_repeats: int, width: int, height: int
) -> dict[str, Any] | None:
  """Returns the arguments of ale_py's vector environment, or None if it does not play the level."""
  if not atari.is_atari(level):
    return None
  return atari.vector_arguments(level, num_action_repeats, width, height)


def made_by(spec: EnvironmentSpec) -> dict[str, Any]:
  """Returns what makes the environments of a level, JSON-serializable.

  Returns:
    A dict of level_name, atari (arguments of ale_py's vector environment, None if it does not play
    the level) and environment (else None): the fields of the `structs.Level` that a worker process
    makes, and num_action_repeats, the steps of that environment per agent step.
  """
  made: dict[str, Any] = dict(level_name=spec.level.name, atari=None, environment=None)
  if spec.is_atari:
    height, width, _ = spec.observation_shape
    made['atari'] = atari_arguments(spec.level, spec.num_action_repeats, width, height)
  else:
    level, repeats = atari_ids.made_as(spec)
    made['environment'] = dict(**level._asdict(), num_action_repeats=repeats)
  return made


class FlowEnvironment:
  """A batch of N environments with graph operations `initial` and `step`.

  Each operation takes the state that the previous one returned, which fixes the order of steps.

  Attributes:
    spec: EnvironmentSpec.
    num_envs: N.
  """

  def __init__(self, spec: EnvironmentSpec, batch: atari.AtariBatch | process_batch.ProcessBatch):
    """Wraps a batch of environments with the interface in `envs/batch.py`."""
    self.spec = spec
    self.num_envs = batch.num_envs
    self._batch = batch
    self._closed = False
    self._lock = threading.Lock()  # A new session may start while a lost session still steps.

  @property
  def crashes(self) -> int:
    """Number of environments rebuilt so far."""
    return self._batch.crashes

  def initial(self) -> tuple[StepOutput, tf.Tensor]:
    """Builds the operation that restarts all games.

    Returns:
      A tuple (StepOutput of [N, ...], state). `done` is True; reward and info are zeros.
    """
    import tensorflow as tf

    return self._call(self._batch.reset, [], tf.constant(0))

  def step(self, action: tf.Tensor, state: tf.Tensor) -> tuple[StepOutput, tf.Tensor]:
    """Builds one agent step of every environment.

    Args:
      action: int32 or float32, [N] of a Discrete space, else [N, K], see `AgentOutput`.
      state: scalar int32, the state from `initial` or the previous `step`.

    Returns:
      A tuple (StepOutput of [N, ...], new state).
    """
    return self._call(lambda action, _: self._batch.step(action), [action, state], state + 1)

  def why_not_set(self) -> str:
    """Returns why the state of the games cannot be set in other environments, or ''."""
    return self._batch.why_not_set()

  def state(self) -> dict[str, Any]:
    """Returns the state of all games, which JSON can hold; only if `why_not_set` returns ''."""
    assert isinstance(self._batch, process_batch.ProcessBatch)
    with self._lock:
      return self._batch.state()

  def set_state(self, state: Any) -> None:
    """Sets a state in newly started games; only if `why_not_set` returns ''."""
    assert isinstance(self._batch, process_batch.ProcessBatch)
    with self._lock:
      self._batch.set_state(state)

  def close(self) -> None:
    """Closes the environments, even during a step; may be called twice."""
    self._closed = True
    self._batch.close()

  def _call(
    self, function: Callable[..., StepOutput], inputs: list[tf.Tensor], next_state: tf.Tensor
  ) -> tuple[StepOutput, tf.Tensor]:
    import tensorflow as tf

    arrays = self.spec.observation
    output_types = (tf.float32, tf.float32, tf.int32, tf.bool, tf.bool, *(a.dtype for a in arrays))
    outputs = tf.numpy_function(
      lambda *args: self._run(function, *args), inputs, output_types, stateful=True
    )
    for output, shape in zip(outputs, [()] * 5 + [array.shape for array in arrays], strict=True):
      output.set_shape([self.num_envs, *shape])
    reward, episode_return, episode_step, game_over, done, *observation = outputs
    info = StepOutputInfo(episode_return, episode_step, game_over)
    # The new state depends on the reward, so the next step waits for this step.
    with tf.control_dependencies([reward]):
      next_state = tf.identity(next_state)
    return StepOutput(reward, info, done, as_observation(observation)), next_state

  def _run(self, function: Callable[..., StepOutput], *args: Any) -> tuple:
    with self._lock:
      if self._closed:
        raise RuntimeError(f'the environments of {self.spec.level.name} are closed')
      reward, info, done, observation = function(*args)
    return reward, *info, done, *arrays_of(observation)
