"""The learner: a batch of unrolls becomes one V-trace update.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), section 4 and Table G.1. The losses are in
`learning/losses.py`, the optimizer in `learning/optimizers.py`.

Shapes: B unrolls per update and learner, T steps per unroll; [T, B] is time-major.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import tensorflow as tf

from acting import frame_stacking
from config import Hyperparameters
from learning import observation_scaling
from learning.advantage_scale import AdvantageScale
from learning.distributions import Distribution
from learning.losses import Factors, Losses, compute_losses
from learning.observation_scaling import RunningScaling
from learning.optimizers import Counters, learning_rate
from learning.sample_reuse import SampleReuse
from learning.sliced_weights import SlicedWeights
from learning.value_normalisation import PopArt, of_level
from structs import AgentOutput, CoreState, Frames, StepOutput, StepOutputInfo, Unroll, arrays_of

Nest = TypeVar('Nest')


class Agent(Protocol):
  """The part of `nets.Agent` that a learner uses."""

  @property
  def trainable_variables(self) -> Sequence[tf.Variable]:
    """The variables to compute gradients for."""
    ...

  @property
  def distribution(self) -> Distribution:
    """The distribution of the actions."""
    ...

  @property
  def value_scale(self) -> PopArt | None:
    """The agent's `PopArt`, or None if values are not normalised."""
    ...

  def unroll(
    self, actions: tf.Tensor, env_outputs: StepOutput, core_state: CoreState
  ) -> tuple[AgentOutput, CoreState]:
    """See `nets.Agent.unroll`."""
    ...


def entropy_cost(
  hyperparameters: Hyperparameters, environment_frames: tf.Tensor
) -> float | tf.Tensor:
  """Returns the weight of the entropy: a float, or a float32 scalar where it decays.

  It changes linearly from `entropy_cost` to `entropy_cost_final` over the first
  `entropy_decay_frames` environment frames; if that is 0, it stays at `entropy_cost`.
  """
  first, final = hyperparameters.entropy_cost, hyperparameters.entropy_cost_final
  if not hyperparameters.entropy_decay_frames:
    return first
  done = tf.cast(environment_frames, tf.float32) / hyperparameters.entropy_decay_frames
  return first + (final - first) * tf.minimum(1.0, done)


class Statistics(NamedTuple):
  """Running statistics over the batches of a run; None if the settings do not need one.

  Attributes:
    observations: moments of each array of the observations, to normalise them; None in place of an
      array that is not normalised.
    values: moments of the V-trace targets, for PopArt.
    advantages: root mean square of the advantages.
  """

  observations: Sequence[RunningScaling | None] | None
  values: PopArt | None
  advantages: AdvantageScale | None

  def add(
    self, batch: Unroll, losses: Losses, reuse: SampleReuse, num_learners_per_update: int
  ) -> list[tf.Operation]:
    """Returns operations that add one batch of one learner to the statistics."""
    operations = []
    if scalings := [scaling for scaling in self.observations or () if scaling]:
      env_outputs = batch.env_outputs

      def add():
        sums = observation_sums(env_outputs)
        return tf.group(*(scaling.add(*own) for scaling, own in zip(scalings, sums, strict=True)))

      operations.append(reuse.run_in_first_pass(add))
    if values := self.values:
      operations.append(
        reuse.run_in_first_pass(lambda: values.add(losses.targets, num_learners_per_update))
      )
    if self.advantages:
      number, _, squares = tf.unstack(losses.advantages)
      operations.append(self.advantages.add(tf.stack([number, squares])))
    return operations


def _time_major(nest: Nest) -> Nest:
  """Transposes every tensor: [B, T+1, ...] -> [T+1, B, ...]."""

  def swap(tensor):
    return tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])

  return tf.nest.map_structure(swap, nest)


def time_major_env_outputs(env_outputs: StepOutput) -> StepOutput:
  """Transposes [B, T+1, ...] -> [T+1, B, ...]; converts `Frames` back to stacks of frames."""
  observation = env_outputs.observation
  if not isinstance(observation, Frames):
    return _time_major(env_outputs)
  others = _time_major(env_outputs._replace(observation=()))
  stacks = frame_stacking.unpack(observation, _starts(others.info))
  return others._replace(observation=stacks)


