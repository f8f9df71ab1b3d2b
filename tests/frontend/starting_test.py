"""The actions on this machine, with a real tmux. Tasks are a small program that behaves as told."""

import json
import os
import shlex
import signal
import subprocess
import sys
import types

import pytest

import conftest
import frontend_fixtures
from frontend import actions, cluster, host_check, hosts
from frontend_fixtures import own_tmux  # noqa: F401

eventually = conftest.eventually

# Flags: --fail=NAME (that task ends at once with exit 1), --stay (others do not follow the chief),
# --clumsy=NAME (that task fails when it should follow).
STAND_IN = """
import json, os, signal, sys, time
flags = dict((word.lstrip('-').split('=', 1) + [''])[:2] for word in sys.argv[1:])
if 'only_check_args' in flags:
  sys.exit(0)
name = flags['job_name'] + '-' + flags['task']
print('arguments of', name, ascii(sys.argv[1:]), flush=True)
print('gpus', ascii(os.environ.get('CUDA_VISIBLE_DEVICES')), 'in', os.getcwd(), flush=True)
if flags.get('fail') == name:
  sys.exit('no such luck')
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
while True:
  state = dict(pid=os.getpid(), phase='training', frames_per_sec=1234.5, last_seen=time.time())
  path = os.path.join(flags['state_dir'], name + '.json')
  open(path + '.new', 'w').write(json.dumps(state))
  os.replace(path + '.new', path)
  if ended and name == 'learner-0':
    open('done', 'w').close()
  if flags.get('clumsy') == name and os.path.exists('done'):
    sys.exit(1)
  if ended or (os.path.exists('done') and 'stay' not in flags):
    print('I leave', flush=True)
    sys.exit(0)
  time.sleep(0.1)
"""


class Local:
  """A cluster of 1 ps, 1 learner and 2 actors in a copy of the code, on a tmux of its own."""

  def __init__(self, folder, tmux, columns='', cells=''):
    self.tmux = tmux
    self.code = frontend_fixtures.copy_code(folder, STAND_IN)
    ports = conftest.free_ports(4)
    self.csv = os.path.join(self.code, 'c.csv')
    self.write_csv(
      'job,ip,tf_port' + columns,
      [f'{job},localhost,{port}{cells}'
       for job, port in zip(('ps', 'learner', 'actor', 'actor'), ports)])  # fmt: skip
    self.ports = ports

  def write_csv(self, *parts):
    header, rows = parts
    with open(self.csv, 'w', encoding='utf-8') as file:
      file.write('\n'.join([header, *rows]))

  def words(self, action, *words):
    return [f'--cluster_csv_path={self.csv}', f'--tmux_socket={self.tmux.path}', '--tmux_sess=imp',
            f'--action={action}', *words]  # fmt: skip

  def run(self, action, *words):
    return frontend_fixtures.frontend(self.words(action, *words), self.code)

  def launch(self, *words):
    # What `check` needs beyond this program is tested with hosts of their own.
    return self.run('launch', '--skip_check', *words)

  def rows(self):
    return {row['task']: row for row in json.loads(self.run('status', '--json').stdout)}

  def log(self, task):
    with open(os.path.join(self.code, '.cluster', 'imp', f'{task}.log'), encoding='utf-8') as file:
      return file.read()

  def pids(self):
    """Ids of the processes of this cluster, supervisors included."""
    names = ('.cluster', 'run_experiment_mm_raw.py')
    return [
      pid
      for name in names
      for pid in frontend_fixtures.with_argument(os.path.join(self.code, name))
    ]


@pytest.fixture
def local(tmp_path, own_tmux):  # noqa: F811
  made = Local(tmp_path / 'code', own_tmux)
  yield made
  frontend_fixtures.end_processes(made.pids())


