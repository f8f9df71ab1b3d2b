"""What crosses the borders between environments, actors and learners, as typed tuples.

Shapes: N environments step together; T agent steps make an unroll; B unrolls make a batch; A is the
number of actions. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

# A numpy array where environments step, a tf.Tensor in a graph, a tf.TensorSpec in a specification.
Array: TypeAlias = Any
# A nest of arrays; () of an agent without LSTM.
CoreState: TypeAlias = Any

# The agents of nets.py by name, with what each needs among the arrays of an observation: 3 for an
# image (H, W, C), 1 for vectors (D,) and nothing else, 0 for vectors or texts and no image.
AGENTS = {
  'SimpleConvNetAgent': 3,
  'SimpleConvNetLSTMAgent': 3,
  'ResNetAgent': 3,
  'ResNetLSTMAgent': 3,
  'ResNetPoolAgent': 3,
  'ResNetPoolLSTMAgent': 3,
  'MinAtarAgent': 3,
  'MinAtarLSTMAgent': 3,
  'MLPAgent': 0,
  'MLPLSTMAgent': 0,
  'SeparateMLPAgent': 1,
}


class Level(NamedTuple):
  """An environment: its id, how it is made, and what an agent sees of it.

  Attributes:
    name: id in Gymnasium, or else in OpenAI Gym; `module:Id` imports the module first.
    env_kwargs: JSON object of keyword arguments of the environment, or ''.
    env_wrappers: wrappers around it, see `envs.level_ids.make`, or ''.
    imports: modules and functions that register environments, see `envs.level_ids.make`, or ''.
    observation_keys: names of the arrays of a Dict or Tuple observation to take, with commas; ''
      takes all but texts.
    action_masks: 'auto' (if the environment has them), 'true' or 'false'.
    channels: least number of channels of an image; those that it lacks are zeros.
  """

  name: str
  env_kwargs: str = ''
  env_wrappers: str = ''
  imports: str = ''
  observation_keys: str = ''
  action_masks: str = 'auto'
  channels: int = 0


def level_of(level: Level | str) -> Level:
  """Returns the `Level` of an id, or `level` itself."""
  return Level(level) if isinstance(level, str) else level


# Words of a text are hashed to 1 ... NUM_WORDS - 1; 0 is no word.
NUM_WORDS = 4096
# The name of the array of an observation that says which actions are allowed.
ACTION_MASK = 'action_mask'


class ArraySpec(NamedTuple):
  """One array of an observation: a leaf of the environment's observation space.

  Attributes:
    name: the leaf's keys in the space, such as 'image' or 'sensors/0'; '' if the space is a leaf.
    shape: (H, W, C) of an image, (D,) of a vector, (L,) of the words of a text, (M,) of a mask.
    dtype: 'uint8' or 'float32' of images, 'float32' of vectors, 'int32' of words, 'bool' of masks.
  """

  name: str
  shape: tuple[int, ...]
  dtype: str


class ActionPart(NamedTuple):
  """One part of an action: a leaf of the environment's action space.

  Attributes:
    kind: 'discrete' (one of `size` choices), 'binary' (`size` bits) or 'continuous' (`size`
      numbers).
    size: see `kind`.
    low: of a continuous part, the lower bound of each number, None if it has none; else ().
    high: of a continuous part, the upper bound of each number, None if it has none; else ().
  """

  kind: str
  size: int
  low: tuple[float | None, ...] = ()
  high: tuple[float | None, ...] = ()

  @property
  def num_elements(self) -> int:
    """The number of elements of an action that this part takes."""
    return 1 if self.kind == 'discrete' else self.size


class Spaces(Protocol):
  """Observations and actions of an environment, as in `environments.EnvironmentSpec`."""

  @property
  def observation(self) -> tuple[ArraySpec, ...]:
    """The arrays of an observation; an action mask comes last."""
    ...

  @property
  def action(self) -> tuple[ActionPart, ...]:
    """The parts of an action."""
    ...


def action_shape(parts: Sequence[ActionPart]) -> tuple[int, ...]:
  """Returns the shape of an action: () of a single discrete part, else (K,).

  A discrete part has one element, the index of the choice; a binary or continuous part has `size`.
  """
  if len(parts) == 1 and parts[0].kind == 'discrete':
    return ()
  return (sum(part.num_elements for part in parts),)


def action_dtype(parts: Sequence[ActionPart]) -> str:
  """Returns the dtype of an action: 'float32' if a part is continuous, else 'int32'."""
  return 'float32' if any(part.kind == 'continuous' for part in parts) else 'int32'


def num_actions(parts: Sequence[ActionPart]) -> int:
  """Returns the number of actions of a single discrete part; 0 of any other action space."""
  return parts[0].size if len(parts) == 1 and parts[0].kind == 'discrete' else 0


def described(spaces: Sequence[ArraySpec] | Sequence[ActionPart]) -> str:
  """Returns the arrays of an observation, or the parts of an action, in words for a message."""
  units = {'discrete': 'choices', 'binary': 'bits', 'continuous': 'numbers'}
  return ', '.join(
    f'{part.name} {part.dtype} {part.shape}'.lstrip()
    if isinstance(part, ArraySpec)
    else f'{part.size} {units[part.kind]}'
    for part in spaces
  )


def is_masked(observation: Sequence[ArraySpec]) -> bool:
  """Returns whether an action mask comes with the observation."""
  return observation[-1].name == ACTION_MASK


def as_observation(arrays: Sequence[Array]) -> Array:
  """Returns a single array as itself, several as a tuple: the form of `StepOutput.observation`."""
  return arrays[0] if len(arrays) == 1 else tuple(arrays)


def arrays_of(observation: Array) -> tuple[Array, ...]:
  """Returns the arrays of an observation; the inverse of `as_observation`."""
  return observation if type(observation) is tuple else (observation,)


def default_agent_name(spaces: Spaces) -> str:
  """Returns the agent that `--agent_name=auto` stands for."""
  arrays = spaces.observation
  if any(len(array.shape) == 3 for array in arrays):
    return 'SimpleConvNetAgent'
  is_vectors = all(array.dtype != 'int32' for array in arrays)
  continuous = any(part.kind == 'continuous' for part in spaces.action)
  return 'SeparateMLPAgent' if continuous and is_vectors else 'MLPAgent'


def why_unfit(agent_name: str, spaces: Spaces) -> str:
  """Returns why an agent of `AGENTS` does not accept observations, as a sentence, or ''.

  Returns '' for a user's own agent, `module:Class`: `nets.check_agent` tries it.
  """
  if agent_name not in AGENTS:
    return ''
  needs = AGENTS[agent_name]
  has_image = any(len(array.shape) == 3 for array in spaces.observation)
  has_text = any(array.dtype == 'int32' for array in spaces.observation)
  if has_image == (needs == 3) and not (has_text and needs == 1):
    return ''
  kind = {3: 'images', 1: 'vectors', 0: 'vectors'}[needs]
  shapes = ', '.join(f'{array.shape}' for array in spaces.observation)
  return (
    f'{agent_name} takes {kind}, but the observations are of shape {shapes}; '
    f'{default_agent_name(spaces)} would fit'
  )


class StepOutputInfo(NamedTuple):
  """The score of each of N games.

  Attributes:
    episode_return: float32 [N], raw score of the whole game so far, over all its lives.
    episode_step: int32 [N], agent steps of the whole game so far.
    game_over: bool [N], the game has ended; return and step are its totals and restart at 0 after
      this entry. `done` without `game_over` is a lost life (return and step go on), the entry
      before the first action, or the first of a game after one that crashed or reached its time
      limit (return and step are 0).
  """

  episode_return: Array
  episode_step: Array
  game_over: Array


class StepOutput(NamedTuple):
  """What one step of N environments returns.

  Attributes:
    reward: float32 [N], raw, the sum over the action's repeats.
    info: StepOutputInfo of [N].
    done: bool [N], the end of an episode for learning. When `done`, the observation is already the
      first of the next episode. A time limit (Gymnasium's `truncated`) does not set it: the last
      observation is returned, so that its value can be bootstrapped, and one more step, which is
      masked in the losses, leads to the next game. The limit of ale_py, 108,000 frames, counts as
      an end.
    observation: an array of [N, ...], or a tuple of them where `Spaces.observation` has several:
      uint8 [N, H, W, C] (bool images as 0 and 255) or float32 [N, H, W, C], float32 [N, D] (vectors
      flattened, Discrete observations one-hot), int32 [N, L] (words), bool [N, M] (action masks).
      In an unroll it may be `Frames`.
  """

  reward: Array
  info: StepOutputInfo
  done: Array
  observation: Array | Frames


class Frames(NamedTuple):
  """An unroll's observations [T+1, H, W, C], stacks of the C newest frames, with each frame once.

  Attributes:
    frames: uint8 [T + C, H, W], oldest first; leading axes as the unroll's.
  """

  frames: Array


class AgentOutput(NamedTuple):
  """What an agent computes from a batch of observations.

  Attributes:
    action: int32 [N] or [T, B] of a Discrete space, else int32 or float32 [..., K]; sampled from
      the policy. Continuous parts are in units of the policy, where [-1, 1] are the bounds, and are
      not clipped.
    policy_logits: float32 [N, P] or [T, B, P], the parameters of the policy: for a Discrete space
      the A logits of the actions, else see `learning.distributions`.
    baseline: float32 [N] or [T, B], the value estimate: the expected (clipped, discounted) return.
      With PopArt for each of n > 1 levels, an agent returns [N, n] or [T, B, n]; unrolls of actors
      have that of their level.
  """

  action: Array
  policy_logits: Array
  baseline: Array


class Unroll(NamedTuple):
  """T agent steps of one environment, as actors send them to learners.

  Leading axes: none in an element of the queue, [N] in an actor, [B] in a batch; then time, where
  a shape below has it.

  Attributes:
    level_id: int32, which of the run's levels was played.
    policy_version: int64, updates done when the acting weights were read.
    core_state: the agent's core state before entry 0.
    env_outputs: StepOutput of [T+1, ...]; entry 0 is the last entry of the unroll before.
    agent_outputs: AgentOutput of [T+1, ...]; entry t holds the action that led to observation t.
  """

  level_id: Array
  policy_version: Array
  core_state: CoreState
  env_outputs: StepOutput
  agent_outputs: AgentOutput
