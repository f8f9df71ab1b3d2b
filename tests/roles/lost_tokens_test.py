"""A token that is lost stops all synchronous learners; the chief adds tokens, and they go on."""

import concurrent.futures
import threading
import types

import pytest
import tensorflow as tf

from conftest import eventually
from learner_fixtures import random_unrolls, small_settings, two_learners
from roles.lost_tokens import LostTokens
from roles.observers import Update
from runtime.heartbeat import Heartbeat

LEAST_SECS = 1.0


def update_in_background(pool, one, heartbeat):
  """One update of a learner, in a thread; its heartbeat says how long it lasts."""

  def update():
    heartbeat.enter('learner', 'update')
    one.update()
    heartbeat.enter('learner', 'wait')

  return pool.submit(update)


def lose_a_token(one):
  """A dequeue that waits before the learners do: it gets the first token of the next update."""
  queue = one.side.sync_optimizer._sync_token_queue
  with one.tf_graph.as_default(), tf.device(queue.queue_ref.device):
    one.tf_graph._unsafe_unfinalize()
    dequeue = queue.dequeue()
  thread = threading.Thread(target=one.session.run, args=(dequeue,), daemon=True)
  thread.start()
  return thread


@pytest.mark.slow
def test_learners_that_all_wait_for_a_token_go_on():
  settings = small_settings(batch_size=2)
  with two_learners(settings) as learners, concurrent.futures.ThreadPoolExecutor() as pool:
    beats = [Heartbeat(one.graph.cluster) for one in learners]
    for one in learners:
      one.put(random_unrolls(settings, 12))
    others = {'learner:1': beats[1]}
    task = types.SimpleNamespace(heartbeat=beats[0], cluster=learners[0].graph.cluster)
    tokens = LostTokens(
      task, learners[0].side.sync_ops, lambda name: others[name].secs_in('update'), LEAST_SECS
    )
    tokens.on_update(Update(learners[0].session, {}, 0.0, 0.01))
    thief = lose_a_token(learners[0])
    updates = [update_in_background(pool, *pair) for pair in zip(learners, beats, strict=True)]
    done, _ = concurrent.futures.wait(updates, 60, concurrent.futures.FIRST_COMPLETED)
    thief.join(60)
    assert len(done) == 1 and not thief.is_alive()  # The other learner got no token.
    (fed,) = (i for i in range(2) if updates[i] in done)
    second = update_in_background(pool, learners[fed], beats[fed])
    stuck = [updates[1 - fed], second]
    done, _ = concurrent.futures.wait(stuck, 2 * LEAST_SECS, concurrent.futures.FIRST_COMPLETED)
    assert not done
    stop = threading.Event()
    watch = pool.submit(tokens.run, learners[0].session, stop.is_set)
    try:
      eventually(lambda: all(update.done() for update in stuck), 60)
    finally:
      stop.set()
      for one in learners:  # So that an update that is still stuck ends.
        if not all(update.done() for update in stuck):
          one.session.close()
    watch.result(60)


def test_an_update_that_others_delay_gets_no_tokens():
  """A learner that waits for data, or is silent, is in no update."""
  heartbeat = Heartbeat(types.SimpleNamespace(job='learner', task=0, name='learner:0'))
  lasting = {'learner:1': 0.0}
  cluster = types.SimpleNamespace(learner=('a', 'b'))
  task = types.SimpleNamespace(heartbeat=heartbeat, cluster=cluster)
  tokens = LostTokens(task, None, lasting.__getitem__, least_secs=0.0)
  heartbeat.enter('learner', 'update')
  assert not tokens._all_wait()  # The first update of a session.
  tokens.on_update(Update(None, {}, 0.0, 1e-6))
  eventually(lambda: heartbeat.secs_in('update') > 0.01)
  assert not tokens._all_wait()
  lasting['learner:1'] = 0.01
  assert tokens._all_wait()
