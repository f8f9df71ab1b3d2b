"""Runners and claims: one start of each run, whoever dies, and what is said of a run.

The trainer is a small program here; tests/frontend/actions/sweep_test.py has real ones.
"""

import errno
import json
import os
import signal
import sys
import threading

import pytest

import frontend_fixtures
from conftest import eventually
from frontend.host_side import processes as own_processes
from frontend.host_side import (
  supervisor,
  sweep_children,
  sweep_contact,
  sweep_folder,
  sweep_requests,
)
from frontend.host_side.sweep_contact import Contact, is_majority
from frontend.host_side.sweep_folder import Claim, HostEntry, Outcome, Run, Sweep
from network_fixtures import end_processes, is_alive

# Says that it has begun. Seeds from 90 on fail; with a file `long` there, the others stay. With a
# file `slow`, it takes 5 s to end, as one that saves a large checkpoint.
TRAINER = """
import os, signal, sys, time
flags = dict((word.lstrip('-').split('=', 1) + [''])[:2] for word in sys.argv[1:])
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
os.makedirs(flags['logdir'], exist_ok=True)
with open(os.path.join(flags['logdir'], 'begun'), 'a') as file:
  file.write(os.environ.get('CUDA_VISIBLE_DEVICES', '-') + chr(10))
with open(os.path.join(flags['logdir'], 'processors'), 'w') as file:
  file.write(' '.join(map(str, os.sched_getaffinity(0))))
if int(flags['seed']) >= 90:
  sys.exit('no such luck')
while os.path.exists('long') and not ended:
  time.sleep(0.05)
if ended and os.path.exists('slow'):
  time.sleep(5)
"""


class Folder:
  """A sweep's folder in a copy of the code, and runners on it."""

  def __init__(self, folder, processes):
    self.code = frontend_fixtures.copy_code(folder / 'code', TRAINER)
    self.path = os.path.join(self.code, 'runs', 's')
    self._processes = processes

  def write(self, seeds, hosts=(), places='', **more):
    runs = [Run(f'seed={seed}', {'seed': str(seed)}, places) for seed in seeds]
    sweep = Sweep(['seed'], [], runs, list(hosts), max_restarts=1)._replace(**more)
    sweep_folder.write(self.path, sweep)
    return sweep

  def runner(self, *words, host='a'):
    command = [sys.executable, '-m', 'frontend.host_side.sweep_runner', self.path]
    return self._processes.start(*command, f'--host={host}', *words, cwd=self.code)

  def begun(self, seed):
    path = os.path.join(self.path, f'seed={seed}', 'begun')
    return open(path, encoding='utf-8').read().split() if os.path.exists(path) else []

  def processors_path(self, seed):
    return os.path.join(self.path, f'seed={seed}', 'processors')

  def processors(self, seed):
    path = self.processors_path(seed)
    words = open(path, encoding='utf-8').read().split() if os.path.exists(path) else []
    return set(map(int, words))

  def states(self, place=''):
    return sweep_folder.states(self.path, sweep_folder.read(self.path), place)

  def tasks(self, seed):
    return sweep_folder.tasks_folder(self.path, f'seed={seed}')

  def long(self, is_long):
    path = os.path.join(self.code, 'long')
    open(path, 'w', encoding='utf-8').close() if is_long else os.remove(path)


@pytest.fixture(name='folder')
def folder_fixture(tmp_path, processes):
  made = Folder(tmp_path, processes)
  yield made
  end_processes(frontend_fixtures.with_argument(made.code))


def test_several_runners_share_a_folder_and_start_each_run_once(folder):
  # The three hosts share the folder of the first.
  folder.write([*range(8), 90], [HostEntry(host, 'a') for host in 'abc'], 'a')
  runners = [folder.runner('--slots=2', host=host) for host in 'abc']
  assert [runner.exit_code(120) for runner in runners] == [0, 0, 0]
  assert [len(folder.begun(seed)) for seed in range(8)] == [1] * 8
  assert len(folder.begun(90)) == 2  # It failed, was started again, and failed.
  assert folder.states('a') == {f'seed={s}': 'done' for s in range(8)} | {'seed=90': 'failed'}
  hosts = {sweep_folder.last_claim(folder.tasks(seed))[1].host for seed in range(8)}
  assert hosts == {'a', 'b', 'c'}
  assert folder.runner().exit_code() == 0 and len(folder.begun(90)) == 2
  sweep_folder.give_failed_another_try(folder.path, ['seed=90', 'seed=1'])
  assert folder.states('a')['seed=90'] == 'waiting' and folder.states('a')['seed=1'] == 'done'


