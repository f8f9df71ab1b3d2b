"""A cluster whose hosts share nothing but the network: own addresses, own disks."""

import os
import signal
import sys

import pytest

from cluster_fixtures import LIMIT_SECS, Cluster, all_zero, assert_no_step_back_beyond
from conftest import ROOT, eventually
from network_fixtures import network  # noqa: F401
from roles.filling import HELD

SAVE_SECS = 2
FLAGS = ['--total_environment_frames=10000000', f'--save_checkpoint_secs={SAVE_SECS}']


class NetworkCluster(Cluster):
  """One parameter server, one learner, one actor, each on its own host with its own /tmp."""

  HOSTS = {'ps': 1, 'learner': 2, 'actor': 3}

  def __init__(self, processes, hosts):
    super().__init__(processes, '/tmp/cluster', flags=['--watchdog_secs=120'])
    self._network, self._logdir_there = hosts, self.logdir
    self.logdir = self.folder_of('learner')
    for job, number in self.HOSTS.items():
      port = self.hosts[job][0].rpartition(':')[2]
      self.hosts[job] = [f'{hosts.ADDRESSES[number]}:{port}']

  def folder_of(self, job):
    """Where this process sees the --logdir of a job's host."""
    return self._network.path(self.HOSTS[job], self._logdir_there)

  def start(self, name, *extra):
    """Starts a task on its host."""
    there = self._network.inside(self.HOSTS[name.split(':')[0]], ROOT)
    return super().start(name, *extra, program=(*there, sys.executable, 'experiment.py'))


@pytest.mark.parametrize('victim', ['learner:0', 'ps:0'])
def test_a_run_resumes_from_the_disk_of_the_chief_alone(processes, network, victim):  # noqa: F811
  cluster = NetworkCluster(processes, network)
  cluster.start_all(learner=FLAGS)
  cluster.until_frames(1000)
  saved = cluster.checkpoint()
  eventually(lambda: cluster.checkpoint() > saved, LIMIT_SECS, cluster.logs)
  cluster.kill(victim)
  before, goal = len(cluster.rows()), cluster.frames() + 2000
  cluster.start(victim, *(FLAGS if victim == 'learner:0' else ()))
  eventually(lambda: len(cluster.rows()) > before and cluster.frames() > goal, LIMIT_SECS,
             cluster.logs)  # fmt: skip
  origin = HELD if victim == 'learner:0' else '/tmp/cluster/run/model.ckpt-'
  assert f'resumed from {origin}' in cluster.tasks['learner:0'].output()
  assert_no_step_back_beyond(cluster.rows(), SAVE_SECS)
  os.kill(cluster.tasks['learner:0'].pid, signal.SIGTERM)
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  assert cluster.frames_in_checkpoint() == int(cluster.rows()[-1]['environment_frames'])
  for job in ('ps', 'actor'):
    assert not os.path.exists(cluster.folder_of(job))
  network.command(2, 'rm', '-r', '/tmp/cluster')
