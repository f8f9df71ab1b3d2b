"""A cluster over three hosts: namespaces with their own address, sshd, workdir and /tmp."""

import csv
import json
import os
import re
import signal
import subprocess
import sys

import pytest

import conftest
import frontend_fixtures
import network_fixtures
from frontend.actions import check
from frontend.host_side import task_record
from network_fixtures import network  # noqa: F401

eventually = conftest.eventually

TOTAL_FRAMES = 100000
STRANGER = 'import time; time.sleep(600)'
ALL_PASSED = len(check.CHECK_ITEMS) * ['ok']
# Of the page's cluster: on which host each task is.
HOSTS = {'ps-0': 1, 'learner-0': 1, 'actor-0': 2, 'actor-1': 3}


def states_of(status):
  """The states in the table of `status`; below it may be the line with the mean return."""
  rows = re.findall(r'^(?:ps|learner|actor)[-:]\d+ .*', status, re.M)
  return [row.split()[2] for row in rows]


def documented(language):
  """The blocks of one language in docs/servers.md, in order."""
  return conftest.blocks_of('docs/servers.md', 'Your own servers', language)


class Operator:
  """The frontend on host 0, in a checkout of its own."""

  def __init__(self, network):  # noqa: F811
    self.network = network
    self.code = frontend_fixtures.tracked_copy(os.path.join(network.folder, 'checkout'))
    self.environment = dict(
      os.environ, PATH=os.path.dirname(sys.executable) + ':' + os.environ['PATH']
    )
    self.environment.pop('SSH_AUTH_SOCK', None)

  def shell(self, line, **environment):
    """Runs one line of the page."""
    return subprocess.run(
      [*self.network.inside(0, self.code), 'bash', '-c', line],
      env=dict(self.environment, **environment), stdin=subprocess.DEVNULL, capture_output=True,
      text=True, timeout=280, check=False)  # fmt: skip

  def frontend(self, *words, home=True):
    """Runs the frontend; with `home`, with the key that every sshd accepts."""
    more = {'HOME': self.network.home} if home else {}
    line = 'exec python run_experiment_mm_raw.py --cluster_csv_path=cluster.csv "$@"'
    return subprocess.run(
      [*self.network.inside(0, self.code), 'bash', '-c', line, 'bash', *words],
      env=dict(self.environment, **more), stdin=subprocess.DEVNULL, capture_output=True,
      text=True, timeout=280, check=False)  # fmt: skip

  def write_csv(self, text, **cells):
    """Writes cluster.csv with more columns, the same in every row."""
    lines = [line for line in text.splitlines() if line and not line.startswith('#')]
    width = lines[0].count(',')
    rows = [line + ',' * (width - line.count(',')) for line in lines]
    rows = [rows[0] + ''.join(f',{name}' for name in cells)] + [
      row + ''.join(f',{cell}' for cell in cells.values()) for row in rows[1:]]  # fmt: skip
    with open(os.path.join(self.code, 'cluster.csv'), 'w', encoding='utf-8') as file:
      file.write('\n'.join(rows) + '\n')

  def record(self, task):
    """What the supervisor of a task of the page's cluster recorded on its host."""
    place = os.path.join('/tmp/impala/.cluster/impala', f'{task}.supervisor.json')
    return task_record.load(self.network.path(HOSTS[task], place))

  def rows(self):
    """The rows of status, by task."""
    result = self.shell(
      'python run_experiment_mm_raw.py --cluster_csv_path=cluster.csv --action=status --json'
    )
    return {row['task']: row for row in json.loads(result.stdout)}


@pytest.fixture(scope='module')
def operator(network):  # noqa: F811
  return Operator(network)


class Strangers:
  """On every host, a tmux session with a name like ours and a Python process."""

  def __init__(self, network):  # noqa: F811
    self._network = network
    self._started = []
    self.pids = {number: self._start(number) for number in (1, 2, 3)}

  def _start(self, number):
    network = self._network  # noqa: F811
    network.command(number, 'tmux', 'new-session', '-d', '-s', 'impala-2', 'sleep', '600')
    process = subprocess.Popen([*network.inside(number), sys.executable, '-c', STRANGER])
    self._started.append(process)
    eventually(lambda: process.pid in network.pids(number))
    return network.pids(number)

  def assert_alone(self):
    """They live, and nothing else does."""
    for number in self.pids:
      self._assert_alone_on(number)

  def _assert_alone_on(self, number):
    def others():
      return self._network.pids(number) ^ self.pids[number]

    eventually(lambda: not others(), 30, others)
    sessions = self._network.command(number, 'tmux', 'list-sessions', '-F', '#{session_name}')
    assert sessions.split() == ['impala-2']

  def close(self):
    for pids in self.pids.values():
      network_fixtures.end_processes(pids)
    for process in self._started:
      process.wait()


