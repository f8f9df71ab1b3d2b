"""The learner: a batch of unrolls becomes one V-trace update.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), section 4 and Table G.1. What a batch is learned
from stands in `learning/losses.py`.

Shapes: B unrolls per update and learner, T steps per unroll; [T, B] is time-major.
"""

import collections
import functools
import threading
import time

import tensorflow as tf

from acting import frame_stacking
from config import Hyperparameters
from learning import observation_scaling
from learning.losses import Losses, compute_losses
from structs import Frames

Counters = collections.namedtuple('Counters', 'updates environment_frames gradient_norm')
Counters.__doc__ = """Variables on the parameter server: int64 updates done (the global step), int64
environment frames trained on, float32 norm of the last total gradient before clipping."""


def create_counters():
  """The counters of a run, as global variables on the device that the current scope chooses."""
  return Counters(
    updates=tf.compat.v1.train.get_or_create_global_step(),
    environment_frames=tf.Variable(
      tf.zeros([], tf.int64), trainable=False, name='environment_frames'
    ),
    gradient_norm=tf.Variable(0.0, trainable=False, name='gradient_norm'),
  )


def learning_rate(hyperparameters: Hyperparameters, environment_frames):
  """float32 scalar: decays linearly from its initial value to 0 at `total_environment_frames`."""
  done = tf.cast(environment_frames, tf.float32) / hyperparameters.total_environment_frames
  return hyperparameters.learning_rate * tf.maximum(0.0, 1.0 - done)


def entropy_cost(hyperparameters: Hyperparameters, environment_frames):
  """The weight of the entropy: a float, or a float32 scalar where it changes with the frames.

  It goes linearly from `entropy_cost` to `entropy_cost_final` over the first
  `entropy_decay_frames` environment frames; 0 of them: it stays.
  """
  first, final = hyperparameters.entropy_cost, hyperparameters.entropy_cost_final
  if not hyperparameters.entropy_decay_frames:
    return first
  done = tf.cast(environment_frames, tf.float32) / hyperparameters.entropy_decay_frames
  return first + (final - first) * tf.minimum(1.0, done)


def _inner_optimizer(hyperparameters, rate):
  if hyperparameters.optimizer == 'adam':
    return tf.compat.v1.train.AdamOptimizer(rate, epsilon=hyperparameters.epsilon)
  return tf.compat.v1.train.RMSPropOptimizer(
    rate, hyperparameters.decay, hyperparameters.momentum, hyperparameters.epsilon
  )


class TotalGradientOptimizer(tf.compat.v1.train.Optimizer):
  """Checks and clips the total gradient once, applies it, and counts the frames behind it.

  Everything runs on the devices of the variables; for the norm only scalars are sent.

  Args:
    optimizer: the tf.compat.v1.train.Optimizer that applies the clipped gradient.
    counters: `Counters`.
    gradient_clipping: largest global norm of the total gradient.
    scale: factor by which the given gradients are multiplied first (the number of learners, where
      they are averages over learners).
    frames: environment frames of the batches behind one application.
    passes: how many applications these frames are shared out over.
    and_then: function that gives what has to follow each application before anybody goes on, an
      operation; or None.
  """

  def __init__(
    self, optimizer, counters, gradient_clipping, scale, frames, passes=1, and_then=None
  ):
    super().__init__(use_locking=False, name='TotalGradient')
    self._optimizer, self._counters = optimizer, counters
    self._clipping, self._scale = gradient_clipping, scale
    self._frames, self._passes, self._and_then = frames, passes, and_then

  def apply_gradients(self, grads_and_vars, global_step=None, name=None):
    """Applies the clipped total; InvalidArgumentError, naming the update, if not finite."""
    gradients, variables = zip(*grads_and_vars, strict=True)
    norm = self._norm(gradients, variables)
    finite = tf.debugging.Assert(
      tf.math.is_finite(norm),
      ['the loss or its gradient is not finite at update', self._counters.updates.read_value()],
    )
    factor = self._scale * self._clipping / tf.maximum(norm, self._clipping)
    with tf.control_dependencies([finite]):
      factor = tf.identity(factor)
    clipped = []
    for gradient, variable in zip(gradients, variables, strict=True):
      with tf.device(variable.device):
        clipped.append((gradient * factor, variable))
    apply = self._optimizer.apply_gradients(clipped, global_step=global_step, name=name)
    # Not before: the learning rate of this update is that of the frames before it.
    with tf.control_dependencies([apply]):
      return tf.group(
        self._counters.environment_frames.assign_add(self._frames_of_this_one()),
        self._counters.gradient_norm.assign(norm),
        *([self._and_then()] if self._and_then else []),
      )

  def _frames_of_this_one(self):
    """Its share of the frames: all shares together are the frames, also where they differ by 1."""
    if self._passes == 1:  # No read of the updates, which may be on another parameter server.
      return self._frames
    after = self._counters.updates.read_value() * self._frames
    return after // self._passes - (after - self._frames) // self._passes

  def _norm(self, gradients, variables):
    squares = []
    for gradient, variable in zip(gradients, variables, strict=True):
      with tf.device(variable.device):
        squares.append(tf.nn.l2_loss(gradient))
    with tf.device(self._counters.gradient_norm.device):
      return self._scale * tf.sqrt(2.0 * tf.add_n(squares))

  def get_slot(self, *args, **kwargs):
    """As the inner optimizer."""
    return self._optimizer.get_slot(*args, **kwargs)

  def get_slot_names(self):
    """As the inner optimizer."""
    return self._optimizer.get_slot_names()

  def variables(self):
    """As the inner optimizer."""
    return self._optimizer.variables()


