"""Selects the checkpoints to keep: the newest, the best, and those that are never deleted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from runtime import checkpoint_folder
from runtime.checkpoint_folder import Saved
from runtime.process import RunFailed


class SaveFailed(RunFailed):
  """A checkpoint cannot be written; the earlier ones are unchanged."""


def best_of(checkpoints: Sequence[Saved]) -> Saved | None:
  """Returns the first checkpoint with the greatest `mean_return_100`, or None if none is known."""
  known = [saved for saved in checkpoints if saved.mean_return_100 is not None]
  return max(known, key=lambda saved: saved.mean_return_100 or 0.0, default=None)


class Kept:
  """The list of a folder's checkpoints, in memory and on disk.

  Args:
    folder: the run's folder.
    checkpoints: existing checkpoints, newest last.
    written: the list on disk, see `checkpoint_folder.Found`.
    keep: number of newest checkpoints to keep; the best one is kept as well.
    keep_every_frames: environment frames between checkpoints that are never deleted; 0 = none.
    in_use: returns whether a checkpoint (by name) is being read and must not be deleted.

  Attributes:
    saved: kept checkpoints, newest last.

  Raises:
    SaveFailed: the list on disk is out of date and cannot be written.
  """

  def __init__(
    self,
    folder: str,
    checkpoints: Sequence[Saved],
    written: Sequence[Saved] | None,
    keep: int = 3,
    keep_every_frames: int = 0,
    in_use: Callable[[str], bool] = lambda name: False,
  ):
    self._folder, self._keep, self._every = folder, keep, keep_every_frames
    self._in_use = in_use
    self.saved: list[Saved] = []
    latest = max((saved.updates for saved in written or ()), default=-1)
    for saved in checkpoints:
      # Without a list, all checkpoints are kept, since it is unknown which were to be deleted. An
      # unlisted checkpoint older than the list's newest was about to be deleted.
      is_new = saved not in (written or ()) and saved.updates > latest
      to_stay = written is None or (is_new and self.is_due(saved.frames))
      self.saved.append(saved._replace(for_ever=saved.for_ever or to_stay))
    if self.saved != (written or []):  # There was no list, or the last process was killed.
      self._write(self.saved)

  def is_due(self, frames: int) -> bool:
    """Returns whether a checkpoint at this number of frames must never be deleted."""
    return self._is_due_after(self.saved, frames)

  def _is_due_after(self, checkpoints: Sequence[Saved], frames: int) -> bool:
    before = checkpoints[-1].frames if checkpoints else 0
    return bool(self._every) and frames // self._every > before // self._every

  def add(self, new: Saved) -> None:
    """Adds a checkpoint whose files exist; call `settle` next to write the list."""
    self.saved.append(new)

  def settle(self, mean_return_100: float | None = None) -> None:
    """Writes the list and TensorFlow's record, then deletes the checkpoints not to be kept.

    Args:
      mean_return_100: mean return of the newest checkpoint; None if unknown or already stored.

    Raises:
      SaveFailed: the list cannot be written; nothing was deleted, and the call can be repeated.
    """
    *before, new = self.saved
    earlier = [saved for saved in before if saved.updates == new.updates]  # Same values as `new`.
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

  def _write(self, checkpoints: Sequence[Saved]) -> None:
    try:
      checkpoint_folder.write_list(self._folder, checkpoints, best_of(checkpoints))
    except OSError as e:
      path = os.path.join(self._folder, checkpoint_folder.LIST)
      raise SaveFailed(f'{path} cannot be written: {e.strerror}') from None
