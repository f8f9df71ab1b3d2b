"""Tasks to names and command lines."""

import shlex

import pytest

from frontend import cluster, cluster_csv
from frontend.errors import UserError

HEADER = 'job,ip,tf_port,cuda_visible_devices,ssh_port,ssh_username,workdir,python,flags\n'


def test_the_command_line_of_a_task():
  described = cluster_csv.parse_cluster(
    HEADER + 'ps,10.0.0.1,8000\nlearner,fd00::1,8001\nactor,10.0.0.2,9000,,,,,,--seed=7\n', 'c.csv'
  )
  training = ['--batch_size', '4', '--flagfile=x y', '--seed=1']
  arguments = cluster.task_arguments(described, described.tasks[2], training)
  assert arguments == [
    '--ps_hosts=10.0.0.1:8000', '--learner_hosts=[fd00::1]:8001', '--actor_hosts=10.0.0.2:9000',
    '--job_name=actor', '--task=0', *training, '--seed=7']  # fmt: skip
  assert cluster.task_environment(described.tasks[0]) == {'CUDA_VISIBLE_DEVICES': ''}
  assert cluster.task_environment(described.tasks[1]) == {'CUDA_VISIBLE_DEVICES': None}


HOSTILE = '\'";\n$(touch x)`touch x`&& || > < \\ #'


def test_hostile_flags_stay_single_arguments():
  cell = shlex.quote('--level_name=' + HOSTILE).replace('"', '""')
  text = HEADER + f'ps,a,1\nlearner,a,2\nactor,b,3,,,,,,"{cell}"\n'
  described = cluster_csv.parse_cluster(text, 'c.csv')
  arguments = cluster.task_arguments(described, described.tasks[2], ['--logdir=' + HOSTILE])
  assert arguments[-2:] == ['--logdir=' + HOSTILE, '--level_name=' + HOSTILE]


@pytest.mark.parametrize('text', ['learner:0', 'learner-0', 'learner:00'])
def test_task_names(text):
  assert cluster.parse_task_name(text) == 'learner-0'


@pytest.mark.parametrize(
  'text', ['', '0', 'learner', 'boss:0', 'learner:0\n', 'learner:x', 'ps:-1']
)
def test_bad_task_names(text):
  with pytest.raises(UserError, match='is not a task: write for example --task=learner:0'):
    cluster.parse_task_name(text)


@pytest.mark.parametrize(
  'arguments,name',
  [(['--task=1'], 'task'), (['-job_name', 'ps'], 'job_name'), (['--state_dir=/x'], 'state_dir')],
)
def test_what_the_csv_decides_cannot_be_a_flag(arguments, name):
  assert cluster.placement_problem(['--seed=1', *arguments]).startswith(f'--{name} follows from')
  assert cluster.placement_problem(['--seed', 'task', '--tasks=1']) is None
