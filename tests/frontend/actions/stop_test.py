"""Stopping a cluster on this machine whose tasks do not all follow the chief."""

import json
import os
import signal
import types

import pytest

import conftest
from frontend import cluster_csv
from frontend.actions import stop
from frontend.console import Console
from frontend_fixtures import own_tmux  # noqa: F401
from local_cluster import local_fixture  # noqa: F401

pytestmark = pytest.mark.slow

eventually = conftest.eventually


def test_stop_ends_what_does_not_follow_the_chief(local, monkeypatch):
  assert local.launch('--stay', '--clumsy=actor-1').returncode == 0
  rows = local.rows()
  monkeypatch.setattr(stop, 'FOLLOW_SECS', 2)
  options = types.SimpleNamespace(
    tmux_sess='imp', tmux_socket=local.tmux.path, now=False, cluster_csv_path=local.csv
  )
  monkeypatch.setattr('frontend.connection.hosts.CODE', local.code)
  console = Console(cluster_csv.read_cluster(local.csv), options, [])
  try:
    assert stop.run(console) == 0
  finally:
    console.close()
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


def test_records_that_are_none_are_named_and_the_rest_is_ended(local):
  assert local.launch().returncode == 0
  folder = os.path.join(local.code, '.cluster', 'imp')
  for name in ('actor-1', 'actor-7'):
    open(os.path.join(folder, f'{name}.supervisor.json'), 'w').close()
  stopped = local.run('stop')
  assert 'Traceback' not in stopped.stderr
  assert 'localhost: actor-7.supervisor.json is empty; it is left out' in stopped.stdout
  lines = {line.split()[0]: line for line in stopped.stdout.splitlines() if 'localhost  ' in line}
  # The supervisor of one that somebody has emptied has written it again.
  for name in ('ps-0', 'learner-0', 'actor-0', 'actor-1'):
    assert 'exited 0' in lines[name], stopped.stdout
  eventually(lambda: local.pids() == [])
  assert local.tmux.sessions() == []