def _starts(info: StepOutputInfo) -> tf.Tensor:
  """Returns bool, shaped like `info`'s fields: True at the first observation of a game."""
  return info.game_over | tf.equal(info.episode_step, 0)


def observation_sums(
  env_outputs: StepOutput,
) -> list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
  """Returns `observation_scaling.sums_of` each array over the new observations of a batch.

  Entry 0 is excluded, since it was counted with the previous unroll. Words and action masks have no
  sums.

  Args:
    env_outputs: StepOutput of [B, T+1, ...].
  """
  observation = env_outputs.observation
  if isinstance(observation, Frames):
    return [frame_stacking.sums(observation, _starts(_time_major(env_outputs.info)))]
  return [
    observation_scaling.sums_of(tf.reshape(array[:, 1:], [-1, *array.shape[2:]]))
    for array in arrays_of(observation)
    if array.dtype not in (tf.int32, tf.bool)
  ]


def _tower(
  agent: Agent,
  batch: Unroll,
  hyperparameters: Hyperparameters,
  factors: Factors,
  reuse: SampleReuse,
  num_new: int | None = None,
) -> tuple[Losses, list[tf.Tensor]]:
  """Returns the losses of an `Unroll` of [B, ...], and the gradients of `agent`'s variables."""
  env_outputs = time_major_env_outputs(batch.env_outputs)
  agent_outputs = _time_major(batch.agent_outputs)
  learner_outputs, _ = agent.unroll(agent_outputs.action, env_outputs, batch.core_state)
  levels = None
  if agent.value_scale and agent.value_scale.num_levels > 1:
    levels = tf.one_hot(batch.level_id, agent.value_scale.num_levels)
    # [T+1, B, n] -> [T+1, B], and [n] -> [B].
    baseline = of_level(learner_outputs.baseline, batch.level_id)
    learner_outputs = learner_outputs._replace(baseline=baseline)
    factor = tf.gather(factors.baseline, batch.level_id)
    factors = factors._replace(advantages=factor, baseline=factor)
  shape = [hyperparameters.unroll_length, batch.env_outputs.done.shape[0]]
  losses = compute_losses(
    learner_outputs,
    agent_outputs,
    env_outputs,
    agent.distribution,
    hyperparameters,
    factors,
    first_pass_only=reuse.first_pass_only(shape),
    num_new=num_new,
    levels=levels,
  )
  return losses, tf.gradients(losses.total, agent.trainable_variables)


def build_gradients(
  agent: Agent,
  batch: Unroll,
  hyperparameters: Hyperparameters,
  factors: Factors,
  devices: Sequence[str],
  reuse: SampleReuse,
) -> tuple[Losses, list[tf.Tensor]]:
  """Returns losses and gradients, summed over one tower per device.

  Args:
    agent: the learner's local copy, read by every tower.
    batch: `Unroll` of [B, ...]; B is a multiple of the number of devices.
    hyperparameters: hyperparameters of the losses.
    factors: factors of the losses.
    devices: device names; each tower gets an equal share of the batch.
    reuse: gives the index of the pass over the batch.

  Returns:
    (`Losses`, gradients in the order of `agent.trainable_variables`).
  """
  flat_shares = [tf.split(t, len(devices)) for t in tf.nest.flatten(batch)]
  numbers_new = _new_by_tower(hyperparameters, len(devices))
  towers = []
  for device, share, num_new in zip(
    devices, zip(*flat_shares, strict=True), numbers_new, strict=True
  ):
    with tf.device(device):
      share = tf.nest.pack_sequence_as(batch, share)
      towers.append(_tower(agent, share, hyperparameters, factors, reuse, num_new))
  losses, gradients = zip(*towers, strict=True)
  return Losses(*_add(losses)), _add(gradients)


def _new_by_tower(hyperparameters: Hyperparameters, num_towers: int) -> list[int | None]:
  """Returns how many unrolls of each tower's share are new; None without replay."""
  if not hyperparameters.replayed_unrolls:
    return [None] * num_towers
  share = hyperparameters.batch_size // num_towers
  return [min(max(hyperparameters.new_unrolls - i * share, 0), share) for i in range(num_towers)]


def _add(rows):
  return [tf.add_n(column) for column in zip(*rows, strict=True)]


