"""Checks an environment against its spaces and Gymnasium's API with one reset and one step."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from envs import faults, nests, observations, results, wrapping
from envs.actions import Actions, first_action, mask_of, num_choices
from envs.faults import EnvironmentRaised, Misfit, OutOfBounds
from structs import ACTION_MASK

_FORM = {'reset': results.of_reset, 'step': results.of_step}


def check(
  env: Any, nest: nests.Nest, view: Actions, action_masks: str, seed: int | None
) -> tuple[list[str], list[str], bool]:
  """Checks the results of one reset and one step.

  Args:
    env: the environment, which follows Gymnasium's API.
    nest: of the environment's observation space.
    view: of its action space.
    action_masks: see `structs.Level`.
    seed: int or None, passed to the reset.

  Returns:
    A tuple (problems, notes, masked). The first two are lists of sentences: problems make the
    environment unusable, notes only inform the user. `masked` says whether action masks are used.
  """
  problems, notes, masked = [], list(nest.notes), False
  outside = []  # Of the bounds.

  def record_misfit(function, *args):
    try:
      return function(*args)
    except Misfit as misfit:
      problems.append(f'its {misfit}')
      return None

  def record_observation(observation):
    try:
      nest.convert(observation, strict=True)
    except OutOfBounds as misfit:
      outside.append(f'its {misfit}; it is taken as it is')
      record_misfit(nest.convert, observation)
    except Misfit as misfit:
      problems.append(f'its {misfit}')

  try:
    first, info = results.of_reset(_result(env, 'reset', seed=seed))
    record_observation(first)
    masked = _uses_masks(nest, view, info, action_masks)
    allowed = record_misfit(mask, nest, view, first, info) if masked else None
    action = view.convert(first_action(view.parts, allowed))
    observation, reward, *ends, info = results.of_step(_result(env, 'step', action))
    record_observation(observation)
    if masked and not any(ends):
      record_misfit(mask, nest, view, observation, info)
    record_misfit(results.number, reward)
    for name, end in zip(('terminated', 'truncated'), ends, strict=True):
      record_misfit(results.truth, name, end)
    if not problems:
      kinds = [
        observations.dtype_note(seen, env.observation_space) for seen in (first, observation)
      ]
      notes += [note for note in dict.fromkeys(kinds) if note]
  except Misfit as misfit:
    problems.append(f'its {misfit}')
  except EnvironmentRaised as error:
    problems.append(str(error))
  return list(dict.fromkeys(problems)), notes + outside[:1], masked


def _uses_masks(nest, view, info, action_masks):
  there = nest.holds_mask or ACTION_MASK in info
  if action_masks == 'true' and not there:
    raise Misfit(
      f'reset() gives no action mask, neither in `info` nor in an observation with the key '
      f'{ACTION_MASK!r}; --action_masks=true needs one'
    )
  return there and action_masks != 'false' and num_choices(view.parts) > 0


def mask(nest: nests.Nest, view: Actions, observation: Any, info: dict[str, Any]) -> np.ndarray:
  """Returns the action mask that came with an observation, bool [M].

  Raises:
    Misfit: there is none, or it is malformed.
  """
  if nest.holds_mask:
    return mask_of(observation[ACTION_MASK], view.parts)
  if ACTION_MASK not in info:
    raise Misfit(
      f'info has no {ACTION_MASK!r}, which earlier ones had; --action_masks=false ignores masks'
    )
  return mask_of(info[ACTION_MASK], view.parts)


def _result(env, method, *args, **kwargs):
  """Calls a method of an environment and returns its result.

  Raises:
    Misfit: Gymnasium's wrappers failed on the method's signature or result.
    EnvironmentRaised: the environment raised an exception itself.
  """
  returned = []
  try:
    with _recorded(env.unwrapped, method, returned):
      return getattr(env, method)(*args, **kwargs)
  except (Exception, SystemExit) as error:
    for result in returned:
      _FORM[method](result)
    if method == 'reset' and (refused := _refused(env.unwrapped.reset)):
      raise Misfit(
        f'reset() does not take {refused}, which Gymnasium passes: write '
        'def reset(self, *, seed=None, options=None)'
      ) from error
    raise EnvironmentRaised(faults.raised(error, env, method)) from error


@contextlib.contextmanager
def _recorded(base, name, returned):
  """Appends to `returned` every result of the method `name` of the innermost environment `base`."""
  method, own = getattr(base, name), getattr(base, '__dict__', {}).get(name)

  def recording(*args, **kwargs):
    returned.append(method(*args, **kwargs))
    return returned[-1]

  try:
    setattr(base, name, recording)
  except AttributeError:  # The class has __slots__.
    yield
    return
  try:
    yield
  finally:
    delattr(base, name)
    if own is not None:
      setattr(base, name, own)


def _refused(reset):
  """Returns Gymnasium's arguments that `reset` does not accept, such as '`seed`', or ''."""
  names = ('seed', 'options')
  taken = wrapping.accepted(reset, names)
  return ' and '.join(f'`{name}`' for name in names if name not in taken)
