"""Checks an environment against its spaces and Gymnasium's API with one reset and one step."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

from envs import faults, observations, results
from envs.faults import EnvironmentRaised, Misfit

_FORM = {'reset': results.of_reset, 'step': results.of_step}


def check(
  env: Any, view: observations.View, action: Any, seed: int | None
) -> tuple[list[str], list[str]]:
  """Checks the results of one reset and one step.

  Args:
    env: the environment, which follows Gymnasium's API.
    view: `observations.View` of the environment's observation space.
    action: an element of the environment's action space.
    seed: int or None, passed to the reset.

  Returns:
    A tuple (problems, notes) of lists of sentences. Problems make the environment unusable; notes
    only inform the user.
  """
  problems, notes = [], list(view.notes)

  def record_misfit(function, *args):
    try:
      function(*args)
    except Misfit as misfit:
      problems.append(f'its {misfit}')

  try:
    first = results.of_reset(_result(env, 'reset', seed=seed))
    record_misfit(view.convert, first, True)
    observation, reward, *ends = results.of_step(_result(env, 'step', action))
    record_misfit(view.convert, observation, True)
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
  return list(dict.fromkeys(problems)), notes


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
  method = getattr(base, name)

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


def _refused(reset):
  """Returns Gymnasium's arguments that `reset` does not accept, such as '`seed`', or ''."""
  try:
    parameters = inspect.signature(reset).parameters.values()
  except (TypeError, ValueError):  # Compiled functions may have no signature.
    return ''
  if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
    return ''
  taken = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
  return ' and '.join(f'`{name}`' for name in ('seed', 'options') if name not in taken)
