"""The worker processes of a batch of environments, which are started, stepped and rebuilt."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from acting import worker_process
from acting.worker_process import Worker, WorkerError
from envs.batch import environment_seed
from envs.crashes import Crashes
from envs.environment_group import EnvironmentGroup
from envs.exchange import Exchange

# Environments whose process died this often get a process each, if they may be divided.
MAX_DEATHS = 2
_LOOK_SECS = 0.1  # While closing, the interval between checks whether a rebuild is over.


class _Group:
  """The indices of some environments in their batch, and their worker."""

  def __init__(self, indices: range):
    self.indices, self.deaths = indices, 0
    self.worker: Any = None

  def is_single(self):
    return len(self.indices) == 1


class WorkerGroups:
  """Workers with one or several of N environments each; the constructor starts them.

  Args:
    indices: of each worker's environments.
    exchange: `Exchange`, in which actions and results are.
    layout: the arguments of `exchange`.
    seed: environment i derives its own from (seed, i).
    environment: the last arguments of `EnvironmentGroup`, from `level` on.
    crashes: `Crashes`, which is told of them.
    divides: whether environments of a process that dies repeatedly get a process each.

  Raises:
    WorkerError: an environment cannot be constructed; all processes have been ended.
  """

  def __init__(
    self,
    indices: Sequence[range],
    exchange: Exchange,
    layout: tuple,
    seed: int,
    environment: tuple,
    crashes: Crashes,
    divides: bool,
  ):
    self._exchange, self._layout, self._seed = exchange, layout, seed
    self._environment, self._crashes, self._divides = environment, crashes, divides
    self._closed, self._rebuilt = False, []
    self._lock = threading.Lock()  # Held by `_rebuilding` and `close`, which exclude each other.
    self._groups = [_Group(range_) for range_ in indices]
    worker_process.start_all([self._new_worker(group) for group in self._groups])

  def workers(self) -> list[Worker]:
    """Returns the workers."""
    return [group.worker for group in self._groups]

  def reset(self) -> list[int]:
    """Restarts all games; returns the indices of the environments that were rebuilt for it."""
    return self._mend(worker_process.call_all(self.workers(), 'reset', [()] * len(self._groups)))

  def step(self) -> list[int]:
    """Steps all environments with the actions in `exchange`.

    Returns:
      The indices of the environments that crashed and were rebuilt; in `exchange`, their
      observation is the first of a game, and reward and flags are not theirs.

    Raises:
      faults.EnvironmentFault: see `Crashes.add`.
      RuntimeError: `close` was called meanwhile.
    """
    return self._mend(worker_process.wake_all(self.workers()))

  def states(self) -> list[str]:
    """Returns the state of each environment, in order; see `EnvironmentGroup.states`.

    Raises:
      WorkerError: one cannot be captured.
    """
    answers = worker_process.call_all(self.workers(), 'states', [()] * len(self._groups))
    return [state for answer in _good(answers) for state in answer]

  def set_states(self, states: Sequence[str]) -> None:
    """Sets the states of all environments.

    Raises:
      WorkerError: one does not fit.
    """
    shares = [([states[i] for i in group.indices],) for group in self._groups]
    _good(worker_process.call_all(self.workers(), 'set_states', shares))

  def close(self) -> None:
    """Ends the processes, and kills those that are being rebuilt; may be called twice."""
    self._closed = True
    while not self._lock.acquire(timeout=_LOOK_SECS):  # What is rebuilt may never answer.
      for pid in [worker.pid for worker in self._rebuilt]:
        if pid:
          with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
      worker_process.close_all(self.workers())
    finally:
      self._lock.release()

  def _new_worker(self, group: _Group, *attempt: int) -> Worker:
    """Returns the group's worker, which is to be started; sets `group.worker`."""
    group.worker = Worker(
      EnvironmentGroup,
      (*self._layout, self._exchange.file),
      group.indices.start,
      [environment_seed(self._seed, i, *attempt) for i in group.indices],
      *self._environment,
    )
    group.worker.inherit(self._exchange.file)
    return group.worker

  def _mend(self, results: Sequence[Any]) -> list[int]:
    """Rebuilds what has crashed, repeatedly if needed, up to the first observation.

    Args:
      results: of each group's worker: None, a list of failures (see `EnvironmentGroup`), or a
        WorkerError.

    Returns:
      The indices of the environments that were rebuilt.
    """
    lost = set()
    work = [(group, result) for group, result in zip(self._groups, results) if result]
    while work:
      group, result = work.pop()
      if isinstance(result, WorkerError):
        lost.update(group.indices)
        work += self._restart(group, result)
      elif group.is_single():
        work.append((group, _error_of(result[0])))
      else:
        failure, *others = result
        lost.add(failure[0])
        left = self._rebuild(group, failure[0], _error_of(failure))
        left = left if isinstance(left, WorkerError) else (left or []) + others
        work += [(group, left)] if left else []
    return sorted(lost)

  def _rebuild(self, group: _Group, i: int, error: WorkerError) -> Any:
    """Replaces one of several environments in a process; returns the worker's result."""
    with self._rebuilding(range(i, i + 1), range(i, i + 1), error):
      self._rebuilt = [group.worker]
      try:
        # With the same seed, the same game might crash in the same way.
        seed = environment_seed(self._seed, i, self._crashes.total)
        return group.worker.call('rebuild', i, seed)
      except WorkerError as died:
        return died

  def _restart(self, group: _Group, error: WorkerError) -> list[tuple[_Group, Any]]:
    """Replaces a process; returns (group, result) where something is left to mend."""
    found = [i for i in group.indices if self._exchange.inside[i]]
    blamed = range(found[0], found[0] + 1) if found else group.indices
    with self._rebuilding(blamed, group.indices, error):
      group.worker.close()
      self._exchange.inside[group.indices] = 0
      group.deaths += 1
      groups = [group]
      if self._divides and group.deaths >= MAX_DEATHS:
        groups = [_Group(range(i, i + 1)) for i in group.indices]
      self._rebuilt = [self._new_worker(g, self._crashes.total) for g in groups]
      place = self._groups.index(group)
      self._groups[place : place + 1] = groups
      results = worker_process.start_each(self._rebuilt)
      started = [i for i, result in enumerate(results) if result is None]
      workers = [self._rebuilt[i] for i in started]
      firsts = worker_process.call_all(workers, 'reset', [()] * len(workers))
      for i, first in zip(started, firsts):
        results[i] = first
    return [(g, result) for g, result in zip(groups, results) if result]

  @contextlib.contextmanager
  def _rebuilding(self, blamed: range, lost: range, error: WorkerError) -> Iterator[None]:
    """Counts a crash and keeps `close` away; raises RuntimeError if the batch is closed."""
    if not self._closed:
      self._crashes.add(blamed, lost, error)
    with self._lock:
      if self._closed:
        raise RuntimeError(f'the environments of {self._environment[0].name} are closed') from error
      yield


def _good(answers: Sequence[Any]) -> Sequence[Any]:
  for answer in answers:
    if isinstance(answer, WorkerError):
      raise answer
  return answers


def dealt(num_envs: int, envs_per_worker: int) -> list[range]:
  """Returns the indices of each worker's environments; their numbers differ by one at most."""
  workers = -(-num_envs // envs_per_worker)
  ends = [num_envs * i // workers for i in range(workers + 1)]
  return [range(*pair) for pair in zip(ends, ends[1:])]


def _error_of(failure: tuple) -> WorkerError:
  _, type_name, message, text = failure
  return WorkerError(f'{type_name}: {message}\n{text}', type_name, message)
