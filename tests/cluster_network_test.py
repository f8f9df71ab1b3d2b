"""A cluster whose hosts share nothing but the network, and that vanish without a word.

Their cables are pulled, so that nothing that they send, not even that a process has ended, arrives.
"""

import json
import os
import re
import signal
import time

import pytest

from cluster_fixtures import LIMIT_SECS, Cluster, all_zero, assert_no_step_back_beyond
from conftest import eventually
from network_fixtures import Network
from roles.initialization import KEPT

HOSTS = {'ps:0': 1, 'learner:0': 2, 'learner:1': 3, 'actor:0': 4, 'actor:1': 5, 'actor:2': 6}
SAVE_SECS = 2
FLAGS = ['--total_environment_frames=1000000000', '--sync_learners=false']
NAMED_SECS = 30.0  # Within these the others say who does not answer.


@pytest.fixture
def hosts():
  """A running `Network` with a host for each task."""
  made = Network(len(HOSTS))
  try:
    yield made.start()
  finally:
    made.close()


class NetworkCluster(Cluster):
  """A parameter server, two learners, three actors, each on its own host with its own /tmp."""

  def __init__(self, processes, hosts):
    super().__init__(processes, '/tmp/cluster', learner=2, actor=3, flags=['--watchdog_secs=120'])
    self._network, self._logdir_there, self._state_there = hosts, self.logdir, self.state_dir
    self.logdir = self.folder_of('learner:0')
    for name, number in HOSTS.items():
      job, task = name.split(':')
      port = self.hosts[job][int(task)].rpartition(':')[2]
      self.hosts[job][int(task)] = f'{hosts.ADDRESSES[number]}:{port}'

  def folder_of(self, name):
    """Where this process sees the --logdir of a task's host."""
    return self._network.path(HOSTS[name], self._logdir_there)

  def start(self, name, *extra):
    """Starts a task on its host."""
    flags = [*FLAGS, f'--save_checkpoint_secs={SAVE_SECS}'] if name.startswith('learner') else []
    return super().start(name, *flags, *extra, inside=self._network.pid(HOSTS[name]))

  def pull_plug(self, name):
    """The task's host vanishes; nobody hears why."""
    self._network.pull_plug(HOSTS[name])

  def plug_in(self, name):
    """The host is back, with the same process."""
    self._network.plug_in(HOSTS[name])

  def boot(self, name):
    """The vanished host is back after another boot, and its task is started again."""
    self.kill(name)
    self.plug_in(name)
    self.start(name)

  def silent(self, name):
    """Who does not answer, as a task's state file says: {task: since when}."""
    place = self._state_there, name.replace(':', '-') + '.json'
    with open(self._network.path(HOSTS[name], os.path.join(*place))) as file:
      return json.load(file)['no_answer']

  def until_named(self, name, *silent):
    """Until a task, with a state file and in its log, names others."""
    began, said = time.time(), self.tasks[name].output

    def named():
      return all(other in self.silent(name) for other in silent)

    eventually(named, NAMED_SECS, self.logs)
    for other in silent:
      assert abs(self.silent(name)[other] - began) < NAMED_SECS
      assert re.search(rf'{other} at 10\S+ does not answer since \d\d:\d\d:\d\d', said()), said()

  def until_it_goes_on(self, frames=200):
    """Until so many more frames have been trained on than now."""
    before, goal = len(self.rows()), self.frames() + frames
    eventually(lambda: len(self.rows()) > before and self.frames() > goal, LIMIT_SECS, self.logs)

  def frames_so_far(self):
    return [int(row['environment_frames']) for row in self.rows()]


def test_a_run_goes_on_wherever_a_host_vanishes(processes, hosts):
  cluster = NetworkCluster(processes, hosts)
  cluster.start_all()
  cluster.until_frames(200)
  chief = cluster.tasks['learner:0']

  # Two at once: one will be back as it was, one after another boot.
  cluster.pull_plug('actor:0')
  cluster.pull_plug('learner:1')
  cluster.until_named('learner:0', 'actor:0', 'learner:1')
  cluster.until_it_goes_on()  # Without them.
  eventually(lambda: 'no answer: ' in chief.output(), LIMIT_SECS, cluster.logs)

  cluster.pull_plug('ps:0')
  cluster.until_named('learner:0', 'ps:0')
  for name in ('actor:0', 'ps:0'):
    cluster.plug_in(name)
  cluster.boot('learner:1')
  cluster.until_it_goes_on()
  eventually(lambda: not cluster.silent('learner:0'), LIMIT_SECS, cluster.logs)
  for name in ('actor:0', 'learner:1', 'ps:0'):
    assert re.search(rf'{name} at 10\S+ answers again, after \d+ s', chief.output())

  # The chief; the others go on without it.
  cluster.pull_plug('learner:0')
  cluster.until_named('ps:0', 'learner:0')
  cluster.until_named('learner:1', 'learner:0')
  cluster.boot('learner:0')
  cluster.until_it_goes_on()
  assert f'frames from {KEPT}' in cluster.tasks['learner:0'].output()
  frames = cluster.frames_so_far()
  assert frames == sorted(frames)  # Nothing was lost.

  # The only host whose memory counts.
  saved = cluster.checkpoint()
  eventually(lambda: cluster.checkpoint() > saved, LIMIT_SECS, cluster.logs)
  cluster.pull_plug('ps:0')
  cluster.boot('ps:0')
  cluster.until_it_goes_on()
  assert 'resumed from /tmp/cluster/run/model.ckpt-' in cluster.tasks['learner:0'].output()
  assert_no_step_back_beyond(cluster.rows(), SAVE_SECS)

  os.kill(cluster.tasks['learner:0'].pid, signal.SIGTERM)
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  assert cluster.frames_in_checkpoint() == int(cluster.rows()[-1]['environment_frames'])
  for name in ('ps:0', 'learner:1', 'actor:1'):  # The chief alone writes.
    assert not os.path.exists(cluster.folder_of(name))
