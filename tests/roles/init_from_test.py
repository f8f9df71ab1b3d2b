"""--init_from: a new run begins with another's weights, and with nothing else of it."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cluster_fixtures import all_zero, new_cluster  # noqa: F401 (new_cluster is a fixture)
from conftest import ROOT
from runtime.checkpoints import Checkpoints, listed

pytestmark = pytest.mark.slow  # Every test is one training run or several.

LIMIT_SECS = 240.0
EARLIER = os.path.join(ROOT, 'tests', 'data', 'earlier_run')  # CartPole-v1, MLPAgent, Adam.
SMALL = ('--batch_size=4', '--num_actors=1', '--envs_per_actor=2', '--metrics_secs=1')


def start(processes, folder, *flags):
  """A run that records the variables of its first session."""
  return processes.start(
    'tests/altered_experiment.py', f'recorded={folder}.npz', f'--logdir={folder}', *SMALL, *flags
  )


def begun_with(record):
  """{name: value} of the variables as the first session had them."""
  found = np.load(record)
  return {n.split('/', 1)[1]: found[n] for n in found.files if n.startswith('session/')}


def assert_weights_of(path, values):
  """The weights, and nothing else, are those of a checkpoint."""
  weights = {name: path_value(path, name) for name in Checkpoints.shapes(path) if is_weight(name)}
  assert len(weights) >= 8
  for name, value in weights.items():
    np.testing.assert_array_equal(values[name], value, name)
  assert {name for name in values if is_weight(name)} == set(weights)
  assert values['environment_frames'] == values['global_step'] == 0


def path_value(path, name):
  return Checkpoints.value(path, name)


def is_weight(name):
  """Whether a variable is the agent's own, its observation statistics among them."""
  return name.startswith('agent/') and not {'Adam', 'Adam_1', 'RMSProp', 'RMSProp_1'} & set(
    name.split('/')
  )


def test_another_environment_begins_with_the_weights_and_the_same_command_resumes(
  tmp_path, processes
):
  source, folder = shutil.copytree(EARLIER, tmp_path / 'source'), tmp_path / 'run'
  flags = [f'--init_from={source}', '--level_name=CartPole-v0', '--optimizer=rmsprop']
  run = start(processes, folder, *flags, '--total_environment_frames=1000')
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  path = f'{source}/model.ckpt-24'
  assert f'{folder}: new run from the weights of {path}; learns on ' in run.output()
  values = begun_with(f'{folder}.npz')
  assert_weights_of(path, values)
  slots = [value for name, value in values.items() if name.startswith('agent/policy/w/RMSProp')]
  assert len(slots) == 2 and all(len(np.unique(slot)) == 1 for slot in slots)  # As at any start.

  shutil.rmtree(source)
  run = start(processes, folder, *flags, '--total_environment_frames=2000')
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  assert 'resumed at ' in run.output()
  assert f'--init_from={source} has no effect: {folder} has a checkpoint' in run.output()
  assert listed(str(folder))[-1].frames >= 2000


def test_observation_statistics_go_along(tmp_path, processes):
  memory = ('--level_name=impala/Memory-v0', '--agent_name=MLPLSTMAgent',
            '--observation_scaling=running')  # fmt: skip
  source, folder = tmp_path / 'source', tmp_path / 'run'
  flags = [*memory, '--total_environment_frames=500', '--keep_checkpoint_every_frames=200']
  run = start(processes, source, *flags)
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  first = listed(str(source))[0]
  flags = [*memory, '--total_environment_frames=80', f'--init_from={source}:{first.frames}']
  run = start(processes, folder, *flags)
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  values = begun_with(f'{folder}.npz')
  assert_weights_of(str(source / first.name), values)
  assert values['agent/observation_statistics/count'] == first.frames > 0


@pytest.mark.parametrize('flags, words', [
    (['--init_from=EARLIER', '--agent_name=MLPLSTMAgent'],
     ['agent_name MLPAgent', 'agent_name MLPLSTMAgent']),
    (['--init_from=EARLIER', '--level_name=MountainCar-v0'],
     ['observation float32 (4,), action 2 choices', 'observation float32 (2,), action 3 choices']),
    (['--init_from=EARLIER', '--observation_scaling=running'],
     ['observation_scaling unit', 'observation_scaling running']),
    (['--init_from=EARLIER', '--return_normalisation=popart'],
     ['return_normalisation none', 'return_normalisation popart']),
    (['--init_from=EARLIER:5'], ['none of 5 frames', 'those of 3072']),
    (['--init_from=EARLIER:best'], ['not known which is best', 'those of 3072']),
    (['--init_from=EARLIER:newest'], ['EARLIER:newest', 'no checkpoint', 'RUN:best']),
    (['--init_from=nowhere'], ['no checkpoint', 'nowhere']),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused_before_anything_is_made(tmp_path, flags, words):
  source = shutil.copytree(EARLIER, tmp_path / 'EARLIER')
  flags = [flag.replace('EARLIER', str(source)) for flag in flags]
  done = subprocess.run(
    [sys.executable, 'experiment.py', '--level_name=CartPole-v1', f'--logdir={tmp_path}/run',
     *flags],
    cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECS,
  )  # fmt: skip
  assert (done.returncode, done.stdout) == (2, ''), done.stderr
  (line,) = done.stderr.splitlines()
  assert line.startswith('experiment.py: --init_from=')
  for word in words:
    assert word.replace('EARLIER', str(source)) in line
  assert sorted(os.listdir(tmp_path)) == ['EARLIER']
  assert sorted(os.listdir(source)) == sorted(os.listdir(EARLIER))


def test_the_chief_of_a_cluster_begins_with_the_weights(new_cluster, tmp_path):  # noqa: F811
  cluster = new_cluster()
  record = tmp_path / 'found.npz'
  cluster.start('ps:0')
  cluster.start('actor:0', '--init_from=no/such/run')  # The chief's alone counts.
  cluster.start(
    'learner:0', '--level_name=CartPole-v1', '--agent_name=MLPAgent', f'--init_from={EARLIER}',
    '--total_environment_frames=1000',
    program=('tests/altered_experiment.py', f'recorded={record}'),
  )  # fmt: skip
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  assert 'new run from the weights of ' in cluster.tasks['learner:0'].output()
  assert_weights_of(f'{EARLIER}/model.ckpt-24', begun_with(record))
