"""A checkpoint becomes a SavedModel that needs none of this code, described beside it."""

import json
import os
import shutil

import tensorflow as tf

from evaluation.policy import build_policy
from runtime.process import RunFailed

_PLAYER = 'play_exported.py'


def export(folder, checkpoint, settings, atari, description, add=lambda folder, policy: None):
  """Writes the SavedModel, policy.json and play_exported.py; an earlier export is replaced.

  The signatures `initial_state` (batch_size int32 []) and `step` have the names, shapes and dtypes
  of `evaluation.policy.Policy`. Observations go in as the environment gives them: their scaling is
  inside.

  Args:
    folder: of the export; its parent exists.
    checkpoint: path of a checkpoint.
    settings: a run's settings.
    atari: dict of the arguments of ale_py's AtariVectorEnv, None for other levels.
    description: dict of further entries of policy.json.
    add: function of a folder and the contents of policy.json, writes what else belongs there.

  Raises:
    RunFailed: the disk; then nothing is left of the new export.
  """
  new, old = folder + '.new', folder + '.old'
  for path in (new, old):
    shutil.rmtree(path, ignore_errors=True)
  try:
    _write_saved_model(new, checkpoint, settings)
    policy = _contents(checkpoint, settings, atari) | description
    with open(os.path.join(new, 'policy.json'), 'w', encoding='utf-8') as file:
      json.dump(policy, file, indent=2)
      file.write('\n')
    shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), _PLAYER), new)
    add(new, policy)
    if os.path.exists(folder):
      os.rename(folder, old)
    os.rename(new, folder)
  except (OSError, tf.errors.OpError) as e:
    raise RunFailed(f'{folder}: the export cannot be written: {e}') from e
  finally:
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _write_saved_model(folder, checkpoint, settings):
  with tf.Graph().as_default():  # Without a seed: actions are drawn anew in each process.
    policy = build_policy(settings)
    saver = tf.compat.v1.train.Saver(policy.agent.variables)
    signature = tf.compat.v1.saved_model.predict_signature_def
    with tf.compat.v1.Session() as session:
      saver.restore(session, checkpoint)
      builder = tf.compat.v1.saved_model.Builder(folder)
      builder.add_meta_graph_and_variables(
        session,
        [tf.saved_model.SERVING],
        {
          'initial_state': signature(
            {'batch_size': policy.batch_size}, {'state': policy.initial_state}
          ),
          'step': signature(policy.inputs, policy.outputs),
        },
        saver=saver,
      )
      builder.save()


def _contents(checkpoint, settings, atari):
  reader = tf.train.load_checkpoint(checkpoint)
  frames = 'environment_frames'
  return dict(
    level_name=settings.level_name,
    agent_name=settings.agent_name,
    observation_shape=list(settings.observation_shape),
    observation_dtype=settings.observation_dtype,
    num_actions=settings.num_actions,
    num_action_repeats=settings.num_action_repeats,
    observation_scaling=settings.observation_scaling,
    preprocessing=(
      f'observations go in as {settings.observation_dtype} of [N, shape]; their scaling '
      f'({settings.observation_scaling}) is inside the model'
      + ('; grey frames, the maximum of the last two, stacked, oldest first' if atari else '')
    ),
    atari=atari,
    protocol='training',
    checkpoint=os.path.basename(checkpoint),
    environment_frames=(int(reader.get_tensor(frames)) if reader.has_tensor(frames) else None),
  )
