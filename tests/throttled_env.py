"""Catch at a pace that no machine exceeds, until a test opens the throttle."""

import os
import time

import gymnasium

from envs.catch import Catch

OPEN = 'THROTTLED_ENV_OPEN'  # Environment variable: a file; once it exists, the pace is free.
STEP_SECS = float(os.environ.get('THROTTLED_ENV_SECS', 0.3))


class Throttled(Catch):
  """One step takes STEP_SECS."""

  def step(self, action):
    if not os.path.exists(os.environ[OPEN]):
      time.sleep(STEP_SECS)
    return super().step(action)


for _version in (0, 1):  # Of two levels, where a run has several.
  gymnasium.register(f'ThrottledCatch-v{_version}', entry_point=Throttled)