@pytest.fixture
def strangers(network):  # noqa: F811
  made = Strangers(network)
  yield made
  made.close()


# ---- docs/servers.md, from keys to a stopped cluster. --------------------------------------------


def documented_commands():
  blocks = [block.replace('\\\n', ' ') for block in documented('bash')]
  return [line for block in blocks for line in block.splitlines()]


def of_action(action, lines):
  return [line for line in lines if line.startswith('python ') and f'--action={action}' in line]


class Story:
  """Runs the page's commands in their order; methods named after an action do more than run."""

  def __init__(self, operator):
    self.operator, self.network = operator, operator.network

  def run(self, line):
    action = re.search(r'--action=(\w+)', line) if line.startswith('python ') else None
    name = action[1] if action else 'launch' if line.startswith('python ') else line.split()[0]
    getattr(self, name.replace('-', '_'), self.plainly)(line)

  def plainly(self, line, **environment):
    result = self.operator.shell(line, **environment)
    assert result.returncode == 0, f'{line}\n{result.stdout}{result.stderr}'
    return result.stdout

  def ssh_copy_id(self, line):
    answer = os.path.join(self.network.folder, 'askpass')
    with open(answer, 'w', encoding='utf-8') as file:
      file.write(f'#!/bin/sh\necho {network_fixtures.PASSWORD}\n')
    os.chmod(answer, 0o700)
    self.plainly(line, SSH_ASKPASS=answer, SSH_ASKPASS_REQUIRE='force')

  def check(self, line):
    output = self.plainly(line)
    assert [row.split()[2:] for row in output.splitlines()[1:4]] == 3 * [ALL_PASSED]
    assert 'this machine is no host of the cluster and reaches 10.0.0.11:8000, ' in output

  def firewall(self, line):
    output = self.plainly(line)
    assert output.count('only hosts of this cluster reach') == (1 if '--apply' in line else 0)
    assert output.count('no other host reaches 9000') == (2 if '--apply' in line else 0)
    assert output.count('chain input {') == (0 if '--apply' in line else 3)

  def launch(self, line):
    output = self.plainly(line)
    assert 'actor-1 runs on 10.0.0.13' in output and 'warning' not in output

  def status(self, line):
    output = self.plainly(line)
    if '--json' in line:
      assert len(json.loads(output)) == 4
    else:
      assert states_of(output) == 4 * ['running'], output
      self.kill_an_actor()
      # Host 0 is none of the cluster.
      place = "import socket; socket.create_connection(('10.0.0.11', 8001), timeout=2)"
      assert self.operator.shell(f'python -c "{place}"').stderr.endswith('timed out\n')

  def kill_an_actor(self):
    state = self.network.path(2, '/tmp/impala/.cluster/impala/actor-0.json')
    with open(state, encoding='utf-8') as file:
      pid = json.load(file)['pid']
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: self.operator.record('actor-0')['restarts'] == 1, 60)
    row = self.operator.rows()['actor-0']
    assert row['restarts'] == 1 and row['state'] in ('restarting', 'running')
    eventually(lambda: self.operator.record('actor-0')['state'] == 'running', 60)
    eventually(lambda: self.operator.rows()['actor-0']['state'] == 'running', 60)

  def logs(self, line):
    output = self.plainly(line)
    assert 'actor-1: ' in output

  def attach(self, line):
    """In a terminal, which a tmux on host 0 is."""
    path = self.operator.environment['PATH']
    program = f'cd {self.operator.code} && PATH={path} {line} 2>&1; echo ended; sleep 600'
    terminal = ['-s', 'terminal', '-x', '200', '-y', '50']
    self.network.command(0, 'tmux', 'new-session', '-d', *terminal, 'sh', '-c', program)

    def screen():
      return self.network.command(0, 'tmux', 'capture-pane', '-p', '-t', '=terminal:')

    # The status line of the tmux over there, inside the screen of the one here.
    eventually(lambda: re.search(r'^\[impala\].*learner-0\*', screen(), re.MULTILINE), 60, screen)
    self.network.command(0, 'tmux', 'kill-session', '-t', '=terminal')

  def stop(self, line):
    eventually(
      lambda: all(self.operator.record(task)['state'] == 'exited' for task in HOSTS),
      240,
      lambda: (
        self.operator.shell(  # fmt: skip
          'python run_experiment_mm_raw.py --cluster_csv_path=cluster.csv --action=logs'
        ).stdout
      ),
    )
    rows = self.operator.rows()
    assert {task: row['state'] for task, row in rows.items()} == dict.fromkeys(HOSTS, 'exited 0')
    assert rows['actor-0']['restarts'] == 1
    output = self.plainly(line)
    assert output.count('exited 0') == 4
    assert output.count('the firewall of session impala is removed') == 3
    assert self.network.command(1, 'nft', 'list', 'ruleset') == ''

  def pull(self, line):
    output = self.plainly(line)
    folder = os.path.join(self.operator.code, 'results', 'catch')
    last = '--checkpoints=last' in line
    assert 'checkpoint  ' in output if last else 'metrics.csv  ' in output
    assert os.path.exists(os.path.join(folder, 'checkpoint')) == last
    for name in ('run.json', 'metrics.csv', 'episodes.csv', 'learning_curve.png'):
      with open(os.path.join(folder, name), 'rb') as file:
        with open(self.network.path(1, f'/tmp/impala/runs/catch/{name}'), 'rb') as original:
          assert file.read() == original.read()

  def tensorboard(self, line):
    """The page comes through the tunnel; strangers are refused at both of its ends."""
    hosts, log = self.network, os.path.join(self.network.folder, 'tensorboard')
    words = [*hosts.inside(0, self.operator.code), 'bash', '-c', f'exec {line}']
    process = conftest.Process(words, log, env=self.operator.environment)
    try:
      found = eventually(
        lambda: re.search(r'http://127\.0\.0\.1:(\d+)/', process.output()), 240, process.output
      )
      opener = 'urllib.request.build_opener(urllib.request.ProxyHandler({}))'
      page = f'import urllib.request; print({opener}.open({found[0]!r}, timeout=240).read())'
      assert '<title>TensorBoard</title>' in hosts.command(0, sys.executable, '-c', page)
      listeners = hosts.command(1, 'ss', '-ltnH').split()[3::5]
      (there,) = [place for place in listeners if not place.endswith(':22')]
      assert there.startswith('127.0.0.1:')
      for number, address, port in ((0, '10.0.0.11', there), (2, '10.0.0.11', there),
                                    (2, '10.0.0.1', found[0].rstrip('/'))):  # fmt: skip
        port = port.rpartition(':')[2]
        place = f"import socket; socket.create_connection(('{address}', {port}), timeout=20)"
        with pytest.raises(subprocess.CalledProcessError) as refused:
          hosts.command(number, sys.executable, '-c', place)
        assert 'ConnectionRefusedError' in refused.value.stderr
    finally:
      os.kill(process.pid, signal.SIGINT)
      assert process.exit_code() == 0, process.output()


