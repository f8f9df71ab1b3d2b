"""Runs experiment.py altered: `altered_experiment.py ALTERATION[,ALTERATION] [FLAGS...]`.

Alterations:
  flipped: the policy gradient has the wrong sign.
  slow: a learner rests for a second after each update.
  late=FILE: where FILE is there, each update takes as many seconds longer as it says; it is printed
    when each begins and ends.
  recorded=FILE: writes to FILE (.npz) the seeds of the environments ('seeds'), and every
    variable of a checkpoint as the first session has it ('session/NAME') and as the checkpoint that
    was restored has it ('checkpoint/NAME').
  messages=FILE: a learner writes to FILE (JSON) for each of its updates 4 to 7 a list: a line of
    the trace for every message between processes: bytes, tensor, sender and receiver.
"""

import functools
import itertools
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np

import experiment
from runtime import process


def flip():
  """Gradient descent on the advantage instead of ascent."""
  from learning import losses

  loss = losses.policy_gradient_loss
  losses.policy_gradient_loss = lambda *args: -loss(*args)


def slow_down():
  """See above."""
  from roles.parts import Learning

  on_update = Learning._on_update

  def slow_update(*args):
    on_update(*args)
    time.sleep(1)

  Learning._on_update = slow_update


def be_late(path):
  """See above."""
  from learning.learner_loop import LearnerLoop

  make_passes = LearnerLoop._passes

  def late(fetch):
    print('update begins', flush=True)
    if os.path.exists(path):
      with open(path) as file:
        time.sleep(float(file.read() or 0))  # Empty while it is being written.
    values = fetch()
    print('update ends', flush=True)
    return values

  LearnerLoop._passes = lambda *args: [functools.partial(late, f) for f in make_passes(*args)]


def record(path):
  """See above."""
  import environments
  from roles.initialization import VariableInitializer

  create_environment = environments.create_environment
  initialize = VariableInitializer.initialize
  seeds = []

  def recording_create(level_name, num_envs, seed, *args, **kwargs):
    seeds.append(seed)
    return create_environment(level_name, num_envs, seed, *args, **kwargs)

  def recording_initialize(initializer, session, checkpoint):
    origin = initialize(initializer, session, checkpoint)
    found = _variables(session, initializer._restore.__self__, checkpoint)
    np.savez(path + '.new.npz', seeds=seeds, **found)
    os.replace(path + '.new.npz', path)
    return origin

  environments.create_environment = recording_create
  VariableInitializer.initialize = recording_initialize


def _variables(session, checkpoints, checkpoint):
  import tensorflow as tf

  session.run(checkpoints._gather)
  found = session.run(checkpoints.variables)
  values = {f'session/{name}': value for name, value in found.items()}
  if not checkpoint:
    return values
  reader = tf.train.load_checkpoint(checkpoint)
  names = reader.get_variable_to_shape_map()
  return {**values, **{f'checkpoint/{name}': reader.get_tensor(name) for name in names}}


def trace_messages(path):
  """See above."""
  import tensorflow as tf

  from learning.learner_loop import LearnerLoop

  make_passes = LearnerLoop._passes
  updates = []

  def traced(session, tensors, feed):
    metadata = tf.compat.v1.RunMetadata()
    options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
    values = session.run(tensors, feed, options=options, run_metadata=metadata)
    nodes = (node for device in metadata.step_stats.dev_stats for node in device.node_stats)
    updates.append([node.timeline_label for node in nodes if node.node_name == 'RecvTensor'])
    if len(updates) == 4:
      with open(path + '.new', 'w') as file:
        json.dump(updates, file)
      os.replace(path + '.new', path)
    return values

  def tracing_passes(self, session, tensors):
    numbers = itertools.count(1)

    def fetch(index, untraced):
      if not 4 <= next(numbers) < 8:
        return untraced()
      return traced(session, tensors, {self._reuse.index: index})

    passes = make_passes(self, session, tensors)
    return [functools.partial(fetch, i, untraced) for i, untraced in enumerate(passes)]

  LearnerLoop._passes = tracing_passes


def main(alterations, *flags):
  """The program; returns its exit code."""
  process.import_tensorflow()
  for alteration in alterations.split(','):
    name, _, path = alteration.partition('=')
    if name == 'flipped':
      flip()
    elif name == 'slow':
      slow_down()
    elif name == 'late':
      be_late(path)
    elif name == 'messages':
      trace_messages(path)
    else:
      record(path)
  return experiment.main(['experiment.py', *flags])


if __name__ == '__main__':
  process.leave(main(*sys.argv[1:]))