def test_a_cluster_from_launch_to_stop(local):
  stranger = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', local.csv])
  try:
    local.tmux('new-session', '-d', '-s', 'imp2', 'sleep', '600')
    launched = local.launch('--seed', '7', '--flagfile=my flags')
    assert launched.returncode == 0, launched.stdout + launched.stderr
    windows = local.tmux('list-windows', '-t', '=imp:', '-F', '#{window_name}').split()
    assert windows == ['ps-0', 'learner-0', 'actor-0', 'actor-1']
    arguments = [f'--ps_hosts=localhost:{local.ports[0]}',
                 f'--learner_hosts=localhost:{local.ports[1]}',
                 f'--actor_hosts=localhost:{local.ports[2]},localhost:{local.ports[3]}',
                 '--job_name=actor', '--task=1', '--seed', '7', '--flagfile=my flags']  # fmt: skip
    state_dir = os.path.join(local.code, '.cluster', 'imp')
    assert f'arguments of actor-1 {["--state_dir=" + state_dir, *arguments]}' in local.log(
      'actor-1'
    )
    assert f"gpus '' in {local.code}" in local.log('actor-1')
    assert 'gpus None' in local.log('learner-0')
    # The commands that launch prints do what they say.
    commands = dict(line.split(':', 1) for line in launched.stdout.splitlines()[-3:])
    assert list(commands) == ['attach', 'status', 'stop']
    rows = local.rows()
    assert [set(row) for row in rows.values()] == 4 * [set(actions.STATUS_KEYS)]
    assert {row['state'] for row in rows.values()} == {'running'}
    assert rows['actor-1']['frames_per_sec'] == 1234.5
    table = local.run('status').stdout.splitlines()
    assert table[0].split()[:6] == ['task', 'host', 'state', 'uptime', 'restarts', 'frames/s']
    assert table[4].split()[:3] == ['actor-1', 'localhost', 'running']
    stopped = subprocess.run(
      shlex.split(commands['stop']),
      cwd=local.code,
      capture_output=True,
      text=True,
      check=False,
    )
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert [line.split()[:4] for line in stopped.stdout.splitlines()[1:]] == [
      [task, 'localhost', 'exited', '0'] for task in rows]  # fmt: skip
    assert local.tmux.sessions() == ['imp2']
    assert stranger.poll() is None
    assert local.pids() == []
    # The logs can still be read.
    assert 'learner-0: I leave' in local.run('logs').stdout
  finally:
    stranger.kill()
    stranger.wait()


def test_a_session_that_exists_is_not_touched(local):
  assert local.launch().returncode == 0
  before = {task: row['uptime_secs'] for task, row in local.rows().items()}
  again = local.run('launch')
  assert again.returncode == 1
  assert "session 'imp' already exists on localhost; nothing was started" in again.stdout
  assert '--action=attach' in again.stdout and '--action=stop' in again.stdout
  assert all(row['uptime_secs'] > before[task] for task, row in local.rows().items())
  assert local.run('stop', '--now').returncode == 0
  assert local.pids() == []


def test_a_task_that_fails_to_start_stops_the_others(local):
  launched = local.launch('--fail=actor-1')
  assert launched.returncode == 1
  assert 'actor-1 on localhost failed to start: no such luck' in launched.stdout
  assert 'stopping what was started (--keep_going leaves it)' in launched.stdout
  assert local.tmux.sessions() == []
  assert local.pids() == []


def test_keep_going_leaves_the_others(local):
  launched = local.launch('--fail=actor-1', '--keep_going', '--restart=never')
  assert launched.returncode == 1
  rows = local.rows()
  assert rows['actor-1']['state'] == 'exited 1'
  assert rows['actor-1']['last_line'] == 'no such luck'
  assert rows['actor-0']['state'] == 'running'
  assert local.run('stop').returncode == 0
  assert local.pids() == []


def test_stop_ends_what_does_not_follow_the_chief(local, monkeypatch):
  assert local.launch('--stay', '--clumsy=actor-1').returncode == 0
  rows = local.rows()
  monkeypatch.setattr(actions, 'FOLLOW_SECS', 2)
  options = types.SimpleNamespace(
    tmux_sess='imp', tmux_socket=local.tmux.path, now=False, cluster_csv_path=local.csv
  )
  monkeypatch.setattr('frontend.hosts.CODE', local.code)
  frontend = actions.Frontend(cluster.read_cluster(local.csv), options, [])
  try:
    assert frontend.stop() == 0
  finally:
    frontend.close()
  assert local.pids() == []
  rows = local.rows()
  # What failed on its way out was not started again.
  assert (rows['actor-1']['state'], rows['actor-1']['restarts']) == ('exited 1', 0)
  assert {rows[task]['state'] for task in ('ps-0', 'learner-0', 'actor-0')} == {'exited 0'}


def test_stop_without_a_chief(local):
  assert local.launch('--restart=never').returncode == 0
  pid = json.loads(open(os.path.join(local.code, '.cluster/imp/learner-0.json')).read())['pid']
  os.kill(pid, signal.SIGKILL)
  eventually(lambda: local.rows()['learner-0']['state'] == 'exited -9')
  stopped = local.run('stop')
  assert stopped.returncode == 0
  assert 'the chief (learner-0) does not run; ending the rest' in stopped.stdout
  assert local.pids() == [] and local.tmux.sessions() == []


def test_before_the_first_launch(local):
  status = local.run('status')
  assert status.returncode == 1
  assert [line.split()[2:4] for line in status.stdout.splitlines()[1:]] == 4 * [['no', 'answer']]
  assert local.run('logs', '--task=actor-0').stdout == 'actor-0: nothing logged so far\n'
  stopped = local.run('stop')
  assert stopped.returncode == 0
  assert stopped.stdout == 'nothing was launched as session imp\n'


