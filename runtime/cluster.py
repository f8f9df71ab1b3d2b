"""The tasks of a run, their addresses, and which tasks need which; works without TensorFlow."""

from __future__ import annotations

from typing import NamedTuple

from common import cluster_names
from common.cluster_names import JOBS as JOBS


class Cluster(NamedTuple):
  """The host lists of a run, and the job and index of this task.

  Attributes:
    ps, learner, actor: 'host:port' of every task.
    job: 'ps', 'learner', 'actor', or '' for local training.
    task: index into the job's hosts; spare actors have indices beyond the list.
    visible_gpus: value for CUDA_VISIBLE_DEVICES; None leaves the variable unchanged.
  """

  ps: tuple[str, ...]
  learner: tuple[str, ...]
  actor: tuple[str, ...]
  job: str
  task: int
  visible_gpus: str | None = None

  @property
  def is_local(self) -> bool:
    """Whether the whole run is in this process."""
    return not self.job

  @property
  def is_chief(self) -> bool:
    """Whether this task initializes variables, saves checkpoints and ends the run."""
    return self.is_local or (self.job == 'learner' and self.task == 0)

  @property
  def name(self) -> str:
    """'learner:0', or 'local'."""
    return 'local' if self.is_local else cluster_names.task_name(self.job, self.task)

  @property
  def is_spare(self) -> bool:
    """Whether this is an unlisted actor, whose address other tasks do not know."""
    return self.job == 'actor' and self.task >= len(self.actor)

  def address(self, name: str) -> str:
    """Returns the 'host:port' of task 'job:index'; a spare actor uses any free port."""
    if self.is_spare and name == self.name:
      return 'localhost:0'
    job, task = name.split(':')
    return getattr(self, job)[int(task)]

  def device(self, job: str, task: int) -> str:
    """Returns the device scope of a task; '' in local training."""
    return '' if self.is_local else f'/job:{job}/task:{task}'

  @property
  def own_device(self) -> str:
    """The device scope of this task."""
    return self.device(self.job, self.task)

  @property
  def state_device(self) -> str:
    """Device of the run's shared state: the CPU of the first parameter server."""
    return self.device('ps', 0) + ('' if self.is_local else '/cpu:0')

  @property
  def learner_of_actor(self) -> int:
    """Index of the learner that this actor feeds; actors are assigned round robin."""
    return self.task % len(self.learner)

  @property
  def actors_of_learners(self) -> list[list[str]]:
    """For each learner, the names of the listed actors that feed it."""
    step = len(self.learner)
    return [[f'actor:{a}' for a in range(i, len(self.actor), step)] for i in range(step)]

  @property
  def peers(self) -> list[str]:
    """Names of the tasks that this task needs."""
    if self.is_local or self.job == 'ps':
      return []
    names = [f'ps:{i}' for i in range(len(self.ps))]
    return names + ([f'learner:{self.learner_of_actor}'] if self.job == 'actor' else [])


LOCAL = Cluster((), (), (), '', -1)  # Of a run in one process.
