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

# The agents of nets.py by name, with the rank of the observations that each takes: 3 for images
# (H, W, C), 1 for vectors (D,).
AGENTS = {
  'SimpleConvNetAgent': 3,
  'SimpleConvNetLSTMAgent': 3,
  'ResNetAgent': 3,
  'ResNetLSTMAgent': 3,
  'MLPAgent': 1,
  'MLPLSTMAgent': 1,
}


def default_agent_name(observation_shape: Sequence[int]) -> str:
  """Returns the agent that `--agent_name=auto` stands for."""
  return 'SimpleConvNetAgent' if len(observation_shape) == 3 else 'MLPAgent'


class Spaces(Protocol):
  """Observations and actions of an environment, as in `environments.EnvironmentSpec`."""

  @property
  def observation_shape(self) -> Sequence[int]:
    """Of one observation: (H, W, C) or (D,)."""
    ...

  @property
  def observation_dtype(self) -> str:
    """'uint8' or 'float32'."""
    ...

  @property
  def num_actions(self) -> int:
    """Actions are 0 to num_actions - 1."""
    ...


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
    observation: uint8 [N, H, W, C] (bool images as 0 and 255) or float32 [N, D] (vectors flattened,
      Discrete observations one-hot). In an unroll it may be `Frames`.
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
    action: int32 [N] or [T, B], sampled from the policy.
    policy_logits: float32 [N, A] or [T, B, A].
    baseline: float32 [N] or [T, B], the value estimate: the expected (clipped, discounted) return.
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
