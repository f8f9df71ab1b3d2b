"""Observers that stop their run, as an operator or a power cut would."""

import os
import signal


class AfterFour:
  """Sends SIGTERM when a start of the run has made four updates."""

  def __init__(self):
    self._updates = 0

  def on_update(self, update):
    self._updates += 1
    if self._updates == 4:
      os.kill(os.getpid(), signal.SIGTERM)


class KilledAfterCheckpoint:
  """Kills the process (SIGKILL) three updates after a checkpoint."""

  def __init__(self):
    self._updates = None

  def on_checkpoint(self, checkpoint):
    self._updates = 0

  def on_update(self, update):
    if self._updates is not None:
      self._updates += 1
      if self._updates == 3:
        os.kill(os.getpid(), signal.SIGKILL)
