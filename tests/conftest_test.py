"""The shared helpers keep what they promise: above all, no process outlives its test."""

import glob
import itertools
import os
import re
import socket
import sys
import time

import psutil
import pytest

import conftest

_PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], {options})
print(child.pid, flush=True)
{end}
"""


def _started_child(processes, options='', end='child.wait()'):
  parent = processes.start(sys.executable, '-c', _PARENT.format(options=options, end=end))
  pid = conftest.eventually(lambda: parent.output().strip(), 30)
  return parent, psutil.Process(int(pid))


def test_what_still_runs_is_killed(tmp_path):
  started = conftest.Processes(tmp_path)
  process = started.start(sys.executable, '-c', 'import time; time.sleep(600)')
  started.close()
  assert process.returncode < 0
  assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize(
  'options, end', [('', 'child.wait()'), ('start_new_session=True', 'child.wait()'), ('', '')]
)
def test_an_orphan_fails_the_test_and_is_killed(tmp_path, monkeypatch, options, end):
  monkeypatch.setattr(conftest, '_ORPHAN_LIMIT_SECS', 0.1)
  started = conftest.Processes(tmp_path)
  parent, child = _started_child(started, options, end)
  if not end:
    assert parent.exit_code() == 0
  with pytest.raises(AssertionError, match=f'outlived.*{child.pid}'):
    started.close()
  conftest.eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10)


def test_output_and_exit_code(processes):
  process = processes.start(
    sys.executable,
    '-c',
    'import os, sys; print(os.environ["A"]); sys.exit("no")',
    name='a',
    env={'A': 'yes'},
  )
  assert process.exit_code(30) == 1
  assert process.output().split() == ['yes', 'no']
  assert os.path.basename(process.log) == 'a.log'


def test_a_trainer_is_a_child_of_the_test_process_with_a_session_of_its_own(processes, tmp_path):
  flags = [f'--logdir={tmp_path}/run', '--level_name=impala/Catch-v0', '--num_actors=1']
  secret = {'IMPALA_TEST': 'a'}
  process = processes.start('tests/altered_experiment.py', 'slow', *flags, name='a', env=secret)
  trainer = psutil.Process(process.pid)
  assert (trainer.ppid(), os.getsid(process.pid)) == (os.getpid(), process.pid)
  conftest.eventually(lambda: 'new run; learns on' in process.output(), 60, process.output)
  assert trainer.children() and {'IMPALA_TEST=a'} <= environment_of(trainer.children()[0].pid)
  assert os.readlink(f'/proc/{process.pid}/fd/1') == process.log
  assert os.readlink(f'/proc/{process.pid}/cwd') == conftest.ROOT
  process.kill()
  assert process.exit_code() == -9
  refused = processes.start('experiment.py', '--mode=tset', name='b')
  assert refused.exit_code() == 2 and refused.output().startswith('experiment.py: flag --mode=tset')


def test_a_trainer_inside_of_another_process_has_its_network_and_mounts(processes, tmp_path):
  if os.geteuid():
    pytest.skip('namespaces need root')
  other = processes.start('unshare', '--net', '--mount', 'sleep', '600')

  def namespaces(pid):
    return [os.readlink(f'/proc/{pid}/ns/{kind}') for kind in ('net', 'mnt')]

  def differ():
    return not set(namespaces(other.pid)) & set(namespaces(os.getpid()))

  conftest.eventually(differ, 20, other.output)
  trainer = processes.start('experiment.py', '--mode=tset', inside=other.pid)
  assert trainer.exit_code() == 2  # It has found its program there.
  flags = [f'--logdir={tmp_path}/run', '--level_name=impala/Catch-v0', '--num_actors=1']
  trainer = processes.start('experiment.py', *flags, inside=other.pid)
  conftest.eventually(lambda: namespaces(trainer.pid) == namespaces(other.pid), 20, trainer.output)


def test_what_is_asked_slowly_is_asked_half_of_the_time():
  asked = []

  def slow():
    asked.append(time.monotonic())
    time.sleep(0.2)
    return len(asked) == 3

  conftest.eventually(slow, 20)
  assert all(later - sooner >= 0.39 for sooner, later in itertools.pairwise(asked))


def environment_of(pid):
  with open(f'/proc/{pid}/environ') as file:
    return set(file.read().split('\0'))


def test_eventually_gives_up_with_the_message():
  with pytest.raises(AssertionError, match='the moon'):
    conftest.eventually(lambda: False, 0.1, lambda: 'the moon')
  assert conftest.eventually(lambda: 7) == 7


def test_free_ports_can_be_bound():
  ports = conftest.free_ports(5)
  assert len(set(ports)) == 5
  for port in ports:
    with socket.socket() as a_socket:
      a_socket.bind(('127.0.0.1', port))


def test_test_processes_share_no_port(processes):
  program = 'import conftest; print(*conftest._own_ports())'
  asked = [
    processes.start(
      sys.executable,
      '-c',
      program,
      cwd=os.path.dirname(conftest.__file__),
      env={'PYTEST_XDIST_WORKER': worker},
    )
    for worker in ['gw0', 'gw1', 'gw2']
  ]
  assert [process.exit_code() for process in asked] == [0, 0, 0]
  ports = [set(process.output().split()) for process in asked]
  assert [len(own) for own in ports] == [7_000] * 3 and len(set.union(*ports)) == 21_000


def test_tests_that_share_hosts_share_a_test_process(processes):
  """With the flags of `make test`; 49 tests that take a second, and some of other files."""
  with open(os.path.join(conftest.ROOT, 'Makefile'), encoding='utf-8') as file:
    flags = re.search(r'-m pytest (.*) \$\(ARGS\)', file.read())[1].split()
  run = processes.start(
    sys.executable,
    '-m',
    'pytest',
    *flags,
    '-v',
    '-p',
    'no:cacheprovider',
    'tests/frontend/cluster_csv_test.py',
    'tests/frontend/cluster_tasks_test.py',
    'tests/licences_test.py',
  )
  assert run.exit_code(200) == 0, run.output()
  ran = re.findall(r'\[(gw\d)\] .* PASSED tests/(\w+)', run.output())
  sharing = [worker for worker, folder in ran if folder == 'frontend']
  assert len(sharing) > 40 and len(set(sharing)) == 1
  # The other process does not wait for them.
  assert {worker for worker, folder in ran if folder != 'frontend'} != set(sharing)


def test_quick_tests_start_no_cluster(processes):
  """With the flags of `make quick`, of files that start clusters; tests are collected, not run."""
  with open(os.path.join(conftest.ROOT, 'Makefile'), encoding='utf-8') as file:
    marks = re.search(r'-m pytest .* -m "(.*)" \$\(ARGS\)', file.read())[1]
  tests = os.path.dirname(conftest.__file__)
  files = [
    path
    for name in ('cluster_test.py', 'cluster_network_test.py', 'readme_test.py')
    for path in glob.glob(os.path.join(tests, '**', name), recursive=True)
  ]
  assert len(files) == 3
  run = processes.start(
    sys.executable, '-m', 'pytest', '-n0', '-p', 'no:cacheprovider', '--collect-only', '-q',
    '-m', marks, *files,
  )  # fmt: skip
  assert run.exit_code(200) == 0, run.output()
  collected = [line.split('::') for line in run.output().splitlines() if '::' in line]
  assert {os.path.basename(path) for path, _ in collected} == {'readme_test.py'}
  assert not [name for _, name in collected if name.startswith('test_the_commands')]
