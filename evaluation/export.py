"""Exports a checkpoint as a SavedModel that needs none of this code, with policy.json beside it."""

import ctypes
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from common import files
from evaluation import copied_code
from evaluation.policy import build_policy, input_names
from runtime.process import RunFailed
from structs import Spaces, num_actions

# The player, and the folder with the code that makes and converts its environment.
_PLAYER, _TRAINER, _ENVIRONMENT = 'play_exported.py', 'trainer', 'envs.gym_env'
_MADE_IN = '.export-'


def export(
  folder: str,
  checkpoint: str,
  settings: Any,
  levels: Sequence[Mapping[str, Any]],
  description: Mapping[str, Any],
  write_more: Callable[[str, dict[str, Any]], None] = lambda folder, policy: None,
) -> None:
  """Writes the SavedModel, policy.json and what plays it; an earlier export is replaced.

  The signatures `initial_state` (batch_size int32 []) and `step` have the names, shapes and dtypes
  of `evaluation.policy.Policy`. Observations are passed as the environment returns them; the model
  scales them.

  Args:
    folder: folder of the export; its parent must exist.
    checkpoint: path of a checkpoint.
    settings: `roles.settings.Settings` of the run.
    levels: `environments.made_by` of each level.
    description: further entries of policy.json.
    write_more: function of the folder and the contents of policy.json that writes further files.

  Raises:
    RunFailed: it cannot be written; nothing is left of the new export.
  """
  parent = os.path.dirname(folder)
  try:
    _put_back(folder)
    new = tempfile.mkdtemp(prefix=_MADE_IN, dir=parent)
  except OSError as e:
    raise RunFailed(f'{folder}: the export cannot be written: {e.strerror}') from None
  try:
    _write_saved_model(new, checkpoint, settings)
    policy = {**_contents(checkpoint, settings, levels), **description}
    with open(os.path.join(new, 'policy.json'), 'w', encoding='utf-8') as file:
      json.dump(policy, file, indent=2)
      file.write('\n')
    shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), _PLAYER), new)
    if any(level['environment'] for level in levels):
      copied_code.copy(_ENVIRONMENT, os.path.join(new, _TRAINER))
    write_more(new, policy)
    _sync(new)
    os.chmod(new, 0o777 & ~_umask())  # mkdtemp makes a folder that only its owner can read.
    _replace(new, folder)
    files.sync_folder(parent)
  except (OSError, tf.errors.OpError) as e:
    raise RunFailed(f'{folder}: the export cannot be written: {e}') from e
  finally:
    shutil.rmtree(new, ignore_errors=True)  # By now it may be the earlier export.


def _put_back(folder: str) -> None:
  """Removes what killed exports have left; an earlier export gets its name back."""
  parent, old = os.path.dirname(folder), folder + '.old'
  if os.path.isdir(old) and not os.path.exists(folder):
    os.rename(old, folder)
  left = [name for name in files.names(parent) if name.startswith(_MADE_IN)]
  for path in (old, folder + '.new', *(os.path.join(parent, name) for name in left)):
    shutil.rmtree(path, ignore_errors=True)


def _replace(new: str, folder: str) -> None:
  """Exchanges the names of the new and the earlier export.

  If the file system cannot exchange two names at once, a kill between two renames may leave the
  earlier export as FOLDER.old, which `_put_back` renames.
  """
  if not os.path.lexists(folder):
    os.rename(new, folder)
  elif not _exchange(new, folder):
    os.rename(folder, folder + '.old')
    os.rename(new, folder)
    os.rename(folder + '.old', new)


def _exchange(one: str, other: str) -> bool:
  """Exchanges two names at once; returns False if the system or the file system cannot."""
  try:
    renameat2 = ctypes.CDLL(None).renameat2
  except (OSError, AttributeError):
    return False
  here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE.
  return renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _sync(folder: str) -> None:
  for at, _, names in os.walk(folder):
    for name in names:
      files.sync(os.path.join(at, name))
    files.sync_folder(at)


def _umask() -> int:
  """Returns the file mode mask of this process, which can only be read by setting it."""
  mask = os.umask(0o077)
  os.umask(mask)
  return mask


def _write_saved_model(folder: str, checkpoint: str, settings: Any) -> None:
  with tf.Graph().as_default():  # No seed: each process samples other actions.
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


def _contents(
  checkpoint: str, settings: Any, levels: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  atari = levels[0]['atari']
  reader = tf.train.load_checkpoint(checkpoint)
  frames = 'environment_frames'
  return dict(
    level_name=settings.level_name,
    agent_name=settings.agent_name,
    observation=[
      dict(input=name, **array._asdict())
      for name, array in zip(input_names(settings), settings.observation, strict=True)
    ],
    action=[part._asdict() for part in settings.action],
    num_actions=num_actions(settings.action),
    num_action_repeats=settings.num_action_repeats,
    observation_scaling=settings.observation_scaling,
    preprocessing=(
      f'{_inputs(settings)}; their scaling ({settings.observation_scaling}) is inside the model'
      + ('; grey frames, the maximum of the last two, stacked, oldest first' if atari else '')
    ),
    atari=atari,
    environment=levels[0]['environment'],
    **(dict(levels=list(levels)) if len(levels) > 1 else {}),
    protocol='training',
    checkpoint=os.path.basename(checkpoint),
    environment_frames=(int(reader.get_tensor(frames)) if reader.has_tensor(frames) else None),
  )


def _inputs(spaces: Spaces) -> str:
  if len(spaces.observation) == 1:
    return f'observations go in as {spaces.observation[0].dtype} of [N, shape]'
  names = zip(input_names(spaces), spaces.observation, strict=True)
  return 'observations go in as ' + ', '.join(
    f'{name}: {array.dtype} of {["N", *array.shape]}' for name, array in names
  )
