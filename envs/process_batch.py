"""Batches of environments other than Atari in worker processes, stepped in parallel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from acting.worker_process import Worker, WorkerError
from envs import atari_ids, crashes, faults, probing, state_trial, step_cost
from envs.batch import GameTotals
from envs.exchange import Exchange, aligned_copy
from envs.worker_groups import WorkerGroups, dealt
from structs import StepOutput, action_dtype, action_shape, as_observation, is_masked


class ProcessBatch:
  """N environments in worker processes that step in parallel, each with one or several of them.

  An environment crashes when it raises an exception or when its process dies, with which the other
  environments of that process crash, too. The batch rebuilds what crashed and does not count its
  unfinished games; the other environments continue.

  Args:
    spec: EnvironmentSpec.
    num_envs: N.
    seed: int >= 0; environment i derives its own seed from (seed, i).
    max_episode_steps: agent steps after which a game is truncated; 0 means never.
    envs_per_worker: number of environments in each process; 0 means chosen, see
      `step_cost.envs_per_worker`. Environments of a process that dies twice then get one each.
    own_generators: whether each environment has global generators of its own in any case, so that
      nothing depends on how many are in a process. Else they do if they were seen to draw.

  Attributes:
    num_envs: N.

  Raises:
    faults.EnvironmentFault: an environment cannot be constructed, or memory is lacking.
  """

  def __init__(
    self,
    spec: Any,
    num_envs: int,
    seed: int,
    max_episode_steps: int = 0,
    envs_per_worker: int = 1,
    own_generators: bool = False,
  ):
    self.num_envs = num_envs
    self._totals = GameTotals(num_envs)
    self._crashes = crashes.Crashes(spec.level.name, num_envs)
    made_as, repeats = atari_ids.made_as(spec)
    number, keeps_generators = envs_per_worker, False
    if number != 1:
      secs, draws = probing.probe(spec.level, made_as).cost
      cost = step_cost.StepCost(secs * repeats, draws)
      number = number or step_cost.envs_per_worker(num_envs, cost)
      keeps_generators = (draws or own_generators) and number > 1
    layout = (
      [(array.shape, array.dtype) for array in spec.observation],
      (action_shape(spec.action), action_dtype(spec.action)),
      num_envs,
    )
    self._environment = environment = (
      spec.level,
      repeats,
      max_episode_steps,
      is_masked(spec.observation),
      made_as,
      keeps_generators,
    )
    try:
      self._exchange = Exchange(*layout)
      self._groups = WorkerGroups(
        dealt(num_envs, number),
        self._exchange,
        layout,
        seed,
        environment,
        self._crashes,
        divides=envs_per_worker == 0,
      )
    except OSError as error:
      text = f'no memory for the observations of {num_envs} environments: {error.strerror}'
      raise faults.EnvironmentFault(f'{spec.level.name}: {text}') from error
    except WorkerError as error:
      raise faults.EnvironmentFault(f'{spec.level.name}: {crashes.reason_of(error)}') from error

  @property
  def crashes(self) -> int:
    """Number of environments rebuilt so far."""
    return self._crashes.total

  @property
  def workers(self) -> list[Worker]:
    """The worker processes; those that crash are replaced by others."""
    return self._groups.workers()

  def reset(self) -> StepOutput:
    """Restarts all games and returns their first StepOutput; only the first call is seeded."""
    self._groups.reset()
    return self._totals.first(self._observation())

  def step(self, actions: np.ndarray) -> StepOutput:
    """Returns the StepOutput after `actions`, [N] or [N, K], see `AgentOutput`.

    Raises:
      faults.EnvironmentFault: an environment broke its spaces or Gymnasium's API, or it crashed
        `crashes.MAX_CRASHES_IN_A_ROW` times without completing a game.
    """
    exchange = self._exchange
    exchange.action[...] = actions
    lost = self._groups.step()
    # Copies, since the workers write the next step's results to the same place.
    reward, done, game_over = (
      array.copy() for array in (exchange.reward, exchange.done, exchange.game_over)
    )
    if lost:
      reward[lost], done[lost], game_over[lost] = 0, True, False
    self._crashes.finished(game_over)
    anew = done & ~game_over  # A crash in this step or a time limit in the last.
    return self._totals.next(reward, done, game_over, anew, self._observation())

  def why_not_set(self) -> str:
    """Returns why `set_state` is not possible, or ''; tries it out in a process of its own."""
    level, repeats, max_episode_steps, masked, made_as, _ = self._environment
    return state_trial.why_not_set(level, repeats, None, max_episode_steps, masked, made_as)

  def state(self) -> dict[str, Any]:
    """Returns the state of all games; call it between two steps.

    Raises:
      WorkerError: an environment cannot be captured, or crashes at it.
    """
    return dict(self._totals.state(), environments=self._groups.states())

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Sets the state of all games of another batch, after a `reset`.

    Raises:
      WorkerError, ValueError, IndexError, KeyError, TypeError: the state does not fit.
    """
    self._groups.set_states(state['environments'])
    self._totals.set_state(state)

  def close(self) -> None:
    """Ends the processes, and kills those that are being rebuilt; may be called twice."""
    self._groups.close()

  def _observation(self):
    return as_observation([aligned_copy(array) for array in self._exchange.observation])
