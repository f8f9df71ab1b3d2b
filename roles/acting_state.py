"""Puts the state of acting into checkpoints: a resumed run goes on as if it had not stopped.

For --deterministic_training. The state is the value of a text variable, which is in the checkpoint
like the weights: whatever keeps, deletes or copies a checkpoint keeps, deletes or copies it, too.
It is JSON, since the folder of a run may come from somebody else.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tensorflow as tf

from acting.fixed_lag import FixedLag
from acting.worker_process import WorkerError
from envs import captured_state
from roles.parts import Part
from roles.records import Records
from roles.wiring import ActorSide

_ANEW = 'a run that is resumed from {} begins new games'
# What a state that does not fit, or is damaged, leads to.
_UNFIT = (TypeError, ValueError, LookupError, AttributeError, WorkerError)


class ActingState(Part):
  """The variable with the state of acting, to be created before the checkpoints are.

  Its `store` and `opened` are called while no unroll is in progress and none is in the queue.

  Args:
    actors: the actor loops and environments of this process.
    lag: the turns of the loops.
    records: the statistics of the current row, and the user's terminal.
  """

  def __init__(self, actors: ActorSide, lag: FixedLag, records: Records):
    self._actors, self._lag, self._records = actors, lag, records
    self._why_not: str | None = None
    with tf.device('/cpu:0'):
      self._variable = tf.compat.v1.Variable(
        '', trainable=False, use_resource=True, name='acting_state'
      )
      self._text = tf.compat.v1.placeholder(tf.string, [])
      self._assign = self._variable.assign(self._text).op

  def store(self, session: tf.compat.v1.Session) -> None:
    """Gives the variable the current state; called before a checkpoint is written."""
    state = dict(statistics=self._records.statistics.state(), games=self._games(session))
    text = json.dumps(state, sort_keys=True, separators=(',', ':'))
    session.run(self._assign, {self._text: text})

  def _games(self, session: tf.compat.v1.Session) -> dict[str, Any] | None:
    if self._why_not:
      return None
    actors = self._actors
    try:
      games = [batch.state() for batch in actors.batches]
    except WorkerError as error:
      self._records.message(f'{_ANEW.format("this checkpoint")}: {error.message}')
      return None
    loops = {str(i): state.arrays(session) for i, state in enumerate(actors.states)}
    return dict(
      next_loop=self._lag.next_loop(actors.batches[0].num_envs),
      levels=[batch.spec.level.name for batch in actors.batches],
      games=games,
      loops=captured_state.capture(loops),
    )

  def opened(self, session: tf.compat.v1.Session, path: str | None) -> None:
    """As `Part`: goes on with the games of the checkpoint that is resumed."""
    self._why_not = self._why_not_set()
    if not path:
      if self._why_not:
        self._records.message(f'{_ANEW.format("a checkpoint")}: {self._why_not}')
      return
    reason = self._resume(session)
    if reason:
      self._records.message(f'the games begin anew: {reason}')

  def _why_not_set(self) -> str:
    """Returns why the games of a level cannot be set, or ''."""
    for level, batch in {batch.spec.level: batch for batch in self._actors.batches}.items():
      if reason := batch.why_not_set():
        return f'the state of {level.name} cannot be set ({reason})'
    return ''

  def _resume(self, session: tf.compat.v1.Session) -> str:
    """Sets the state of the checkpoint; returns why the games begin anew, or ''."""
    try:
      state = json.loads(session.run(self._variable))
      self._records.statistics.set_state(state['statistics'])
    except _UNFIT as error:
      return f'the state in the checkpoint cannot be read ({error!r})'
    if self._why_not or not state['games']:
      return self._why_not or 'their state is not in the checkpoint'
    try:
      self._set_games(session, state['games'])
    except _UNFIT as error:
      # Some may have been set: all start again.
      self._actors.restart_games(session)
      return f'their state in the checkpoint does not fit ({getattr(error, "message", error)})'
    return ''

  def _set_games(self, session: tf.compat.v1.Session, state: dict[str, Any]) -> None:
    actors = self._actors
    levels = [batch.spec.level.name for batch in actors.batches]
    if levels != state['levels']:
      raise ValueError(f'it has {len(state["levels"])} actor loops, here are {len(levels)}')
    here = {str(i): one.arrays(session) for i, one in enumerate(actors.states)}
    arrays = captured_state.restore(here, state['loops'])
    for i, (one, batch) in enumerate(zip(actors.states, actors.batches, strict=True)):
      one.set(session, [np.asarray(array) for array in arrays[str(i)]])
      batch.set_state(state['games'][i])
    self._lag.first_loop = int(state['next_loop']) % len(levels)
