"""Computes the sizes of a run's weights and unrolls from its graph (`--mode=sizes`)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from roles.settings import Settings
from runtime import cluster, process

if TYPE_CHECKING:
  import tensorflow as tf

# Optimizer slots per weight: Adam's two moments; RMSProp's mean square and momentum.
SLOTS = {'adam': 2, 'rmsprop': 2}


def sizes(settings: Settings, envs_per_actor: int, num_actors: int) -> dict[str, Any]:
  """Returns the sizes of what a run's tasks store and send, for planning a cluster.

  Args:
    settings: the run's settings.
    envs_per_actor: environments per actor loop.
    num_actors: actor loops per actor task.

  Returns:
    A dict of weight_bytes (trained weights), slot_bytes (all optimizer slots), unroll_bytes (one
    unroll as sent), envs_per_actor, num_actors, and the settings unroll_length (agent steps),
    num_action_repeats, batch_size (new unrolls per batch), sample_reuse and sync_learners.
  """
  tf = process.import_tensorflow()
  from roles import wiring

  with tf.Graph().as_default():
    graph = wiring.Graph(settings, cluster.LOCAL)
    _, specs = graph.unroll_queue(0)
    weight_bytes = _bytes_of(graph.agent.trainable_variables)
    unroll_bytes = _bytes_of(tf.nest.flatten(specs))
  return dict(
    weight_bytes=weight_bytes,
    slot_bytes=SLOTS[settings.optimizer] * weight_bytes,
    unroll_bytes=unroll_bytes,
    unroll_length=settings.unroll_length,
    num_action_repeats=settings.num_action_repeats,
    batch_size=settings.new_unrolls,
    sample_reuse=settings.sample_reuse,
    sync_learners=settings.sync_learners,
    envs_per_actor=envs_per_actor,
    num_actors=num_actors,
  )


def _bytes_of(tensors: 'Iterable[tf.Tensor | tf.Variable]') -> int:
  return sum(t.shape.num_elements() * t.dtype.size for t in tensors)
