"""Cluster CSVs to tasks and hosts, and every mistake in them."""

import os

import pytest

import conftest
from frontend import cluster, cluster_csv

HEADER = (
  'job,ip,tf_port,cuda_visible_devices,ssh_port,ssh_username,workdir,python,flags,cpus,'
  'memory,slots\n'
)
GOOD = 'job,ip,tf_port\nps,10.0.0.1,8000\nlearner,10.0.0.1,8001\nactor,10.0.0.2,9000\n'
REST = 'ps,10.0.0.8,1\nlearner,10.0.0.8,2\nactor,10.0.0.8,3\n'


def test_one_row_a_task_numbered_per_job():
  tasks = cluster_csv.parse_cluster(
    HEADER
    + 'actor,10.0.0.2,9000,,2222,ann,/w,/p,--envs_per_actor=128 "--level_name=a b"\n'
    + '# a comment with a quote " and a comma,\n\n  # another\n'
    + 'ps,10.0.0.1,8000\nactor,10.0.0.3,9001\n,,,\nlearner,10.0.0.1,8001,"0,1"\n'
    + 'learner,fd00::1,8001,\nlearner,10.0.0.4,1,-1',
    'c.csv',
  ).tasks
  assert [cluster.task_name(task) for task in tasks] == [
    'actor-0', 'ps-0', 'actor-1', 'learner-0', 'learner-1', 'learner-2']  # fmt: skip
  assert tasks[0] == cluster.Task(
    'actor', 0, '10.0.0.2', 9000, '', 2222, 'ann', '/w', '/p',
    ['--envs_per_actor=128', '--level_name=a b'], 2)  # fmt: skip
  # Empty: no GPU for ps and actors, all for learners; -1: none.
  assert [task.cuda_visible_devices for task in tasks] == ['', '', '', '0,1', None, '']
  assert [task.line for task in tasks] == [2, 6, 7, 9, 10, 11]


@pytest.mark.parametrize('mark', [';', '\t'])
def test_cells_may_stand_between_semicolons_or_tabs(mark):
  """As programs save them in countries where a comma is the decimal point."""
  text = (
    (
      'sep=,\n# mine, and yours\njob,ip,tf_port,cuda_visible_devices,flags\nps,10.0.0.1,8000\n'
      'learner,10.0.0.1,8001,"0,1"\n'
    )
    .replace(',', mark)
    .replace('"0' + mark + '1"', '0,1')
  )
  text += mark.join(['actor', '10.0.0.2', '9000', '', '"--seed=1 --level_name=a,b"'])
  tasks = cluster_csv.parse_cluster(text, 'c.csv').tasks
  assert [cluster.task_name(task) for task in tasks] == ['ps-0', 'learner-0', 'actor-0']
  assert tasks[1].cuda_visible_devices == '0,1'
  assert tasks[2].flags == ['--seed=1', '--level_name=a,b']
  assert cluster_csv.parse_cluster(GOOD, 'c.csv').tasks[0].ip == '10.0.0.1'


def test_rows_of_one_machine_are_one_host():
  hosts = cluster_csv.parse_cluster(GOOD, 'c.csv').hosts
  assert [(host.address, len(host.tasks)) for host in hosts] == [('10.0.0.1', 2), ('10.0.0.2', 1)]


def test_the_original_format_without_a_password():
  text = 'job,ip,tf_port,cuda_visible_devices,ssh_port,ssh_username,ssh_password\n' + ''.join(
    f'{job},10.0.0.1,{port},,22,ann,\n' for job, port in (('ps', 1), ('learner', 2), ('actor', 3))
  )
  assert cluster_csv.parse_cluster(text, 'c.csv').tasks[0].ssh_username == 'ann'


def test_the_example_file():
  described = cluster_csv.read_cluster(os.path.join(conftest.ROOT, 'local_cluster_example.csv'))
  assert [task.job for task in described.tasks] == ['ps'] + 2 * ['learner'] + 5 * ['actor']
  assert len(described.hosts) == 1


def test_two_learners_that_would_take_the_same_gpus():
  described = cluster_csv.parse_cluster(GOOD + 'learner,10.0.0.1,8002\n', 'c.csv')
  assert described.warnings == (
    '2 learners on 10.0.0.1 would each take all its GPUs; give each its own cuda_visible_devices',
  )
  assert not cluster_csv.parse_cluster(GOOD, 'c.csv').warnings


