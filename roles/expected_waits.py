"""Explains long waits that are expected, so that the watchdog does not end the task."""

from __future__ import annotations

from collections.abc import Callable

from runtime import peers
from runtime.cluster import Cluster
from runtime.unresponsive import UnresponsiveTasks


class ExpectedWaits:
  """Explains why a loop of this task has to wait for other tasks.

  Args:
    cluster: the cluster and this task's index in it.
    sync_learners: whether an update needs the gradients of all learners.
    unresponsive: tracks which tasks are present.
    queue_is_full: returns whether the queue that this task sends unrolls to is full.
    takes_turns: whether acting and learning wait for one another (--policy_lag).
  """

  def __init__(
    self,
    cluster: Cluster,
    sync_learners: bool,
    unresponsive: UnresponsiveTasks,
    queue_is_full: Callable[[], bool],
    takes_turns: bool = False,
  ):
    self._cluster, self._sync_learners = cluster, sync_learners
    self._unresponsive, self._queue_is_full = unresponsive, queue_is_full
    self._takes_turns = takes_turns

  def reason(self, phase: str) -> str:
    """Returns why being stuck in `phase` is expected (for example, a dead peer), or ''."""
    cluster = self._cluster
    if self._takes_turns and phase in ('turn', 'wait', 'dequeue', 'enqueue'):
      return 'others have their turn'
    if cluster.is_local:
      return 'the queue is full' if phase == 'enqueue' else ''
    needed = list(cluster.peers)
    waits_for_learners = phase == 'update' and self._sync_learners
    if waits_for_learners:
      needed += [f'learner:{i}' for i in range(len(cluster.learner))]
    missing = peers.missing_peers(cluster, needed)
    if waits_for_learners and not missing:
      missing = missing_actors_of_a_learner(cluster, self._unresponsive.present)
    if missing:
      return 'waiting for ' + ', '.join(missing)
    if phase == 'enqueue' and self._queue_is_full():
      return 'the queue is full'
    return ''


def missing_actors_of_a_learner(cluster: Cluster, present: set[str] | None) -> list[str]:
  """Returns the listed actors of the first learner without any present actor.

  Args:
    cluster: has all listed tasks.
    present: names of the tasks that report to the chief; None if not known.

  Returns:
    Texts such as 'actor:1 at localhost:8003'; [] if every learner has an actor.
  """
  if present is None:
    return []
  actors = [name for name in present if name.startswith('actor')]
  fed = {int(name.partition(':')[2]) % len(cluster.learner) for name in actors}
  for learner, names in enumerate(cluster.actors_of_learners):
    if learner not in fed:  # No listed or spare actor feeds it.
      return [f'{name} at {cluster.address(name)}' for name in names]
  return []