def test_attach_shows_the_task(local, tmp_path):
  assert local.launch().returncode == 0
  other = frontend_fixtures.Tmux(os.path.join(os.path.dirname(local.tmux.path), 'o'))
  try:
    other('new-session', '-d', '-s', 'terminal', '-x', '150', '-y', '50', sys.executable,
          os.path.join(local.code, 'run_experiment_mm_raw.py'),
          *local.words('attach', '--task=actor:1'))  # fmt: skip
    eventually(lambda: 'arguments of actor-1' in other('capture-pane', '-p', '-t', '=terminal:'))
  finally:
    other.close()
  assert local.rows()['actor-1']['state'] == 'running'


def test_logs_follow_and_status_watch(local, processes):
  assert local.launch().returncode == 0
  program = os.path.join(local.code, 'run_experiment_mm_raw.py')
  follow = processes.start(program, *local.words('logs', '--task=actor:0', '--follow', '--lines=1'))
  watch = processes.start(program, *local.words('status', '--watch'))
  eventually(lambda: f'actor-0: gpus {"":s}' in follow.output())
  eventually(lambda: watch.output().count('learner-0') >= 2)
  assert local.run('stop').returncode == 0
  eventually(lambda: 'actor-0: I leave' in follow.output())
  for process in (follow, watch):
    os.kill(process.pid, signal.SIGINT)
    assert process.exit_code() == 130
    assert 'Traceback' not in process.output()


HOSTILE = '\'";\n$(touch ran)`touch ran`&& touch ran # \\;'


def test_hostile_cells_and_flags_arrive_as_they_are_and_run_nothing(tmp_path, own_tmux):  # noqa: F811
  folder = tmp_path / ('a \'b" ; $(touch ran) `touch ran` #(touch ran);')
  python = folder / 'py $(touch ran);'
  flag = '--level_name=' + HOSTILE
  cell = shlex.quote(flag).replace('"', '""')
  quoted = [f'"{str(path)}"'.replace('b"', 'b""') for path in (folder, python)]
  made = Local(folder, own_tmux, ',workdir,python,flags', f',{quoted[0]},{quoted[1]},"{cell}"')
  # An interpreter finds its packages by its own path, so a link would lose them.
  python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
  python.chmod(0o755)
  try:
    launched = made.launch('--logdir=' + HOSTILE, '--seed', '1')
    assert launched.returncode == 0, launched.stdout + launched.stderr
    expected = ascii(['--logdir=' + HOSTILE, '--seed', '1', flag])[1:]
    assert expected in made.log('actor-1') and expected in made.log('ps-0')
    for action in ('plan', 'status', 'logs'):
      assert made.run(action).returncode == 0
    assert made.run('stop').returncode == 0
    assert made.pids() == []
  finally:
    frontend_fixtures.end_processes(made.pids())
  assert [name for _, _, names in os.walk(tmp_path) for name in names if name == 'ran'] == []
  assert not os.path.exists('ran')


@pytest.mark.parametrize('column', range(len(cluster.COLUMNS)))
def test_hostile_text_in_any_column_runs_nothing(local, column):
  cells = ['actor', 'localhost', '9', '', '', '', '', '', '']
  cells[column] = '"' + HOSTILE.replace('"', '""') + '"'
  with open(local.csv, encoding='utf-8') as file:
    rows = [row + ',,,,,,' for row in file.read().splitlines()[1:]]
  local.write_csv(','.join(cluster.COLUMNS), [*rows, ','.join(cells)])
  refused = local.launch()
  assert refused.returncode == 2
  assert f'column {cluster.COLUMNS[column]}:' in refused.stderr
  assert not os.path.exists(os.path.join(local.code, 'ran'))
  assert local.tmux.sessions() == []


