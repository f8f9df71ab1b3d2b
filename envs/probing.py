"""Tries out a level in a worker process, before training: its spaces, its faults, its speed."""

from __future__ import annotations

import functools
import math
import os
import signal
import threading
import time
from typing import Any, NamedTuple

from absl import logging

from acting import worker_process
from envs import actions, faults
from envs.step_cost import MeasuredEnvironment, StepCost
from structs import ACTION_MASK, ActionPart, ArraySpec, Level

# Time limit for the check of one reset and one step; a slower environment is used unchecked.
CHECK_SECS = 20.0
# Time for measuring the steps of an environment. Nothing is measured after a check, and the
# measurement is given up, that takes longer than the second.
_MEASURED_SECS = 0.05
_QUICK_CHECK_SECS = 1.0


class Probe(NamedTuple):
  """What was found out about a level.

  Attributes:
    observation: the arrays of an observation.
    action: the parts of an action.
    cost: StepCost.
  """

  observation: tuple[ArraySpec, ...]
  action: tuple[ActionPart, ...]
  cost: StepCost


def probe(level: Level, made_as: Level | None = None) -> Probe:
  """Plays a few steps in a worker process and logs what the user should know about them.

  Args:
    level: the level; its `channels` do not count.
    made_as: what is made for it, if that differs.

  Raises:
    faults.UnfitLevel: the level is unknown, cannot be made, has spaces that no agent supports, or
      returns values outside its spaces.
  """
  return _probe(level._replace(channels=0), (made_as or level)._replace(channels=0))


@functools.cache
def _probe(level, made_as):
  try:
    try:
      spaces, (problems, notes, masked), cost = _checked(level, made_as, 0)
    except worker_process.WorkerDied as error:
      # Training would rebuild it with another seed, so the check tries another seed too.
      logging.warning('%s crashed while it was checked, and is tried again: %s', level.name, error)
      spaces, (problems, notes, masked), cost = _checked(level, made_as, 1)
  except worker_process.WorkerDied as error:
    raise faults.UnfitLevel(level.name, f'its process {error.message}, twice') from error
  except worker_process.WorkerError as error:
    raise faults.UnfitLevel(level.name, error.message) from error
  if problems:
    raise faults.UnfitLevel(level.name, '; '.join(problems))
  wraps = made_as.env_wrappers != level.env_wrappers
  for note in [] if wraps else notes:  # Those of this program's own wrappers are known.
    logging.warning('%s: %s', level.name, note)
  arrays = tuple(ArraySpec(*fields) for fields in spaces[0])
  parts = tuple(ActionPart(*fields) for fields in spaces[1])
  if masked:
    arrays = (*arrays, ArraySpec(ACTION_MASK, (actions.num_choices(parts),), 'bool'))
  return Probe(arrays, parts, cost)


def _checked(level: Level, made_as: Level, seed: int) -> Any:
  """Returns the results of `spaces` and `check`, and a `StepCost`; a timeout becomes a note."""
  worker = worker_process.Worker(MeasuredEnvironment, level, seed, 1, made_as=made_as)
  limit = threading.Timer(CHECK_SECS, worker.close)
  try:
    worker.start()
    spaces = worker.call('spaces')
    limit.start()
    start = time.monotonic()
    checked = worker.call('check')
    is_quick = not checked[0] and time.monotonic() - start < _QUICK_CHECK_SECS
    return spaces, checked, _cost(worker, checked[2]) if is_quick else StepCost(math.inf, False)
  except worker_process.WorkerDied:
    if not limit.finished.is_set():
      raise
    note = f'one reset and one step take more than {CHECK_SECS:g} s, and were not checked'
    checked = [], [note], level.action_masks == 'true'
    return spaces, checked, StepCost(math.inf, False)
  finally:
    limit.cancel()
    worker.close()


def _cost(worker, masked):
  # A step that hangs, or crashes, gives no figure; training will see whether it happens often.
  limit = threading.Timer(_QUICK_CHECK_SECS, os.kill, [worker.pid, signal.SIGKILL])
  limit.start()
  try:
    return StepCost(*worker.call('measure', _MEASURED_SECS, masked))
  except worker_process.WorkerError:
    return StepCost(math.inf, False)
  finally:
    limit.cancel()
