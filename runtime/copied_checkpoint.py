"""Makes a checkpoint of one run from that of another: its values, but the first run's counters."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from runtime import checkpoint_folder
from runtime.checkpoint_folder import Saved
from runtime.checkpoints import damage, listed
from runtime.kept_checkpoints import Kept
from runtime.process import RunFailed

# Frames and updates of a run.
COUNTERS = ('environment_frames', 'global_step')


class Unreadable(Exception):
  """The other run's checkpoint is gone or damaged, or its network is another one."""


def copy(folder: str, own: Saved, path: str, mean_return_100: float | None, keep: int = 3) -> Saved:
  """Makes the newest checkpoint of a run from that of another.

  Args:
    folder: the run's folder, locked by this process.
    own: its newest checkpoint, the place of which the new one takes.
    path: path of the other run's checkpoint.
    mean_return_100: the other's, which the new checkpoint has from then on.
    keep: number of newest checkpoints to keep.

  Returns:
    The new checkpoint.

  Raises:
    Unreadable: see there; nothing is changed.
    RunFailed: the folder cannot be written.
  """
  values = _values(path)
  ours = _values(os.path.join(folder, own.name))
  if {n: v.shape for n, v in values.items()} != {n: v.shape for n, v in ours.items()}:
    raise Unreadable('its variables have other names or shapes')
  values |= {name: ours[name] for name in COUNTERS}
  kept = Kept(folder, listed(folder), checkpoint_folder.look(folder).written, keep=keep)
  try:
    name = checkpoint_folder.free_name(folder, own.updates)
    with checkpoint_folder.made_apart(folder) as made:
      _write(os.path.join(made, name), values)
      checkpoint_folder.publish(folder, made)
  except (OSError, tf.errors.OpError) as e:
    raise RunFailed(f'{folder}: no checkpoint could be written: {e}') from None
  kept.add(own._replace(name=name, mean_return_100=mean_return_100))
  kept.settle(mean_return_100)
  return kept.saved[-1]


def _values(path: str) -> dict[str, np.ndarray]:
  """Returns the values of a checkpoint by name."""
  if reason := damage(path):
    raise Unreadable(reason)
  try:
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}
  except (ValueError, tf.errors.OpError) as e:  # It was deleted just now.
    raise Unreadable(str(e)) from None


def _write(path: str, values: Mapping[str, np.ndarray]) -> None:
  """Writes a checkpoint of single values, as an unsharded Saver does."""
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    fed = {tf.compat.v1.placeholder(v.dtype, v.shape).ref(): v for v in values.values()}
    tensors = [reference.deref() for reference in fed]
    save = tf.raw_ops.SaveV2(
      prefix=path,
      tensor_names=list(values),
      shape_and_slices=[''] * len(values),
      tensors=tensors,
    )
    session.run(save, dict(zip(tensors, fed.values())))
