"""slurm/sweep.sbatch on a real Slurm: runs are dealt out, a requeued element goes on, once each."""

import json
import os

import pytest

from cluster_fixtures import ACTING, TRAINING
from frontend.host_side import sweep_folder
from runtime.checkpoints import listed
from slurm_fixtures import network, slurm  # noqa: F401

FLAGS = (
  *TRAINING, *ACTING[:1], '--envs_per_actor=2', '--threads=1', '--save_checkpoint_secs=1',
  '--level_name=throttled_env:ThrottledCatch-v0', '--total_environment_frames=1000',
)  # fmt: skip
SWEEP = ('--sweep=seed=1..3', *FLAGS)


def claims(folder):
  """{run: number of its starts}."""
  sweep = sweep_folder.read(folder)
  tasks = {run.name: sweep_folder.tasks_folder(folder, run.name) for run in sweep.runs}
  return {name: sweep_folder.last_claim(path)[0] for name, path in tasks.items()}


def states(folder):
  sweep = sweep_folder.read(folder)
  return sweep_folder.states(folder, sweep, '') if sweep else {}


def starts(folder, run):
  """Number of starts that a run's trainer has recorded."""
  with open(os.path.join(folder, run, 'run.json')) as file:
    return 1 + len(json.load(file)['starts'])


def until_ended(*jobs):
  for job in jobs:
    job.until_state('COMPLETED', 'FAILED')
  return [job.about('JobState') for job in jobs]


@pytest.fixture(scope='module')
def ended(slurm):  # noqa: F811
  """The folder of a sweep of three runs by two elements, of which one was requeued at work."""
  folder = os.path.join(slurm.folder, 'sweep')
  gate = os.path.join(slurm.folder, 'open')
  first, second = slurm.submit_sweep(folder, 2, *SWEEP, THROTTLED_ENV_OPEN=gate)
  # The runs are slow until the gate opens, so both elements have one of the first two.
  running = first.until(lambda: sum(s == 'running' for s in states(folder).values()) == 2)
  assert running and states(folder)['seed=3'] == 'waiting'
  begun = [name for name in ('seed=1', 'seed=2') if _has(folder, name, first.id)]
  (mine,) = begun
  first.until(lambda: listed(os.path.join(folder, mine)))
  slurm.command('scontrol', 'requeue', first.id)
  first.until(lambda: first.about('Restarts') == '1')
  first.until(lambda: starts(folder, mine) == 2 or claims(folder)['seed=3'])
  with open(gate, 'w'):
    pass
  assert until_ended(first, second) == ['COMPLETED'] * 2, first.story() + second.output()
  return folder, mine, (first, second)


def _has(folder, name, job_id):
  _, claim = sweep_folder.last_claim(sweep_folder.tasks_folder(folder, name))
  return claim.host == 'array-' + job_id.replace('_', '-')


def test_all_runs_are_trained_once_though_an_element_was_requeued(ended):
  folder, mine, jobs = ended
  story = '\n'.join(job.output() for job in jobs)
  assert set(states(folder).values()) == {'done'}, story
  assert sorted(sweep_folder.read(folder).runs[0].settings) == ['seed']
  for name, number in claims(folder).items():
    # The requeued element's run went on from its checkpoint; the others were started once.
    assert (number, starts(folder, name)) == ((2, 2) if name == mine else (1, 1)), story
    assert listed(os.path.join(folder, name))[-1].frames >= 1000
  with open(os.path.join(folder, mine, 'tasks', 'local-0.log')) as file:
    assert 'resumed at ' in file.read()


def test_elements_of_a_sweep_that_is_done_end_at_once(slurm, ended):  # noqa: F811
  folder, _, _ = ended
  before = claims(folder)
  (again,) = slurm.submit_sweep(folder, 1, *SWEEP)
  assert until_ended(again) == ['COMPLETED'], again.story()
  assert 'no run is left' in again.output() and claims(folder) == before


def test_bad_input_ends_an_element_with_a_sentence(slurm):  # noqa: F811
  folder = os.path.join(slurm.folder, 'bad')
  (job,) = slurm.submit_sweep(folder, 1, '--sweep=entropy_cost=0.01,-1', *FLAGS)
  assert until_ended(job) == ['FAILED'] and job.about('ExitCode') == '2:0', job.story()
  assert '--entropy_cost=-1 is not' in job.output()
  assert 'Traceback' not in job.output() and not os.path.exists(f'{folder}/sweep.json')
