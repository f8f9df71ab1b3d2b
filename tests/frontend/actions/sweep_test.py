"""`sweep` on this machine, with real trainings of Catch in a private tmux."""

import json
import os
import re

import pytest

import frontend_fixtures
from conftest import ROOT, commands_of, eventually
from frontend.host_side import sweep_folder
from frontend_fixtures import own_tmux  # noqa: F401
from network_fixtures import end_processes

# A short training of Catch: a few seconds of a processor, nearly all of them to start.
SHORT = ('--level_name=impala/Catch-v0', '--total_environment_frames=300', '--num_actors=1',
         '--envs_per_actor=2', '--batch_size=2', '--unroll_length=9',
         '--metrics_secs=1')  # fmt: skip


class Sweep:
  """A sweep's folder and the commands on it."""

  def __init__(self, folder, tmux):
    self.folder, self._tmux = str(folder), tmux

  def __call__(self, action, *words, **kwargs):
    words = [f'--tmux_socket={self._tmux.path}', f'--action={action}', *words]
    return frontend_fixtures.frontend([*words, f'--logdir={self.folder}'], **kwargs)

  def status(self):
    return json.loads(self('status', '--json').stdout)

  def states(self):
    return {row['run']: row['state'] for row in self.status()['rows']}

  def outcomes(self):
    """The states of the runs by their files."""
    sweep = sweep_folder.read(self.folder)
    return {sweep_folder.state(self.folder, run, run.place, sweep.epoch) for run in sweep.runs}

  def claims(self):
    """{run: how often it was started}."""
    sweep = sweep_folder.read(self.folder)
    return {
      run.name: sweep_folder.last_claim(sweep_folder.tasks_folder(self.folder, run.name))[0]
      for run in sweep.runs
    }


@pytest.fixture(name='sweep')
def sweep_fixture(tmp_path, own_tmux):  # noqa: F811
  yield Sweep(tmp_path / 'sweep1', own_tmux)
  end_processes(frontend_fixtures.with_argument(str(tmp_path / 'sweep1')))


def test_impossible_combinations_are_all_told_and_nothing_starts(sweep, own_tmux):  # noqa: F811
  result = sweep('sweep', '--sweep=learning_rate=1e-3,-1,x', '--sweep=seed=1..2', *SHORT)
  assert result.returncode == 2
  assert '4 of 6 runs are impossible; nothing was started' in result.stderr
  assert 'learning_rate=-1,seed=1: --learning_rate=-1 is not a positive number' in result.stderr
  assert 'learning_rate=x,seed=2: --learning_rate=x is not a number' in result.stderr
  assert not os.path.exists(sweep.folder) and own_tmux.sessions() == []


def test_a_population_of_one_is_refused(sweep, own_tmux):  # noqa: F811
  result = sweep('sweep', '--population=1', '--sweep=learning_rate=log:1e-4..1e-2', *SHORT)
  assert result.returncode == 2
  assert '--population=1: a population has at least two members' in result.stderr
  assert not os.path.exists(sweep.folder) and own_tmux.sessions() == []


@pytest.mark.timeout(900)
def test_a_sweep_is_stopped_goes_on_and_ends_without_anybody(sweep, own_tmux):  # noqa: F811
  words = ('--sweep=seed=1..3', '--slots=2', '--max_restarts=1')
  begun = sweep('sweep', *words, *SHORT)
  assert begun.returncode == 0, begun.stderr
  assert '3 runs in' in begun.stdout and '--action=status' in begun.stdout
  (session,) = own_tmux.sessions()
  assert re.fullmatch(r'impala-sweep1-[0-9a-f]{8}', session)

  def two_run():
    states = list(sweep.states().values())
    return states.count('running') == 2 and states

  assert sorted(eventually(two_run, 120)) == ['running', 'running', 'waiting']
  # The same command again does no harm while it runs.
  again = sweep('sweep', *words, *SHORT)
  assert again.returncode == 0 and 'localhost: the runner goes on' in again.stdout
  eventually(lambda: 'done' in sweep.outcomes(), 240)
  assert sweep('stop').returncode == 0
  states, claims = sweep.states(), sweep.claims()
  assert 'running' not in states.values() and own_tmux.sessions() == []
  assert sweep.status()['hosts'] == {'localhost': 'idle'}
  assert sweep('sweep').returncode == 0
  assert [host.slots for host in sweep_folder.read(sweep.folder).hosts] == [2]
  eventually(lambda: sweep.outcomes() == {'done'}, 240, lambda: sweep('logs').stdout)
  after = sweep.claims()
  assert all(after[name] == claims[name] for name, state in states.items() if state == 'done')
  assert all(after[name] == claims[name] + 1 for name, state in states.items() if state != 'done')
  eventually(lambda: own_tmux('list-panes', '-a', '-F', '#{pane_dead}').strip() == '1', 30)
  told = sweep.status()
  assert told['done'] == 3 and told['hours_left'] == 0 and told['twice'] == []
  rows = told['rows']
  assert all(row['frames'] >= 300 and row['mean_return'] is not None for row in rows), rows
  for name in states:
    assert os.path.exists(os.path.join(sweep.folder, name, 'run.json'))
  # Another sweep in its folder is refused; more seeds are added to it.
  refused = sweep('sweep', '--sweep=learning_rate=1e-3,1e-4', *SHORT)
  assert refused.returncode == 2 and 'holds another sweep' in refused.stderr
  added = sweep('sweep', '--nostart', '--sweep=seed=1..4', *SHORT)
  assert '4 runs in' in added.stdout and '3 done, 1 waiting' in added.stdout


def test_a_population_trains_in_rounds_by_turns(tmp_path, processes):
  (words,) = commands_of('docs/many_runs.md', 'Populations')[:1]
  assert words[:2] == ['python', 'run_experiment_mm_raw.py']
  words = [word for word in words[2:] if not word.startswith('--flagfile')]
  small = {'population': 2, 'population_frames': 150, 'logdir': tmp_path / 'population1'}
  own = {word: f'--{name}={value}' for name, value in small.items() for word in words
         if word.startswith(f'--{name}=')}  # fmt: skip
  assert len(own) == len(small)
  # As an element of an array job, so that it trains here; one run at a time.
  words = [own.get(word, word) for word in words] + ['--element=one']
  run = processes.start(os.path.join(ROOT, 'run_experiment_mm_raw.py'), *words, *SHORT, cwd=ROOT)
  assert run.exit_code(240) == 0, run.output()
  started = re.findall(r'started (member-\d)', run.output())
  assert started == ['member-1', 'member-2'] * 2
  for name in ('member-1', 'member-2'):
    with open(tmp_path / 'population1' / name / 'population.jsonl') as file:
      first, compared = map(json.loads, file)
    assert first['frames'] == 0 and 150 <= compared['frames'] < 300
    assert set(compared['settings']) == {'learning_rate', 'entropy_cost'}
    with open(tmp_path / 'population1' / name / 'checkpoints.json') as file:
      assert json.load(file)['checkpoints'][-1]['frames'] >= 300
