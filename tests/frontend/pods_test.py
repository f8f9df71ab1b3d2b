"""The pods of the manifests train to the end as plain processes, drained and killed meanwhile."""

import os
import signal

import pytest

import frontend_fixtures
import throttled_env
from cluster_fixtures import ACTING, TRAINING
from conftest import ROOT, updates_of_checkpoint, whole_rows
from network_fixtures import network  # noqa: F401
from pod_fixtures import Pods, image_environment

CSV = 'job\nps\nlearner\nactor\nactor\n'
TOTAL_FRAMES = 6_000
FLAGS = (
  *TRAINING, *ACTING, '--threads=1', '--save_checkpoint_secs=5', '--watchdog_secs=120',
  '--level_name=throttled_env:ThrottledCatch-v0', f'--total_environment_frames={TOTAL_FRAMES}',
)  # fmt: skip


@pytest.fixture(name='pods')
def pods_fixture(processes, network, tmp_path):  # noqa: F811
  (tmp_path / 'c.csv').write_text(CSV)
  gate = os.path.join(network.folder, 'open')
  written = frontend_fixtures.frontend(
    ['--cluster_csv_path=c.csv', '--action=kubernetes', '--image=example.org/impala:1',
     '--name=catch', *FLAGS],
    cwd=tmp_path, PYTHONPATH=os.path.join(ROOT, 'tests'), **{throttled_env.OPEN: gate},
  )  # fmt: skip
  assert written.returncode == 0, written.stdout + written.stderr
  made = Pods(
    processes, network, tmp_path / 'kubernetes' / 'catch.yaml',
    image_environment(**{throttled_env.OPEN: gate}),
  )  # fmt: skip
  made.open_gate = lambda: open(gate, 'w').close()
  return made


def rows(pods):
  return whole_rows(os.path.join(pods.volume, 'catch', 'metrics.csv'))


def frames(pods):
  return int(rows(pods)[-1]['environment_frames']) if rows(pods) else 0


@pytest.mark.timeout(900)
def test_pods_train_to_the_end_though_each_is_drained_or_killed_and_moves(pods):
  # Names that DNS does not know yet are waited for.
  actor = pods.start('catch-actor-0')
  waiting = 'actor:0 is waiting for ps:0 at catch-ps-0.catch:8000'
  pods.until(lambda: waiting in actor.output())
  for name in ('catch-learner-0', 'catch-ps-0', 'catch-actor-1'):
    pods.start(name)
  pods.until(lambda: frames(pods) > 0)

  # A drained chief leaves a checkpoint, and the others wait for it. 143: no success, for its Job.
  assert pods.end('catch-learner-0') == 143, pods.logs()
  saved, trained = updates_of_checkpoint(os.path.join(pods.volume, 'catch')), frames(pods)
  assert saved > 0 and trained > 0
  others = ('catch-ps-0', 'catch-actor-0', 'catch-actor-1')
  assert [pods.tasks[name].poll() for name in others] == [None] * 3, pods.logs()
  chief = pods.start('catch-learner-0')
  pods.until(lambda: f'resumed at {trained} frames' in chief.output())
  pods.until(lambda: frames(pods) > trained)

  assert pods.end('catch-actor-0') == 143, pods.logs()
  pods.start('catch-actor-0')
  assert pods.end('catch-ps-0', signal.SIGKILL) == -signal.SIGKILL
  pods.start('catch-ps-0')
  again = len(rows(pods))
  pods.until(lambda: len(rows(pods)) > again and frames(pods) > trained)

  # `kubectl delete jobs` tells all at once; the same file goes on from the last checkpoint.
  for task in pods.tasks.values():
    task.terminate()
  pods.until(lambda: all(task.poll() is not None for task in pods.tasks.values()))
  codes = {name: task.returncode for name, task in pods.tasks.items()}
  assert codes == dict.fromkeys(pods.pods, 143), pods.logs()
  trained = frames(pods)
  for name in pods.pods:
    pods.start(name)
  chief = pods.tasks['catch-learner-0']
  pods.until(lambda: f'resumed at {trained} frames' in chief.output())

  pods.open_gate()
  pods.until(lambda: all(task.poll() is not None for task in pods.tasks.values()))
  codes = {name: task.returncode for name, task in pods.tasks.items()}
  assert codes == dict.fromkeys(pods.pods, 0), pods.logs()
  assert frames(pods) >= TOTAL_FRAMES
  assert 'checkpoint in /srv/runs/catch' in chief.output()
