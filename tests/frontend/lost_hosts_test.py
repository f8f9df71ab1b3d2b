"""Hosts that do not answer for a while, or for ever: stop, status, logs, and Ctrl-C."""

import os
import signal
import threading

import pytest

import conftest
import network_fixtures
from common import background
from frontend.actions import launch, logs, stop, task_rows
from frontend.connection import conversation, scripts
from frontend.errors import HostError
from scripted_host import Scripted, cluster_of_fixture, scripted_fixture  # noqa: F401

pytestmark = pytest.mark.cluster

eventually = conftest.eventually


@pytest.fixture(name='three')
def three_fixture(tmp_path, cluster_of, monkeypatch):
  """A chief's host, one of a parameter server and one of an actor, all running; and a Console."""
  for name, secs in (('CHIEF_SECS', 30), ('LOST_SECS', 20), ('FOLLOW_SECS', 1), ('REPLY_SECS', 0.5),
                     ('POLL_SECS', 0.1)):  # fmt: skip
    monkeypatch.setattr(stop, name, secs)
  for module in (task_rows, logs):
    monkeypatch.setattr(module, 'REPLY_SECS', 0.5)
  monkeypatch.setattr(logs, 'POLL_SECS', 0.1)
  monkeypatch.setattr(conversation, 'LATE_SECS', 0.1)
  chief = Scripted(tmp_path / 'chief', '127.0.0.1', ['learner-0'])
  ps = Scripted(tmp_path / 'ps', '127.0.0.2', ['ps-0'])
  actor = Scripted(tmp_path / 'actor', '127.0.0.3', ['actor-0'])
  chief.tells(learner_0='running')
  ps.tells(ps_0='running')
  actor.tells(actor_0='running')
  console, said = cluster_of(chief, ps, actor)
  return chief, ps, actor, console, said


def begin(function, *args):
  """Runs it in a thread; returns a function that waits for its result."""
  results = []
  thread = threading.Thread(target=lambda: results.append(function(*args)), daemon=True)
  thread.start()

  def result():
    thread.join(60)
    return results[0]

  return result


@pytest.mark.parametrize('fault', ['silent', 'gone'])
def test_nothing_is_ended_under_a_chief_that_misses_some_looks(three, fault):
  chief, ps, actor, console, said = three
  stopped = begin(stop.run, console)
  eventually(lambda: 'status' in chief.asked())
  chief.write(fault)
  eventually(lambda: any('the chief may be saving' in line for line in said), message=lambda: said)
  for _ in range(2):  # Two more looks that fail, with the connection made again or not.
    before = chief.asked().count('hello')
    eventually(lambda count=before: chief.asked().count('hello') > count)
  assert 'end' not in ps.asked() + actor.asked()
  chief.remove(fault)
  count = chief.asked().count('status')
  eventually(lambda: chief.asked().count('status') > count + 1)
  assert 'end' not in ps.asked() + actor.asked()
  chief.tells(learner_0='exited 0')
  eventually(lambda: 'status' in ps.asked() and 'status' in actor.asked())
  ps.tells(ps_0='exited 0')
  actor.tells(actor_0='exited 0')
  assert stopped() == 0
  assert chief.asked().count('ask') == 1
  assert said[0] == 'asked the chief to save a checkpoint and end the run'
  assert [line.split()[0::2] for line in said[-3:]] == [
    ['learner-0', 'exited'], ['ps-0', 'exited'], ['actor-0', 'exited']]  # fmt: skip


def test_a_chief_that_is_never_seen_again_keeps_its_parameter_servers(three, monkeypatch):
  chief, ps, actor, console, said = three
  monkeypatch.setattr(stop, 'LOST_SECS', 1)
  chief.write('gone')
  assert stop.run(console) == 1
  assert 'end' not in ps.asked() + actor.asked()
  (sentence,) = [line for line in said if line.startswith('learner-0 was not seen to end')]
  assert '--action=stop --now' in sentence
  states = {line.split()[0]: line.split()[2] for line in said[-3:]}
  assert states == {'learner-0': 'no', 'ps-0': 'running', 'actor-0': 'running'}
  console.options.now = True
  ps.tells(ps_0='exited 0')
  assert stop.run(console) == 1
  assert 'end' in ps.asked() and 'end' in actor.asked()