def build_optimizer(hyperparameters, counters, together=1, and_then=None):
  """The optimizer of one learner.

  Args:
    hyperparameters: `config.Hyperparameters`.
    counters: `Counters`.
    together: how many learners' batches make one update.
    and_then: see `TotalGradientOptimizer`.

  Returns:
    (optimizer, the tf.compat.v1.train.SyncReplicasOptimizer or None). Synchronous learners'
    gradients are averaged by SyncReplicasOptimizer and multiplied back to their sum.
  """
  frames = (
    hyperparameters.batch_size
    * hyperparameters.unroll_length
    * hyperparameters.num_action_repeats
    * together
  )
  rate = learning_rate(hyperparameters, counters.environment_frames.read_value())
  total = TotalGradientOptimizer(
    _inner_optimizer(hyperparameters, rate),
    counters,
    hyperparameters.gradient_clipping,
    float(together),
    frames,
    hyperparameters.sample_reuse,
    and_then,
  )
  if together == 1:
    return total, None
  sync_optimizer = tf.compat.v1.train.SyncReplicasOptimizer(
    total, replicas_to_aggregate=together, total_num_replicas=together
  )
  return sync_optimizer, sync_optimizer


class SyncOps:
  """What synchronous learners run beside their updates; see TensorFlow's SyncReplicasOptimizer.

  A learner takes a token from the optimizer's sync token queue before its next step; every
  application of the summed gradients puts one token per learner there.

  Attributes:
    init: operation for every new session of a learner, `chief_init` that of the chief.
    spare_tokens: enqueues one more token per learner, for the chief of a resumed run: a learner may
      still wait for a token that was lost with the last chief. A token too many costs one gradient,
      dropped as stale; a token too few is a deadlock.
    aggregate: applies the summed gradients once all have come; the chief runs it over and over.
  """

  def __init__(self, optimizer):
    self.init = optimizer.local_step_init_op
    self.chief_init = optimizer.chief_init_op
    self.spare_tokens = optimizer.get_init_tokens_op()
    (self._aggregate,) = optimizer.get_chief_queue_runner().enqueue_ops

  def run(self, session, should_stop):
    """Applies updates until told to stop; runs in a thread of the chief."""
    aggregate = session.make_callable(self._aggregate)
    while not should_stop():
      aggregate()


def _time_major(nest):
  """[B, T+1, ...] -> [T+1, B, ...] of every tensor."""

  def swap(tensor):
    return tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])

  return tf.nest.map_structure(swap, nest)


