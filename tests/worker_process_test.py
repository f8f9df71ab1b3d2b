"""py_process: calls, shapes, failures, and processes that end when they should."""

import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import psutil
import pytest
import tensorflow as tf

import py_process
import worker_classes
from conftest import eventually
from worker_classes import Closing, Example, Meeting

TESTS = pathlib.Path(__file__).parent
GIVE_UP_SECS = 60


def is_running(pid):
  try:
    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


def children():
  return [p.pid for p in psutil.Process().children() if is_running(p.pid)]


@pytest.fixture
def graph():
  """A default graph, and the check that its test leaves no process."""
  before = set(children())
  with tf.Graph().as_default() as graph:
    yield graph
    assert set(children()) == before


@pytest.fixture
def worker():
  worker = py_process.Worker(Example, 10)
  worker.start()
  yield worker
  worker.close()


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


def test_worker_goes_on_after_a_method_error(worker):
  for method, text in (('fails', 'KeyError'), ('exits', 'SystemExit'), ('missing', 'missing')):
    with pytest.raises(py_process.WorkerError, match=text):
      worker.call(method)
  assert worker.call('scaled', 1) == 12


@pytest.mark.parametrize(
  'method, reason',
  [('crashes', r'killed by signal 11 \(SIGSEGV\)'), ('leaves', 'ended with exit code 3')],
)
def test_dying_process_is_a_clear_error(worker, method, reason):
  with pytest.raises(py_process.WorkerDied, match=reason):
    worker.call(method)
  with pytest.raises(py_process.WorkerDied, match=reason):
    worker.call('scaled', 1)
  worker.close()
  worker.start()
  assert worker.call('scaled', 1) == 12


def test_crash_is_an_error_in_the_session(graph):
  crashes = py_process.PyProcess(Example, 10).proxy.crashes()
  with pytest.raises(tf.errors.OpError, match='SIGSEGV'):
    with monitored_session() as session:
      session.run(crashes)


def test_killed_process_ends_a_running_call_at_once(worker, tmp_path):
  inside = tmp_path / 'inside'
  errors = []

  def call():
    try:
      worker.call('sleeps', os.fsencode(inside))
    except py_process.WorkerError as error:
      errors.append(error)

  caller = threading.Thread(target=call)
  caller.start()
  eventually(inside.exists)
  os.kill(worker.pid, signal.SIGKILL)
  caller.join(GIVE_UP_SECS)
  assert isinstance(errors[0], py_process.WorkerDied) and 'SIGKILL' in str(errors[0])


def test_one_death_among_many_leaves_the_others_their_results():
  workers = [py_process.Worker(Example, i) for i in range(4)]
  py_process.start_all(workers)
  try:
    os.kill(workers[2].pid, signal.SIGKILL)
    results = py_process.call_all(workers, 'scaled', [(1,)] * 4)
    assert isinstance(results[2], py_process.WorkerDied)
    assert [results[i] for i in (0, 1, 3)] == [2, 3, 5]
  finally:
    py_process.close_all(workers)
  assert all(w.pid is None for w in workers)


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


def test_stuck_process_is_killed_by_close(worker, tmp_path, monkeypatch):
  monkeypatch.setattr(py_process, 'CLOSE_SECS', 0.1)
  inside, pid = tmp_path / 'inside', worker.pid
  caller = threading.Thread(
    target=lambda: pytest.raises(py_process.WorkerDied, worker.call, 'sleeps', os.fsencode(inside))
  )
  caller.start()
  eventually(inside.exists)
  worker.close()
  assert not is_running(pid)
  caller.join(GIVE_UP_SECS)
  assert not caller.is_alive()


def test_closing_twice_or_unstarted_is_fine():
  worker = py_process.Worker(Example, 10)
  worker.close()
  worker.start()
  worker.close()
  worker.close()
  with pytest.raises(py_process.WorkerDied, match='is closed'):
    worker.call('scaled', 1)


def test_forgotten_worker_ends():
  worker = py_process.Worker(Example, 10)
  worker.start()
  pid = worker.pid
  del worker
  assert eventually(lambda: not is_running(pid))


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


def test_worker_is_small_and_imports_no_tensorflow(worker):
  modules = worker.call('modules')
  assert 'worker_classes' in modules
  assert 'tensorflow' not in modules and 'py_process_test' not in modules
  assert psutil.Process(worker.pid).memory_info().rss < 150e6


def test_ctrl_c_is_the_parents_business():
  # A program in the background of a shell ignores it from the start, and so would the worker.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  worker = py_process.Worker(Example, 10)
  try:
    worker.start()
    assert worker.call('session_id') != os.getsid(0)
    os.kill(worker.pid, signal.SIGINT)
    assert worker.call('scaled', 1) == 12
  finally:
    worker.close()
    signal.signal(signal.SIGINT, before)


def test_arguments_that_cannot_be_sent_leave_the_worker_alone(worker):
  with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
    worker.call('scaled', lambda: None)
  assert worker.call('scaled', 1) == 12


def test_class_that_cannot_be_sent_is_refused():
  class Local:
    pass

  with pytest.raises(ValueError, match='Local cannot be sent .* top level of a module'):
    py_process.Worker(Local)


PROGRAM = """
  import os, sys, threading
  sys.path[:0] = [{repository!r}, {tests!r}]
  import py_process, worker_classes

  class OfTheMainModule:
    def get(self):
      return __name__

  if __name__ == '__main__':
    mine = py_process.Worker(OfTheMainModule)
    idle, busy = (py_process.Worker(worker_classes.Example, 1) for _ in range(2))
    py_process.start_all([mine, idle, busy])
    assert mine.call('get') == '__mp_main__'
    idle.call('prints')
    print(mine.pid, idle.pid, busy.pid, flush=True)
    busy.call('sleeps', sys.argv[1].encode())
"""


def test_no_orphan_when_the_parent_is_killed(tmp_path):
  program = tmp_path / 'program.py'
  program.write_text(
    textwrap.dedent(PROGRAM).format(repository=str(TESTS.parent), tests=str(TESTS))
  )
  inside = tmp_path / 'inside'
  command = [sys.executable, str(program), str(inside)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
    try:
      # The worker's print went elsewhere: standard output is the parent's alone.
      pids = [int(pid) for pid in parent.stdout.readline().split()]
      eventually(inside.exists)
      assert len(pids) == 3 and all(is_running(pid) for pid in pids)
    finally:
      parent.kill()
  eventually(lambda: not any(is_running(pid) for pid in pids))


def test_module_needs_no_tensorflow():
  code = "import sys, py_process; assert 'tensorflow' not in sys.modules"
  subprocess.run([sys.executable, '-c', code], cwd=TESTS.parent, check=True)
  assert worker_classes.__name__ in sys.modules  # The workers above came from a module of its own.
