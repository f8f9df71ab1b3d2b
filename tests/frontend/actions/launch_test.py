"""Launching on this machine, with a real tmux: all of it, what goes wrong, and hostile input."""

import os
import shlex
import subprocess
import sys

import pytest

import network_fixtures
from conftest import eventually
from frontend import cluster_csv
from frontend.actions import status
from frontend_fixtures import own_tmux  # noqa: F401
from local_cluster import Local, local_fixture  # noqa: F401

pytestmark = pytest.mark.slow


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
    assert [set(row) for row in rows.values()] == 4 * [set(status.STATUS_KEYS)]
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


def test_a_cluster_that_has_ended_does_not_block_the_next_launch(local):
  assert local.launch().returncode == 0
  local.ask_chief_to_end()
  eventually(lambda: {row['state'] for row in local.rows().values()} == {'exited 0'})
  assert local.tmux.sessions() == ['imp']  # Its windows are still there.
  os.remove(os.path.join(local.code, 'done'))
  again = local.launch()
  assert again.returncode == 0, again.stdout + again.stderr
  assert {row['state'] for row in local.rows().values()} == {'running'}
  # A window of a person in a session of that name is nothing that has ended.
  assert local.run('stop', '--now').returncode == 0
  local.tmux('new-session', '-d', '-s', 'imp', 'sleep', '600')
  assert 'already exists' in local.launch().stdout
  local.tmux('kill-session', '-t', '=imp')
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
    network_fixtures.end_processes(made.pids())
  assert [name for _, _, names in os.walk(tmp_path) for name in names if name == 'ran'] == []
  assert not os.path.exists('ran')


@pytest.mark.parametrize('column', range(len(cluster_csv.COLUMNS)))
def test_hostile_text_in_any_column_runs_nothing(local, column):
  cells = ['actor', 'localhost', '9'] + [''] * (len(cluster_csv.COLUMNS) - 3)
  cells[column] = '"' + HOSTILE.replace('"', '""') + '"'
  with open(local.csv, encoding='utf-8') as file:
    rows = [row + ',' * (len(cluster_csv.COLUMNS) - 3) for row in file.read().splitlines()[1:]]
  local.write_csv(','.join(cluster_csv.COLUMNS), [*rows, ','.join(cells)])
  refused = local.launch()
  assert refused.returncode == 2
  assert f'column {cluster_csv.COLUMNS[column]}:' in refused.stderr
  assert not os.path.exists(os.path.join(local.code, 'ran'))
  assert local.tmux.sessions() == []
