"""Counts and reports the crashes of a batch's environments, and gives up if they are too many."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
from absl import logging

from acting import worker_process
from envs import faults

# The batch fails after this many crashes of one environment without a completed game in between.
MAX_CRASHES_IN_A_ROW = 10


class Crashes:
  """The crashes of N environments.

  Args:
    level_name: for messages.
    num_envs: N.

  Attributes:
    total: number of environments rebuilt so far.
  """

  def __init__(self, level_name: str, num_envs: int):
    self.total = 0
    self._level_name = level_name
    self._in_a_row = np.zeros(num_envs, np.int32)

  def finished(self, game_over: np.ndarray) -> None:
    """Is told which environments completed a game, bool [N]."""
    self._in_a_row[game_over] = 0

  def add(self, blamed: range, lost: range, error: worker_process.WorkerError) -> None:
    """Counts and reports a crash.

    Args:
      blamed: indices of the environments one of which crashed.
      lost: indices of the environments that are rebuilt for it, `blamed` among them.
      error: how it ended.

    Raises:
      faults.EnvironmentFault: an environment broke a promise, which a restart does not help, or
        crashed `MAX_CRASHES_IN_A_ROW` times without completing a game.
    """
    which = f'{_named(blamed)} of {self._level_name}'
    if error.type_name == faults.BrokenPromise.__name__:
      raise faults.EnvironmentFault(f'{which}: {error.message}')
    reason = reason_of(error)
    self.total += len(lost)
    self._in_a_row[blamed] += 1
    if (self._in_a_row[blamed] >= MAX_CRASHES_IN_A_ROW).any():
      raise faults.EnvironmentFault(
        f'{reason}; {which} crashed {MAX_CRASHES_IN_A_ROW} times in a row'
      )
    if len(lost) == 1:
      outcome = 'is rebuilt, its game is not counted'
    else:
      outcome = f'{_named(lost)}, of the same process, are rebuilt, their games are not counted'
    _log(f'{which} crashed and {outcome}', reason, error)


def reason_of(error: worker_process.WorkerError) -> str:
  """Returns one sentence about how an environment failed."""
  died = isinstance(error, worker_process.WorkerDied)
  return f'its process {error.message}' if died else error.message


def _named(indices: Sequence[int]) -> str:
  first, last = indices[0], indices[-1]
  return f'environment {first}' if first == last else f'environments {first} to {last}'


_told = collections.Counter()  # Number of crashes per reason, over all batches in this process.


def _log(what, reason, error):
  """Logs the first crash for a reason with its traceback, and later ones less and less often."""
  _told[reason] += 1
  times = _told[reason]
  if times == 1:
    # Keeps the worker's traceback and drops the part about this process.
    text = str(error).partition('\n\nThe above exception was')[0].partition('Traceback (')
    logging.warning('%s: %s\n%s', what, reason, ''.join(text[1:]))
  elif times in (10, 100) or times % 1000 == 0:
    logging.warning('%s: %s (%d times so far)', what, reason, times)
