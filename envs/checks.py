"""Whether an environment keeps what its spaces and Gymnasium promise: one reset, one step."""

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
  """Plays one reset and one step.

  Args:
    env: the environment.
    view: `observations.View` of its observations.
    action: of its action space.
    seed: int, of the reset.

  Returns:
    (list of what does not fit, list of what a user should know), each one a sentence.
  """
  problems, notes = [], list(view.notes)

  def look(function, *args):
    try:
      function(*args)
    except Misfit as misfit:
      problems.append(f'its {misfit}')

  try:
    first = results.of_reset(_result(env, 'reset', seed=seed))
    look(view.convert, first, True)
    observation, reward, *ends = results.of_step(_result(env, 'step', action))
    look(view.convert, observation, True)
    look(results.number, reward)
    for name, end in zip(('terminated', 'truncated'), ends, strict=True):
      look(results.truth, name, end)
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
  """What a method of an environment returns.

  Raises:
    Misfit: Gymnasium's own wrappers stumbled over what it takes or gives.
    EnvironmentRaised: it failed by itself.
  """
  given = []
  try:
    with _recorded(env.unwrapped, method, given):
      return getattr(env, method)(*args, **kwargs)
  except (Exception, SystemExit) as error:
    for result in given:
      _FORM[method](result)
    if method == 'reset' and (refused := _refused(env.unwrapped.reset)):
      raise Misfit(
        f'reset() does not take {refused}, which Gymnasium passes: write '
        'def reset(self, *, seed=None, options=None)'
      ) from error
    raise EnvironmentRaised(faults.raised(error, env, method)) from error


@contextlib.contextmanager
def _recorded(base, name, given):
  """Adds to `given` what a method of the innermost environment returns meanwhile."""
  method = getattr(base, name)

  def recording(*args, **kwargs):
    given.append(method(*args, **kwargs))
    return given[-1]

  try:
    setattr(base, name, recording)
  except AttributeError:  # It has slots.
    yield
    return
  try:
    yield
  finally:
    delattr(base, name)


def _refused(reset):
  """The names, such as '`seed`', of what Gymnasium passes to `reset` and this one does not take."""
  try:
    parameters = inspect.signature(reset).parameters.values()
  except (TypeError, ValueError):  # Compiled code may have none.
    return ''
  if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
    return ''
  taken = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
  return ' and '.join(f'`{name}`' for name in ('seed', 'options') if name not in taken)
