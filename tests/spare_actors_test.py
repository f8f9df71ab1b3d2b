"""Actors come and go: those that are listed but not up, and those that nobody has listed.

Real processes. A spare actor listens at a port that the system chose and that no task was told, so
each of its unrolls is proof that nobody needs its address.
"""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from cluster_fixtures import (  # noqa: F401 (new_cluster is a fixture)
  ACTING,
  LIMIT_SECS,
  all_zero,
  connected_actors,
  new_cluster,
  throttled_cluster,
)
from conftest import eventually

TOTAL = 8_000


def start_spare(cluster, task, *place):
  """A spare actor; by default it finds the run by its folder."""
  where = place or ('--cluster=run', f'--logdir={cluster.logdir}')
  name = f'spare:{task}'
  cluster.tasks[name] = cluster.processes.start(
    'experiment.py', *where, f'--task={task}', *ACTING, name=f'spare{task}', env=cluster.env
  )
  return name


def listening_ports(process):
  """The ports of TCP at which a process lets somebody in."""
  found = psutil.Process(process.pid).net_connections('inet')
  return [one.laddr.port for one in found if one.status == 'LISTEN']


def until_connected(cluster, number):
  chief = cluster.tasks['learner:0']
  eventually(lambda: connected_actors(chief.output()) == number, LIMIT_SECS, cluster.logs)


@pytest.mark.timeout(580)  # Six starts and a recovery on a busy machine; alone about two minutes.
def test_actors_join_a_run_and_leave_it_and_it_ends_with_all(new_cluster, tmp_path):  # noqa: F811
  cluster = throttled_cluster(new_cluster, tmp_path, actor=2)
  learner = ['--metrics_secs=0.5', f'--total_environment_frames={TOTAL}']
  cluster.start('ps:0')
  cluster.start('learner:0', *learner)
  cluster.start('actor:0')  # actor:1 is listed as well.
  until_connected(cluster, 1)

  leaver, killed = start_spare(cluster, 0), start_spare(cluster, 1)
  until_connected(cluster, 3)
  assert [listening_ports(cluster.tasks[name]) for name in ('actor:0', leaver, killed)] == 3 * [[]]
  assert len(listening_ports(cluster.tasks['ps:0'])) == 1
  cluster.tasks[leaver].send_signal(signal.SIGTERM)
  eventually(lambda: cluster.tasks[leaver].poll() == 0, LIMIT_SECS, cluster.logs)
  cluster.kill(killed)
  lists = [f'--{job}_hosts={",".join(hosts)}' for job, hosts in cluster.hosts.items()]
  stays = start_spare(cluster, 7, *lists, '--job_name=actor', '--spare_actors=8')
  until_connected(cluster, 2)  # actor:0 and the one that came last.

  frames = cluster.frames()
  cluster.until_frames(frames + 250)
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


@pytest.mark.timeout(400)
def test_a_spare_actor_waits_for_the_next_life_of_the_chief_and_hears_of_the_end(
  new_cluster,  # noqa: F811
  tmp_path,
):
  cluster = throttled_cluster(new_cluster, tmp_path, actor=1)
  cluster.start('ps:0')
  chief = cluster.start('learner:0', '--wait_secs=2')
  eventually(lambda: 'new run; learns on' in chief.output(), LIMIT_SECS, cluster.logs)
  cluster.kill('ps:0')
  assert chief.exit_code(LIMIT_SECS) == 1, cluster.logs()
  spare = cluster.tasks[start_spare(cluster, 4)]
  waits = f'actor:5 is waiting for ps:0 at {cluster.hosts["ps"][0]}'
  eventually(lambda: waits in spare.output(), LIMIT_SECS, cluster.logs)
  own = [cluster.start('ps:0'), cluster.start('learner:0', '--metrics_secs=0.5')]
  own.append(cluster.start('actor:0'))
  until_connected(cluster, 2)
  spare.send_signal(signal.SIGSTOP)  # It is slow to look.
  for task in own:  # As scancel does with a job of Slurm.
    task.send_signal(signal.SIGTERM)
  _, learner, actor = own
  eventually(lambda: [learner.poll(), actor.poll()] == [0, 0], LIMIT_SECS, cluster.logs)
  spare.send_signal(signal.SIGCONT)
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  assert 'actor:5 leaves: the run is done' in spare.output(), cluster.logs()
  assert 'could not deregister' not in spare.output(), cluster.logs()  # ps:0 was still there.


def test_a_folder_without_a_run_to_join_is_one_sentence(tmp_path):
  done = subprocess.run(
    [sys.executable, 'experiment.py', '--cluster=run', f'--logdir={tmp_path}', '--task=0'],
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert 'no run of a cluster is under way here' in done.stderr
