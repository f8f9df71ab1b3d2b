"""A sweep over two hosts behind real sshds, of which one is cut off half-way and comes back."""

import glob
import json
import os
import signal
import subprocess
import sys

import pytest

import frontend_fixtures
from conftest import eventually
from frontend.host_side import sweep_folder
from network_fixtures import Network
from sweep_worlds import BROKEN, HOLD

LOGDIR = 'runs/sweep1'
NUMBERS = range(1, 9)
SWEEP = 'env_kwargs=' + ','.join(f'{{"number":{number}}}' for number in NUMBERS)
FLAGS = ('--level_name=tests.sweep_worlds:SweepCatch-v0', '--total_environment_frames=100',
         '--num_actors=1', '--envs_per_actor=1', '--batch_size=1', '--unroll_length=9',
         '--metrics_secs=1')  # fmt: skip
# Cut off for half of this, a host starts nothing any more.
LOST_SECS = 6


class Lab:
  """Two hosts with a copy of the code each, and the frontend on host 0."""

  def __init__(self):
    self.network = Network(2).start()
    for sshd in self.network.sshds.values():
      sshd.make_known()
    self.folders = {
      number: frontend_fixtures.tracked_copy(os.path.join(self.network.folder, f'host{number}'))
      for number in (1, 2)
    }
    self.addresses = {number: self.network.ADDRESSES[number] for number in (1, 2)}
    self.csv = os.path.join(self.network.folder, 'hosts.csv')
    self.write_csv(self.folders)

  def write_csv(self, folders):
    rows = [f'run,{self.addresses[n]},{folders[n]},{sys.executable},2' for n in (1, 2)]
    with open(self.csv, 'w', encoding='utf-8') as file:
      file.write('\n'.join(['job,ip,workdir,python,slots', *rows]))

  def words(self, action, *words, logdir=LOGDIR):
    program = os.path.join(frontend_fixtures.ROOT, 'run_experiment_mm_raw.py')
    return [*self.network.inside(0, frontend_fixtures.ROOT), sys.executable, program,
            f'--cluster_csv_path={self.csv}', f'--action={action}', f'--logdir={logdir}',
            *words]  # fmt: skip

  def environment(self):
    environment = dict(os.environ, HOME=self.network.home)
    environment.pop('SSH_AUTH_SOCK', None)
    return environment

  def __call__(self, action, *words, **more):
    return subprocess.run(
      self.words(action, *words, **more), env=self.environment(), stdin=subprocess.DEVNULL,
      capture_output=True, text=True, timeout=280, check=False)  # fmt: skip

  def status(self):
    return json.loads(self('status', '--json').stdout)

  def hold(self, number, is_held):
    path = os.path.join(self.folders[number], HOLD)
    if is_held:
      open(path, 'w', encoding='utf-8').close()
    else:
      os.remove(path)

  def states(self, number):
    """{run: its state} on one host."""
    folder = os.path.join(self.folders[number], LOGDIR)
    sweep = sweep_folder.read(folder)
    return {
      run.name: ended.state if (ended := sweep_folder.outcome(tasks)) else 'begun'
      for run in sweep.runs
      if (tasks := sweep_folder.tasks_folder(folder, run.name)) and self.starts(number, run.name)
    }

  def ended(self):
    """The states of the runs that have ended on either host."""
    return [state for n in (1, 2) for state in self.states(n).values() if state != 'begun']

  def starts(self, number, name):
    """How often a host has claimed a run for itself."""
    tasks = sweep_folder.tasks_folder(os.path.join(self.folders[number], LOGDIR), name)
    claims = []
    for path in glob.glob(f'{glob.escape(tasks)}/claim-*.json'):
      with open(path, encoding='utf-8') as file:
        claims.append(json.load(file))
    return sum(not claim['moved_to'] for claim in claims)

  def log(self, name):
    """What a run's supervisor and trainer said, on both hosts."""
    said = []
    for folder in self.folders.values():
      tasks = sweep_folder.tasks_folder(os.path.join(folder, LOGDIR), name)
      for path in glob.glob(f'{glob.escape(tasks)}/*.log'):
        with open(path, encoding='utf-8') as file:
          said.append(file.read())
    return '\n'.join(said)

  def runner(self, number):
    """The record of a host's runner, {} without one."""
    path = os.path.join(self.folders[number], LOGDIR, f'runner-{self.addresses[number]}.json')
    if not os.path.exists(path):
      return {}
    with open(path, encoding='utf-8') as file:
      return json.load(file)


@pytest.fixture(name='lab', scope='module')
def lab_fixture():
  made = Lab()
  try:
    yield made
  finally:
    made.network.close()