@pytest.fixture
def story(operator):
  yield Story(operator)
  operator.frontend('--action=stop')  # Where the test has failed, tasks are left.


@pytest.mark.timeout(900)
def test_the_documentation_from_keys_to_a_stopped_cluster(
  operator,
  story,
  strangers,
  network,  # noqa: F811
):
  (text,) = documented('csv')
  operator.write_csv(text, workdir='/tmp/impala', python=sys.executable)
  lines = documented_commands()
  for line in lines:
    story.run(line)
  for action in ('push', 'check', 'firewall', 'plan', 'status', 'logs', 'attach', 'stop', 'pull',
                 'tensorboard'):  # fmt: skip
    assert of_action(action, lines)
  metrics = network.path(1, '/tmp/impala/runs/catch/metrics.csv')
  with open(metrics, encoding='utf-8') as file:
    assert int(list(csv.DictReader(file))[-1]['environment_frames']) >= TOTAL_FRAMES
  # No disk is shared: only the chief's host has records.
  assert not os.path.exists(network.path(2, '/tmp/impala/runs'))
  strangers.assert_alone()


# ---- What goes wrong. ----------------------------------------------------------------------------


@pytest.fixture
def known(operator, network):  # noqa: F811
  """The hosts are known and have the code; gives the text of a CSV for them."""
  known_hosts = os.path.join(network.home, '.ssh', 'known_hosts')
  if os.path.exists(known_hosts):
    os.remove(known_hosts)
  for sshd in network.sshds.values():
    sshd.make_known()
  (text,) = documented('csv')
  operator.write_csv(text, workdir='/tmp/impala', python=sys.executable)
  pushed = operator.frontend('--action=push')
  assert pushed.returncode == 0, pushed.stdout + pushed.stderr
  return text


def failures(result):
  """{(host, item): sentence} of what `check` printed, and the rows of its table."""
  lines = result.stdout.splitlines()
  table = {line.split()[0]: line.split()[2:] for line in lines if re.match(r'10\.\S+ +\d', line)}
  found = re.findall(r'^(10\.[\d.]+), ([a-z ]+): (.*)$', result.stdout, re.MULTILINE)
  return {(host, item): text for host, item, text in found}, table


