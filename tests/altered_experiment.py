"""Runs experiment.py altered: `altered_experiment.py ALTERATION[,ALTERATION] [FLAGS...]`.

Alterations:
  flipped: the policy gradient has the wrong sign.
  slow: a learner rests for a second after each update.
  recorded=FILE: writes to FILE (.npz) the seeds of the environments ('seeds'), and every
    variable of a checkpoint as the first session has it ('session/NAME') and as the checkpoint that
    was restored has it ('checkpoint/NAME').
"""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np

import experiment
from runtime import process


def flip():
  """Gradient descent on the advantage instead of ascent."""
  import losses

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


def record(path):
  """See above."""
  import environments
  from runtime import sessions

  create_environment, open_session = environments.create_environment, sessions.open_session
  seeds = []

  def recording_create(level_name, num_envs, seed, *args):
    seeds.append(seed)
    return create_environment(level_name, num_envs, seed, *args)

  def recording_open(*args, **feed):
    session = open_session(*args, **feed)
    np.savez(path + '.new.npz', seeds=seeds, **_variables(session, *args[-2:]))
    os.replace(path + '.new.npz', path)
    return session

  environments.create_environment = recording_create
  sessions.open_session = recording_open


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


def main(alterations, *flags):
  """The program; returns its exit code."""
  process.import_tensorflow()
  for alteration in alterations.split(','):
    name, _, path = alteration.partition('=')
    if name == 'flipped':
      flip()
    elif name == 'slow':
      slow_down()
    else:
      record(path)
  return experiment.main(['experiment.py', *flags])


if __name__ == '__main__':
  process.leave(main(*sys.argv[1:]))
