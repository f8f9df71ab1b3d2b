"""Runs experiment.py with waits in place of computation, to measure what a cluster costs.

  python benchmarks/waiting_experiment.py UPDATE_SECS UNROLL_SECS [FLAGS...]

A learner's gradients take UPDATE_SECS and are a thousandth of the weights; an actor's unrolls take
UNROLL_SECS and are noise of the real shapes. Everything else is real: weights travel, batches wait
in queues, gradients are summed and applied.
"""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np

import experiment
from runtime import process


def waits(secs, *inputs):
  """Returns a tensor that is ready `secs` seconds after the inputs are."""
  import tensorflow as tf

  def wait(*unused):
    time.sleep(secs)
    return np.float32(0)

  return tf.ensure_shape(tf.numpy_function(wait, inputs, tf.float32), [])


def replace_gradients(secs):
  """Makes learners wait in place of computing gradients."""
  import tensorflow as tf

  from learning import learner, losses

  def build_gradients(agent, batch, *unused):
    del unused
    waited = waits(secs, *tf.nest.flatten(batch))
    with tf.control_dependencies([waited]):
      gradients = [1e-3 * v.read_value() for v in agent.trainable_variables]
    return losses.Losses(*(waited for _ in losses.Losses._fields)), gradients

  learner.build_gradients = build_gradients


def replace_unrolls(secs):
  """Makes actors wait in place of playing, and send noise."""
  import tensorflow as tf

  from acting import actor

  unroll_specs, specs = actor.unroll_specs, []

  def remembering_specs(*args, **kwargs):
    specs.append(unroll_specs(*args, **kwargs))
    return specs[-1]

  def build_unroll(agent, environments, unroll_length, policy_version, *unused, **unused_by_name):
    del agent, unroll_length, unused, unused_by_name
    n = environments.num_envs
    noise = tf.nest.map_structure(lambda spec: _noise([n, *spec.shape], spec.dtype), specs[-1])
    # After the weights were read, whose version it is.
    waited = waits(secs, policy_version.read_value())
    with tf.control_dependencies([waited]):
      noise = tf.nest.map_structure(tf.identity, noise)
      return noise._replace(policy_version=tf.fill([n], policy_version.read_value()))

  actor.unroll_specs, actor.build_unroll = remembering_specs, build_unroll


def _noise(shape, dtype):
  import tensorflow as tf

  rng = np.random.default_rng(0)
  top = 255 if dtype == tf.uint8 else 2
  values = np.zeros(shape) if dtype == tf.bool else rng.integers(0, top, shape)
  return tf.compat.v1.Variable(
    values.astype(dtype.as_numpy_dtype), trainable=False, use_resource=True,
    collections=['local_variables'],
  ).read_value()  # fmt: skip


def main():
  """Runs the program; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0], allow_abbrev=False)
  parser.add_argument('update_secs', type=float, help='seconds of a learner for each update')
  parser.add_argument('unroll_secs', type=float, help='seconds of an actor for each unroll')
  options, flags = parser.parse_known_args()
  process.import_tensorflow()
  replace_gradients(options.update_secs)
  replace_unrolls(options.unroll_secs)
  return experiment.main(['experiment.py', *flags])


if __name__ == '__main__':
  process.leave(main())