def test_every_check_can_fail(operator, network, known):  # noqa: F811
  text = known.replace('tf_port,flags', 'tf_port,flags,cuda_visible_devices')
  text = text.replace('--envs_per_actor=8', '--flagfile=only_here.flags,99')
  text = text.replace('\nactor,10.0.0.13,9000,', '\nlearner,10.0.0.12,9001\nactor,10.0.0.13,9000,')
  with open(os.path.join(operator.code, 'only_here.flags'), 'w', encoding='utf-8') as file:
    file.write('--seed=7\n')
  operator.write_csv(text, workdir='/tmp/impala', python=sys.executable)
  busy = subprocess.Popen(
    [
      *network.inside(1),
      sys.executable,
      '-c',
      ('import socket, time; s = socket.create_server(("", 8001)); time.sleep(600)'),
    ]
  )
  network.command(1, 'tmux', 'new-session', '-d', '-s', 'impala', 'sleep', '600')
  with open(network.path(2, '/tmp/impala/learning/learner.py'), 'a', encoding='utf-8') as file:
    file.write('\n')
  network.block(2, 3)
  try:
    eventually(lambda: network.command(1, 'ss', '-ltnH', 'sport', '=', ':8001', check=False))
    result = operator.frontend('--action=check', '--level_name=impala/Catch-v0')
  finally:
    network.unblock(2, 3)
    network.command(1, 'tmux', 'kill-session', '-t', '=impala')
    network_fixtures.end_processes([busy.pid])
    busy.wait()
  found, table = failures(result)
  assert result.returncode == 1 and len(table) == 3
  assert {(host[-2:], item) for host, item in found} == {
    ('11', 'ports'), ('11', 'session'), ('12', 'code'), ('13', 'flags'), ('13', 'gpus'),
    ('13', 'peers')}, result.stdout  # fmt: skip
  assert 'port 8001: Address already in use (pid ' in found['10.0.0.11', 'ports']
  assert found['10.0.0.12', 'code'] == (
    'not the same code as here (learning/learner.py); --action=push copies it'
  )
  # Host 2 does not reach host 3 either, where there is but an actor: nobody needs to.
  assert 'cannot reach 10.0.0.12:9001: ' in found['10.0.0.13', 'peers']
  assert 'only_here.flags' in found['10.0.0.13', 'flags']
  assert 'GPU 99' in found['10.0.0.13', 'gpus']


def test_one_host_is_down_and_nothing_starts(operator, network, known, strangers):  # noqa: F811
  network.pull_plug(2)
  try:
    result = operator.frontend('--level_name=impala/Catch-v0')
    status = operator.frontend('--action=status', '--json')
  finally:
    network.plug_in(2)
  found, table = failures(result)
  assert result.returncode == 1
  assert list(found) == [('10.0.0.12', 'reachable')]
  assert 'cannot reach 10.0.0.12 port 22: ' in found['10.0.0.12', 'reachable']
  assert table['10.0.0.11'] == table['10.0.0.13'] == ALL_PASSED
  assert table['10.0.0.12'] == ['ok', 'FAIL'] + (len(ALL_PASSED) - 2) * ['-']
  assert 'nothing was started' in result.stdout
  rows = {row['task']: row for row in json.loads(status.stdout)}
  assert rows['actor-0']['state'] == 'no answer'
  assert 'running' not in {row['state'] for row in rows.values()}
  assert 'cannot reach 10.0.0.12' in rows['actor-0']['last_line']
  strangers.assert_alone()


# ---- One machine: the command of the README's first lines. ---------------------------------------


EXAMPLE = (
  'python run_experiment_mm_raw.py --cluster_csv_path=local_cluster_example.csv '
  '--agent_name=ResNetLSTMAgent'
)


@pytest.mark.timeout(600)
def test_the_example_as_printed(operator, network):  # noqa: F811
  """On host 0, so that its ports and its tmux are no one else's."""
  on_example = 'python run_experiment_mm_raw.py --cluster_csv_path=local_cluster_example.csv '
  folder = os.path.join(operator.code, '.cluster', 'impala')
  before = network.pids(0)

  def frames():
    with open(os.path.join(folder, 'learner-0.json'), encoding='utf-8') as file:
      return json.load(file)['environment_frames']

  launched = operator.shell(EXAMPLE)
  assert launched.returncode == 0, launched.stdout + launched.stderr
  eventually(frames, 240, lambda: operator.shell(on_example + '--action=logs').stdout)
  status = operator.shell(on_example + '--action=status')
  assert states_of(status.stdout) == 8 * ['running'], status.stdout
  # Nobody named a logdir: the chief tells which it is.
  pulled = operator.shell(on_example + '--action=pull --to=results/example')
  assert pulled.returncode == 0 and 'run.json  ' in pulled.stdout, pulled.stdout + pulled.stderr
  stopped = operator.shell(on_example + '--action=stop')
  assert stopped.returncode == 0 and stopped.stdout.count('exited 0') == 8, stopped.stdout
  eventually(lambda: network.pids(0) == before, 30, lambda: network.pids(0) - before)
