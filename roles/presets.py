"""Suggests flags for a new run: a preset, and rewards that are not clipped for PopArt of levels."""

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
_OF_FAMILIES = {'MinAtar/': 'minatar', 'MiniGrid-': 'minigrid', 'BabyAI-': 'minigrid'}


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
  path = os.path.join('flagfiles', f'{_preset(settings)}.flags')
  return [
    "the defaults of learning are those of IMPALA's paper, for Atari games; for "
    f'{settings.level_name} try --flagfile={path}'
  ]


def _preset(settings):
  name = settings.level_name.rpartition(':')[2]
  families = [preset for prefix, preset in _OF_FAMILIES.items() if name.startswith(prefix)]
  if name in _OF_LEVELS or families:
    return _OF_LEVELS.get(name) or families[0]
  if any(len(array.shape) == 3 for array in settings.observation):
    return 'atari'
  continuous = all(part.kind == 'continuous' for part in settings.action)
  return 'mujoco' if continuous else 'vector'


def hint_about_clipping(settings: Settings, given: Collection[str]) -> list[str]:
  """Returns [sentence] for a new run with PopArt for several levels and clipped rewards, else [].

  Args:
    settings, given: see `hint`.
  """
  if settings.value_normalisation < 2 or 'reward_clipping' in given:
    return []
  if settings.reward_clipping != 'abs_one':
    return []
  return [
    '--return_normalisation=popart learns from rewards that are clipped to [-1, 1] here: with '
    '--reward_clipping=none it learns from what each level pays'
  ]
