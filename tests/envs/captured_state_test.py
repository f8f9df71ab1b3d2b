"""envs.captured_state and envs.state_trial: the state of an environment as plain data."""

import collections
import enum
import json
import random
import threading
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest

import environments
from envs import captured_state
from envs.captured_state import CannotCapture
from structs import Level


class Cell:
  """A Python object with slots."""

  __slots__ = ('__hidden', 'kind')

  def __init__(self, kind):
    self.kind, self.__hidden = kind, [kind]

  def hidden(self):
    """The private attribute."""
    return self.__hidden


class Place(NamedTuple):
  """A tuple of its own class."""

  row: int
  column: int


class Phase(enum.Enum):
  """An enumeration."""

  DAY, NIGHT = 'day', 'night'


class World:
  """Holds one of everything, with two names for one array and a cycle."""

  def __init__(self, seed):
    self.random = np.random.default_rng(seed)
    self.old_random = np.random.RandomState(seed)
    self.python_random = random.Random(seed)
    self.board = self.random.integers(9, size=(2, 3))
    self.other_name = self.board
    self.row = self.board[0]
    self.cells = [Cell(seed), None]
    self.here, self.phase = Place(seed, 1), Phase.DAY if seed else Phase.NIGHT
    self.last = collections.deque([seed, seed + 0.1], maxlen=2)
    self.seen, self.names = {seed, (seed, 2)}, {'a': np.float32(seed), 3: float('inf')}
    self.space = gymnasium.spaces.Discrete(5, seed=seed)
    self.rule, self.me, self.text = len, self, f'text {seed}'
    if seed:
      self.only_here = seed

  def values(self):
    """All that can be compared, and draws from the generators."""
    draws = self.random.random(), self.old_random.rand(), self.python_random.random()
    return [
      *draws, self.board.tolist(), [cell and (cell.kind, cell.hidden()) for cell in self.cells],
      self.here, self.phase, self.last, self.last.maxlen, self.seen, self.names,
      self.names['a'].dtype, self.space.sample(), self.text, getattr(self, 'only_here', None),
    ]  # fmt: skip


def as_text(world):
  return json.dumps(captured_state.capture({'world': world}))


@pytest.mark.parametrize('seeds', [(0, 1), (1, 0)])
def test_a_state_is_set_in_another_object(seeds):
  one, other = World(seeds[0]), World(seeds[1])
  one.cells = [None, Cell(7), one.cells[0]]
  text = as_text(one)
  generator, board = other.random, other.board
  assert captured_state.restore({'world': other}, json.loads(text)) == {'world': other}
  assert as_text(other) == text
  # In place, so that whoever else knows an array or a generator sees the same.
  assert other.random is generator and other.board is board is other.other_name
  assert other.me is other
  other.board[0, 0] = 99
  assert other.row[0] == 99
  one.board[0, 0] = 99
  assert one.values() == other.values()


def test_what_were_two_values_does_not_become_one():
  one, other = World(0), World(0)
  one.other_name = one.board + 1
  captured_state.restore({'world': other}, json.loads(as_text(one)))
  assert other.other_name is not other.board
  assert (other.other_name == other.board + 1).all()


@pytest.mark.parametrize('value, words', [
  (threading.Lock(), 'world.board is a _thread:lock'),
  (np.array([None]), 'world.board is an array of object'),
  (collections.UserDict(a=threading.Lock()), 'world.board.data'),
  (type('Own', (dict,), {})(), 'a container of its own kind'),
  (iter([1]), 'list_iterator'),
])  # fmt: skip
def test_what_cannot_be_captured_is_named(value, words):
  world = World(0)
  world.board = value
  with pytest.raises(CannotCapture, match=words):
    captured_state.capture({'world': world})


def test_a_state_makes_no_objects_of_other_classes_and_calls_nothing():
  """What a checkpoint says comes from whoever made it."""
  text = as_text(World(0))
  name = f'{__name__}:Cell'
  assert name in text
  for other in ('subprocess:Popen', f'{__name__}:Phase', 'builtins:object'):
    with pytest.raises(CannotCapture, match='does not fit'):
      captured_state.restore({'world': World(0)}, json.loads(text.replace(name, other)))
  with pytest.raises(CannotCapture, match='elsewhere'):
    captured_state.restore({'world': World(0)}, json.loads(text.replace(' len', ' eval')))
  for damaged in ([], None, [['world', ['list', 0]]], [['world', ['no_such_kind']]], [['x', 1]]):
    with pytest.raises(CannotCapture):
      captured_state.restore({'world': World(0)}, damaged)


def batch_of(level_name, seed, **kwargs):
  imports = 'minatar.gym:register_envs' if level_name.startswith('MinAtar') else ''
  level = Level(level_name, imports=imports)
  return environments.create_environment(level, 3, seed, own_generators=True, **kwargs)._batch


@pytest.mark.parametrize('level_name', ['impala/Memory-v0', 'CartPole-v1', 'MinAtar/Breakout-v0'])
def test_a_batch_goes_on_as_another_would_have(level_name):
  one, other = (
    batch_of(level_name, 1, envs_per_worker=2),
    batch_of(level_name, 2, envs_per_worker=3),
  )
  try:
    assert one.why_not_set() == ''
    one.reset(), other.reset()
    for step in range(25):
      one.step(np.full(3, step % 2, np.int32))
    other.step(np.zeros(3, np.int32))
    other.set_state(json.loads(json.dumps(one.state())))
    for step in range(40):
      action = np.array([0, 1, step % 2], np.int32)
      for mine, theirs in zip(flat(one.step(action)), flat(other.step(action)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert one.state() == other.state()
  finally:
    one.close(), other.close()


def flat(output):
  return [output.reward, *output.info, output.done, output.observation]


def test_why_the_state_of_an_environment_cannot_be_set():
  batch = batch_of('state_worlds:Hidden-v0', 0)
  try:
    assert batch.why_not_set() == 'it plays differently after its state was set'
  finally:
    batch.close()
  batch = batch_of('PongNoFrameskip-v4', 0)
  try:
    assert 'ale_py' in batch.why_not_set()
  finally:
    batch.close()
