"""Placement: variables go to the parameter servers, everything else to the task that builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from runtime.cluster import Cluster


def cluster_spec(cluster: Cluster) -> tf.train.ClusterSpec:
  """Returns a cluster as a tf.train.ClusterSpec; a spare actor adds itself."""
  actors = dict(enumerate(cluster.actor))
  if cluster.is_spare:
    actors[cluster.task] = cluster.address(cluster.name)
  return tf.train.ClusterSpec(
    {'ps': list(cluster.ps), 'learner': list(cluster.learner), 'actor': actors}
  )


def byte_balanced(num_ps: int) -> Callable[[tf.Operation], int]:
  """Returns a replica_device_setter strategy that puts each variable on the ps with fewest bytes.

  Every role creates the same variables in the same order, so all roles place them alike.
  """
  loads = [0] * num_ps

  def place(op: tf.Operation) -> int:
    task = loads.index(min(loads))
    shape = tf.TensorShape(op.get_attr('shape'))
    loads[task] += shape.num_elements() * tf.dtypes.as_dtype(op.get_attr('dtype')).size
    return task

  return place


def variables_device(cluster: Cluster) -> Any:
  """Returns the device scope or function under which global variables are created."""
  if cluster.is_local:
    return ''
  return tf.compat.v1.train.replica_device_setter(
    cluster=cluster_spec(cluster),
    worker_device=cluster.own_device,
    ps_strategy=byte_balanced(len(cluster.ps)),
  )


def session_config(cluster: Cluster, threads: int = 0) -> tf.compat.v1.ConfigProto:
  """Returns the configuration of this task's sessions: device filters, GPU memory growth, threads.

  Without device filters, a session waits for every task of the cluster, needed or not.

  Args:
    cluster: the cluster and this task's index in it.
    threads: threads per TensorFlow pool; 0 = one per core.
  """
  config = tf.compat.v1.ConfigProto(
    allow_soft_placement=True,
    inter_op_parallelism_threads=threads,
    intra_op_parallelism_threads=threads,
  )
  config.gpu_options.allow_growth = True
  if not cluster.is_local:
    filters = ['/job:ps', cluster.own_device]
    if cluster.job == 'actor':
      filters.append(cluster.device('learner', cluster.learner_of_actor))
    config.device_filters.extend(filters)
  return config
