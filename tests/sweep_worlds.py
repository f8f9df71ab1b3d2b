"""Catch for runs of a sweep: one of them always ends its trainer, and all are slow on demand.

A check of flags plays a few steps, too, and does neither.
"""

import os
import signal
import time

import gymnasium

from envs.catch import Catch

# While this file is in the working directory of the trainer, a step takes HELD_SECS.
HOLD = 'hold'
HELD_SECS = 2.0
BROKEN = 7


class SweepCatch(Catch):
  """The run with number BROKEN ends by a signal."""

  def __init__(self, number=0, **kwargs):
    super().__init__(**kwargs)
    self._number = number
    with open(f'/proc/{os.getppid()}/cmdline', 'rb') as file:
      self._is_trained = b'--logdir=' in file.read()

  def step(self, action):
    if self._is_trained and self._number == BROKEN:
      os.kill(os.getppid(), signal.SIGKILL)
    end = time.monotonic() + HELD_SECS
    while self._is_trained and os.path.exists(HOLD) and time.monotonic() < end:
      time.sleep(0.05)
    return super().step(action)


gymnasium.register('SweepCatch-v0', entry_point=SweepCatch)