COLUMN_LIST = HEADER.strip().replace(',', ', ')
BAD_FILES = [
  # (text, every mistake)
  ('', ['c.csv is empty; its first line is ' + HEADER.strip()]),
  ('# only this\n', ['c.csv is empty; its first line is ' + HEADER.strip()]),
  (
    'job,ip,port\n' + REST,
    [f"c.csv line 1: 'port' is not a column ({COLUMN_LIST}); did you mean 'tf_port'?",
     "c.csv line 1: column 'tf_port' is missing"],
  ),
  (
    'job,ip,tf_port,worKdir\n' + REST,
    [f"c.csv line 1: 'worKdir' is not a column ({COLUMN_LIST}); did you mean 'workdir'?"],
  ),
  ('job,ip,tf_port,ip\n' + REST, ["c.csv line 1: column 'ip' is there 2 times; keep one"]),
  (
    'job,ip,tf_port\n' + REST + 'lerner,10.0.0.9,4\n',
    ["c.csv line 5, column job: 'lerner' is not a job (ps, learner or actor); "
     "did you mean 'learner'?"],
  ),
  (
    'job,ip,tf_port\n# comment\n' + REST + 'actor,10.0.0.9,abc\n',
    ["c.csv line 6, column tf_port: 'abc' is not a port (1-65535)"],
  ),
  (
    'job,ip,tf_port\n' + REST + 'actor,10.0.0.9,65536\nactor,10.0.0.9,0\nactor,10.0.0.9\n',
    ["c.csv line 5, column tf_port: '65536' is not a port (1-65535)",
     "c.csv line 6, column tf_port: '0' is not a port (1-65535)",
     "c.csv line 7, column tf_port: '' is not a port (1-65535)"],
  ),
  (
    'job,ip,tf_port\n' + REST + 'actor,10.0.0.9:99,4\n',
    ["c.csv line 5, column ip: '10.0.0.9:99' is not an address or a host name (the port has its "
     'own column)'],
  ),
  (
    'job,ip,tf_port\n' + REST + 'actor,-oProxyCommand=x,4\n',
    ["c.csv line 5, column ip: '-oProxyCommand=x' is not an address or a host name (the port has "
     'its own column)'],
  ),
  (
    'job,ip,tf_port\n' + REST + 'actor,a..b,4\n',
    ["c.csv line 5, column ip: 'a..b' is not an address or a host name (the port has its own "
     'column)'],
  ),
  (
    'job,ip,tf_port\n' + REST + 'actor,fe80::1%$(x),4\nactor,0.0.0.0,5\nactor,1::2::3,5\n',
    ["c.csv line 5, column ip: 'fe80::1%$(x)' is not an address or a host name (the port has its "
     'own column)',
     "c.csv line 6, column ip: '0.0.0.0' is no address that others can reach",
     "c.csv line 7, column ip: '1::2::3' is not an address or a host name (the port has its own "
     'column)'],
  ),
  (
    'job,ip,tf_port\n' + REST + 'actor,10.0.0.8,3\n',
    ['c.csv line 5, column tf_port: 3 on 10.0.0.8 is taken by line 4; give each task of a host its '
     'own port'],
  ),
  (
    'job,ip,tf_port\nps,localhost,1\nlearner,127.0.0.1,1\nactor,localhost,2\n',
    ['c.csv line 3, column tf_port: 1 on 127.0.0.1 is taken by line 2; give each task of a host '
     'its own port'],
  ),
  (
    'job,ip,tf_port\nps,a,1\nlearner,a,2\n',
    ['c.csv: no row has job actor; a cluster needs at least one'],
  ),
  (
    'job,ip,tf_port\n',
    [f'c.csv: no row has job {job}; a cluster needs at least one'
     for job in ('ps', 'learner', 'actor')],
  ),
  (
    'job,ip,tf_port\nps,localhost,1\nlearner,10.0.0.1,2\nactor,10.0.0.1,3\n',
    ["c.csv line 2, column ip: 'localhost' means another machine on every host; give the address "
     'at which the others reach it'],
  ),
  (
    'job,ip,tf_port,cuda_visible_devices\n' + REST + 'actor,10.0.0.9,4,GPU 0\n',
    ["c.csv line 5, column cuda_visible_devices: 'GPU 0' is not a list of GPUs (for example 0, or "
     '"0,1" in quotes; -1 for none)'],
  ),
  (
    'job,ip,tf_port,cuda_visible_devices\n' + REST + 'learner,10.0.0.9,4,0,1\n',
    ['c.csv line 5: 5 cells for 4 columns (a cell that holds a comma needs quotes)'],
  ),
  (
    'job,ip,tf_port,ssh_port\n' + REST + 'actor,10.0.0.9,4,ssh\n',
    ["c.csv line 5, column ssh_port: 'ssh' is not a port (1-65535)"],
  ),
  (
    'job,ip,tf_port,ssh_username\n' + REST + 'actor,10.0.0.9,4,-oX\n',
    ["c.csv line 5, column ssh_username: '-oX' is not a user name"],
  ),
  (
    'job,ip,tf_port,ssh_password\n' + REST + 'actor,10.0.0.9,4,hunter2\n',
    ['c.csv line 5, column ssh_password: passwords are not accepted; use an SSH key or agent '
     '(ssh-copy-id 10.0.0.9 puts your key there) and leave this cell empty'],
  ),
  (
    'job,ip,tf_port,workdir,python\n' + REST + 'actor,10.0.0.9,4,"/a\nb",-c\n',
    ["c.csv line 5, column workdir: '/a\\nb' is not a path (no control characters, no \"-\" in "
     'front)',
     "c.csv line 5, column python: '-c' is not a path (no control characters, no \"-\" in front)"],
  ),
  (
    'job,ip,tf_port,workdir\n' + REST + 'actor,10.0.0.9,4,/a\nactor,10.0.0.9,5,/b\n',
    ["c.csv line 6, column workdir: '/b' differs from '/a' on line 5, and both are on 10.0.0.9"],
  ),
  (
    'job,ip,tf_port,flags\n' + REST + "actor,10.0.0.9,4,--a='\nactor,10.0.0.9,5,128\n",
    ['c.csv line 5, column flags: "--a=\'" cannot be split into flags: No closing quotation',
     "c.csv line 6, column flags: '128' does not start with a flag such as --envs_per_actor=128"],
  ),
  (
    'job,ip,tf_port,flags\n' + REST + 'actor,10.0.0.9,4,--task=3\n',
    ['c.csv line 5, column flags: --task follows from the cluster CSV and cannot be given as well'],
  ),
  ('job,ip,tf_port\nps,"10.0.0.1"x,2\n', ["c.csv line 2: not CSV: ',' expected after '\"'"]),
  # Many mistakes, one report.
  (
    'job,ip,tf_port,speed\nps,10.0.0.1,x\nboss,10.0.0.1,2\nlearner,?,2\n',
    [f"c.csv line 1: 'speed' is not a column ({COLUMN_LIST})",
     "c.csv line 2, column tf_port: 'x' is not a port (1-65535)",
     "c.csv line 3, column job: 'boss' is not a job (ps, learner or actor)",
     "c.csv line 4, column ip: '?' is not an address or a host name (the port has its own column)",
     'c.csv: no row has job actor; a cluster needs at least one'],
  ),
]  # fmt: skip


