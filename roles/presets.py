"""Names a preset of flagfiles/ for a run that sets no flag of learning."""

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
  """Returns a sentence for a new run that is not Atari and sets no flag of learning, or nothing.

  Args:
    settings: of the run.
    given: names of the flags that the command gives.
  """
  import environments  # Imported by now; it takes a moment.

  shape = settings.num_action_repeats, settings.width, settings.height
  if config.LEARNING_FLAGS & set(given) or environments.atari_arguments(
    settings.level_name, *shape
  ):
    return []
  general = 'vector' if len(settings.observation_shape) == 1 else 'atari'
  preset = _OF_LEVELS.get(settings.level_name, general)
  path = os.path.join('flagfiles', f'{preset}.flags')
  return [
    "the defaults of learning are those of IMPALA's paper, for Atari games; for "
    f'{settings.level_name} try --flagfile={path}'
  ]
