"""Which preset of flagfiles/ fits a run that gives no setting of learning."""

import os

# The flags that a preset is there for.
_LEARNING = {
  'batch_size', 'unroll_length', 'learning_rate', 'optimizer', 'decay', 'momentum', 'epsilon',
  'gradient_clipping', 'observation_scaling', 'entropy_cost', 'entropy_cost_final',
  'entropy_decay_frames', 'advantage_normalisation', 'value_normalisation', 'sample_reuse',
  'baseline_cost', 'discounting', 'vtrace_lambda', 'reward_clipping',
}  # fmt: skip
_OF_LEVELS = {
  'CartPole-v0': 'cartpole',
  'CartPole-v1': 'cartpole',
  'impala/Catch-v0': 'catch',
  'impala/Memory-v0': 'memory',
}


def hint(settings, given):
  """One sentence for a new run that is not Atari and leaves all settings of learning open.

  Args:
    settings: `roles.settings.Settings`.
    given: names of the flags that the command gives.

  Returns:
    List of at most one str.
  """
  import environments  # Known by then: its import takes a moment.

  shape = settings.num_action_repeats, settings.width, settings.height
  if _LEARNING & set(given) or environments.atari_arguments(settings.level_name, *shape):
    return []
  general = 'vector' if len(settings.observation_shape) == 1 else 'atari'
  preset = _OF_LEVELS.get(settings.level_name, general)
  path = os.path.join('flagfiles', f'{preset}.flags')
  return [
    "the defaults of learning are those of IMPALA's paper, for Atari games; for "
    f'{settings.level_name} try --flagfile={path}'
  ]