@pytest.mark.parametrize('text,mistakes', BAD_FILES)
def test_every_mistake_is_reported_at_once(text, mistakes):
  with pytest.raises(cluster_csv.ClusterError) as caught:
    cluster_csv.parse_cluster(text, 'c.csv')
  assert caught.value.mistakes == mistakes


def test_a_file_that_cannot_be_read(tmp_path):
  with pytest.raises(cluster_csv.ClusterError, match=r'=/nowhere\.csv: No such file'):
    cluster_csv.read_cluster('/nowhere.csv')
  path = tmp_path / 'picture.csv'
  path.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(cluster_csv.ClusterError, match='not a text file in UTF-8'):
    cluster_csv.read_cluster(path)


def test_a_spreadsheet_with_byte_order_mark_and_carriage_returns(tmp_path):
  path = tmp_path / 'c.csv'
  path.write_bytes(b'\xef\xbb\xbf' + GOOD.replace('\n', '\r\n').encode())
  assert cluster_csv.read_cluster(path).tasks == cluster_csv.parse_cluster(GOOD, 'c.csv').tasks


@pytest.mark.parametrize(
  'ssh_port, tf_port, refused',
  [('', 22, True), ('2222', 2222, True), ('2222', 22, False), ('', 2222, False)],
)
def test_a_task_at_the_port_of_ssh(ssh_port, tf_port, refused):
  text = (
    f'job,ip,tf_port,ssh_port\nps,a,7000,{ssh_port}\nlearner,b,{tf_port},{ssh_port}\n'
    f'actor,c,7000,{ssh_port}\n'
  )
  if not refused:
    assert len(cluster_csv.parse_cluster(text, 'c.csv').tasks) == 3
    return
  with pytest.raises(cluster_csv.ClusterError) as info:
    cluster_csv.parse_cluster(text, 'c.csv')
  assert info.value.mistakes == [
    f'c.csv line 3, column tf_port: {tf_port} is the port of SSH on b; give the task another one'
  ]
