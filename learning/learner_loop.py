"""The learner's loop: batches from the queue, and from replay, become updates one after another.

Shapes: B unrolls per batch.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from learning.replay import ReplayBuffer
from learning.sample_reuse import SampleReuse
from structs import Unroll


class LearnerLoop:
  """Runs updates one after another; the next batch is dequeued during the current update.

  Args:
    queue: queue of single unrolls, flattened.
    structure: `Unroll` whose structure a batch has.
    batch_size: B, unrolls per batch.
    reuse: gives the index of the pass over the batch.
    replay: gives a part of each batch; None if all unrolls are new.
    new_unrolls: unrolls per batch that `replay` is given from the queue.

  Attributes:
    batch: `Unroll` of [B, ...], the input of an update.
  """

  def __init__(
    self,
    queue: tf.queue.QueueBase,
    structure: Unroll,
    batch_size: int,
    reuse: SampleReuse,
    replay: ReplayBuffer | None = None,
    new_unrolls: int = 0,
  ):
    shapes = [[batch_size, *shape] for shape in queue.shapes]
    staged = tf.queue.FIFOQueue(1, queue.dtypes, shapes, name='staged')
    self._replay, self._reuse = replay, reuse
    if replay:
      self._take = queue.dequeue_many(new_unrolls)
      self._mixed = [
        tf.compat.v1.placeholder(dtype, shape)
        for dtype, shape in zip(queue.dtypes, shapes, strict=True)
      ]
      self._stage = staged.enqueue(self._mixed)
    else:
      self._stage = staged.enqueue(queue.dequeue_many(batch_size))
    with tf.device('/cpu:0'):
      specs = list(zip(queue.dtypes, shapes, strict=True))
      flat = reuse.kept_for_all_passes(staged.dequeue, specs)
    self.batch: Unroll = tf.nest.pack_sequence_as(structure, flat)
    self._session: tf.compat.v1.Session | None = None
    self._staged = threading.Semaphore(0)
    self._lock = threading.Lock()

  def _staged_in(self, session: tf.compat.v1.Session) -> threading.Semaphore:
    """Returns the semaphore that counts a session's staged batches; it starts at 0."""
    with self._lock:
      if self._session is not session:
        self._session, self._staged = session, threading.Semaphore(0)
      return self._staged

  def run_staging(
    self,
    session: tf.compat.v1.Session,
    should_stop: Callable[[], bool],
    enter: Callable[[str], None],
  ) -> None:
    """Stages batches ahead until stopped or the queue is closed; runs in its own thread.

    Args:
      session: session of the graph.
      should_stop: called before every batch.
      enter: called with the name of each phase when it begins.
    """
    stage = self.stage_once(session)
    while not should_stop():
      enter('dequeue')
      stage()

  def stage_once(self, session: tf.compat.v1.Session) -> Callable[[], None]:
    """Returns a function that moves one batch from the queue into the staging area."""
    staged = self._staged_in(session)
    if self._replay:
      stage = self._stage_with_replay(session, self._replay)
    else:
      stage = session.make_callable(self._stage)

    def step():
      stage()
      staged.release()

    return step

  def _stage_with_replay(self, session, replay):
    take = session.make_callable(self._take)
    put = session.make_callable(self._stage, feed_list=self._mixed)
    return lambda: put(*replay.batch(take()))

  def run(
    self,
    session: tf.compat.v1.Session,
    update: dict[str, tf.Tensor],
    should_stop: Callable[[], bool],
    enter: Callable[[str], None],
    report: Callable[[dict[str, Any], float, float], None],
  ) -> None:
    """Runs updates until stopped or an operation fails.

    Args:
      session: session of the graph.
      update: from `build_update`.
      should_stop: called before and after every update.
      enter: called with the name of each phase when it begins.
      report: called after every update with its fetched values (and `pass`, the pass over the
        batch, counted from 1), the seconds waited and the seconds computed.
    """
    names, staged = list(update), self._staged_in(session)
    passes = self._passes(session, [update[name] for name in names])
    while not should_stop():
      began = time.monotonic()
      enter('wait')
      while not staged.acquire(timeout=0.5):
        if should_stop():
          return
      for number, fetch in enumerate(passes, 1):
        ready = time.monotonic()
        enter('update')
        values = dict(zip(names, fetch(), strict=True)) | {'pass': number}
        report(values, ready - began, time.monotonic() - ready)
        began = time.monotonic()
        if should_stop():
          return

  def _passes(
    self, session: tf.compat.v1.Session, tensors: list[tf.Tensor]
  ) -> list[Callable[[], list[Any]]]:
    """Returns one function per pass over a batch; each fetches the tensors."""
    fetch = session.make_callable(tensors, feed_list=[self._reuse.index])
    return [functools.partial(fetch, i) for i in range(self._reuse.passes)]