def test_a_lost_host_of_an_actor_holds_up_nobody_and_is_not_called_ended(three, monkeypatch):
  chief, ps, actor, console, said = three
  actor.write('silent')
  chief.tells(learner_0='exited 0')
  ps.tells(ps_0='exited 0')
  monkeypatch.setattr(stop, 'END_REPLY_SECS', 1)
  assert stop.run(console) == 1
  assert 'actor-0 did not follow within 1 s; ending the rest' in said
  assert 'end' in chief.asked() and 'end' in ps.asked()
  assert said[-1].split()[:4] == ['actor-0', '127.0.0.3', 'no', 'answer']


def test_what_is_left_after_all_is_no_success(three):
  chief, ps, actor, console, said = three
  for one in (chief, ps):
    one.tells(learner_0='exited 0', ps_0='exited 0')
  assert stop.run(console) == 1  # The actor goes on running.
  assert 'actor-0 did not follow within 1 s; ending the rest' in said


def test_a_launch_waits_for_a_host_that_misses_some_looks(three, monkeypatch):
  chief, ps, actor, console, said = three
  monkeypatch.setattr(launch, 'POLL_SECS', 0.1)
  actor.write('gone')
  result = begin(launch._wait_until_up, console, console.hosts)
  eventually(lambda: actor.asked().count('hello') > 2)
  actor.remove('gone')
  assert result() == 0
  assert 'actor-0 runs on 127.0.0.3' in said and len(said) == 3
  monkeypatch.setattr(launch, 'LOST_SECS', 0.3)
  actor.write('gone')
  assert launch._wait_until_up(console, console.hosts) == 1
  assert said[-1].startswith('127.0.0.3: ')


def test_a_task_that_failed_and_whose_log_cannot_be_had(three):
  chief, ps, actor, console, said = three
  ps.tells(ps_0='exited 1')
  ps.write('logs.raw', '@impala {"lines"\n')
  assert launch._wait_until_up(console, console.hosts) == 1
  assert 'ps-0 on 127.0.0.2 failed to start: ' in said
  assert "127.0.0.2: its answer to 'logs' cannot be read" in said
  assert 'learner-0 runs on 127.0.0.1' in said and 'actor-0 runs on 127.0.0.3' in said


def test_a_host_speaks_for_its_own_tasks_only(three):
  chief, ps, actor, console, _ = three
  actor.tells(learner_0='exited 0', ps_0='exited 0')
  rows = {row['task']: row for row in task_rows.all_rows(console)}
  assert rows['learner-0']['state'] == rows['ps-0']['state'] == 'running'
  assert rows['actor-0']['state'] == 'no answer' and not rows['actor-0']['ended']
  assert rows['actor-0']['last_line'] == 'its host says nothing about it'
  actor.says(
    'status', tasks=[{'task': 'actor-0', 'state': 'running', 'host': 'mine', 'ended': True}]
  )
  rows = {row['task']: row for row in task_rows.all_rows(console)}
  assert (rows['actor-0']['host'], rows['actor-0']['ended']) == ('127.0.0.3', False)


def test_logs_follow_goes_on_for_the_others_and_comes_back(three, monkeypatch):
  chief, ps, actor, console, said = three
  monkeypatch.setattr(logs, 'RETRY_SECS', 0.2)
  console.options.__dict__.update(task='', lines=0, follow=True)
  ps.write('gone')
  for one in (chief, actor):
    one.says('logs', lines=['begins'], offset=6)
  begin(logs.run, console)
  eventually(lambda: 'actor-0: begins' in said, message=lambda: said)
  assert [line for line in said if line.startswith('ps-0: no answer from 127.0.0.2: ')]
  actor.write('gone')
  eventually(lambda: any(line.startswith('127.0.0.3: ') for line in said), message=lambda: said)
  count = said.count('learner-0: begins')
  eventually(lambda: said.count('learner-0: begins') > count + 1)
  ps.says('logs', lines=['first words'], offset=3)
  ps.remove('gone')
  eventually(lambda: 'ps-0: first words' in said, message=lambda: said)
  actor.remove('gone')
  eventually(lambda: '127.0.0.3 answers again' in said, message=lambda: said)
  assert sum(line.startswith('127.0.0.3: ') for line in said) == 1