def test_slots_and_gpus_are_those_of_the_host(folder):
  folder.long(True)
  folder.write(range(5), [HostEntry('a', 'a', 2, '0,1')], 'a')
  runner = folder.runner()
  eventually(lambda: folder.begun(0) and folder.begun(1))
  assert sorted(folder.begun(0) + folder.begun(1)) == ['0', '1']
  assert sorted(folder.states('a').values()) == ['running'] * 2 + ['waiting'] * 3
  folder.long(False)
  assert runner.exit_code() == 0
  assert all(len(folder.begun(seed)) == 1 for seed in range(5))


def test_runs_at_the_same_time_share_the_processors(folder):
  mine = os.sched_getaffinity(0)
  folder.long(True)
  folder.write(range(2))
  runner = folder.runner('--slots=3')  # Two runs are left, so each gets a half.
  eventually(lambda: folder.processors(0) and folder.processors(1))
  first, second = folder.processors(0), folder.processors(1)
  assert first | second == mine and (len(mine) == 1 or not first & second)
  folder.long(False)
  assert runner.exit_code() == 0
  folder.write([0, 1, 2])
  assert folder.runner('--slots=3').exit_code() == 0
  assert folder.processors(2) == mine  # It was alone.


def test_a_killed_runner_leaves_its_runs_to_the_next_one(folder):
  folder.long(True)
  folder.write(range(3))
  runner = folder.runner('--slots=2')
  eventually(lambda: folder.processors(0) and folder.processors(1))
  os.kill(runner.pid, signal.SIGKILL)
  runner.wait()
  assert folder.states() == {'seed=0': 'running', 'seed=1': 'running', 'seed=2': 'waiting'}
  second = folder.runner('--slots=2', '--wait')
  # One that ends gets the same processors again: the next runner knows those of the other run.
  last = max((0, 1), key=lambda seed: max(folder.processors(seed)))
  before = folder.processors(last)
  os.remove(folder.processors_path(last))
  record = supervisor.read_json(os.path.join(folder.tasks(last), 'local-0.supervisor.json'))
  os.kill(record['supervisor_pid'], signal.SIGTERM)
  eventually(lambda: folder.processors(last))
  assert folder.processors(last) == before
  folder.long(False)
  assert second.exit_code() == 0
  assert sorted(len(folder.begun(seed)) for seed in range(3)) == [1, 1, 2]


def test_a_run_whose_supervisor_is_killed_goes_on_under_another_claim(folder):
  folder.long(True)
  folder.write([0])
  runner = folder.runner()
  path = os.path.join(folder.tasks(0), 'local-0.supervisor.json')
  eventually(lambda: folder.begun(0) and supervisor.read_json(path))
  os.kill(supervisor.read_json(path)['supervisor_pid'], signal.SIGKILL)
  eventually(lambda: len(folder.begun(0)) == 2, 60, runner.output)
  folder.long(False)
  assert runner.exit_code() == 0 and folder.states() == {'seed=0': 'done'}
  assert sweep_folder.last_claim(folder.tasks(0))[0] == 2


def test_stop_ends_runs_of_this_runner_and_of_the_one_before(folder):
  folder.long(True)
  folder.write(range(3))
  first = folder.runner('--slots=1')
  eventually(lambda: folder.begun(0))
  os.kill(first.pid, signal.SIGKILL)
  first.wait()
  second = folder.runner('--slots=2')
  eventually(lambda: folder.begun(1))
  pids = [supervisor.read_json(os.path.join(folder.tasks(seed), 'local-0.supervisor.json'))['pid']
          for seed in (0, 1)]  # fmt: skip
  os.kill(second.pid, signal.SIGTERM)
  assert second.exit_code() == 0
  eventually(lambda: not any(map(is_alive, pids)))
  assert set(folder.states().values()) == {'waiting'}
  assert [len(folder.begun(seed)) for seed in range(3)] == [1, 1, 0]


