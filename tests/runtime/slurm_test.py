"""A task of a Slurm step works out who is who, and refuses in one sentence what it cannot mean."""

import socket
import subprocess
import sys

import pytest

from conftest import ROOT
from runtime import slurm
from runtime.cluster_sources import Given, read
from runtime.process import BadInput, RunFailed

JOB = 21  # Its ports are none that conftest.free_ports gives to other tests.
OPEN = Given([], [], [], '', -1)
NAMES = {'n[08-09]': ['n08', 'n09'], 'localhost': ['localhost']}


def environ(rank=0, node=0, counts='3,2', nodes='n[08-09]', job_id=JOB, **more):
  return {
    'SLURM_JOB_ID': str(job_id),
    'SLURM_PROCID': str(rank),
    'SLURM_NODEID': str(node),
    'SLURM_STEP_NODELIST': nodes,
    'SLURM_STEP_TASKS_PER_NODE': counts,
    **more,
  }


def step(rank=0, node=0, **more):
  return slurm.read_step(environ(rank, node, **more), NAMES.__getitem__)


@pytest.mark.parametrize(
  'text, counts', [('4', [4]), ('2(x3),1', [2, 2, 2, 1]), ('1,2(x2),10', [1, 2, 2, 10])]
)
def test_tasks_per_node(text, counts):
  assert slurm.tasks_per_node(text) == counts


@pytest.mark.parametrize('text', ['', '2,', '2(3)', '2(x3', 'a', '-1'])
def test_no_tasks_per_node(text):
  with pytest.raises(BadInput, match='not a list such as'):
    slurm.tasks_per_node(text)


def test_every_task_computes_the_same_cluster_and_its_own_place():
  places = []
  for rank, node in enumerate([0, 0, 0, 1, 1]):
    jobs, job, task = slurm.jobs_of(step(rank, node), 1, 2)
    places.append(f'{job}:{task}')
    first = slurm.port(JOB, 0)
    assert jobs == {
      'ps': [f'n08:{first}'],
      'learner': [f'n08:{first + 1}', f'n08:{first + 2}'],
      'actor': [f'n09:{first + 3}', f'n09:{first + 4}'],
    }
  assert places == ['ps:0', 'learner:0', 'learner:1', 'actor:0', 'actor:1']


def test_no_two_tasks_of_jobs_at_the_same_time_have_one_port():
  for first in (1, 1000, 12_345_678):
    ports = [slurm.port(job, rank) for job in range(first, first + 20) for rank in range(256)]
    assert len(set(ports)) == len(ports)
    assert min(ports) >= 12_000 and max(ports) < 32_000


@pytest.mark.parametrize(
  'change, said',
  [
    ({'SLURM_PROCID': ''}, 'needs SLURM_PROCID, which srun sets'),
    ({'SLURM_JOB_ID': '7a'}, "SLURM_JOB_ID is '7a', not a number"),
    ({'SLURM_PROCID': '5', 'SLURM_NODEID': '1'}, 'SLURM_PROCID=5 is outside this step'),
    ({'SLURM_PROCID': '1', 'SLURM_NODEID': '1'}, 'srun --distribution=block'),
    ({'SLURM_STEP_TASKS_PER_NODE': '5'}, 'has 2 nodes, SLURM_STEP_TASKS_PER_NODE 1'),
  ],
)
def test_a_step_that_cannot_be_is_refused(change, said):
  with pytest.raises(BadInput) as e:
    slurm.read_step({**environ(), **change}, NAMES.__getitem__)
  assert said in str(e.value)


@pytest.mark.parametrize('num_ps, num_learners', [(1, 3), (3, 2), (5, 1), (9, 1)])
def test_too_few_tasks_for_all_are_refused(num_ps, num_learners):
  with pytest.raises(BadInput) as e:
    slurm.jobs_of(step(), num_ps, num_learners)
  assert f'at least {num_ps + 2 * num_learners} tasks' in str(e.value)


@pytest.mark.parametrize(
  'rank, node, job, more, gpus',
  [
    (0, 0, 'ps', {'CUDA_VISIBLE_DEVICES': '0,1,2'}, ''),
    (3, 1, 'actor', {'CUDA_VISIBLE_DEVICES': '0,1,2'}, ''),
    (1, 0, 'learner', {'CUDA_VISIBLE_DEVICES': '0,1,2'}, '0,2'),
    (2, 0, 'learner', {'CUDA_VISIBLE_DEVICES': '0,1,2'}, '1'),
    (2, 0, 'learner', {'CUDA_VISIBLE_DEVICES': '5'}, '5'),
    (2, 0, 'learner', {}, None),
    (2, 0, 'learner', {'CUDA_VISIBLE_DEVICES': '0', 'SLURM_GPUS_PER_TASK': '1'}, None),
  ],
)
def test_the_learners_of_a_node_share_its_gpus(rank, node, job, more, gpus):
  assert slurm.visible_gpus(more, step(rank, node), job, 1, 2) == gpus


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
  """Puts a program in the place of scontrol, which then is the only one to be found."""

  def put(script):
    program = tmp_path / 'scontrol'
    program.write_text(f'#!/bin/sh\n{script}\n')
    program.chmod(0o755)

  monkeypatch.setenv('PATH', str(tmp_path))
  return put


def test_the_cluster_of_a_step(scontrol):
  scontrol('[ "$*" = "show hostnames localhost" ] && echo localhost')
  env = environ(1, counts='4', nodes='localhost', CUDA_VISIBLE_DEVICES='0')
  cluster = read('slurm', OPEN, env)
  assert (cluster.name, len(cluster.actor)) == ('learner:0', 2)
  assert read('auto', OPEN, env) == cluster
  assert cluster.visible_gpus == '0'
  env['SLURM_PROCID'] = '3'
  actor = read('slurm', OPEN._replace(slurm_learners=1), env)
  assert actor.name == 'actor:1'
  assert actor.visible_gpus == ''
  assert env['CUDA_VISIBLE_DEVICES'] == '0'  # Reading changes nothing.
  flags = Given(['localhost:1'], ['localhost:2'], ['localhost:3'], 'learner', 0)
  assert read('auto', flags, env).ps == ('localhost:1',)
  with pytest.raises(BadInput, match='--task=0 contradicts Slurm, which has 1'):
    read('slurm', OPEN._replace(task=0), env)


def test_a_taken_port_is_no_mistake_of_the_user(scontrol):
  scontrol('echo localhost')
  with socket.socket() as stranger:
    stranger.bind(('', 0))
    stranger.listen()
    taken = stranger.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(slurm, 'port', lambda job_id, rank: taken + rank)
      with pytest.raises(RunFailed, match=f'port {taken} .* is in use .*another job'):
        read('slurm', OPEN, environ(counts='3', nodes='localhost'))


def test_scontrol_that_is_missing_or_fails(scontrol):
  with pytest.raises(BadInput, match='asks scontrol .* cannot be run here: No such file'):
    slurm.expand_node_list('n[1-2]')
  scontrol('echo no configuration >&2; exit 1')
  with pytest.raises(BadInput, match=r'n\[1-2\] exited 1 and said: no configuration'):
    slurm.expand_node_list('n[1-2]')


@pytest.mark.parametrize('env', [{}, environ()], ids=['no step', 'no scontrol'])
def test_the_program_leaves_with_2_and_one_sentence(env):
  command = [sys.executable, 'experiment.py', '--cluster=slurm']
  done = subprocess.run(
    command, env={'PATH': '', **env}, capture_output=True, text=True, cwd=ROOT, timeout=60
  )
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert done.stderr.startswith('experiment.py: --cluster=slurm ')
