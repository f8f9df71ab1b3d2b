"""Two hosts that share a folder, such as a home folder; the second host is a PID namespace."""

import json
import os
import signal
import subprocess
import sys

import pytest

import frontend_fixtures
from conftest import eventually
from frontend.host_side import agent
from frontend_fixtures import own_tmux  # noqa: F401
from network_fixtures import end_processes

STAYS = 'import time\ntime.sleep(600)\n'


class Host:
  """The frontend's side on a host."""

  def __init__(self, code, socket, prefix=()):
    self._socket = socket
    self.process = subprocess.Popen(
      [*prefix, sys.executable, 'run_experiment_mm_raw.py', '--action=on_host'],
      cwd=code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip

  def ask(self, request, **fields):
    self.process.stdin.write(json.dumps({'request': request, **fields}) + '\n')
    self.process.stdin.flush()
    for line in self.process.stdout:
      if line.startswith(agent.REPLY_MARK):
        return json.loads(line[len(agent.REPLY_MARK) :])
    raise AssertionError('no answer')

  def launch(self, *names):
    tasks = [{'task': name, 'arguments': [], 'environment': {}} for name in names]
    return self.ask('launch', session='s', tmux_socket=self._socket, tasks=tasks,
                    restart='never', max_restarts=0)  # fmt: skip

  def state(self, task):
    return self.ask('status', session='s', tasks=[task])['tasks'][0]['state']

  def end(self):
    return self.ask('end', session='s', tmux_socket=self._socket, now=True)

  def close(self):
    self.process.stdin.close()
    self.process.wait(30)
    self.process.stdout.close()


@pytest.fixture(name='code')
def code_fixture(tmp_path):
  code = frontend_fixtures.copy_code(tmp_path / 'code', STAYS)
  yield code
  end_processes(frontend_fixtures.with_argument(code))


@pytest.fixture(name='hosts')
def hosts_fixture(code, own_tmux):  # noqa: F811
  """Two of them; the second is in a namespace of its own."""
  apart = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child']
  if subprocess.run([*apart, 'true'], capture_output=True, check=False).returncode:
    pytest.skip('no PID namespaces here: needs root')
  made = [Host(code, own_tmux.path), Host(code, own_tmux.path + '2', apart)]
  yield made
  for host in made:
    if host.process.poll() is None:
      host.end()
      host.close()


def files(code):
  return set(os.listdir(os.path.join(code, '.cluster', 's')))


def test_a_launch_on_one_host_leaves_the_files_and_tasks_of_the_other(hosts, code):
  first, second = hosts
  assert first.launch('ps-0', 'actor-0') == {}
  eventually(lambda: first.state('actor-0') == first.state('ps-0') == 'running')
  before = files(code)
  assert second.launch('learner-0') == {}
  eventually(lambda: second.state('learner-0') == 'running')
  assert before < files(code)
  assert (first.state('ps-0'), first.state('learner-0')) == ('running', 'no answer')
  # Each knows its own tasks, and that the others use the same code.
  ours, others = first.ask('running'), second.ask('running')
  assert ours['tasks'] == ['actor-0 of s', 'ps-0 of s'] and others['tasks'] == ['learner-0 of s']
  assert [name for name, _ in others['elsewhere']] == ours['tasks']
  assert second.end()['ended'] == ['learner-0']
  assert first.state('ps-0') == 'running'
  # The same task cannot be started a second time beside the one that runs on the other host.
  refused = second.launch('actor-0')
  assert 'actor-0 on ' in refused['error'] and 'which both hosts share' in refused['error']
  assert first.end()['ended'] == ['actor-0', 'ps-0']
  assert second.launch('actor-0') == {}


def test_a_host_that_was_started_again_takes_over_its_own_files(hosts, code):
  first, second = hosts
  second.launch('ps-0', 'actor-7')
  eventually(lambda: second.state('actor-7') == second.state('ps-0') == 'running')
  second.process.send_signal(signal.SIGKILL)  # As a power cut: nothing is recorded.
  second.process.wait(30)
  path = os.path.join(code, '.cluster', 's', 'ps-0.supervisor.json')
  assert 'which both hosts share' in first.launch('ps-0')['error']
  os.utime(path, (1, 1))  # For a minute nobody has renewed it.
  assert first.launch('ps-0') == {}
  eventually(lambda: first.state('ps-0') == 'running')
  assert 'actor-7.spec.json' in files(code)


def test_records_that_are_none_stop_neither_launch_nor_stop(own_tmux, code):  # noqa: F811
  folder = os.path.join(code, '.cluster', 's')
  os.makedirs(folder)
  strange = ['', '{}', '[1]', '{"pid": "x"}', '{"state": "running", "started": 1, "pid": -1}']
  # Of the last version: it says less, and its process is not there.
  fine = '{"state": "running", "started": 1, "pid": 1}'
  for number, text in enumerate([fine, *strange]):
    path = os.path.join(folder, f'learner-{number}.supervisor.json')
    with open(path, 'w', encoding='utf-8') as file:
      file.write(text)
  host = Host(code, own_tmux.path)
  try:
    assert host.launch('ps-0') == {}
    eventually(lambda: host.state('ps-0') == 'running')
    assert host.ask('running')['tasks'] == ['ps-0 of s']
    ended = host.end()
    assert ended['ended'] == ['ps-0'] and len(ended['unreadable']) == len(strange)
    for number, sentence in enumerate(ended['unreadable'], 1):
      assert sentence.startswith(f'learner-{number}.supervisor.json is ')
  finally:
    host.close()
