"""Which checkpoints of a run are kept: the newest, the best, and those that are never deleted."""

import os

from runtime import checkpoint_folder
from runtime.process import RunFailed


class SaveFailed(RunFailed):
  """The disk does not take a checkpoint; what was saved before is as it was."""


def best_of(checkpoints):
  """The first of the greatest `mean_return_100` in a list of `Saved`; None where none is known."""
  known = [saved for saved in checkpoints if saved.mean_return_100 is not None]
  return max(known, key=lambda saved: saved.mean_return_100, default=None)


class Kept:
  """The list of a folder's checkpoints, in memory and on disk.

  Args:
    folder: of the run.
    checkpoints: list of `Saved` that are there, the newest last.
    written: the list on disk, see `checkpoint_folder.Found`.
    in_use: function of a name, whether somebody reads that checkpoint, so that it must stay.
    keep: the newest so many are kept; the best of all that were saved is, too.
    keep_every_frames: environment frames between those that are never deleted; 0: there are none.

  Attributes:
    saved: list of `Saved`, the newest last.

  Raises:
    SaveFailed: the list on disk is another one, and cannot be written.
  """

  def __init__(self, folder, checkpoints, written, in_use, keep=3, keep_every_frames=0):
    self._folder, self._keep, self._every = folder, keep, keep_every_frames
    self.saved, self._in_use = [], in_use
    latest = max((saved.updates for saved in written or ()), default=-1)
    for saved in checkpoints:
      # Without a list nobody knows which of them were to stay; so all do. An earlier one that is
      # not on it was about to be deleted.
      is_new = saved not in (written or ()) and saved.updates > latest
      to_stay = written is None or (is_new and self.is_due(saved.frames))
      self.saved.append(saved._replace(for_ever=saved.for_ever or to_stay))
    if self.saved != (written or []):  # No list, or the last process was killed.
      self._write(self.saved)

  def is_due(self, frames):
    """Whether one that is never deleted has to be saved at so many environment frames."""
    return self._is_due_after(self.saved, frames)

  def _is_due_after(self, checkpoints, frames):
    before = checkpoints[-1].frames if checkpoints else 0
    return bool(self._every) and frames // self._every > before // self._every

  def add(self, new):
    """Takes note of a checkpoint that is there, before anything is written of it."""
    self.saved.append(new)

  def settle(self, mean_return_100=None):
    """Lists the newest, also in TensorFlow's record; then those go that the list does without.

    Args:
      mean_return_100: of the newest; None where it is not known, or known already.

    Raises:
      SaveFailed: the disk does not take it; nothing was deleted, and it can be tried again.
    """
    *before, new = self.saved
    earlier = [saved for saved in before if saved.updates == new.updates]  # Saved once more.
    others = [saved for saved in before if saved not in earlier]
    for_ever = any(saved.for_ever for saved in [new, *earlier])
    for_ever = for_ever or self._is_due_after(others, new.frames)
    means = [mean_return_100, *(saved.mean_return_100 for saved in [new, *earlier])]
    known = next((mean for mean in means if mean is not None), None)
    self.saved[-1] = new = new._replace(mean_return_100=known, for_ever=for_ever)
    kept = {*[*others, new][-self._keep :], best_of([*others, new])}
    wanted = [s for s in others if s.for_ever or s in kept or self._in_use(s.name)]
    wanted = [*wanted, *(s for s in earlier if self._in_use(s.name)), new]
    try:
      checkpoint_folder.write_record(self._folder, new.name)
    except OSError as e:
      raise SaveFailed(f'{checkpoint_folder.RECORD}: {e.strerror}') from None
    self._write(wanted)
    self.saved = wanted
    for old in before:
      if old not in wanted:
        checkpoint_folder.delete(os.path.join(self._folder, old.name))

  def _write(self, checkpoints):
    try:
      checkpoint_folder.write_list(self._folder, checkpoints, best_of(checkpoints))
    except OSError as e:
      path = os.path.join(self._folder, checkpoint_folder.LIST)
      raise SaveFailed(f'{path} cannot be written: {e.strerror}') from None
