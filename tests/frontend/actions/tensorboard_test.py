"""`tensorboard` on this machine and behind a real sshd: the page comes, and the process goes."""

import http.client
import json
import os
import re
import signal
import sys
import time

import psutil
import pytest

import conftest
import frontend_fixtures
import network_fixtures
from frontend.host_side import tensorboard
from network_fixtures import sshd  # noqa: F401
from recorded_run import recorded_fixture  # noqa: F401
from reporting import events

# TensorBoard imports TensorFlow; beside other tests that takes long.
LIMIT_SECS = 240
ADDRESS = r'http://127\.0\.0\.1:(\d+)/ shows '


def boards(recorded):
  """Ids of the TensorBoards of a run."""
  return frontend_fixtures.with_argument(f'--logdir={recorded.logdir}')


@pytest.fixture(name='show')
def show_fixture(recorded, processes):
  """Starts the action on a run with a curve; gives (process, port here, id of TensorBoard)."""
  recorded.launched()
  file = events.EventFile(recorded.logdir)
  file.write(time.time(), 7, {'metrics/mean_return_100': 1.5})
  file.close()

  def begin():
    program = os.path.join(conftest.ROOT, 'run_experiment_mm_raw.py')
    environment = {'HOME': recorded.home, 'SSH_AUTH_SOCK': ''}
    process = processes.start(program, *recorded.words('tensorboard'), env=environment)
    conftest.eventually(
      lambda: re.search(ADDRESS, process.output()) or process.poll() is not None,
      LIMIT_SECS,
      process.output,
    )
    found = re.search(ADDRESS, process.output())
    assert found, process.output()
    (board,) = boards(recorded)
    return process, int(found[1]), board

  yield begin
  network_fixtures.end_processes(boards(recorded))


def get(port, path):
  """Body of a page at a port of this machine."""
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
  connection.request('GET', path)
  answer = connection.getresponse()
  assert answer.status == 200
  return answer.read().decode()


def test_the_page_is_shown_until_ctrl_c(show):
  process, port, board = show()
  assert '<title>TensorBoard</title>' in get(port, '/')

  def curves():
    return [tag for tags in json.loads(get(port, '/data/plugin/scalars/tags')).values()
            for tag in tags]  # fmt: skip

  conftest.eventually(lambda: 'metrics/mean_return_100' in curves(), LIMIT_SECS, curves)
  listening = [c.laddr.ip for c in psutil.Process(board).net_connections() if c.status == 'LISTEN']
  assert listening == ['127.0.0.1']
  os.killpg(process.pid, signal.SIGINT)  # As a terminal does: to all that were started from it.
  assert process.exit_code() == 0 and 'Traceback' not in process.output()
  assert not network_fixtures.is_alive(board)


def test_it_ends_with_the_frontend(show):
  process, _, board = show()
  os.kill(process.pid, signal.SIGKILL)
  assert conftest.eventually(lambda: not network_fixtures.is_alive(board))


@pytest.mark.parametrize('recorded', ['over SSH'], indirect=True)
def test_it_ends_with_the_connection(show, sshd):  # noqa: F811
  process, _, board = show()
  sshd.close()
  assert process.exit_code() == 1
  assert 'TensorBoard ends there by itself within 60 s' in process.output()
  assert process.output().splitlines()[-1].endswith('the connection was lost')
  conftest.eventually(lambda: not network_fixtures.is_alive(board))


@pytest.mark.parametrize('recorded', ['here'], indirect=True)
def test_a_tensorboard_that_ends_is_told(show):
  process, _, board = show()
  os.kill(board, signal.SIGTERM)
  assert process.exit_code() == 1
  assert 'TensorBoard ended on localhost: TensorBoard caught SIGTERM' in process.output()


def test_a_tensorboard_that_nobody_asks_for_ends(tmp_path):
  """As when a cable is pulled, which no connection notices for hours."""
  board = tensorboard.TensorBoard(str(tmp_path), ask_secs=1.0)
  try:
    assert board.state()['running']
    conftest.eventually(lambda: not network_fixtures.is_alive(board.pid))
  finally:
    assert tensorboard.end(board.pid, board.mark)


@pytest.mark.parametrize('recorded', ['here'], indirect=True)
def test_a_host_without_it_is_told_in_a_sentence(recorded, tmp_path):
  import absl

  (tmp_path / 'packages').mkdir()
  os.symlink(os.path.dirname(absl.__file__), tmp_path / 'packages' / 'absl')
  python = tmp_path / 'python'
  python.write_text(
    f'#!/bin/sh\nPYTHONPATH={tmp_path}/packages exec {os.path.realpath(sys.executable)} -S "$@"\n'
  )
  python.chmod(0o755)
  recorded.launched()
  with open(recorded.csv, encoding='utf-8') as file:
    text = file.read()
  with open(recorded.csv, 'w', encoding='utf-8') as file:
    file.write(text.replace(sys.executable, str(python)))
  result = recorded.run('tensorboard')
  assert result.returncode == 1
  assert re.search('TensorBoard is not installed for .* -m pip install -r req', result.stderr)
  assert len(result.stderr.splitlines()) == 1 and not boards(recorded)


@pytest.mark.parametrize('recorded', ['here'], indirect=True)
def test_no_run_is_bad_input(recorded):
  result = recorded.run('tensorboard')
  assert result.returncode == 2 and 'no run of session impala is known' in result.stderr
