"""Placement: variables go to the parameter servers, all else to the task that builds it."""

import tensorflow as tf


def cluster_spec(cluster):
  """The tf.train.ClusterSpec of a `runtime.cluster.Cluster`."""
  actors = dict(enumerate(cluster.actor))
  if cluster.is_spare:
    actors[cluster.task] = cluster.address(cluster.name)
  return tf.train.ClusterSpec(
    {'ps': list(cluster.ps), 'learner': list(cluster.learner), 'actor': actors}
  )


def byte_balanced(num_ps):
  """A strategy for tf.compat.v1.train.replica_device_setter: each variable to the emptiest ps.

  The same sequence of variables is dealt the same way in every role.
  """
  loads = [0] * num_ps

  def place(op):
    task = loads.index(min(loads))
    shape = tf.TensorShape(op.get_attr('shape'))
    loads[task] += shape.num_elements() * tf.dtypes.as_dtype(op.get_attr('dtype')).size
    return task

  return place


def variables_device(cluster):
  """The device scope or function under which global variables are created."""
  if cluster.is_local:
    return ''
  return tf.compat.v1.train.replica_device_setter(
    cluster=cluster_spec(cluster),
    worker_device=cluster.own_device,
    ps_strategy=byte_balanced(len(cluster.ps)),
  )


def session_config(cluster, threads=0):
  """tf.compat.v1.ConfigProto: device filters, growing GPU memory, threads per pool (0: all cores).

  Without the filters a session waits for every task of the cluster, up or not.
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
