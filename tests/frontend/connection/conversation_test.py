"""Requests to hosts here and over SSH, with a real sshd."""

import os
import sys

import pytest

import conftest
import frontend_fixtures
import network_fixtures
from frontend.connection import hosts
from frontend.errors import HostError
from network_fixtures import sshd  # noqa: F401
from ssh_fixtures import broken_fixture, code_fixture, failure, opened_fixture, remote_fixture  # noqa: F401

# ---- This machine. -------------------------------------------------------------------------------


def test_talking_to_this_machine(opened, code):
  host = opened(workdir=code, python=sys.executable)
  assert host.ask('hello') == {'python': sys.executable, 'workdir': code}
  assert host.ask('reach', addresses=[], allow_public=False) == {'problems': []}


def test_a_request_that_the_other_side_does_not_know(opened, code):
  host = opened(workdir=code, python=sys.executable)
  with pytest.raises(HostError, match='does not know this request .*--action=push'):
    host.ask('dance')
  with pytest.raises(HostError, match='does not know this request .*--action=push'):
    host.ask('hello', style='slow')
  assert host.ask('hello')


@pytest.mark.parametrize('place', ['here', 'remote'])
def test_a_host_without_the_code_or_the_interpreter(place, opened, remote, tmp_path, code):
  host = remote if place == 'remote' else opened
  good = {'workdir': code, 'python': sys.executable}
  (tmp_path / 'empty').mkdir()
  assert failure(host(**good | {'workdir': '/nowhere'})) == (
    'workdir', 'there is no folder /nowhere; --action=push makes it')  # fmt: skip
  assert failure(host(**good | {'workdir': str(tmp_path / 'empty')})) == (
    'workdir',
    f'{tmp_path}/empty does not hold run_experiment_mm_raw.py; --action=push copies it',
  )
  assert failure(host(**good | {'python': '/nowhere/python'})) == (
    'python', 'there is no program /nowhere/python')  # fmt: skip
  assert failure(host(**good | {'python': ''})) == (
    'python', 'there is no program .venv/bin/python; --action=push makes it')  # fmt: skip
  stage, text = failure(host(**good | {'python': '/bin/false'}))
  assert (stage, text) == (
    'python', '/bin/false cannot run run_experiment_mm_raw.py: it ended with 1')  # fmt: skip


# ---- Over SSH. -----------------------------------------------------------------------------------


def test_talking_over_ssh(remote, code):
  host = remote()
  assert isinstance(host, hosts.SshHost)
  assert host.ask('hello') == {'python': sys.executable, 'workdir': code}


def test_a_broken_connection_is_closed_without_an_error(broken):
  broken.close()
  assert broken.ask('hello')  # On a new one.


def test_a_connection_that_breaks_is_named(broken):
  assert failure(broken) == ('', 'the connection was lost')
  assert broken.ask('hello')  # On a new one.


def test_a_host_that_was_started_again_between_two_requests(remote, sshd):  # noqa: F811
  host = remote()
  host.ask('hello')
  transport = host._clients[-1].get_transport()
  sshd.close()
  sshd.start()
  conftest.eventually(lambda: not transport.is_active())
  assert host.ask('hello')


def test_a_host_that_goes_away_in_the_middle(remote, sshd):  # noqa: F811
  host = remote()
  host.ask('hello')
  sshd.close()
  with pytest.raises(HostError, match='the connection was lost'):
    host.ask('hello', timeout_secs=20)


def test_the_other_side_ends_with_the_connection(remote, code):
  host = remote()
  host.ask('hello')
  assert len(frontend_fixtures.with_argument('--action=on_host')) >= 1
  host.close()
  pids = [
    pid
    for pid in frontend_fixtures.with_argument('--action=on_host')
    if os.path.realpath(f'/proc/{pid}/cwd') == code
  ]
  conftest.eventually(lambda: not any(map(network_fixtures.is_alive, pids)), 20)


@pytest.mark.parametrize('column', ['workdir', 'python'])
@pytest.mark.parametrize(
  'cell', ['$(touch {})', '`touch {}`', '; touch {}', '/bin/sh -c "touch {}"', "' ; touch {} '"]
)
def test_cells_are_never_run(remote, opened, tmp_path, column, cell):
  ran = tmp_path / 'ran'
  for host in (
    remote(**{column: cell.format(ran)}),
    opened(**{'workdir': hosts.CODE, column: cell.format(ran)}),
  ):
    assert failure(host)[0] == column
  assert not ran.exists()