def test_stop_waits_for_a_run_that_was_just_being_started(folder, monkeypatch):
  monkeypatch.setattr(sweep_requests, '_folder', lambda logdir: folder.path)
  folder.long(True)
  open(os.path.join(folder.code, 'slow'), 'w', encoding='utf-8').close()
  folder.write([0])
  runner = folder.runner()
  eventually(lambda: folder.begun(0))
  # Its supervisor has not yet written the record when `stop` looks first.
  path = os.path.join(folder.tasks(0), 'local-0.supervisor.json')
  os.rename(path, path + '.later')
  timer = threading.Timer(1.0, os.rename, (path + '.later', path))
  timer.start()
  assert sweep_requests.sweep_stop('s', 'a', 'no-session', '', now=False) == {'ended': ['seed=0']}
  timer.join()
  assert runner.exit_code() == 0 and folder.states() == {'seed=0': 'waiting'}
  assert sweep_folder.outcome(folder.tasks(0)).exit_code == 0  # It had the time to save.


def test_a_run_that_has_not_begun_when_the_sweep_is_stopped_does_not_begin(folder, processes):
  folder.write([0])
  assert sweep_folder.claim(folder.tasks(0), 1, 'a', 1)
  sweep_folder.set_stopping(folder.path, True)
  command = [sys.executable, '-m', 'frontend.host_side.sweep_run', folder.path, 'seed=0', '1']
  assert processes.start(*command, cwd=folder.code).exit_code() == 0
  assert folder.begun(0) == [] and folder.states() == {'seed=0': 'waiting'}
  sweep_folder.set_stopping(folder.path, False)
  assert folder.runner().exit_code() == 0
  assert len(folder.begun(0)) == 1 and folder.states() == {'seed=0': 'done'}


@pytest.mark.parametrize('is_asked, kills', [(True, 0), (False, 1)])
def test_a_run_that_is_ended_while_it_imports_was_not_killed(folder, is_asked, kills):
  folder.write([0])
  assert sweep_folder.claim(folder.tasks(0), 1, 'a', 1)
  children = sweep_children.Children(folder.path, 'a', print)
  children.start('seed=0', 1, None)
  if is_asked:
    children.end(['seed=0'])
  else:
    process, _, _ = children._own['seed=0']
    process.kill()
  assert eventually(children.reap) == {'seed=0': 'waiting'}
  assert sweep_folder.outcome(folder.tasks(0)).kills == kills


def test_what_was_given_away_is_started_by_nobody_here_until_it_comes_back(folder, monkeypatch):
  monkeypatch.setattr(sweep_requests, '_folder', lambda logdir: folder.path)
  folder.long(True)
  hosts = [HostEntry('a', 'a', 1), HostEntry('b', 'b', 1)]
  sweep = folder.write(range(3), hosts, 'a')
  runner = folder.runner()
  eventually(lambda: folder.begun(0))
  moves = {'seed=0': 'b', 'seed=1': 'b'}
  reply = sweep_requests.sweep_release('s', 'a', moves, epoch=2)
  assert reply == {'released': ['seed=1']}  # The other one runs.
  assert sweep_requests.sweep_release('s', 'a', moves, epoch=2) == reply
  folder.long(False)
  eventually(lambda: folder.states('a')['seed=2'] == 'done', 60, runner.output)
  assert runner.exit_code() == 0 and folder.begun(1) == []
  assert folder.states('a')['seed=1'] == 'moved'
  # A later list brings it back; an earlier one than that is refused.
  sweep_requests.sweep_write('s', 'a', sweep_folder.to_json(sweep._replace(epoch=3)))
  assert folder.states('a')['seed=1'] == 'waiting'
  with pytest.raises(Exception, match='by somebody else at the same time'):
    sweep_requests.sweep_write('s', 'a', sweep_folder.to_json(sweep._replace(epoch=3)))
  moved = [r._replace(place='b') if r.name == 'seed=1' else r for r in sweep.runs]
  sweep_requests.sweep_write('s', 'a', sweep_folder.to_json(sweep._replace(epoch=4, runs=moved)))
  assert sweep_folder.last_claim(folder.tasks(1))[1].moved_to == 'b'
  assert folder.runner().exit_code() == 0 and folder.begun(1) == []


# ---- What other hosts left in a shared folder. ---------------------------------------------------


def left_by_another_host(folder, secs):
  """Makes the claim and the record of a host that renewed them `secs` ago."""
  folder.write([0])
  tasks = folder.tasks(0)
  os.makedirs(tasks)
  claim = Claim('b', 'another boot', 1, '1', 1, 0.0)
  record = {'task': 'local-0', 'state': 'running', 'started': 1.0, 'pid': 1, 'mark': '1',
            'supervisor_pid': 1, 'supervisor_mark': '1', 'realm': 'another boot'}  # fmt: skip
  for name, value in (('claim-1', claim._asdict()), ('local-0.supervisor', record)):
    path = os.path.join(tasks, f'{name}.json')
    with open(path, 'w', encoding='utf-8') as file:
      json.dump(value, file)
    then = os.stat(path).st_mtime - secs
    os.utime(path, (then, then))
  return folder.states()['seed=0']


