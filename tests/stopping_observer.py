"""An observer that stops its run, as an operator would."""

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
