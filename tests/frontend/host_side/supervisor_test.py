"""The supervisor of one task, with real processes."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

import conftest
import frontend_fixtures
import network_fixtures
from frontend.host_side import processes as process_lib
from frontend.host_side import supervisor, task_record, task_status

pytestmark = pytest.mark.slow

eventually = conftest.eventually

COUNT = """
import os
open('runs', 'a').write('x')
n = os.path.getsize('runs')
"""
WAIT_FOR_TERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('leaving', flush=True), sys.exit({code})))
print('ready', flush=True)
time.sleep(600)
"""


class Supervised:
  """A copy of the code with one task, whose program is a few lines of Python."""

  def __init__(self, folder, processes):
    self.code = frontend_fixtures.copy_code(folder / 'code')
    self.folder = os.path.join(self.code, '.cluster', 's')
    self._processes = processes
    os.makedirs(self.folder)

  def start(self, program, python=sys.executable, environment=None, env=None, **spec):
    """Starts the supervisor; `env` is its own environment."""
    return self._processes.start(*self.words(program, python, environment, **spec), env=env)

  def words(
    self, program, python=sys.executable, environment=None, restart='on-failure', max_restarts=20
  ):
    """Writes what is to run; returns the supervisor's command line."""
    spec = supervisor.Spec(
      'actor-0', [python, '-c', program], environment or {}, restart, max_restarts
    )
    supervisor.write_json(self.path('spec.json'), spec._asdict())
    program = os.path.join(self.code, 'run_experiment_mm_raw.py')
    return [sys.executable, program, '--action=supervise', '--tmux_sess=s', '--task=actor:0']

  def path(self, suffix):
    return supervisor.path_of(self.folder, 'actor-0', suffix)

  def record(self):
    return supervisor.read_json(self.path('supervisor.json')) or {}

  def row(self, now):
    """The row of the status table, had the supervisor not ended."""
    record = task_record.load(self.path('supervisor.json'))
    return task_status.status_row(self.folder, 'actor-0', record, {}, True, now)

  def log(self):
    if not os.path.exists(self.path('log')):
      return ''
    with open(self.path('log'), encoding='utf-8') as file:
      return file.read()


@pytest.fixture
def task(tmp_path, processes):
  return Supervised(tmp_path, processes)


def test_pauses_grow_from_one_second_to_sixty():
  assert [supervisor.pause_secs(n) for n in range(1, 10)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
  'exit_code,restart,times,again',
  [
    (1, 'on-failure', [], True),
    (-9, 'on-failure', [], True),
    (0, 'on-failure', [], False),
    (2, 'on-failure', [], False),
    (1, 'never', [], False),
    (1, 'on-failure', [100.0, 200.0], True),
    (1, 'on-failure', [300.0, 400.0, 500.0], False),
    (1, 'on-failure', [100.0, 200.0, 3800.0], True),
  ],
)
def test_which_ends_are_followed_by_a_new_start(exit_code, restart, times, again):
  spec = supervisor.Spec('actor-0', [], {}, restart, 3)
  assert supervisor.may_restart(spec, exit_code, times, 3850.0)[0] == again


def test_a_task_that_fails_is_started_again_until_it_succeeds(task):
  process = task.start(COUNT + 'print("run", n); exit(1 if n < 3 else 0)')
  assert process.exit_code() == 0
  assert task.record()['restarts'] == 2
  assert (task.record()['state'], task.record()['exit_code']) == ('exited', 0)
  assert [line for line in task.log().splitlines() if line.startswith('run')] == [
    'run 1', 'run 2', 'run 3']  # fmt: skip
  assert 'actor-0 exited 1' in task.log() and 'starting it again in 2 s' in task.log()
  # The window shows what the log holds.
  assert process.output() == task.log()


def test_bad_input_is_left_alone(task):
  assert task.start(COUNT + 'exit(2)').exit_code() == 2
  assert task.record()['restarts'] == 0
  assert 'not started again: its input is bad' in task.log()


def test_it_gives_up_after_max_restarts(task):
  assert task.start('exit(7)', max_restarts=1).exit_code() == 7
  assert task.record()['restarts'] == 1
  assert 'not started again: 1 restarts within an hour (--max_restarts)' in task.log()


def test_a_killed_task_is_started_again_and_leaves_no_children(task):
  program = (
    'import subprocess, sys, time\n'
    'child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])\n'
    'print(child.pid, flush=True)\n'
    'time.sleep(600)'
  )
  process = task.start(program)
  child = int(eventually(lambda: task.log().splitlines() and task.log().splitlines()[0]))
  first = task.record()
  assert process_lib.is_running(first['pid'], first['mark'])
  os.kill(first['pid'], signal.SIGKILL)
  second = eventually(
    lambda: (r := task.record())['restarts'] == 1 and r['state'] == 'running' and r
  )
  assert second['pid'] != first['pid']
  assert not network_fixtures.is_alive(child)
  assert 'was ended by SIGKILL' in task.log()
  os.kill(process.pid, signal.SIGTERM)
  assert process.exit_code() == 128 + signal.SIGTERM


@pytest.mark.parametrize('code', [0, 3])
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_reaches_the_task_which_is_not_started_again(task, number, code):
  process = task.start(WAIT_FOR_TERM.format(code=code))
  eventually(lambda: 'ready' in task.log())
  os.kill(process.pid, number)
  assert process.exit_code() == code
  assert task.log().count('leaving') == 1
  assert (task.record()['restarts'], task.record()['exit_code']) == (0, code)


