"""A chief goes on from what the parameter servers hold, unless some of it was lost."""

import json

import pytest
import tensorflow as tf

from roles import initialization
from roles.records import Inbox
from runtime.checkpoints import Checkpoints
from runtime.cluster import LOCAL
from runtime.shared_state import SharedState

NEW, TRAINED, LATER = 1.0, 5.0, 7.0


class Held:
  """Two variables that a server keeps from one session to the next, as parameter servers do."""

  def __init__(self, folder, run):
    v1 = tf.compat.v1
    self.path, self._run = None, run
    self._folder = str(folder)
    self._target = tf.distribute.Server.create_local_server().target
    with tf.Graph().as_default() as self._graph:
      v1.train.get_or_create_global_step()
      tf.Variable(tf.zeros([], tf.int64), name='environment_frames')
      self._pair = [tf.Variable(NEW, name=f'slice_{i}') for i in range(2)]
      self._checkpoints = Checkpoints(self._folder, '')
      value = v1.placeholder(tf.float32, [])
      self._assign, self._value = [v.assign(value) for v in self._pair], value
      self._lose = [tf.raw_ops.DestroyResourceOp(resource=v.handle) for v in self._pair]
      self._shared = SharedState(LOCAL)
      self._init = v1.global_variables_initializer()
      self._ready = tf.identity(v1.report_uninitialized_variables())

  def _session(self):
    return tf.compat.v1.Session(self._target, self._graph)

  def initialize(self, restore=None):
    """(where the values are from, the values) of a chief that connects."""
    restore = restore or self._checkpoints.restore
    chief = initialization.VariableInitializer(
      self._shared, self._run, self._init, {}, self._ready, restore
    )
    with self._graph.as_default(), self._session() as session:
      return chief.initialize(session, self.path), session.run(self._pair)

  def invalidate(self):
    with self._session() as session:
      initialization.VariableInitializer(self._shared, self._run, None, {}, None, None).invalidate(
        session
      )

  def train(self, value, save=False):
    with self._session() as session:
      session.run(self._assign, {self._value: value})
      if save:
        self._checkpoints.save(session, 1)
        self.path = Checkpoints.latest(self._folder)

  def lose(self, index):
    with self._session() as session:
      session.run(self._lose[index])

  def of_run(self, run):
    self._run = run
    return self


@pytest.fixture
def held(tmp_path):
  """Of a run whose values are LATER than those of its checkpoint, TRAINED."""
  held = Held(tmp_path, 'a run')
  assert held.initialize() == (None, [NEW, NEW])
  held.train(TRAINED, save=True)
  held.train(LATER)
  return held


def test_nothing_was_lost(held):
  assert held.initialize() == (initialization.KEPT, [LATER, LATER])


def test_nothing_was_lost_before_the_first_checkpoint(tmp_path):
  held = Held(tmp_path, 'a run')
  held.initialize()
  held.train(LATER)
  assert held.initialize() == (initialization.KEPT, [LATER, LATER])


@pytest.mark.parametrize('lost', [0, 1])
def test_of_values_that_belong_together_some_were_lost(held, lost):
  held.lose(lost)
  assert held.initialize() == (held.path, [TRAINED, TRAINED])
  held.train(LATER)
  assert held.initialize() == (initialization.KEPT, [LATER, LATER])


def test_some_were_lost_before_the_first_checkpoint(tmp_path):
  held = Held(tmp_path, 'a run')
  held.initialize()
  held.train(LATER)
  held.lose(1)
  assert held.initialize() == (None, [NEW, NEW])


def test_the_parameter_servers_hold_another_run(held):
  assert held.of_run('another run').initialize() == (held.path, [TRAINED, TRAINED])


def test_a_chief_that_died_while_it_restored_left_values_that_do_not_belong_together(held):
  held.lose(1)

  def die(session, path):
    raise RuntimeError('killed')

  with pytest.raises(RuntimeError):
    held.initialize(die)
  held.train(LATER)  # All have a value again.
  assert held.initialize() == (held.path, [TRAINED, TRAINED])


def test_a_run_that_failed_is_not_gone_on_with(held):
  held.invalidate()
  assert held.initialize() == (held.path, [TRAINED, TRAINED])


def test_a_folder_keeps_the_id_of_its_run(tmp_path):
  for name in 'ab':
    (tmp_path / name).mkdir()
  first = initialization.run_id(tmp_path / 'a')
  assert first and initialization.run_id(tmp_path / 'a') == first
  assert initialization.run_id(tmp_path / 'b') != first


class Heard:
  """Stands for whoever the inbox hands on to: `reporting.statistics` and `runtime.unresponsive`."""

  def __init__(self):
    self.reports = []
    self.add_learner_wait = lambda *secs: self.reports.append(secs)
    self.saw_reports = self.forget = lambda names: None
    self.roll_call = lambda: ''


def test_reports_that_are_dropped_are_said_once():
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    shared, heard, said = SharedState(LOCAL), Heard(), []
    session.run([v.initializer for v in tf.compat.v1.get_collection('shared_state')])
    inbox = Inbox(shared, heard, heard, said.append)
    report = dict(job='learner', task=1, leaves=False, update_secs=0.0, busy_secs=1.0)
    for number in range(1003):
      text = json.dumps({**report, 'wait_secs': number})
      session.run(shared.send_report, {shared.report: text})
    inbox.take(session)
    inbox.take(session)
  assert heard.reports == [(number, 1.0) for number in range(1000)]
  (sentence,) = said
  assert sentence.startswith('3 reports of tasks were dropped, since 1000 waited')
