"""Clusters of real processes on this machine: every topology trains, survives kills, and ends."""

import json
import os
import re
import signal

import pytest

import throttled_env
from cluster_fixtures import (  # noqa: F401 (new_cluster is a fixture)
  LIMIT_SECS,
  Cluster,
  all_zero,
  assert_no_step_back_beyond,
  new_cluster,
  throttled_cluster,
)
from conftest import ROOT, Processes, eventually, whole_rows
from roles.initialization import KEPT

# The addresses of a proxy that does not answer: what the tasks say to each other is not for it.
PROXY = dict.fromkeys(
  ['http_proxy', 'https_proxy', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY', 'grpc_proxy'],
  'http://192.0.2.1:3128',
)
# What examples/ has; the other tasks adopt it.
OWN = (
  '--level_name=examples.corridor:Corridor-v0', '--agent_name=examples.gru_agent:GRUAgent',
  '--observers=examples.json_lines:JsonLines',
)  # fmt: skip
# Each of two actors plays a level, and each learner takes half of its batches from its replay.
LEVELS = [f'throttled_env:ThrottledCatch-v{version}' for version in (0, 1)]
LEVELS_AND_REPLAY = (
  f'--level_name={",".join(LEVELS)}', '--replay_capacity=32', '--replay_fraction=0.5',
)  # fmt: skip
AT_ONCE = {'THROTTLED_ENV_SECS': '0'}
UPDATE_FRAMES = 2 * 4 * 9  # Of two learners with `TRAINING`, where they update together.


@pytest.mark.parametrize('size', [(1, 1, 1), (2, 2, 3)], ids=['1-1-1', '2-2-3'])
def test_a_cluster_trains_to_its_end_and_everybody_leaves(new_cluster, size):  # noqa: F811
  own = size == (1, 1, 1)  # An environment, a network and an observer of the user's.
  # Games are reported once a second, and those of the last second may be missing.
  total = 20_000 if own else 2000
  cluster = new_cluster(ps=size[0], learner=size[1], actor=size[2], env=PROXY | AT_ONCE)
  first, *order = sorted(cluster.names)  # Actors first, parameter servers last.
  actor = cluster.start(first)
  waiting = f'{first} is waiting for ps:0 at {cluster.hosts["ps"][0]}'
  eventually(lambda: waiting in actor.output(), LIMIT_SECS, cluster.logs)
  flags = [f'--total_environment_frames={total}', *(OWN if own else ())]
  cluster.start_all(order, learner=flags)
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  final = int(cluster.rows()[-1]['environment_frames'])
  assert cluster.frames_in_checkpoint() == final >= total
  for name, task in cluster.tasks.items():
    assert f'{name} leaves: ' in task.output()
  if own:
    assert cluster.in_checkpoint('agent/gru/w_h').shape == (32, 3 * 32)
    with open(os.path.join(cluster.logdir, 'observed.jsonl')) as file:
      observed = [json.loads(line) for line in file]
    assert [e['event'] for e in observed if e['event'] in ('start', 'end')] == ['start', 'end']
    assert observed[0]['settings']['agent_name'] == 'examples.gru_agent:GRUAgent'
    updates = [event for event in observed if event['event'] == 'update']
    assert updates[-1]['environment_frames'] == final and updates[0]['updates'] == 1
    assert {e['level_name'] for e in observed if e['event'] == 'game'} == {
      'examples.corridor:Corridor-v0'
    }
    assert observed[-1]['outcome'] == 'done'


@pytest.mark.timeout(580)  # Five recoveries on a busy machine; alone about a minute.
@pytest.mark.parametrize('sync', ['true', 'false'])
def test_any_role_may_be_killed_and_the_run_reaches_its_frames(new_cluster, tmp_path, sync):  # noqa: F811
  # Throttled, two actors of 4 environments take longer than this test may for so many frames.
  total, save_secs = 16_000, 2
  assert total / (2 * 4) * throttled_env.STEP_SECS > 580
  cluster = throttled_cluster(new_cluster, tmp_path, learner=2, actor=2)
  flags = [f'--total_environment_frames={total}', f'--save_checkpoint_secs={save_secs}',
           f'--sync_learners={sync}', *LEVELS_AND_REPLAY]  # fmt: skip
  has_statistics = sync == 'true'
  if has_statistics:
    flags += ['--observation_scaling=running', '--return_normalisation=advantage_rms']
  else:
    flags += ['--return_normalisation=popart']
  cluster.start_all(learner=flags)
  cluster.until_frames(100)
  # The others recover in the same way whether learners wait for one another or not.
  victims = (
    ('learner:0', 'ps:0') if sync == 'false' else ('actor:1', 'learner:1', 'learner:0', 'ps:0')
  )
  for victim in victims:
    saved = cluster.checkpoint()
    eventually(lambda saved=saved: cluster.checkpoint() > saved, LIMIT_SECS, cluster.logs)
    if victim == 'ps:0':  # Until now nothing was lost, whoever had to connect again.
      frames = [int(row['environment_frames']) for row in cluster.rows()]
      assert frames == sorted(frames)
      assert f'frames from {KEPT}' in cluster.tasks['learner:0'].output()
    cluster.kill(victim)
    pids = {name: task.pid for name, task in cluster.tasks.items() if name != victim}
    before = len(cluster.rows())
    cluster.start(victim, *(flags if victim.startswith('learner') else ()))
    # Progress: rows that came after the restart show frames that grow beyond those before the kill.
    goal = cluster.frames() + 100
    eventually(lambda n=before, g=goal: len(cluster.rows()) > n and cluster.frames() > g,
               LIMIT_SECS, cluster.logs)  # fmt: skip
    for name, pid in pids.items():
      assert cluster.tasks[name].pid == pid and cluster.tasks[name].poll() is None, (
        f'{name} did not survive the kill of {victim}\n{cluster.logs()}'
      )
  assert 'connects again: ' in cluster.logs()
  assert 'connects again: Graph execution error' not in cluster.logs()  # That says nothing.
  (tmp_path / 'open').touch()
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  assert_no_step_back_beyond(cluster.rows(), save_secs)
  final = int(cluster.rows()[-1]['environment_frames'])
  assert cluster.frames_in_checkpoint() == final >= total
  games = whole_rows(os.path.join(cluster.logdir, 'episodes.csv'))
  assert {game['level_name'] for game in games} == set(LEVELS)
  assert float(cluster.rows()[-1]['replayed_lag_mean']) > 0
  if has_statistics:
    # They count the steps that came from actors, as the frames do, and none that is replayed; what
    # a kill cuts off between the two is less than an update of both learners. A parameter server
    # that forgot them had counted 400.
    counted = cluster.in_checkpoint('agent/observation_statistics/count')
    assert abs(counted - final) <= 4 * UPDATE_FRAMES
    assert cluster.in_checkpoint('advantage_moments').min() > 0
  else:
    for level in range(2):
      assert cluster.in_checkpoint('agent/value_statistics/moments')[level, 0] > 0
      assert cluster.in_checkpoint('agent/value_statistics/scale')[1, level] not in (0, 1)


def freeze(cluster, name):
  """The task answers no more, though its port accepts: so does one that is about to leave."""
  os.kill(cluster.tasks[name].pid, signal.SIGSTOP)


def until_it_connects(cluster, name):
  """Until the task has found all its peers, of whom one does not answer."""
  said = f'{name} connects: all its peers are up'
  eventually(lambda: said in cluster.tasks[name].output(), LIMIT_SECS, cluster.logs)


def test_a_role_whose_peer_goes_while_it_connects_leaves_with_the_run(new_cluster):  # noqa: F811
  cluster = new_cluster(learner=2, actor=2)
  training = ['--total_environment_frames=10000000', '--sync_learners=false']
  cluster.start_all(['ps:0', 'learner:0', 'learner:1', 'actor:0'], learner=training)
  cluster.until_frames(300)
  freeze(cluster, 'learner:1')
  cluster.start('actor:1')
  until_it_connects(cluster, 'actor:1')
  os.kill(cluster.tasks['learner:0'].pid, signal.SIGTERM)
  eventually(lambda: cluster.tasks['actor:1'].poll() is not None, LIMIT_SECS, cluster.logs)
  assert 'actor:1 leaves: the run is done' in cluster.tasks['actor:1'].output()
  os.kill(cluster.tasks['learner:1'].pid, signal.SIGKILL)
  cluster.tasks.pop('learner:1').wait()
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()


@pytest.mark.parametrize('number', [signal.SIGSTOP, signal.SIGKILL], ids=['frozen', 'killed'])
def test_an_actor_that_lost_its_learner_leaves_with_the_run(new_cluster, tmp_path, number):  # noqa: F811
  cluster = throttled_cluster(new_cluster, tmp_path, learner=2, actor=2)
  cluster.start_all(learner=['--sync_learners=false'])
  cluster.until_frames(100)
  actor, learner = cluster.tasks['actor:1'], cluster.tasks.pop('learner:1')
  os.kill(learner.pid, number)
  os.kill(cluster.tasks['learner:0'].pid, signal.SIGTERM)
  eventually(lambda: actor.poll() is not None, LIMIT_SECS, cluster.logs)
  assert 'actor:1 leaves: the run is done' in actor.output()
  learner.kill()
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()


def test_the_last_checkpoint_holds_the_last_updates_of_all_learners(new_cluster, tmp_path):  # noqa: F811
  cluster, late = new_cluster(learner=2, actor=2), tmp_path / 'late'
  cluster.start_all(['ps:0', 'learner:0', 'actor:0', 'actor:1'], learner=['--sync_learners=false'])
  program = 'tests/altered_experiment.py', f'late={late}'
  learner = cluster.start('learner:1', '--sync_learners=false', program=program)
  eventually(lambda: 'update ends' in learner.output(), LIMIT_SECS, cluster.logs)
  late.write_text('20')  # Longer than the chief waits for who gives no sign of life.
  begun = learner.output().count('update begins')
  eventually(lambda: learner.output().count('update begins') > begun, LIMIT_SECS, cluster.logs)
  chief = cluster.tasks['learner:0']
  os.kill(chief.pid, signal.SIGTERM)
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  assert 'learner:0 is waiting for learner:1 at ' in chief.output()
  assert 'saves without' not in chief.output()
  begun, ended = (learner.output().count(f'update {what}') for what in ('begins', 'ends'))
  assert begun == ended, cluster.logs()
  assert cluster.frames_in_checkpoint() == int(cluster.rows()[-1]['environment_frames'])


def test_a_run_ends_though_only_the_other_learner_reaches_the_last_frame(new_cluster):  # noqa: F811
  total = 1000
  cluster = new_cluster(learner=2, actor=2)
  flags = [f'--total_environment_frames={total}', '--sync_learners=false']
  cluster.start_all(['ps:0', 'learner:0', 'learner:1', 'actor:1'], learner=flags)
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()
  assert cluster.frames_in_checkpoint() >= total


# What a cluster that trains tells and refuses; the last of these tests ends it.


@pytest.fixture(scope='module')
def shared_cluster(tmp_path_factory):
  """Two learners and two actors that train; actor:2 is listed and was not started."""
  folder = tmp_path_factory.mktemp('shared')
  processes = Processes(folder)
  cluster = Cluster(processes, str(folder), learner=2, actor=3)
  yield cluster.start_all([name for name in cluster.names if name != 'actor:2'])
  processes.close()


def test_state_files_and_reports_of_all_tasks(shared_cluster):
  cluster = shared_cluster
  cluster.until_frames(500)

  def states():
    found = {}
    for name in cluster.names:
      path = os.path.join(cluster.state_dir, name.replace(':', '-') + '.json')
      if os.path.exists(path):
        with open(path) as file:
          found[name] = json.load(file)
    return found

  eventually(
    lambda: all((states().get(f'actor:{i}') or {}).get('frames_per_sec') for i in range(2)),
    LIMIT_SECS,
    cluster.logs,
  )
  assert set(states()) == set(cluster.tasks)
  for name, state in states().items():
    assert f'{state["job"]}:{state["task"]}' == name
    assert state['pid'] == cluster.tasks[name].pid
    assert state['phase'] and state['last_seen'] >= state['started']


def test_a_flag_that_contradicts_the_run_is_refused_by_the_role_that_has_it(
  shared_cluster, tmp_path
):
  cluster = shared_cluster
  # A task with other sources is refused as well.
  with open(tmp_path / 'other.py', 'w') as file:
    file.write(
      'import sys\n'
      f'sys.path.insert(0, {os.getcwd()!r})\n'
      'import experiment\n'
      'from roles import settings\n'
      "settings.code_version = lambda: 'another'\n"
      'experiment.process.leave(experiment.main(sys.argv))\n'
    )
  lists = [f'--{j}_hosts={",".join(hosts)}' for j, hosts in cluster.hosts.items()]
  refused = cluster.start('actor:2', '--unroll_length=5')
  del cluster.tasks['actor:2']
  other = cluster.processes.start(
    str(tmp_path / 'other.py'), *lists, '--job_name=actor', '--task=2', name='other'
  )
  assert refused.exit_code(LIMIT_SECS) == 2
  assert (
    '--unroll_length=5 contradicts the run, which has unroll_length=9'
    in refused.output().splitlines()[-1]
  )
  assert other.exit_code(LIMIT_SECS) == 2
  assert 'the code here has version another' in other.output()
  cluster.until_frames(cluster.frames() + 500)  # Nobody else minds.
  assert all(task.poll() is None for task in cluster.tasks.values())


def test_a_port_in_use_is_named_with_its_owner(shared_cluster):
  cluster = shared_cluster
  holder = cluster.tasks['ps:0']
  eventually(lambda: 'ps:0 serves' in holder.output(), LIMIT_SECS, holder.output)
  lists = [f'--{j}_hosts={",".join(hosts)}' for j, hosts in cluster.hosts.items()]
  second = cluster.processes.start('experiment.py', *lists, '--job_name=ps', '--task=0', name='two')
  assert second.exit_code(LIMIT_SECS) == 2
  port = cluster.hosts['ps'][0].split(':')[1]
  assert f'port {port} of localhost:{port} is in use by process {holder.pid}' in second.output()


def test_a_signal_to_everybody_at_once_still_saves(shared_cluster):
  cluster = shared_cluster
  cluster.until_frames(500)
  for task in cluster.tasks.values():
    os.kill(task.pid, signal.SIGTERM)
  assert cluster.exit_codes(60) == all_zero(cluster), cluster.logs()
  assert cluster.frames_in_checkpoint() >= 500


# What ends or stops without a run that has begun.


def test_a_signal_ends_an_actor_whose_peer_does_not_answer(new_cluster):  # noqa: F811
  cluster = new_cluster()
  cluster.start_all(['ps:0', 'learner:0'])
  connected = 'learner:0 is connected'
  eventually(lambda: connected in cluster.tasks['learner:0'].output(), LIMIT_SECS, cluster.logs)

  def end(actor):
    os.kill(actor.pid, signal.SIGTERM)
    eventually(lambda: actor.poll() is not None, LIMIT_SECS, cluster.logs)
    assert actor.returncode == 0, cluster.logs()

  freeze(cluster, 'learner:0')
  actor = cluster.start('actor:0')
  until_it_connects(cluster, 'actor:0')
  end(actor)
  os.kill(cluster.tasks['learner:0'].pid, signal.SIGCONT)

  freeze(cluster, 'ps:0')
  before = len(actor.output())
  actor = cluster.start('actor:0')
  waits = 'waiting for the settings'
  eventually(lambda: waits in actor.output()[before:], LIMIT_SECS, cluster.logs)
  end(actor)


def test_a_role_whose_peers_never_come_says_so_and_leaves(new_cluster):  # noqa: F811
  cluster = new_cluster(ps=2, flags=['--wait_secs=2'])
  first = {job: hosts[0] for job, hosts in cluster.hosts.items()}
  waits_for = {'actor:0': f'ps:0 at {first["ps"]}', 'ps:1': f'learner:0 at {first["learner"]}'}
  for task, awaited in [(cluster.start(name), awaited) for name, awaited in waits_for.items()]:
    assert task.exit_code(LIMIT_SECS) == 1
    last = task.output().splitlines()[-1]
    assert f'waited 2 s (--wait_secs) in vain for {awaited}' in last


def test_the_verdict_asks_for_actors_where_learners_wait(new_cluster):  # noqa: F811
  # One environment cannot feed a learner.
  cluster = new_cluster().start_all(actor=['--envs_per_actor=1'])
  learner = cluster.tasks['learner:0']
  more = r': about \d+ more actors? would feed them'
  busy = r', and the processors are busy for \d+%: this machine is the limit'  # With other tests.
  sentence = rf'learners wait \d+% of the time for data({more}|{busy})'
  assert eventually(lambda: re.search(sentence, learner.output()), LIMIT_SECS, cluster.logs)


def test_the_verdict_names_a_learner_that_is_the_limit(new_cluster):  # noqa: F811
  cluster = new_cluster()
  cluster.start('ps:0')
  cluster.start('actor:0')
  learner = cluster.start('learner:0', program=('tests/altered_experiment.py', 'slow'))
  sentence = r'actors wait \d+% of the time: the learner is the limit'
  assert eventually(lambda: re.search(sentence, learner.output()), LIMIT_SECS, cluster.logs)


def test_learners_that_wait_for_one_without_actors_wait_and_say_so(new_cluster):  # noqa: F811
  cluster = new_cluster(learner=2, actor=2, flags=['--watchdog_secs=15'])
  cluster.start_all(learner=['--total_environment_frames=10000000'])
  cluster.until_frames(300)
  cluster.kill('actor:1')
  chief = cluster.tasks['learner:0']
  said = r'learner has been in phase update for \d+ s: waiting for actor:1 at localhost:\d+'
  eventually(lambda: re.search(said, chief.output()), LIMIT_SECS, cluster.logs)
  goal = cluster.frames() + 300
  cluster.start('actor:1')
  cluster.until_frames(goal)
  os.kill(chief.pid, signal.SIGTERM)
  assert cluster.exit_codes() == all_zero(cluster), cluster.logs()


def test_a_role_that_is_stuck_says_where_and_leaves_for_a_supervisor(new_cluster):  # noqa: F811
  # The environment of the actor hangs after its first steps.
  tests = os.path.join(ROOT, 'tests')
  cluster = new_cluster(flags=['--level_name=hanging_env:Hanging-v0'])
  for name in cluster.names:
    job, task = name.split(':')
    lists = [f'--{j}_hosts={",".join(hosts)}' for j, hosts in cluster.hosts.items()]
    cluster.tasks[name] = cluster.processes.start(
        'experiment.py', *lists, f'--job_name={job}', f'--task={task}', *cluster.flags,
        '--num_actors=1', '--envs_per_actor=1', '--unroll_length=5', '--batch_size=1',
        '--watchdog_secs=5', name=job, env={'PYTHONPATH': tests},
    )  # fmt: skip
  actor = cluster.tasks['actor:0']
  assert actor.exit_code(LIMIT_SECS) == 1, cluster.logs()
  last = actor.output().splitlines()[-1]
  assert re.search(r'actor:0: actor loop 0 made no progress for \d+ s in phase unroll', last)
  with open(os.path.join(cluster.state_dir, 'actor-0.json')) as file:
    assert 'in phase unroll' in json.load(file)['last_error']
  # Those who wait for the one that is stuck are not stuck themselves.
  assert cluster.tasks['ps:0'].poll() is None and cluster.tasks['learner:0'].poll() is None
