"""A checkpoint becomes a SavedModel that needs none of this code, described beside it."""

import ctypes
import json
import os
import shutil
import tempfile

import tensorflow as tf

from common import files
from evaluation.policy import build_policy
from runtime.process import RunFailed

_PLAYER, _MADE_IN = 'play_exported.py', '.export-'


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
  parent = os.path.dirname(folder)
  try:
    _put_back(folder)
    new = tempfile.mkdtemp(prefix=_MADE_IN, dir=parent)
  except OSError as e:
    raise RunFailed(f'{folder}: the export cannot be written: {e.strerror}') from None
  try:
    _write_saved_model(new, checkpoint, settings)
    policy = _contents(checkpoint, settings, atari) | description
    with open(os.path.join(new, 'policy.json'), 'w', encoding='utf-8') as file:
      json.dump(policy, file, indent=2)
      file.write('\n')
    shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), _PLAYER), new)
    add(new, policy)
    _sync(new)
    os.chmod(new, 0o777 & ~_umask())  # That of mkdtemp keeps others out.
    _replace(new, folder)
    files.sync_folder(parent)
  except (OSError, tf.errors.OpError) as e:
    raise RunFailed(f'{folder}: the export cannot be written: {e}') from e
  finally:
    shutil.rmtree(new, ignore_errors=True)  # By now it may be the earlier export.


def _put_back(folder):
  """Removes what killed exports have left, but for an export that one of them had just moved."""
  parent, old = os.path.dirname(folder), folder + '.old'
  if os.path.isdir(old) and not os.path.exists(folder):
    os.rename(old, folder)
  left = [name for name in files.names(parent) if name.startswith(_MADE_IN)]
  for path in (old, folder + '.new', *(os.path.join(parent, name) for name in left)):
    shutil.rmtree(path, ignore_errors=True)


def _replace(new, folder):
  """Gives the new folder its name, and the earlier one that of the new; both exist at any time.

  Where the file system cannot exchange two names, a kill between two renames leaves the earlier one
  as FOLDER.old, and `_put_back` gives it its name again.
  """
  if not os.path.lexists(folder):
    os.rename(new, folder)
  elif not _exchange(new, folder):
    os.rename(folder, folder + '.old')
    os.rename(new, folder)
    os.rename(folder + '.old', new)


def _exchange(one, other):
  """Exchanges two names at once; False where the system or the file system cannot."""
  try:
    renameat2 = ctypes.CDLL(None).renameat2
  except (OSError, AttributeError):
    return False
  here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE.
  return renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _sync(folder):
  for at, _, names in os.walk(folder):
    for name in names:
      files.sync(os.path.join(at, name))
    files.sync_folder(at)


def _umask():
  """The mask of this process; it can only be read by setting it."""
  mask = os.umask(0o077)
  os.umask(mask)
  return mask


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