def time_major_env_outputs(env_outputs):
  """StepOutput of [B, T+1, ...] -> [T+1, B, ...], with stacks where frames were sent."""
  observation = env_outputs.observation
  if not isinstance(observation, Frames):
    return _time_major(env_outputs)
  others = _time_major(env_outputs._replace(observation=()))
  stacks = frame_stacking.unpack(observation, _starts(others.info))
  return others._replace(observation=stacks)


def _starts(info):
  """Whether a game's first observation is the entry's; of StepOutputInfo, and like that."""
  return info.game_over | tf.equal(info.episode_step, 0)


def observation_sums(env_outputs):
  """`observation_scaling.sums_of` what is new in a batch.

  Entry 0 was new in the unroll before.

  Args:
    env_outputs: StepOutput of [B, T+1, ...].
  """
  observation = env_outputs.observation
  if isinstance(observation, Frames):
    return frame_stacking.sums(observation, _starts(_time_major(env_outputs.info)))
  return observation_scaling.sums_of(tf.reshape(observation[:, 1:], [-1, *observation.shape[2:]]))


def _tower(agent, batch, hyperparameters, terms, reuse):
  """`Losses` of an `Unroll` of [B, ...], and their gradients for the variables of `agent`."""

  env_outputs = time_major_env_outputs(batch.env_outputs)
  agent_outputs = _time_major(batch.agent_outputs)
  learner_outputs, _ = agent.unroll(agent_outputs.action, env_outputs, batch.core_state)
  at_first = reuse.at_first([hyperparameters.unroll_length, batch.env_outputs.done.shape[0]])
  losses = compute_losses(
    learner_outputs, agent_outputs, env_outputs, hyperparameters, at_first=at_first, **terms
  )
  return losses, tf.gradients(losses.total, agent.trainable_variables)


def build_gradients(agent, batch, hyperparameters, terms, devices, reuse):
  """Losses and gradients summed over towers, one per device, each with its share of the batch.

  Args:
    agent: the learner's own copy, read by every tower.
    batch: `Unroll` of [B, ...]; B is a multiple of the number of devices.
    hyperparameters: `config.Hyperparameters`.
    terms: dict, what else `losses.compute_losses` is given: of the entropy, of the advantages.
    devices: device names.
    reuse: `sample_reuse.SampleReuse`.

  Returns:
    (`Losses`, list of gradients in the order of `agent.trainable_variables`).
  """
  flat_shares = [tf.split(t, len(devices)) for t in tf.nest.flatten(batch)]
  towers = []
  for device, share in zip(devices, zip(*flat_shares, strict=True), strict=True):
    with tf.device(device):
      share = tf.nest.pack_sequence_as(batch, share)
      towers.append(_tower(agent, share, hyperparameters, terms, reuse))
  losses, gradients = zip(*towers, strict=True)
  return Losses(*_add(losses)), _add(gradients)


def _add(rows):
  return [tf.add_n(column) for column in zip(*rows, strict=True)]


def build_update(trained, agent, refresh, batch, hyperparameters, optimizer, devices, reuse):
  """One update as graph operations.

  Args:
    trained: `roles.wiring.Graph`, of which are used: `weights`, `agent`, `counters`,
      `advantage_scale` and `together`.
    agent: the learner's own copy of it.
    refresh: operation that copies the weights into the copy.
    batch: `Unroll` of [B, ...].
    hyperparameters, devices, reuse: as elsewhere.
    optimizer: from `build_optimizer`.

  Returns:
    A dict of tensors to fetch: evaluating any of them does the update. `updates`,
    `environment_frames`, `gradient_norm` are those after it.
  """
  counters = trained.counters
  updates_before = counters.updates.read_value()
  with tf.control_dependencies([refresh, updates_before]):
    # Only reads that are created here see the refreshed copy.
    batch = tf.nest.map_structure(tf.identity, batch)
    weight = entropy_cost(hyperparameters, counters.environment_frames.read_value())
    terms = dict(entropy_weight=reuse.first_only(weight))
    if trained.advantage_scale:
      terms['advantage_factor'] = trained.advantage_scale.factor()
    if agent.value_scale:
      terms['advantage_factor'] = terms['baseline_factor'] = agent.value_scale.factor()
    losses, gradients = build_gradients(agent, batch, hyperparameters, terms, devices, reuse)
  # Weights of updates that a restart from a checkpoint has made void count as the newest.
  lag = tf.cast(tf.maximum(updates_before - batch.policy_version, 0), tf.float32)
  update = optimizer.apply_gradients(
    list(zip(trained.weights.cut(gradients), trained.weights.slices, strict=True)),
    global_step=counters.updates,
  )
  with tf.control_dependencies([update]):
    taken_in = _add_to_statistics(trained, batch, losses, reuse)
  with tf.control_dependencies([update, *taken_in]):
    frames = counters.environment_frames.read_value()
    values = dict(
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
    )
    return {name: tf.identity(value) for name, value in values.items()}