@pytest.mark.timeout(1200)
@pytest.mark.cluster
def test_no_run_is_trained_twice_though_a_host_is_cut_off_and_comes_back(lab, processes):
  for number in (1, 2):  # Until host 2 is lost, nothing ends.
    lab.hold(number, True)
  # The frontend is killed as soon as the runners have begun.
  launch = processes.start(
    *lab.words('sweep', f'--sweep={SWEEP}', '--max_restarts=1', f'--lost_secs={LOST_SECS}'),
    *FLAGS, env=lab.environment(), name='launch')  # fmt: skip
  eventually(lambda: launch.poll() is not None or (lab.runner(1) and lab.runner(2)), 200,
             launch.output)  # fmt: skip
  assert lab.runner(1) and lab.runner(2), launch.output()
  if launch.poll() is None:
    os.kill(launch.pid, signal.SIGKILL)
  eventually(lambda: len(lab.states(2)) == 2, 120)
  # What host 2 has begun is seen, and waits for the file to go; then it is off the network.
  eventually(lambda: sum(row['state'] == 'running' and row['host'] == lab.addresses[2]
                         for row in lab.status()['rows']) == 2, 100)  # fmt: skip
  eventually(lambda: lab.addresses[1] in lab.runner(2)['unreached_secs'], 30)
  lab.network.pull_plug(2)
  eventually(lambda: 'no contact with most hosts' in lab.runner(2).get('problem', ''), 60)
  lab.hold(2, False)
  # Its two runs end, and it begins no other one.
  eventually(lambda: list(lab.states(2).values()) == ['done', 'done'], 240, lambda: lab.states(2))
  eventually(lambda: lab.runner(1)['unreached_secs'].get(lab.addresses[2], 0) > LOST_SECS, 60)
  moved = lab('sweep')
  assert moved.returncode == 0, moved.stderr
  assert moved.stdout.count(f'from {lab.addresses[2]} to {lab.addresses[1]}') == 2, moved.stdout
  assert f'{lab.addresses[2]} does not answer' in moved.stdout
  states = {row['run']: row['state'] for row in lab.status()['rows']}
  assert sum(state == 'unknown' for state in states.values()) == 2
  lab.hold(1, False)
  lab.network.plug_in(2)
  # It answers again, learns what was moved, and gets a part of what still waits.
  eventually(lambda: lab.status()['hosts'][lab.addresses[2]] != 'no answer', 60)
  back = lab('sweep')
  assert back.returncode == 0, back.stderr
  eventually(lambda: sorted(lab.ended()) == ['done'] * 7 + ['failed'], 280, lab.status)
  table = lab.status()
  assert (table['done'], table['failed'], table['runs'], table['twice']) == (7, 1, 8, [])
  assert table['hours_left'] == 0
  for row in table['rows']:
    starts = [lab.starts(number, row['run']) for number in (1, 2)]
    assert sorted(starts) == [0, 1], (row, starts)
    is_broken = f'number__{BROKEN}_' in row['run']
    assert row['state'] == ('failed' if is_broken else 'done')
    assert row['restarts'] == (1 if is_broken else 0), lab.log(row['run'])
  eventually(lambda: not lab.runner(1) and not lab.runner(2), 30)
  # All records come to one folder.
  to = os.path.join(lab.network.folder, 'pulled')
  assert lab('pull', f'--to={to}').returncode == 0
  assert len(glob.glob(f'{to}/*/metrics.csv')) >= 7


@pytest.mark.cluster
def test_hosts_that_share_the_folder_are_found_out(lab):
  lab.write_csv(dict.fromkeys((1, 2), lab.folders[1]))
  told = lab(
    'sweep', '--skip_check', '--nostart', '--sweep=seed=1..4', *FLAGS, logdir='runs/shared'
  )
  assert told.returncode == 0, told.stderr
  folder = os.path.join(lab.folders[1], 'runs', 'shared')
  sweep = sweep_folder.read(folder)
  assert [(host.name, host.place) for host in sweep.hosts] == [
    (lab.addresses[number], lab.addresses[1]) for number in (1, 2)]  # fmt: skip
  assert {run.place for run in sweep.runs} == {lab.addresses[1]}
  assert not [name for name in os.listdir(folder) if name.startswith('.')]  # No mark is left.


def places(lab, number, logdir):
  """{run: its place} by the list on a host, and {run: its state} there."""
  folder = os.path.join(lab.folders[number], logdir)
  sweep = sweep_folder.read(folder)
  states = sweep_folder.states(folder, sweep, lab.addresses[number])
  return {run.name: run.place for run in sweep.runs}, states


@pytest.mark.cluster
def test_runs_of_a_host_that_is_switched_off_go_to_the_other_and_come_back(lab):
  lab.write_csv(lab.folders)
  more = {'logdir': 'runs/lost'}
  first, second = lab.addresses[1], lab.addresses[2]
  begun = lab('sweep', '--skip_check', '--nostart', '--sweep=seed=1..4', *FLAGS, **more)
  assert begun.returncode == 0, begun.stderr
  assert list(places(lab, 1, 'runs/lost')[0].values()) == [first, second, first, second]
  refused = lab('sweep', '--nostart', f'--lost_hosts={second}', **more)
  assert refused.returncode == 2 and f'--lost_hosts={second}: it answers' in refused.stderr
  lab.network.pull_plug(2)
  told = lab('sweep', '--nostart', **more)
  assert f'2 runs stay with {second}' in told.stdout, told.stdout + told.stderr
  told = lab('sweep', '--nostart', f'--lost_hosts={second}', **more)
  assert told.stdout.count(f'from {second} to {first}') == 2, told.stdout + told.stderr
  assert set(places(lab, 1, 'runs/lost')[0].values()) == {first}
  assert set(places(lab, 2, 'runs/lost')[1].values()) == {'waiting', 'moved'}  # It knows nothing.
  lab.network.plug_in(2)
  eventually(lambda: lab('status', **more).returncode == 0, 60)
  told = lab('sweep', '--nostart', **more)
  assert told.stdout.count(f'from {first} to {second}') == 2, told.stdout + told.stderr
  lists = [places(lab, number, 'runs/lost') for number in (1, 2)]
  assert lists[0][0] == lists[1][0]
  for name, place in lists[0][0].items():
    assert lists[0][1][name] == ('waiting' if place == first else 'moved')
    assert lists[1][1][name] == ('waiting' if place == second else 'moved')
