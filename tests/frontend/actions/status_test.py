"""Status, logs and a terminal on the tasks of a cluster on this machine."""

import os
import re
import signal
import sys

import pytest

import conftest
import frontend_fixtures
from frontend.actions import status
from frontend_fixtures import own_tmux  # noqa: F401
from local_cluster import local_fixture  # noqa: F401

pytestmark = pytest.mark.slow

eventually = conftest.eventually


def test_before_the_first_launch(local):
  status = local.run('status')
  assert status.returncode == 1
  assert [line.split()[2:4] for line in status.stdout.splitlines()[1:]] == 4 * [['no', 'answer']]
  assert local.run('logs', '--task=actor-0').stdout == 'actor-0: nothing logged so far\n'
  stopped = local.run('stop')
  assert stopped.returncode == 0
  assert stopped.stdout == 'nothing was launched as session imp\n'


def test_attach_shows_the_task(local, tmp_path):
  assert local.launch().returncode == 0
  other = frontend_fixtures.Tmux(os.path.join(os.path.dirname(local.tmux.path), 'o'))
  try:
    other('new-session', '-d', '-s', 'terminal', '-x', '150', '-y', '50', sys.executable,
          os.path.join(local.code, 'run_experiment_mm_raw.py'),
          *local.words('attach', '--task=actor:1'))  # fmt: skip
    eventually(lambda: 'arguments of actor-1' in other('capture-pane', '-p', '-t', '=terminal:'))
  finally:
    other.close()
  assert local.rows()['actor-1']['state'] == 'running'


def test_logs_follow_and_status_watch(local, processes):
  assert local.launch().returncode == 0
  program = os.path.join(local.code, 'run_experiment_mm_raw.py')
  follow = processes.start(program, *local.words('logs', '--task=actor:0', '--follow', '--lines=1'))
  watch = processes.start(program, *local.words('status', '--watch'))
  eventually(lambda: f'actor-0: gpus {"":s}' in follow.output())
  eventually(lambda: watch.output().count('learner-0') >= 2)
  curve = r'^mean return [▁-█]{2,} \d+\.00  waits: learner 71% actor 0%$'
  eventually(lambda: re.search(curve, watch.output(), re.MULTILINE), message=watch.output)
  assert local.run('stop').returncode == 0
  eventually(lambda: 'actor-0: I leave' in follow.output())
  for process, number in ((follow, signal.SIGHUP), (watch, signal.SIGINT)):
    os.kill(process.pid, number)
    assert process.exit_code() == 128 + number
    assert 'Traceback' not in process.output()


def chief(frames, mean_return):
  return {'training': {'environment_frames': frames, 'mean_return_100': mean_return,
                       'learner_wait_fraction': 0.5, 'actor_wait_fraction': 0.25}}  # fmt: skip


def test_the_curve_of_a_watch():
  curve, none = status.Curve('utf-8'), {'training': None}
  assert curve.line(80) == ''
  curve.add([none, chief(None, None)])
  assert curve.line(80) == ''
  curve.add([none, chief(10, -20.0)])
  curve.add([none, chief(10, -20.0)])  # The same row of metrics, seen again.
  assert curve.line(80) == 'mean return -20.00  waits: learner 50% actor 25%'
  curve.add([chief(20, 15.0), none])
  curve.add([chief(30, 0.0), none])
  assert curve.line(80) == 'mean return ▁█▅ 0.00  waits: learner 50% actor 25%'
  for number in range(1000):
    curve.add([chief(100 + number, float(number))])
  assert len(curve.line(80)) == 80
