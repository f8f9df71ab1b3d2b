"""Suggests a preset of flagfiles/ for a run that sets no learning flag."""

import os
from collections.abc import Collection

import config
from roles.settings import Settings

_OF_LEVELS = {
  'CartPole-v0': 'cartpole',
  'CartPole-v1': 'cartpole',
  'impala/Catch-v0': 'catch',
  'impala/Memory-v0': 'memory',
}


def hint(settings: Settings, given: Collection[str]) -> list[str]:
  """Returns [sentence] for a new non-Atari run that sets no learning flag, else [].

  Args:
    settings: the run's settings.
    given: names of the flags on the command line.
  """
  import environments  # Slow to import, but already imported by now.

  shape = settings.num_action_repeats, settings.width, settings.height
  if config.LEARNING_FLAGS & set(given) or environments.atari_arguments(settings.level, *shape):
    return []
  has_image = any(len(array.shape) == 3 for array in settings.observation)
  general = 'atari' if has_image else 'vector'
  preset = _OF_LEVELS.get(settings.level_name, general)
  path = os.path.join('flagfiles', f'{preset}.flags')
  return [
    "the defaults of learning are those of IMPALA's paper, for Atari games; for "
    f'{settings.level_name} try --flagfile={path}'
  ]
