"""TF_CONFIG says who is who as the flags do; what it cannot mean is refused in one sentence."""

import json
import subprocess
import sys

import pytest

from cluster_fixtures import ACTING, TRAINING
from conftest import eventually, free_ports
from runtime import cluster_file
from runtime.cluster_sources import Given, read
from runtime.process import BadInput

OPEN = Given([], [], [], '', -1)
HOSTS = {'ps': ['localhost:1'], 'learner': ['localhost:2'], 'actor': ['localhost:3']}
FLAGS = Given(*HOSTS.values(), 'learner', 0)


def environ(cluster=HOSTS, job='learner', index=0):
  return {'TF_CONFIG': json.dumps({'cluster': cluster, 'task': {'type': job, 'index': index}})}


@pytest.mark.parametrize('source', ['tf_config', 'auto'])
def test_tf_config_gives_the_cluster_of_the_same_flags(source):
  assert read(source, OPEN, environ()) == read('flags', FLAGS, {})


@pytest.mark.parametrize('source', ['tf_config', 'auto'])
def test_flags_that_agree_with_tf_config_are_taken(source):
  assert read(source, FLAGS, environ()).name == 'learner:0'


def test_hosts_of_tf_config_may_get_their_names_later():
  later = {**HOSTS, 'actor': ['not-yet.impala.test:3']}
  assert read('tf_config', OPEN, environ(later)).actor == ('not-yet.impala.test:3',)
  with pytest.raises(BadInput, match='does not resolve'):
    read('flags', Given(*later.values(), 'learner', 0), {})


def test_by_default_tf_config_is_not_looked_at():
  assert read('flags', OPEN, environ()).is_local
  assert read('auto', OPEN, {}).is_local


@pytest.mark.parametrize(
  'given, env, said',
  [
    (OPEN, {}, 'needs the environment variable TF_CONFIG'),
    (OPEN, {'TF_CONFIG': '{'}, 'TF_CONFIG is not JSON'),
    (OPEN, {'TF_CONFIG': '[]'}, "no object 'cluster'"),
    (OPEN, {'TF_CONFIG': json.dumps({'cluster': HOSTS})}, "no object 'task'"),
    (OPEN, environ({**HOSTS, 'chief': ['localhost:4']}), 'write "learner"'),
    (OPEN, environ({**HOSTS, 'worker': ['localhost:4']}), 'write "learner" or "actor"'),
    (OPEN, environ(job='master'), 'write "learner"'),
    (OPEN, environ(job='evaluator'), 'the jobs are ps, learner and actor'),
    (OPEN, environ(job=['ps']), 'the jobs are ps, learner and actor'),
    (OPEN, environ({**HOSTS, 'ps': 'localhost:1'}), 'not a list of "host:port"'),
    (OPEN, environ(index='0'), "task.index is '0'"),
    (OPEN, environ(index=True), 'task.index is True'),
    (OPEN, environ(index=1), 'TF_CONFIG: task.index=1 is outside TF_CONFIG: cluster.learner'),
    (OPEN, environ({**HOSTS, 'actor': []}), 'TF_CONFIG: cluster.actor is empty'),
    (OPEN, environ({**HOSTS, 'ps': ['localhost']}), "'localhost' is not host:port"),
    (OPEN, environ({**HOSTS, 'ps': ['localhost:2']}), 'localhost:2 appears twice'),
    (FLAGS._replace(task=1), environ(), '--task=1 contradicts TF_CONFIG, which has 0'),
    (FLAGS._replace(ps_hosts=['localhost:9']), environ(), '--ps_hosts=localhost:9 contradicts'),
  ],
)
def test_a_bad_tf_config_is_refused(given, env, said):
  with pytest.raises(BadInput) as e:
    read('tf_config', given, env)
  assert said in str(e.value)


def test_auto_refuses_flags_that_contradict_tf_config():
  with pytest.raises(BadInput, match='--task=1 contradicts TF_CONFIG, which has 0'):
    read('auto', FLAGS._replace(task=1), environ())


def test_actors_beyond_the_list_are_spare_ones_where_they_are_allowed():
  spare = read('flags', FLAGS._replace(job_name='actor', task=3, spare_actors=3), {})
  assert spare.is_spare and spare.name == 'actor:3' and spare.address('actor:3') == 'localhost:0'
  assert spare.address('actor:0') == 'localhost:3'
  listed = read('flags', FLAGS._replace(job_name='actor', task=0, spare_actors=3), {})
  assert not listed.is_spare and listed.address('actor:0') == 'localhost:3'
  assert read('tf_config', OPEN._replace(spare_actors=1), environ(job='actor', index=1)).is_spare
  for job, task in (('actor', 4), ('learner', 1)):
    with pytest.raises(BadInput, match=f'--task={task} is outside --{job}_hosts'):
      read('flags', FLAGS._replace(job_name=job, task=task, spare_actors=3), {})


def test_a_spare_actor_finds_a_run_by_its_folder(tmp_path):
  folder = str(tmp_path)
  cluster_file.write(folder, read('flags', FLAGS, {}))
  spare = read('run', OPEN._replace(task=0, logdir=folder), {})
  assert spare.is_spare and spare.name == 'actor:1' and spare.peers == ['ps:0', 'learner:0']
  assert spare.ps == ('localhost:1',)
  for wrong, said in (
    (OPEN._replace(task=0), '--cluster=run needs --logdir'),
    (OPEN._replace(logdir=folder), 'needs --task'),
    (OPEN._replace(task=0, logdir=folder, job_name='ps'), '--job_name=ps'),
    (
      OPEN._replace(task=0, logdir=folder, ps_hosts=['localhost:9']),
      '--ps_hosts=localhost:9 contr',
    ),
  ):
    with pytest.raises(BadInput, match=said):
      read('run', wrong, {})
  cluster_file.remove(folder)
  with pytest.raises(BadInput, match='no run of a cluster is under way here'):
    read('run', OPEN._replace(task=0, logdir=folder), {})
  (tmp_path / 'cluster.json').write_text('[]')
  with pytest.raises(BadInput, match='is no list of the hosts of a run'):
    read('run', OPEN._replace(task=0, logdir=folder), {})


def test_the_program_leaves_with_2_and_one_sentence():
  env = {'TF_CONFIG': '{', 'PATH': ''}
  command = [sys.executable, 'experiment.py', '--cluster=tf_config']
  done = subprocess.run(command, env=env, capture_output=True, text=True)
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert done.stderr.startswith('experiment.py: TF_CONFIG is not JSON')


@pytest.mark.cluster
def test_a_cluster_trains_to_the_end_from_tf_config_alone(processes, tmp_path):
  hosts = {job: [f'localhost:{port}'] for job, port in zip(HOSTS, free_ports(3), strict=True)}
  tasks = [
    processes.start(
      'experiment.py', '--cluster=tf_config', f'--logdir={tmp_path}/run',
      *{'ps': (), 'learner': (*TRAINING, '--total_environment_frames=1000'), 'actor': ACTING}[job],
      name=job, env=environ(hosts, job),
    )
    for job in hosts
  ]  # fmt: skip
  logs = lambda: '\n'.join(task.output()[-3000:] for task in tasks)  # noqa: E731
  eventually(lambda: all(task.poll() is not None for task in tasks), 240, logs)
  assert [task.returncode for task in tasks] == [0, 0, 0], logs()