@pytest.mark.parametrize('secs, state', [(30, 'running'), (90, 'waiting')])
def test_a_run_of_another_host_is_free_after_a_minute_without_a_sign_of_life(folder, secs, state):
  assert left_by_another_host(folder, secs) == state


def test_of_two_that_claim_at_once_one_wins_and_a_new_claim_outdates_an_outcome(folder):
  folder.write([0])
  tasks = folder.tasks(0)
  assert sweep_folder.claim(tasks, 1, 'a', 1) and not sweep_folder.claim(tasks, 1, 'b', 1)
  assert folder.states()['seed=0'] == 'running'  # This process has claimed it, and lives.
  sweep_folder.write_outcome(tasks, Outcome(1, 'failed', 1, 0.0))
  assert folder.states()['seed=0'] == 'failed'
  assert sweep_folder.claim(tasks, 2, 'a', 1)
  assert folder.states()['seed=0'] == 'running'
  assert own_processes.is_running(*sweep_folder.last_claim(tasks)[1][2:4])


def test_claims_on_a_file_system_without_links(folder, monkeypatch):
  def no_link(source, target):
    raise OSError(errno.EPERM, 'Operation not permitted')

  monkeypatch.setattr(os, 'link', no_link)
  folder.write([0])
  assert sweep_folder.claim(folder.tasks(0), 1, 'a', 1)
  assert not sweep_folder.claim(folder.tasks(0), 1, 'b', 1)
  assert sweep_folder.last_claim(folder.tasks(0))[1].host == 'a'


def test_a_link_whose_answer_was_lost_counts(folder, monkeypatch):
  link = os.link

  def repeated(source, target):
    link(source, target)
    link(source, target)

  folder.write([0])
  monkeypatch.setattr(os, 'link', repeated)
  assert sweep_folder.claim(folder.tasks(0), 1, 'a', 1)


# ---- Contact with other hosts. -------------------------------------------------------------------


def contact_of(name, *others, lost_secs):
  contact = Contact(name)
  contact.watch({each: (each, 22) for each in (*others, name)}, lost_secs)
  return contact


def test_a_host_in_a_minority_starts_nothing_until_a_later_list(monkeypatch):
  reached = {'b': True, 'c': True}
  monkeypatch.setattr(sweep_contact, 'is_reached', lambda address: reached[address[0]])
  contact = contact_of('a', 'b', 'c', lost_secs=1.0)
  eventually(contact.unreached_secs)
  reached['c'] = False
  eventually(lambda: contact.unreached_secs()['c'] > 1.0, 10)
  assert contact.is_guarded and contact.may_start(1)  # Two of three.
  reached['b'] = False
  eventually(lambda: not contact.may_start(1), 10)
  assert contact.unreached_secs()['b'] > 0.4
  reached['b'] = True
  eventually(lambda: contact.unreached_secs()['b'] < 0.3, 10)
  assert not contact.may_start(1) and contact.may_start(2)


def test_a_host_that_never_reached_a_majority_has_nothing_to_lose(monkeypatch):
  monkeypatch.setattr(sweep_contact, 'is_reached', lambda address: False)
  contact = contact_of('a', 'b', lost_secs=0.2)
  with pytest.raises(AssertionError):
    eventually(lambda: not contact.may_start(1), 1.0)
  assert contact.unreached_secs() == {} and not contact.is_guarded


def test_of_two_halves_the_first_host_is_the_majority():
  assert is_majority({'a'}, ['a', 'b']) and not is_majority({'b'}, ['a', 'b'])
  assert is_majority({'b', 'c'}, ['a', 'b', 'c']) and not is_majority({'a'}, ['a', 'b', 'c'])
  assert not is_majority({'b', 'lost'}, ['a', 'b', 'c'])


def test_a_host_that_refuses_a_connection_is_there(free_ports):
  (port,) = free_ports(1)
  assert sweep_contact.is_reached(('127.0.0.1', port))
  assert not sweep_contact.is_reached(('no.such.host.invalid', port))