def _factors(
  hyperparameters: Hyperparameters,
  counters: Counters,
  statistics: Statistics,
  agent: Agent,
  reuse: SampleReuse,
) -> Factors:
  weight = entropy_cost(hyperparameters, counters.environment_frames.read_value())
  factors = Factors(entropy=reuse.zero_after_first_pass(weight))
  if statistics.advantages:
    factors = factors._replace(advantages=statistics.advantages.factor())
  if agent.value_scale:
    factor = agent.value_scale.factor()  # With several levels, of each.
    factors = factors._replace(advantages=factor, baseline=factor)
  return factors


def build_update(
  *,
  weights: SlicedWeights,
  counters: Counters,
  statistics: Statistics,
  num_learners_per_update: int,
  agent: Agent,
  refresh: tf.Operation,
  batch: Unroll,
  hyperparameters: Hyperparameters,
  optimizer: tf.compat.v1.train.Optimizer,
  devices: Sequence[str],
  reuse: SampleReuse,
) -> dict[str, tf.Tensor]:
  """Builds one update of the weights.

  Args:
    weights: the trained weights.
    counters: the run's counters.
    statistics: the run's statistics.
    num_learners_per_update: number of learners whose gradients are summed for one update.
    agent: the learner's local copy.
    refresh: operation that copies the weights into `agent`.
    batch: `Unroll` of [B, ...].
    hyperparameters: hyperparameters of the losses.
    optimizer: from `optimizers.build_optimizer`.
    devices: device names of the towers; B is a multiple of their number.
    reuse: gives the index of the pass over the batch.

  Returns:
    Tensors by name; evaluating any of them runs the update. `updates`, `environment_frames` and
    `gradient_norm` have their values after the update.
  """
  updates_before = counters.updates.read_value()
  with tf.control_dependencies([refresh, updates_before]):
    # Only variable reads created here see the refreshed copy.
    batch = tf.nest.map_structure(tf.identity, batch)
    factors = _factors(hyperparameters, counters, statistics, agent, reuse)
    losses, gradients = build_gradients(agent, batch, hyperparameters, factors, devices, reuse)
  # After a restart from a checkpoint, unrolls may have a later version; their lag counts as 0.
  lags = tf.cast(tf.maximum(updates_before - batch.policy_version, 0), tf.float32)
  update = optimizer.apply_gradients(
    list(zip(weights.cut(gradients), weights.slices, strict=True)), global_step=counters.updates
  )
  with tf.control_dependencies([update]):
    counted = _new_unrolls(batch, hyperparameters)
    added = statistics.add(counted, losses, reuse, num_learners_per_update)
  with tf.control_dependencies([update, *added]):
    values = _reported(hyperparameters, counters, losses, lags)
    return {name: tf.identity(value) for name, value in values.items()}


def _new_unrolls(batch: Unroll, hyperparameters: Hyperparameters) -> Unroll:
  """Returns the unrolls of a batch whose observations count."""
  if not hyperparameters.replayed_unrolls:
    return batch
  return tf.nest.map_structure(lambda t: t[: hyperparameters.new_unrolls], batch)


def _reported(
  hyperparameters: Hyperparameters, counters: Counters, losses: Losses, lags: tf.Tensor
) -> dict[str, tf.Tensor]:
  frames = counters.environment_frames.read_value()
  steps = hyperparameters.unroll_length * hyperparameters.batch_size
  lag, replayed = lags, {}
  if hyperparameters.replayed_unrolls:
    lag, replayed_lag = (
      lags[: hyperparameters.new_unrolls],
      lags[-hyperparameters.replayed_unrolls :],
    )
    replayed = dict(
      replayed_lag_mean=tf.reduce_mean(replayed_lag), replayed_lag_max=tf.reduce_max(replayed_lag)
    )
  return dict(
    updates=counters.updates.read_value(),
    environment_frames=frames,
    learning_rate=learning_rate(hyperparameters, frames),
    gradient_norm=counters.gradient_norm.read_value(),
    total_loss=losses.total,
    policy_loss=losses.policy,
    baseline_loss=losses.baseline,
    entropy_loss=losses.entropy,
    policy_lag_mean=tf.reduce_mean(lag),
    policy_lag_max=tf.reduce_max(lag),
    truncated_weights=losses.truncated / steps,
    **replayed,
  )
