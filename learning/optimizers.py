"""The optimizer of a run: RMSProp or Adam with gradient clipping, synchronous or asynchronous.

The rest of the learner's update is in `learning/learner.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from config import Hyperparameters

Optimizer: TypeAlias = tf.compat.v1.train.Optimizer


class Counters(NamedTuple):
  """Counters of a run, variables on a parameter server.

  Attributes:
    updates: int64 scalar, updates so far (TensorFlow's global step).
    environment_frames: int64 scalar, environment frames trained on.
    gradient_norm: float32 scalar, norm of the last total gradient before clipping.
  """

  updates: tf.Variable
  environment_frames: tf.Variable
  gradient_norm: tf.Variable


def create_counters() -> Counters:
  """Creates the counters as global variables on the device of the current scope."""
  zero: Any = 0.0
  return Counters(
    updates=tf.compat.v1.train.get_or_create_global_step(),
    environment_frames=tf.Variable(
      tf.zeros([], tf.int64), trainable=False, name='environment_frames'
    ),
    gradient_norm=tf.Variable(zero, trainable=False, name='gradient_norm'),
  )


def learning_rate(hyperparameters: Hyperparameters, environment_frames: tf.Tensor) -> tf.Tensor:
  """Returns a float32 scalar that decays linearly to 0 at `total_environment_frames`."""
  done = tf.cast(environment_frames, tf.float32) / hyperparameters.total_environment_frames
  return hyperparameters.learning_rate * tf.maximum(0.0, 1.0 - done)


def _inner_optimizer(hyperparameters: Hyperparameters, rate: tf.Tensor) -> Optimizer:
  if hyperparameters.optimizer == 'adam':
    return tf.compat.v1.train.AdamOptimizer(rate, epsilon=hyperparameters.epsilon)
  return tf.compat.v1.train.RMSPropOptimizer(
    rate, hyperparameters.decay, hyperparameters.momentum, hyperparameters.epsilon
  )


class TotalGradientOptimizer(Optimizer):
  """Checks, clips and applies the total gradient, and counts the environment frames.

  Everything runs on the devices of the variables; only scalars are sent to compute the norm.

  Args:
    optimizer: applies the clipped gradient.
    counters: updated with every application.
    gradient_clipping: largest global norm of the total gradient.
    scale: factor from the given gradients to the total gradient (the number of learners if they
      are averages over learners).
    frames: environment frames in the batches of one application.
    passes: number of applications that use the same frames.
    after_application: returns an operation to run after each application and before the next; or
      None.
  """

  def __init__(
    self,
    optimizer: Optimizer,
    counters: Counters,
    gradient_clipping: float,
    scale: float,
    frames: int,
    passes: int = 1,
    after_application: Callable[[], tf.Operation] | None = None,
  ):
    super().__init__(use_locking=False, name='TotalGradient')
    self._optimizer, self._counters = optimizer, counters
    self._clipping, self._scale = gradient_clipping, scale
    self._frames, self._passes = frames, passes
    self._after_application = after_application

  def apply_gradients(
    self,
    grads_and_vars: Iterable[tuple[tf.Tensor, tf.Variable]],
    global_step: tf.Variable | None = None,
    name: str | None = None,
  ) -> tf.Operation:
    """Returns the operation that applies the clipped total gradient.

    It raises InvalidArgumentError, with the number of the update, if the gradient is not finite.
    """
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
    # Frames are counted afterwards: an update's learning rate depends on the frames before it.
    with tf.control_dependencies([apply]):
      return tf.group(
        self._counters.environment_frames.assign_add(self._frames_of_application()),
        self._counters.gradient_norm.assign(norm),
        *([self._after_application()] if self._after_application else []),
      )

  def _frames_of_application(self) -> int | tf.Tensor:
    """Returns this application's share of the frames; the shares of all passes sum to `frames`."""
    if self._passes == 1:  # Avoids reading `updates`, which may be on another parameter server.
      return self._frames
    after = self._counters.updates.read_value() * self._frames
    return after // self._passes - (after - self._frames) // self._passes

  def _norm(self, gradients: Iterable[tf.Tensor], variables: Iterable[tf.Variable]) -> tf.Tensor:
    squares = []
    for gradient, variable in zip(gradients, variables, strict=True):
      with tf.device(variable.device):
        squares.append(tf.nn.l2_loss(gradient))
    with tf.device(self._counters.gradient_norm.device):
      return self._scale * tf.sqrt(2.0 * tf.add_n(squares))

  def get_slot(self, *args: Any, **kwargs: Any) -> tf.Variable | None:
    """As the inner optimizer."""
    return self._optimizer.get_slot(*args, **kwargs)

  def get_slot_names(self) -> list[str]:
    """As the inner optimizer."""
    return self._optimizer.get_slot_names()

  def variables(self) -> list[tf.Variable]:
    """As the inner optimizer."""
    return self._optimizer.variables()


def build_optimizer(
  hyperparameters: Hyperparameters,
  counters: Counters,
  num_learners_per_update: int = 1,
  after_application: Callable[[], tf.Operation] | None = None,
) -> tuple[Optimizer, tf.compat.v1.train.SyncReplicasOptimizer | None]:
  """Returns the optimizer of one learner.

  Args:
    hyperparameters: hyperparameters of the optimizer.
    counters: the run's counters.
    num_learners_per_update: number of learners whose gradients are summed for one update.
    after_application: see `TotalGradientOptimizer`.

  Returns:
    (optimizer, the same object if it is a SyncReplicasOptimizer, else None).
    SyncReplicasOptimizer averages the learners' gradients; the average is then scaled to the sum.
  """
  frames = (
    hyperparameters.new_unrolls
    * hyperparameters.unroll_length
    * hyperparameters.num_action_repeats
    * num_learners_per_update
  )
  rate = learning_rate(hyperparameters, counters.environment_frames.read_value())
  total = TotalGradientOptimizer(
    _inner_optimizer(hyperparameters, rate),
    counters,
    hyperparameters.gradient_clipping,
    float(num_learners_per_update),
    frames,
    hyperparameters.sample_reuse,
    after_application,
  )
  if num_learners_per_update == 1:
    return total, None
  sync_optimizer = tf.compat.v1.train.SyncReplicasOptimizer(
    total,
    replicas_to_aggregate=num_learners_per_update,
    total_num_replicas=num_learners_per_update,
  )
  return sync_optimizer, sync_optimizer


class SyncOps:
  """Operations of synchronous learners besides their updates; see SyncReplicasOptimizer.

  A learner dequeues a token from the optimizer's sync token queue before its next step; every
  application of the summed gradients enqueues one token per learner.

  Args:
    optimizer: a SyncReplicasOptimizer whose `apply_gradients` was called.

  Attributes:
    init: operation for every new session of a learner other than the chief.
    chief_init: operation for every new session of the chief.
    spare_tokens: enqueues one more token per learner when the chief resumes, since a learner may
      still wait for a token that was lost with the previous chief. An extra token costs one
      gradient, dropped as stale; a missing token causes a deadlock.
  """

  def __init__(self, optimizer: tf.compat.v1.train.SyncReplicasOptimizer):
    self.init: tf.Operation = optimizer.local_step_init_op
    self.chief_init: tf.Operation = optimizer.chief_init_op
    self.spare_tokens: tf.Operation = optimizer.get_init_tokens_op()
    (self._aggregate,) = optimizer.get_chief_queue_runner().enqueue_ops

  def run(self, session: tf.compat.v1.Session, should_stop: Callable[[], bool]) -> None:
    """Applies the summed gradients whenever all have arrived; runs in a thread of the chief."""
    aggregate = session.make_callable(self._aggregate)
    while not should_stop():
      aggregate()
