"""Builds the TensorFlow graph of a task.

Every role builds a `Graph` first: agent, weights, counters and shared state. Actors add an
`ActorSide` and learners a `LearnerSide`; the learner's queue of unrolls connects them. Local
training has both sides in one graph.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import dynamic_batching
import environments
import nets
from acting import actor
from acting.actor_state import LoopState
from acting.fixed_lag import FixedLag
from learning import learner, losses, optimizers, sliced_weights
from learning.advantage_scale import AdvantageScale
from learning.learner_loop import LearnerLoop
from learning.replay import ReplayBuffer
from learning.sample_reuse import SampleReuse
from roles.settings import Options, Settings, derived_seed
from runtime import memory, placement
from runtime.cluster import Cluster
from runtime.process import BadInput
from runtime.shared_state import SharedState

# Loops with more environments than this fill an inference batch without dynamic batching.
_MOST_ENVIRONMENTS_TO_MERGE = 4


class UnrollQueue(NamedTuple):
  """The queue of single unrolls on a learner.

  Attributes:
    queue: an element is one unroll, flattened by tf.nest.
    specs: `Unroll` of tf.TensorSpec, the structure of an element.
  """

  queue: tf.queue.FIFOQueue
  specs: Any


class Graph:
  """The variables and shared state of a run.

  Every role creates them in the same order and under the same names.

  Args:
    settings: `roles.settings.Settings`.
    cluster: `runtime.cluster.Cluster`.

  Attributes:
    agent: the trained agent. Its trainable variables have no values of their own; `weights` holds
      them.
    weights: `sliced_weights.SlicedWeights`, one slice on each parameter server.
    counters: `optimizers.Counters`.
    advantage_scale: `advantage_scale.AdvantageScale`, or None if advantages are not scaled.
    shared: `runtime.shared_state.SharedState`.
    num_learners_per_update: number of learners whose gradients are summed for one update.
  """

  def __init__(self, settings: Settings, cluster: Cluster):
    self.settings, self.cluster = settings, cluster
    self.num_learners_per_update = max(1, len(cluster.learner)) if settings.sync_learners else 1
    with tf.compat.v1.device(placement.variables_device(cluster)):
      with sliced_weights.shape_only_variables(cluster.own_device):
        self.agent = nets.build_agent(
          settings.agent_name,
          settings,
          scaling=settings.observation_scaling,
          value_normalisation=settings.value_normalisation,
          initial_action_std=settings.initial_action_std,
        )
      self.weights = sliced_weights.SlicedWeights(
        self.agent.trainable_variables, max(1, len(cluster.ps))
      )
      self.counters = optimizers.create_counters()
      self.advantage_scale = None
      if settings.advantage_normalisation:
        self.advantage_scale = AdvantageScale(self.num_learners_per_update)
    self.shared = SharedState(cluster)

  def unroll_queue(self, learner_task: int) -> UnrollQueue:
    """Returns the `UnrollQueue` of a learner; all tasks that call this share one queue."""
    specs = actor.unroll_specs(
      self.agent,
      self.settings,
      self.settings.unroll_length,
      environments.stacks_frames(self.settings.levels),
    )
    flat = tf.nest.flatten(specs)
    with tf.device(self.cluster.device('learner', learner_task)):
      queue = tf.queue.FIFOQueue(
        self.settings.queue_capacity,
        [spec.dtype for spec in flat],
        [spec.shape for spec in flat],
        shared_name='unrolls',
      )
    return UnrollQueue(queue, specs)

  def local_agent(self, precision: str = 'float32') -> tuple[Any, Callable[[], tf.Operation]]:
    """Returns a copy of the agent on this task's device, and a function that updates its weights.

    Args:
      precision: dtype of the torso's arithmetic, see `nets.Agent`.
    """
    settings = self.settings
    return nets.local_copy(
      self.agent,
      settings.agent_name,
      settings,
      precision,
      settings.observation_scaling,
      settings.value_normalisation,
      self.weights.values_of,
    )


def create_environments(
  settings: Settings, cluster: Cluster, options: Options, start_frames: int
) -> list[environments.FlowEnvironment]:
  """Creates a batch of environments for each actor loop of this process.

  Loops are counted over the cluster as if all actors had as many; a loop plays one level.

  Args:
    settings: `roles.settings.Settings`.
    cluster: `runtime.cluster.Cluster`; the index of this task goes into the seeds.
    options: `roles.settings.Options`.
    start_frames: environment frames when this process began; a resumed run gets other seeds.

  Returns:
    A list of `environments.FlowEnvironment`, one per actor loop.
  """
  first = max(0, cluster.task) * options.num_actors
  return [
    environments.create_environment(
      settings.level_of_loop(first + index),
      options.envs_per_actor,
      derived_seed(settings.seed, max(0, cluster.task), index, start_frames),
      settings.num_action_repeats,
      settings.width,
      settings.height,
      envs_per_worker=options.envs_per_worker,
      own_generators=settings.deterministic_training,
    )
    for index in range(options.num_actors)
  ]


class ActorSide:
  """The actor loops of this process.

  Args:
    graph: `Graph`.
    batches: from `create_environments`, one for each loop.
    dynamic_batching: whether loops share one inference batch: 'true', 'false', or 'auto' (if each
      loop has few environments).
    lag: fixes the policy lag, or None. Loops that share an inference batch have no fixed lag.
    start_frames: environment frames when this process began; it goes into the seeds of actions.

  Attributes:
    loops: list of `actor.ActorLoop`.
    batches: as given.
    states: list of the `LoopState` of each loop with --deterministic_training, else empty.
  """

  def __init__(
    self,
    graph: Graph,
    batches: list[environments.FlowEnvironment],
    dynamic_batching: str,
    lag: FixedLag | None = None,
    start_frames: int = 0,
  ):
    self._graph, self.batches, self._lag = graph, batches, lag
    self._start_frames, self.states = start_frames, []
    with tf.device(graph.cluster.own_device):
      agents = self._agents(dynamic_batching)
      self.loops = [self._loop(i, *agent, batches[i]) for i, agent in enumerate(agents)]

  def _agents(self, merge):
    """Returns (agent, `actor.Refresh` of its weights) for each loop."""
    num_actors = len(self.batches)
    few = num_actors > 1 and self.batches[0].num_envs <= _MOST_ENVIRONMENTS_TO_MERGE
    few = few and not self._lag
    if not (merge == 'true' or (merge == 'auto' and few)):
      return [self._versioned_agent() for _ in range(num_actors)]
    agent, refresh = self._versioned_agent()
    batched = actor.BatchedAgent(
      agent, dynamic_batching.batch_fn_with_options(minimum_batch_size=1, timeout_ms=1)
    )
    return [(batched, refresh)] * num_actors

  def _versioned_agent(self):
    agent, copy_weights = self._graph.local_agent()
    return agent, actor.Refresh(copy_weights, self._graph.counters.updates)

  def _loop(self, index, agent, refresh, batch):
    settings = self._graph.settings
    repeats: dict[str, Any] = {}
    state: list[tf.Variable] = []
    if settings.deterministic_training:
      seed = derived_seed(settings.seed, index, self._start_frames, *b'actions')
      repeats = dict(seed=seed, state=state)
    unroll = actor.build_unroll(
      agent,
      batch,
      settings.unroll_length,
      refresh.version,
      settings.levels.index(batch.spec.level),
      as_frames=environments.stacks_frames(settings.levels),
      **repeats,
    )
    tracker = actor.EpisodeTracker(
      batch.num_envs, batch.spec.level.name, settings.num_action_repeats
    )
    if repeats:
      self.states.append(LoopState(state, tracker))
    return actor.ActorLoop(
      refresh,
      unroll,
      lambda rewards: losses.clip_rewards(rewards, settings.reward_clipping),
      tracker,
      self._lag,
      index,
    )

  def restart_games(self, session: tf.compat.v1.Session) -> None:
    """Starts new games in all environments, after some of `states` may have been set."""
    for state in self.states:
      state.restart(session)

  def crashes(self) -> int:
    """Returns how many environments have been rebuilt after a crash."""
    return sum(batch.crashes for batch in self.batches)

  def close(self) -> None:
    """Closes the environments."""
    for batch in self.batches:
      batch.close()


class LearnerSide:
  """The learner of this process: queue, batches and update.

  Args:
    graph: `Graph`.
    queue: `UnrollQueue` to dequeue batches from.
    devices: device names, one tower on each.

  Attributes:
    queue_size: int32 scalar tensor, unrolls in the queue.
    close_queue: operation that closes the queue and cancels pending enqueues.
    replay: `replay.ReplayBuffer`, or None.
    loop: `learner_loop.LearnerLoop`.
    update: dict of tensors, see `learner.build_update`.
    optimizer: tf.compat.v1.train.Optimizer of the weight slices.
    sync_optimizer: tf.compat.v1.train.SyncReplicasOptimizer, or None if each learner updates alone.
    sync_ops: `optimizers.SyncOps` of `sync_optimizer`, or None.
    learning_rate, entropy_cost: float32 scalar tensors, their values at the current frame count.
    device_names: the towers' devices as text, such as 'GPU:0, GPU:1'.
  """

  def __init__(self, graph: Graph, queue: UnrollQueue, devices: list[str]):
    cluster, settings = graph.cluster, graph.settings
    self._cluster, self._weights = cluster, graph.weights
    self.device_names = ', '.join(d.rpartition('/')[2].removeprefix('device:') for d in devices)
    self.queue_size = queue.queue.size()
    self.close_queue = queue.queue.close(cancel_pending_enqueues=True)
    with tf.device(cluster.own_device):
      frames = graph.counters.environment_frames.read_value()
      self.learning_rate = optimizers.learning_rate(settings, frames)
      self.entropy_cost = tf.convert_to_tensor(learner.entropy_cost(settings, frames))
      reuse = SampleReuse(settings.sample_reuse)
      self.replay = replay_buffer(graph, queue)
      self.loop = LearnerLoop(
        queue.queue, queue.specs, settings.batch_size, reuse, self.replay, settings.new_unrolls
      )
      agent, copy_weights = graph.local_agent(settings.learner_precision)
      self.optimizer, self.sync_optimizer = optimizers.build_optimizer(
        settings,
        graph.counters,
        graph.num_learners_per_update,
        after_application=self._after_application(graph),
      )
      scalings: Any = graph.agent.scalings
      self.update = learner.build_update(
        weights=graph.weights,
        counters=graph.counters,
        statistics=learner.Statistics(scalings, graph.agent.value_scale, graph.advantage_scale),
        num_learners_per_update=graph.num_learners_per_update,
        agent=agent,
        refresh=copy_weights(),
        batch=self.loop.batch,
        hyperparameters=settings,
        optimizer=self.optimizer,
        devices=devices,
        reuse=reuse,
      )
    self.sync_ops = optimizers.SyncOps(self.sync_optimizer) if self.sync_optimizer else None

  def _after_application(self, graph):
    """Returns a function that builds PopArt's rescaling of the value layer, or None.

    If learners update independently, only the first one rescales.
    """
    if not graph.agent.value_scale or (
      graph.num_learners_per_update == 1 and graph.cluster.task > 0
    ):
      return None
    return lambda: graph.agent.rescale_values(graph.weights)

  def whole_weights(self) -> sliced_weights.UnslicedVariables:
    """Returns the weights and slots as `sliced_weights.UnslicedVariables`, for checkpoints."""
    with tf.device(self._cluster.own_device + '/cpu:0'):
      return self._weights.unsliced(self.optimizer)


def replay_buffer(graph: Graph, queue: UnrollQueue) -> ReplayBuffer | None:
  """Returns a learner's empty replay buffer, or None if --replay_capacity is 0.

  Raises:
    BadInput: this machine has not enough memory for it.
  """
  settings = graph.settings
  if not settings.replayed_unrolls:
    return None
  specs = [(spec.dtype.as_numpy_dtype, spec.shape) for spec in tf.nest.flatten(queue.specs)]
  unroll_bytes = sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in specs)
  needed, available = settings.replay_capacity * unroll_bytes, memory.available_bytes()
  if needed > available:
    raise BadInput(
      f'--replay_capacity={settings.replay_capacity} unrolls of {unroll_bytes} bytes take '
      f'{needed / 1e9:.3g} GB of memory, but only {available / 1e9:.3g} GB are available here: '
      f'at most {int(available // unroll_bytes)} would fit'
    )
  seed = derived_seed(settings.seed, max(0, graph.cluster.task), *b'replay')
  return ReplayBuffer(
    settings.replay_capacity, specs, settings.replayed_unrolls, settings.batch_size, seed
  )


def learner_devices(cluster: Cluster, names: list[str], batch_size: int) -> list[str]:
  """Returns the devices of the towers: the named ones, else every GPU, else the CPU.

  Args:
    cluster: `runtime.cluster.Cluster`.
    names: device names from --learner_devices; may be empty.
    batch_size: number of unrolls per batch, which is split evenly over the devices.

  Raises:
    BadInput: this task has no such device, or the batch cannot be split evenly.
  """
  here = [d.name.rpartition('device:')[2] for d in tf.config.list_physical_devices()]
  gpus = [f'/device:{name}' for name in here if name.startswith('GPU')]
  names = names or gpus or ['/cpu:0']
  for name in names:
    known = re.fullmatch(r'/(?:device:)?(\w+:\d+)', name)
    if not known or known[1].upper() not in here:
      raise BadInput(
        f'--learner_devices: there is no {name!r} here, only '
        + ', '.join(f'/device:{device}' for device in here)
      )
  if batch_size % len(names):
    raise BadInput(f'--batch_size={batch_size} cannot be split evenly over {len(names)} devices')
  return [cluster.own_device + name for name in names]
