"""Evaluation protocols: the Atari settings of the papers whose scores are compared."""

from typing import Any

from runtime.process import BadInput
from structs import Level, level_of

# Arguments of ale_py's vector environment that replace the training arguments, in emulator frames.
# Without `life_loss_info`, losing a life does not end the agent's episode.
PROTOCOLS: dict[str, dict[str, Any]] = {
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


def atari_overrides(protocol: str, level: Level | str) -> dict[str, Any]:
  """Returns the arguments of ale_py's vector environment that a protocol changes.

  Args:
    protocol: a key of `PROTOCOLS`; nothing changes for 'training'.
    level: `structs.Level`, or only its id.

  Raises:
    BadInput: the protocol is for Atari, but ale_py's vector environment does not play the level.
  """
  overrides = PROTOCOLS[protocol]
  if not overrides:
    return {}
  from envs import atari, atari_ids  # Slow to import, so only after the flags were checked.

  if not atari.is_atari(level):
    kind = ''
    if atari_ids.most_frames(level):
      kind = " that ale_py's vector environment plays (images, a fixed skip, no wrappers)"
    raise BadInput(
      f'--eval_protocol={protocol} is for Atari games{kind}, and {level_of(level).name} is none; '
      '--eval_protocol=training plays it as it was trained'
    )
  return dict(overrides)


def described(protocol: str, num_actions: int) -> dict[str, Any]:
  """Returns the entries of evaluation.json that describe a protocol.

  Args:
    protocol: a key of `PROTOCOLS`.
    num_actions: number of the agent's actions.
  """
  result: dict[str, Any] = dict(protocol=protocol)
  if PROTOCOLS[protocol]:
    result['atari'] = dict(PROTOCOLS[protocol])
    result['num_actions'] = num_actions
    # An agent trained with fewer actions than the full set plays with those.
    result['full_action_set'] = num_actions == _FULL_ACTION_SET
  return result