def _add_to_statistics(trained, batch, losses, reuse):
  """What a run keeps of its batches beside weights and counters; a list of operations."""
  agent, operations = trained.agent, []
  if agent.running_scaling:
    env_outputs, add = batch.env_outputs, agent.running_scaling.add
    operations.append(reuse.in_first(lambda: add(*observation_sums(env_outputs))))
  if agent.value_scale:
    targets = losses.targets
    operations.append(reuse.in_first(lambda: agent.value_scale.add(targets, trained.together)))
  if trained.advantage_scale:
    number, _, squares = tf.unstack(losses.advantages)
    operations.append(trained.advantage_scale.add(tf.stack([number, squares])))
  return operations


class LearnerLoop:
  """One update after another; the next batch is dequeued during the current update.

  Args:
    queue: tf.queue.FIFOQueue of single unrolls.
    structure: nest like an `Unroll`, the structure of a batch.
    batch_size: B.
    reuse: `sample_reuse.SampleReuse`.
  """

  def __init__(self, queue, structure, batch_size, reuse):
    shapes = [[batch_size, *shape] for shape in queue.shapes]
    staged = tf.queue.FIFOQueue(1, queue.dtypes, shapes, name='staged')
    self._stage = staged.enqueue(queue.dequeue_many(batch_size))
    self._reuse = reuse
    with tf.device('/cpu:0'):
      flat = reuse.held(staged.dequeue, list(zip(queue.dtypes, shapes, strict=True)))
    self.batch = tf.nest.pack_sequence_as(structure, flat)
    self._session, self._lock = None, threading.Lock()

  def _staged_in(self, session):
    """The semaphore that counts a session's staged batches; those of an earlier one are lost."""
    with self._lock:
      if self._session is not session:
        self._session, self._staged = session, threading.Semaphore(0)
      return self._staged

  def run_staging(self, session, should_stop, enter):
    """Fetches batches ahead until told to stop or the queue closes; runs in a thread of its own."""
    stage = self.stage_once(session)
    while not should_stop():
      enter('dequeue')
      stage()

  def stage_once(self, session):
    """A function that moves one batch from the queue to where the update takes it."""
    stage, staged = session.make_callable(self._stage), self._staged_in(session)

    def step():
      stage()
      staged.release()

    return step

  def run(self, session, update, should_stop, enter, report):
    """Updates until told to stop or an operation fails.

    Args:
      session: tf.compat.v1.Session.
      update: the dict of `build_update`.
      should_stop: function without arguments.
      enter: function of the name of the phase that begins.
      report: function of (the fetched dict and the `pass` over the batch, from 1 on; wait_secs,
        busy_secs), after every update.
    """
    names, staged = list(update), self._staged_in(session)
    passes = self._passes(session, [update[name] for name in names])
    while not should_stop():
      began = time.monotonic()
      enter('wait')
      while not staged.acquire(timeout=0.5):
        if should_stop():
          return
      for number, fetch in enumerate(passes, 1):
        ready = time.monotonic()
        enter('update')
        values = dict(zip(names, fetch(), strict=True)) | {'pass': number}
        report(values, ready - began, time.monotonic() - ready)
        began = time.monotonic()
        if should_stop():
          return

  def _passes(self, session, tensors):
    """A function for each pass over a batch, which gives the values of tensors."""
    fetch = session.make_callable(tensors, feed_list=[self._reuse.index])
    return [functools.partial(fetch, i) for i in range(self._reuse.passes)]
