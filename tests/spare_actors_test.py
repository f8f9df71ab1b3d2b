"""Actors come and go: those that are listed but not up, and those that nobody has listed.

Real processes. A spare actor listens at a port that the system chose and that no task was told, so
each of its unrolls is proof that nobody needs its address.
"""

import os
import signal
import subprocess
import sys

import throttled_env
from cluster_fixtures import ACTING, LIMIT_SECS, all_zero, new_cluster  # noqa: F401 (a fixture)
from conftest import ROOT, eventually

THROTTLED = '--level_name=throttled_env:ThrottledCatch-v0'
TOTAL = 16_000


def start_spare(cluster, task, *place):
  """A spare actor; by default it finds the run by its folder."""
  where = place or ('--cluster=run', f'--logdir={cluster.logdir}')
  name = f'spare:{task}'
  cluster.tasks[name] = cluster.processes.start(
    'experiment.py', *where, f'--task={task}', *ACTING, name=f'spare{task}', env=cluster.env
  )
  return name


def connected(cluster):
  """How many actors the chief last said are there, None before it said so."""
  said = cluster.tasks['learner:0'].output().rpartition('  connected ')[2].split()
  return int(said[0]) if said and said[0].isdigit() else None


def until_connected(cluster, number):
  eventually(lambda: connected(cluster) == number, LIMIT_SECS, cluster.logs)


def test_actors_join_a_run_and_leave_it_and_it_ends_with_all(new_cluster, tmp_path):  # noqa: F811
  env = {'PYTHONPATH': os.path.join(ROOT, 'tests'), throttled_env.OPEN: str(tmp_path / 'open')}
  cluster = new_cluster(actor=2, env=env)
  learner = ['--metrics_secs=0.5', f'--total_environment_frames={TOTAL}', THROTTLED]
  cluster.start('ps:0')
  cluster.start('learner:0', *learner)
  cluster.start('actor:0')  # actor:1 is listed as well.
  until_connected(cluster, 1)

  leaver, killed = start_spare(cluster, 0), start_spare(cluster, 1)
  until_connected(cluster, 3)
  cluster.tasks[leaver].send_signal(signal.SIGTERM)
  eventually(lambda: cluster.tasks[leaver].poll() == 0, LIMIT_SECS, cluster.logs)
  cluster.kill(killed)
  lists = [f'--{job}_hosts={",".join(hosts)}' for job, hosts in cluster.hosts.items()]
  stays = start_spare(cluster, 7, *lists, '--job_name=actor', '--spare_actors=8')
  until_connected(cluster, 2)  # actor:0 and the one that came last.

  frames = cluster.frames()
  cluster.until_frames(frames + 500)
  cluster.kill('ps:0')  # It forgets who is there.
  cluster.start('ps:0')
  cluster.start('actor:1')
  until_connected(cluster, 3)
  (tmp_path / 'open').touch()
  del cluster.tasks[killed]
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  assert f'{stays.replace("spare", "actor")} leaves: the run is done' in (
    cluster.tasks[stays].output()
  )
  assert not os.path.exists(os.path.join(cluster.logdir, 'cluster.json'))


def test_a_folder_without_a_run_to_join_is_one_sentence(tmp_path):
  done = subprocess.run(
    [sys.executable, 'experiment.py', '--cluster=run', f'--logdir={tmp_path}', '--task=0'],
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert 'no run of a cluster is under way here' in done.stderr
