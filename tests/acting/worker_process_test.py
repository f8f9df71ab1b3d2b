"""worker_process: direct calls, failures, and processes that end when they should."""

import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading

import psutil
import pytest

import worker_classes
from acting import worker_process
from child_processes import is_running
from conftest import eventually
from worker_classes import Example

TESTS = pathlib.Path(__file__).parent.parent
GIVE_UP_SECS = 60


@pytest.fixture
def worker():
  worker = worker_process.Worker(Example, 10)
  worker.start()
  yield worker
  worker.close()


def test_worker_goes_on_after_a_method_error(worker):
  for method, text in (('fails', 'KeyError'), ('exits', 'SystemExit'), ('missing', 'missing')):
    with pytest.raises(worker_process.WorkerError, match=text):
      worker.call(method)
  assert worker.call('scaled', 1) == 12


@pytest.mark.parametrize(
  'method, reason',
  [('crashes', r'killed by signal 11 \(SIGSEGV\)'), ('leaves', 'ended with exit code 3')],
)
def test_dying_process_is_a_clear_error(worker, method, reason):
  with pytest.raises(worker_process.WorkerDied, match=reason):
    worker.call(method)
  with pytest.raises(worker_process.WorkerDied, match=reason):
    worker.call('scaled', 1)
  worker.close()
  worker.start()
  assert worker.call('scaled', 1) == 12


def test_killed_process_ends_a_running_call_at_once(worker, tmp_path):
  inside = tmp_path / 'inside'
  errors = []

  def call():
    try:
      worker.call('sleeps', os.fsencode(inside))
    except worker_process.WorkerError as error:
      errors.append(error)

  caller = threading.Thread(target=call)
  caller.start()
  eventually(inside.exists)
  os.kill(worker.pid, signal.SIGKILL)
  caller.join(GIVE_UP_SECS)
  assert isinstance(errors[0], worker_process.WorkerDied) and 'SIGKILL' in str(errors[0])


def test_one_death_among_many_leaves_the_others_their_results():
  workers = [worker_process.Worker(Example, i) for i in range(4)]
  worker_process.start_all(workers)
  try:
    os.kill(workers[2].pid, signal.SIGKILL)
    results = worker_process.call_all(workers, 'scaled', [(1,)] * 4)
    assert isinstance(results[2], worker_process.WorkerDied)
    assert [results[i] for i in (0, 1, 3)] == [2, 3, 5]
  finally:
    worker_process.close_all(workers)
  assert all(w.pid is None for w in workers)


def test_a_wake_up_is_a_call_without_arguments():
  workers = [worker_process.Worker(Example, 10, factor) for factor in (2, 3, 4)]
  worker_process.start_all(workers)
  try:
    nothing, four, error = worker_process.wake_all(workers)
    assert nothing is None and four == 4
    assert isinstance(error, worker_process.WorkerError) and error.type_name == 'KeyError'
    assert 'Traceback' in str(error) and 'in wake' in str(error)
    os.kill(workers[2].pid, signal.SIGKILL)
    assert isinstance(worker_process.wake_all(workers)[2], worker_process.WorkerDied)
    assert workers[0].call('scaled', 1) == 14
  finally:
    worker_process.close_all(workers)


def test_stuck_process_is_killed_by_close(worker, tmp_path, monkeypatch):
  monkeypatch.setattr(worker_process, 'CLOSE_SECS', 0.1)
  inside, pid = tmp_path / 'inside', worker.pid
  caller = threading.Thread(
    target=lambda: pytest.raises(
      worker_process.WorkerDied, worker.call, 'sleeps', os.fsencode(inside)
    )
  )
  caller.start()
  eventually(inside.exists)
  worker.close()
  assert not is_running(pid)
  caller.join(GIVE_UP_SECS)
  assert not caller.is_alive()


def test_closing_twice_or_unstarted_is_fine():
  worker = worker_process.Worker(Example, 10)
  worker.close()
  worker.start()
  worker.close()
  worker.close()
  with pytest.raises(worker_process.WorkerDied, match='is closed'):
    worker.call('scaled', 1)


def test_forgotten_worker_ends():
  worker = worker_process.Worker(Example, 10)
  worker.start()
  pid = worker.pid
  del worker
  assert eventually(lambda: not is_running(pid))