def test_a_hangup_is_nothing_under_nohup(task, processes):
  process = processes.start('nohup', *task.words(WAIT_FOR_TERM.format(code=0)))
  eventually(lambda: 'ready' in task.log())
  with open(f'/proc/{process.pid}/status', encoding='ascii') as file:
    (ignored,) = [line.split()[1] for line in file if line.startswith('SigIgn:')]
  assert int(ignored, 16) >> (signal.SIGHUP - 1) & 1
  for pid in (process.pid, task.record()['pid']):
    os.kill(pid, signal.SIGHUP)
  os.kill(process.pid, signal.SIGTERM)
  assert process.exit_code() == 0
  assert (task.log().count('leaving'), task.record()['restarts']) == (1, 0)


def test_nothing_starts_again_while_the_cluster_is_stopped(task):
  process = task.start('exit(1)')
  eventually(lambda: task.record().get('state') == 'restarting')
  open(os.path.join(task.folder, 'stopping'), 'w').close()
  assert process.exit_code() == 1
  assert task.record()['state'] == 'exited'


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='only Linux tells children')
def test_a_task_that_loses_its_supervisor_is_told_to_end(task):
  process = task.start(WAIT_FOR_TERM.format(code=0))
  eventually(lambda: 'ready' in task.log())
  pid = task.record()['pid']
  os.kill(process.pid, signal.SIGKILL)
  assert eventually(lambda: not network_fixtures.is_alive(pid))


def test_environment_variables_are_set_and_removed(task):
  program = 'import os; print(os.environ.get("SET"), os.environ.get("REMOVED"), os.getcwd())'
  process = task.start(
    program, environment={'SET': '', 'REMOVED': None}, env={'REMOVED': 'x', 'SET': 'y'}
  )
  assert process.exit_code() == 0
  assert task.log().splitlines()[0] == f' None {task.code}'


def test_a_program_that_is_not_there(task):
  process = task.start('', python='/nowhere/python', restart='never')
  assert process.exit_code() == 127
  assert 'cannot start /nowhere/python: No such file or directory' in task.log()


def test_a_full_log_begins_anew_and_keeps_the_older_part(tmp_path, capfdbinary):
  log = supervisor.Log(str(tmp_path / 'log'), limit_bytes=10)
  for line in (b'aaaa\n', b'bbbb\n', b'cccc\n'):
    log.write(line)
  assert (tmp_path / 'log').read_bytes() == b'cccc\n'
  assert (tmp_path / 'log.1').read_bytes() == b'aaaa\nbbbb\n'


def test_a_disk_without_room_ends_neither_the_supervisor_nor_its_task(task):
  """And `status` says so meanwhile; what a full disk is to a log, /dev/full is too."""
  os.symlink('/dev/full', task.path('log'))
  process = task.start(
    'import time\nfor n in range(3): print("row", n, flush=True)\ntime.sleep(600)'
  )
  problem = 'its log cannot be written: No space left on device'
  eventually(lambda: task.record().get('problem') == problem)
  eventually(lambda: 'row 2' in process.output())
  assert process_lib.is_running(task.record()['pid'], task.record()['mark'])
  row = task.row(0.0)
  assert (row['state'], row['last_line']) == ('running', problem)
  os.remove(task.path('log'))
  found = eventually(lambda: (r := task.record())['problem'] is None and r)
  assert found['gap'] == '18 bytes of its log are lost: No space left on device'
  assert task.log().endswith('18 bytes of output are missing here: No space left on device\n')
  os.kill(process.pid, signal.SIGTERM)
  assert process.exit_code() == 128 + signal.SIGTERM


def test_ctrl_s_and_ctrl_z_in_its_window_stop_neither_the_supervisor_nor_its_task(task):
  ours, theirs = pty.openpty()
  os.write(ours, b'\x13')
  program = (
    'import os, time\n'
    'for n in range(20000): print("row", n, 20 * "x")\n'
    'while not os.path.exists("stopped"): time.sleep(0.05)\n'
    'print("the end", flush=True)\n'
    'exit(3)'
  )
  process = subprocess.Popen(
    task.words(program, restart='never'), stdin=subprocess.DEVNULL, stdout=theirs
  )
  try:
    eventually(lambda: task.record().get('state') == 'running')
    os.kill(process.pid, signal.SIGTSTP)
    open(os.path.join(task.code, 'stopped'), 'w').close()
    assert process.wait(timeout=60) == 3
  finally:
    process.kill()
    process.wait()
    os.close(ours)
    os.close(theirs)
  assert 'row 19999' in task.log() and task.record()['exit_code'] == 3


def test_a_task_that_fails_again_and_again_says_why(task):
  process = task.start(COUNT + 'import time\nif n < 2: exit("no room for a checkpoint")\n'
                       'print("all is well", flush=True); time.sleep(600)')  # fmt: skip
  eventually(lambda: 'all is well' in task.log())
  found = eventually(lambda: (r := task.record())['state'] == 'running' and r)
  assert (found['failure']['exit_code'], found['failure']['line']) == (
    1,
    'no room for a checkpoint',
  )
  row = task.row(found['failure']['time'] + 180)
  assert row['last_line'] == 'failed 3m 00s ago (exited 1): no room for a checkpoint | all is well'
  os.kill(process.pid, signal.SIGTERM)
  process.exit_code()


def test_a_recycled_process_id_is_not_ours():
  mark = process_lib.start_mark(os.getpid())
  assert process_lib.is_running(os.getpid(), mark)
  assert not process_lib.is_running(os.getpid(), mark + '0')
  assert not process_lib.send(os.getpid(), mark + '0', signal.SIGKILL)


def test_a_state_file_is_never_seen_half_written(tmp_path):
  path = tmp_path / 'x.json'
  supervisor.write_json(path, {'a': 1})
  assert json.loads(path.read_text()) == {'a': 1}
  assert os.listdir(tmp_path) == ['x.json']
  path.write_text('{"a"')
  assert supervisor.read_json(path) is None
