"""py_process: methods as operations, shapes, failures, and sessions that end their processes."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import child_processes
import py_process
import worker_classes
from child_processes import is_running
from worker_classes import Closing, Example, Meeting

TESTS = pathlib.Path(__file__).parent


def children():
  return [p.pid for p in child_processes.children()]


@pytest.fixture
def graph():
  """A default graph, and the check that its test leaves no process."""
  before = set(children())
  with tf.Graph().as_default() as graph:
    yield graph
    assert set(children()) == before


def monitored_session():
  return tf.compat.v1.train.SingularMonitoredSession(hooks=[py_process.PyProcessHook()])


def test_methods_are_operations_with_static_shapes(graph):
  proxy = py_process.PyProcess(Example, 10, factor=3).proxy
  scaled = proxy.scaled(tf.constant([1.0, 2.0]))
  shifted = proxy.scaled(scaled, offset=1.0)
  assert scaled.shape == [2] and scaled.dtype == tf.float32
  with monitored_session() as session:
    np.testing.assert_array_equal(session.run(shifted), [3 * 13 + 11, 3 * 16 + 11])


def test_nests_go_in_and_come_out(graph):
  pair = py_process.PyProcess(Example, 10).proxy.pair((tf.constant(1), 0.5))
  assert pair['first'].shape == [] and pair['second'].shape == [3]
  with monitored_session() as session:
    pair_v = session.run(pair)
  assert pair_v['first'] == 11
  np.testing.assert_array_equal(pair_v['second'], [0.5] * 3)


def test_method_without_results_is_an_operation(graph):
  nothing = py_process.PyProcess(Example, 10).proxy.nothing()
  assert isinstance(nothing, tf.Operation)
  with monitored_session() as session:
    session.run(nothing)


def test_method_without_specification_is_refused(graph):
  proxy = py_process.PyProcess(Example, 10).proxy
  with pytest.raises(ValueError, match="no specification for 'modules'"):
    proxy.modules()
  with pytest.raises(AttributeError, match='no_such_method'):
    proxy.no_such_method()


def test_result_that_breaks_its_promise_is_an_error(graph):
  wrong = py_process.PyProcess(Example, 10).proxy.wrong_shape()
  with monitored_session() as session:
    with pytest.raises(tf.errors.InvalidArgumentError, match=r'shape \(3,\) where _tensor_specs'):
      session.run(wrong)


def test_hook_starts_and_closes_all_processes(graph, tmp_path):
  paths = [tmp_path / str(i) for i in range(3)]
  processes = [py_process.PyProcess(Closing, str(path)) for path in paths]
  with monitored_session():
    pids = [p.pid for p in processes]
    assert all(is_running(pid) for pid in pids)
  assert [p.pid for p in processes] == [None] * 3
  assert not any(is_running(pid) for pid in pids)
  assert all(path.exists() for path in paths)  # Their close() was called.


def test_processes_are_closed_after_an_error_of_the_program(graph, tmp_path):
  process = py_process.PyProcess(Closing, str(tmp_path / 'closed'))
  with pytest.raises(ZeroDivisionError):
    with monitored_session():
      pid = process.pid
      raise ZeroDivisionError
  assert process.pid is None and not is_running(pid)
  assert (tmp_path / 'closed').exists()


def test_constructor_error_arrives_with_traceback_and_leaves_nothing(graph):
  py_process.PyProcess(Example, 10)
  py_process.PyProcess(Example, 'bad')
  py_process.PyProcess(Example, 10)
  before = children()
  with pytest.raises(py_process.WorkerError, match='base must not be bad') as info:
    with monitored_session():
      pass
  assert "raise ValueError('base must not be bad')" in str(info.value)
  assert 'worker_classes.py' in str(info.value)
  assert info.value.type_name == 'ValueError' and info.value.message == 'base must not be bad'
  assert children() == before


def test_method_error_arrives_in_the_session_with_traceback(graph):
  process = py_process.PyProcess(Example, 10)
  fails = process.proxy.fails()
  with pytest.raises(tf.errors.OpError, match='a reason') as info:
    with monitored_session() as session:
      session.run(fails)
  assert "raise KeyError('a reason')" in info.value.message
  assert process.pid is None


def test_crash_is_an_error_in_the_session(graph):
  crashes = py_process.PyProcess(Example, 10).proxy.crashes()
  with pytest.raises(tf.errors.OpError, match='SIGSEGV'):
    with monitored_session() as session:
      session.run(crashes)


def test_calls_run_at_the_same_time_from_one_operation(graph, tmp_path):
  count = 6
  workers = [py_process.Worker(Meeting, str(tmp_path), i, count) for i in range(count)]
  meet = tf.numpy_function(
    lambda r: np.array(py_process.call_all(workers, 'meet', [(int(r),)] * count)),
    [tf.compat.v1.placeholder_with_default(0, [])],
    tf.int64,
  )
  py_process.start_all(workers)
  try:
    # Fewer threads than workers: a thread for each call would wait here for ever.
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=1)
    with tf.compat.v1.Session(config=config) as session:
      for round_index in range(3):
        results = session.run(meet, {meet.op.inputs[0]: round_index})
        np.testing.assert_array_equal(results, range(count))
  finally:
    py_process.close_all(workers)


def test_recovered_session_has_running_processes(graph):
  process = py_process.PyProcess(Example, 10)
  scaled = process.proxy.scaled(tf.constant(1.0))

  class LosesItsPeerOnce(tf.compat.v1.train.SessionRunHook):
    lost = False

    def before_run(self, run_context):
      if not self.lost:
        self.lost = True
        raise tf.errors.AbortedError(None, None, 'lost')

  hooks = [py_process.PyProcessHook(), LosesItsPeerOnce()]
  with tf.compat.v1.train.MonitoredSession(hooks=hooks) as session:
    pid = process.pid
    assert session.run(scaled) == 12
    assert process.pid not in (pid, None)


def test_module_needs_no_tensorflow():
  code = "import sys, py_process; assert 'tensorflow' not in sys.modules"
  subprocess.run([sys.executable, '-c', code], cwd=TESTS.parent, check=True)
  assert worker_classes.__name__ in sys.modules  # The workers above came from a module of its own.