def test_worker_is_small_and_imports_no_tensorflow(worker):
  modules = worker.call('modules')
  assert 'worker_classes' in modules
  assert 'tensorflow' not in modules and 'worker_process_test' not in modules
  assert psutil.Process(worker.pid).memory_info().rss < 150e6


def test_ctrl_c_is_the_parents_business():
  # A program in the background of a shell ignores it from the start, and so would the worker.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  worker = worker_process.Worker(Example, 10)
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
    worker_process.Worker(Local)


@pytest.mark.parametrize(
  'method, args', [('forks_and_leaves', (False,)), ('forks_and_leaves', (True,)),
                   ('forks_in_the_middle', ())],
)  # fmt: skip
def test_a_death_that_a_forked_child_hides_is_noticed(worker, method, args):
  with pytest.raises(worker_process.WorkerDied, match='ended with exit code 3'):
    worker.call(method, *args)


def test_what_a_worker_has_started_ends_with_it(worker):
  for ends in (lambda: os.kill(worker.pid, signal.SIGKILL), worker.close):
    started = worker.call('starts')
    assert all(is_running(pid) for pid in started)
    ends()
    with pytest.raises(worker_process.WorkerDied):
      worker.call('scaled', 1)
    assert not any(is_running(pid) for pid in started)
    worker.close()
    worker.start()
  # Others keep theirs.
  other = worker_process.Worker(Example, 10)
  other.start()
  started = other.call('starts')
  worker.close()
  assert all(is_running(pid) for pid in started)
  other.close()
  assert not any(is_running(pid) for pid in started)


def test_dead_workers_leave_no_file_open(worker):
  def dies():
    with pytest.raises(worker_process.WorkerDied):
      worker.call('leaves')
    worker.close()
    worker.start()

  dies()
  before = len(os.listdir('/proc/self/fd'))
  dies()
  assert len(os.listdir('/proc/self/fd')) == before


LIMITED = """
  import resource, sys
  sys.path[:0] = [{repository!r}, {tests!r}]
  from acting import worker_process
  import worker_classes
  resource.setrlimit(resource.RLIMIT_NOFILE, (16, int(sys.argv[1])))
  workers = [worker_process.Worker(worker_classes.Closing, '/dev/null') for _ in range(10)]
  try:
    worker_process.start_all(workers)
    worker_process.close_all(workers)
    print('started')
  except worker_process.TooManyFiles as error:
    print(error.message)
"""


def test_a_low_limit_of_open_files_is_raised_or_named(tmp_path):
  program = tmp_path / 'limited.py'
  program.write_text(
    textwrap.dedent(LIMITED).format(repository=str(TESTS.parent), tests=str(TESTS))
  )
  outputs = [
    subprocess.run([sys.executable, str(program), hard], capture_output=True, text=True)
    for hard in ('200', '60')
  ]
  assert outputs[0].stdout == 'started\n', outputs[0].stderr
  needed = (
    '10 processes do not start: [0-9]+ open files are needed, but the limit is 60 .ulimit -Hn.'
  )
  assert re.fullmatch(needed + '\n', outputs[1].stdout), outputs[1]


PROGRAM = """
  import os, sys, threading
  sys.path[:0] = [{repository!r}, {tests!r}]
  from acting import worker_process
  import worker_classes

  class OfTheMainModule:
    def get(self):
      return __name__

  if __name__ == '__main__':
    mine = worker_process.Worker(OfTheMainModule)
    idle, busy = (worker_process.Worker(worker_classes.Example, 1) for _ in range(2))
    worker_process.start_all([mine, idle, busy])
    assert mine.call('get') == '__mp_main__'
    idle.call('prints')
    print(mine.pid, idle.pid, busy.pid, *idle.call('starts'), flush=True)
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
      assert len(pids) == 6 and all(is_running(pid) for pid in pids)
    finally:
      parent.kill()
  eventually(lambda: not any(is_running(pid) for pid in pids))


def test_module_needs_no_tensorflow():
  code = "import sys; from acting import worker_process; assert 'tensorflow' not in sys.modules"
  subprocess.run([sys.executable, '-c', code], cwd=TESTS.parent, check=True)
  assert worker_classes.__name__ in sys.modules  # The workers above came from a module of its own.
