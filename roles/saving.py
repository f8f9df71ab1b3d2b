"""When the chief saves, and that a disk which takes no checkpoint does not end training."""

import time

from runtime.checkpoints import SaveFailed

_RETRY_SECS = 30.0  # Until a save that failed is tried again; never longer than between two.
_LAST_PAUSES_SECS = (1.0, 4.0)  # Between the tries of the last one.


class Saving:
  """Saves when a checkpoint is due; tries again where the disk is full or broken.

  Args:
    checkpoints: `runtime.checkpoints.Checkpoints`.
    secs: between two checkpoints.
    message: function of a sentence for the terminal.
    trouble: function of what the chief's line is to say of checkpoints, '' where all is well.
  """

  def __init__(self, checkpoints, secs, message, trouble):
    self._checkpoints, self._secs = checkpoints, secs
    self._message, self._trouble = message, trouble
    self._saved_at, self._failed, self._not_before = time.time(), '', 0.0
    self._put_off()

  def _put_off(self):
    self._next = time.monotonic() + self._secs

  def is_due(self, frames, is_wanted=False):
    """Whether to save now.

    Args:
      frames: int, environment frames.
      is_wanted: whether somebody wants a checkpoint of these frames.
    """
    now = time.monotonic()
    if now < self._not_before:
      return False
    return is_wanted or now >= self._next or self._checkpoints.is_due(frames)

  def save(self, session, updates, mean_return_100):
    """Saves, see `Checkpoints.save`; returns None, and says so, where the disk does not take it."""
    try:
      saved = self._checkpoints.save(session, updates, mean_return_100)
    except SaveFailed as e:
      self._has_failed(str(e))
      return None
    if self._failed:
      self._message('a checkpoint could be written again')
      self._trouble('')
    self._saved_at, self._failed, self._not_before = time.time(), '', 0.0
    self._put_off()
    return saved

  def _has_failed(self, reason):
    again = min(_RETRY_SECS, self._secs)
    self._not_before = time.monotonic() + again
    if reason != self._failed:
      self._message(
        f'no checkpoint could be written: {reason}; training goes on, and it is tried again every '
        f'{again:g} s'
      )
    self._failed = reason
    since = time.strftime('%H:%M', time.localtime(self._saved_at))
    self._trouble(f'NOT SAVED since {since}: {reason}')

  def save_last(self, session, updates, mean_return_100):
    """Saves at the end of the run, with a few tries.

    Returns:
      (its `Saved` or None; '' or why it could not be done).
    """
    for secs in (*_LAST_PAUSES_SECS, None):
      if saved := self.save(session, updates, mean_return_100):
        return saved, ''
      if secs is not None:
        time.sleep(secs)
    return None, self._failed
