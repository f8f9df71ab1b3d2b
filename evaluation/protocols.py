"""Protocols of evaluation: what each asks of the Atari games that an agent is judged by."""

from runtime.process import BadInput

# What ale_py's vector environment is given, instead of what the run was trained with. Frames are
# the emulator's; without `life_loss_info` nothing ends at a lost life, not even for the agent.
PROTOCOLS = {
  'training': {},
  # IMPALA (Espeholt et al. 2018, arXiv 1802.01561), Table C.1.
  'paper': dict(
    noop_max=30,
    repeat_action_probability=0.0,
    max_num_frames_per_episode=108_000,
    life_loss_info=False,
  ),
  # Machado et al. 2018, arXiv 1709.06009.
  'machado': dict(
    noop_max=0,
    repeat_action_probability=0.25,
    max_num_frames_per_episode=108_000,
    life_loss_info=False,
  ),
}
_FULL_ACTION_SET = 18


def atari_overrides(protocol, level_name):
  """Arguments of ale_py's vector environment that a protocol wants otherwise than training.

  Args:
    protocol: a key of `PROTOCOLS`.
    level_name: a Gym id.

  Returns:
    dict; empty for 'training'.

  Raises:
    BadInput: the protocol is one of Atari, and the level is no Atari game, or one whose actions
      are repeated a random number of times.
  """
  overrides = PROTOCOLS[protocol]
  if not overrides:
    return {}
  from envs import atari  # Not before the flags are good: it takes a moment.

  try:
    is_atari = atari.is_atari(level_name)
  except ValueError as e:
    raise BadInput(f'--level_name={level_name}: {e}') from None
  if not is_atari:
    raise BadInput(
      f'--eval_protocol={protocol} is for Atari games, and {level_name} is none; '
      '--eval_protocol=training plays it as it was trained'
    )
  return dict(overrides)


def described(protocol, num_actions):
  """What a record says of a protocol, as a dict.

  Args:
    protocol: a key of `PROTOCOLS`.
    num_actions: of the agent.
  """
  result = dict(protocol=protocol)
  if PROTOCOLS[protocol]:
    result['atari'] = dict(PROTOCOLS[protocol])
    result['num_actions'] = num_actions
    # An agent of fewer actions than the full set plays with its own.
    result['full_action_set'] = num_actions == _FULL_ACTION_SET
  return result