def whole_csv(folder, one):
  """Path of a cluster's CSV whose tasks are all on this host."""
  path = folder / 'c.csv'
  rows = [f'{task.job},{task.ip},{port},{one.folder},{os.sys.executable}'
          for task, port in zip(one.tasks, conftest.free_ports(len(one.tasks)))]  # fmt: skip
  path.write_text('\n'.join(['job,ip,tf_port,workdir,python', *rows]))
  return path


def test_a_terminal_that_has_not_all_letters(tmp_path, processes):
  one = Scripted(tmp_path / 'host', '127.0.0.1', ['ps-0', 'learner-0', 'actor-0'])
  one.says('logs', lines=['done ✓ é\x1b[2J'], offset=3)
  process = processes.start('run_experiment_mm_raw.py', '--action=logs', '--task=ps:0',
                            f'--cluster_csv_path={whole_csv(tmp_path, one)}',
                            env={'PYTHONIOENCODING': 'ascii'})  # fmt: skip
  assert process.exit_code() == 0, process.output()
  assert process.output() == 'ps-0: done \\u2713 \\xe9[2J\n'


@pytest.mark.parametrize('action', ['status', 'push'])
def test_ctrl_c_waits_for_no_host(tmp_path, processes, action):
  one = Scripted(tmp_path / 'host', '127.0.0.1', ['ps-0', 'learner-0', 'actor-0'])
  csv = whole_csv(tmp_path, one)
  one.write('silent')
  process = processes.start('run_experiment_mm_raw.py', f'--cluster_csv_path={csv}',
                            f'--action={action}')  # fmt: skip
  eventually(lambda: len(one.asked()) == 2, message=process.output)
  os.kill(process.pid, signal.SIGINT)
  try:
    assert process.exit_code(8) == 130  # The request alone may take 60 s.
    assert 'Traceback' not in process.output()
  finally:
    one.remove('silent')


def test_pip_ends_with_the_push_that_started_it(tmp_path):
  """Here the interpreter is a program that writes down its process id and stays."""
  python = tmp_path / '.venv/bin/python'
  python.parent.mkdir(parents=True)
  python.write_text('#!/bin/sh\necho $$ > pid.new; mv pid.new pid; exec sleep 600\n')
  python.chmod(0o755)
  for way in ('gone', 'ended'):
    lines = 'online\nrequirements.txt'
    script = scripts.start(scripts.LocalScript, scripts.MAKE_VENV, str(tmp_path), lines)
    pid = int(eventually(lambda: (tmp_path / 'pid').exists() and (tmp_path / 'pid').read_text()))
    (tmp_path / 'pid').unlink()
    if way == 'gone':
      script.close(None)
      eventually(lambda pid=pid: not network_fixtures.is_alive(pid), 20)
    else:  # Nothing but pip's own end ends the script while somebody waits.
      os.kill(pid, signal.SIGKILL)
      assert script.exit_code() == 137
      script.channel.settimeout(20)
      while script.channel.recv(100):  # `Killed`, and then the end.
        pass
      script.close()


# ---- Threads. ------------------------------------------------------------------------------------


def test_results_come_in_order_and_the_first_error_after_all_are_done():
  done = []

  def work(number):
    if number == 2:
      raise HostError('', 'two')
    done.append(number)
    return number * 10

  assert background.on_each(work, [3, 1, 0]) == [30, 10, 0]
  assert background.on_each(work, []) == []
  with pytest.raises(HostError, match='two'):
    background.on_each(work, [2, 4, 5])
  assert sorted(done) == [0, 1, 3, 4, 5]


def test_a_call_that_does_not_return_is_left_alone():
  stay = threading.Event()
  try:
    with pytest.raises(TimeoutError, match='no answer within 0.1 s'):
      background.within(0.1, stay.wait)
  finally:
    stay.set()
  assert background.within(30, max, 1, 2) == 2