@pytest.mark.parametrize(
  'words,sentence',
  [
    (['--action=stat'], "value should be one of"),
    (['--task=learner:0'], '--task belongs to attach and logs, not to launch'),
    (['--action=logs', '--task=actor:9'],
     '--task=actor:9: the cluster has 1 ps, 2 learner, 5 actor'),
    (['--action=logs', '--task=boss:0'], 'is not a task'),
    (['--action=stop', '--seed=1'], '--action=stop takes no training flags, but --seed=1 came'),
    (['--action=stop', '--tmux_ses=x'], '(or the flag --tmux_sess of the frontend?)'),
    (['--job_name=ps'], '--job_name follows from the cluster CSV'),
    (['--tmux_sess=a b'], 'is not a name of letters, digits, _ and -'),
    (['--tmux_socket=$(touch x)'], 'is not a name or path'),
    (['--levl_name=x'], 'there is no flag --levl_name; did you mean --level_name?'),
    (['--batch_size', 'four'], 'batch_size'),
    (['--action=push', '--wheelhouse=/nowhere'], '--wheelhouse=/nowhere is not a folder'),
  ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_2(words, sentence, own_tmux):  # noqa: F811
  result = frontend_fixtures.frontend(
    ['--cluster_csv_path=local_cluster_example.csv', f'--tmux_socket={own_tmux.path}', *words]
  )
  assert result.returncode == 2
  assert sentence in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1
  assert own_tmux.sessions() == []


def test_a_missing_csv():
  result = frontend_fixtures.frontend([])
  assert result.returncode == 2 and '--cluster_csv_path is missing' in result.stderr


def test_plan_names_every_command_and_starts_nothing(own_tmux):  # noqa: F811
  result = frontend_fixtures.frontend(
    ['--cluster_csv_path=local_cluster_example.csv', f'--tmux_socket={own_tmux.path}',
     '--action=plan', '--agent_name=ResNetLSTMAgent'])  # fmt: skip
  assert result.returncode == 0, result.stderr
  lines = [line for line in result.stdout.splitlines() if line.startswith('  ')]
  assert len(lines) == 8 and all('--agent_name=ResNetLSTMAgent' in line for line in lines)
  assert lines[7].startswith('  actor-4: CUDA_VISIBLE_DEVICES= ')
  assert own_tmux.sessions() == []


def test_help_needs_no_other_package():
  program = os.path.join(conftest.ROOT, 'run_experiment_mm_raw.py')
  result = subprocess.run(
    [sys.executable, '-X', 'importtime', program, '--help'],
    capture_output=True, text=True, check=True)  # fmt: skip
  for name in ('--cluster_csv_path', '--tmux_sess', '--wheelhouse', 'launch', 'push'):
    assert name in result.stdout
  imported = {line.rpartition('|')[2].strip().split('.')[0] for line in result.stderr.splitlines()}
  assert not imported & {'tensorflow', 'paramiko', 'libtmux', 'numpy', 'gymnasium', 'experiment'}


# ---- Plain functions. ----------------------------------------------------------------------------


@pytest.mark.parametrize(
  'secs,text',
  [(None, '-'), (0, '0s'), (59.9, '59s'), (61, '1m 01s'), (3600, '1h 00m'), (90000, '1d 01h')],
)
def test_durations(secs, text):
  assert actions.duration(secs) == text


def test_addresses_that_the_internet_reaches_are_refused():
  passed, text = host_check.check_address('8.8.8.8', False)
  assert not passed and 'no authentication' in text and '--allow_public_addresses' in text
  assert host_check.check_address('8.8.8.8', True) == (True, '8.8.8.8')
  assert host_check.check_address('10.0.0.1', False) == (True, '10.0.0.1')
  assert not host_check.check_address('2001:4860:4860::8888', False)[0]
  passed, text = host_check.check_address('host.invalid', False)
  assert passed is None and text.startswith('host.invalid does not resolve')


def test_versions_that_differ_between_hosts():
  a, b = (
    hosts.SshHost(cluster.Host(name, 2222, '', '', '', ())) for name in ('10.0.0.1', '10.0.0.2')
  )
  results = {host: {'packages': (True, '')} for host in (a, b)}
  versions = {a: {'tensorflow': '2.21.0'}, b: {'tensorflow': '2.20.0'}}
  actions.compare_versions(results, versions)
  assert results[a]['packages'][0]
  assert results[b]['packages'] == (
    False, 'tensorflow 2.20.0, but 2.21.0 on 10.0.0.1; install the same on all')  # fmt: skip


def test_checks_of_packages_disk_and_ports():
  passed, text = host_check.check_packages({'tensorflow': None, 'gymnasium': '1.0'})
  assert not passed and text.startswith(f'tensorflow not installed for {sys.executable}')
  passed, text = host_check.check_disk('/', minimum=10**18)
  assert not passed and 'a run needs' in text
  listener = host_check.listen(0)
  port = listener.getsockname()[1]
  passed, text = host_check.check_ports([port])
  assert not passed and f'port {port}: Address already in use (pid {os.getpid()}: ' in text
  listener.close()
  assert host_check.check_ports([port])[0]


def test_a_host_without_tmux(monkeypatch):
  monkeypatch.setenv('PATH', '/nowhere')
  assert host_check.check_tmux()[1].startswith('tmux is not installed')
  assert host_check.check_session('', 'imp')[0]


def test_control_characters_of_a_log_never_reach_the_terminal():
  from frontend import on_host

  assert on_host.printable('a\x1b[2Jb\tc\x07é') == 'a[2Jb cé'
