"""The command line of experiment.py, and local runs as real processes: learning, stop, resume."""

import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys

import numpy as np
import psutil
import pytest

from conftest import ROOT, Processes, checked, eventually, updates_of_checkpoint, whole_rows
from reporting import metrics
from structs import AGENTS

LIMIT_SECS = 240.0
CATCH = '--flagfile=flagfiles/catch.flags'
CATCH_UPDATE_FRAMES = 144  # 16 unrolls of 9 steps.
GOOD_RETURN = 0.9
# With flagfiles/catch.flags the mean return of 100 games is there after 15,000 to 27,000 frames.
USUAL_FRAMES = 25_000
LIMIT_FRAMES = 60_000  # Of the preset.
FEW = ('--num_actors=1', '--envs_per_actor=4')  # Each environment is a process.
HOSTS = (
    '--ps_hosts=localhost:8000', '--learner_hosts=localhost:8001', '--actor_hosts=localhost:8002',
)  # fmt: skip
SECRET = 'not-to-be-recorded-anywhere'
OBSERVERS = '--observers=raising_observer:Raises,examples.json_lines:JsonLines'


# The command line.


@pytest.fixture(scope='module')
def no_tensorflow(tmp_path_factory):
  """Environment variables under which importing TensorFlow, here or in a worker, ends with 99."""
  folder = tmp_path_factory.mktemp('no_tensorflow')
  (folder / 'tensorflow.py').write_text('import os\nos.write(2, b"TensorFlow!")\nos._exit(99)\n')
  return {**os.environ, 'PYTHONPATH': str(folder)}


def run(*flags, env=None):
  """Runs experiment.py to its end; a CompletedProcess."""
  command = [sys.executable, 'experiment.py', *flags]
  return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def assert_refused(result, *words):
  """Exit 2, nothing on standard output and one sentence on standard error, with these words."""
  assert result.returncode == 2, result
  assert not result.stdout
  lines = result.stderr.splitlines()
  assert len(lines) == 1 and lines[0].startswith('experiment.py: '), result.stderr
  for word in words:
    assert word in lines[0]


@pytest.mark.parametrize('flags, words', [
    (['--num_episodes=0'], ['num_episodes=0', 'positive']),
    (['--cluster=slurp'], ['cluster', 'slurp', 'tf_config']),
    # What came, and what would be right.
    (['--learnign_rate=1'], ['--learnign_rate', '--learning_rate']),
    (['--qqqqqqqqqq=1'], ['--qqqqqqqqqq']),
    (['--unroll_length=0'], ['unroll_length=0', 'positive']),
    (['--unroll_length=five'], ['--unroll_length=five is not a whole number']),
    (['--seed=1.5'], ['--seed=1.5 is not a whole number']),
    (['--seed='], ['--seed= is not a whole number']),
    (['--learning_rate=1e-3x'], ['--learning_rate=1e-3x is not a number']),
    (['--max_episode_frames=-1'], ['max_episode_frames', 'non-negative']),
    (['--deterministic=maybe'], ['--deterministic=maybe is neither true nor false']),
    (['--batch_size=-1'], ['batch_size=-1', 'positive']),
    (['--batch_size'], ['batch_size']),
    (['--learning_rate=nan'], ['learning_rate=nan', 'positive number']),
    (['--learning_rate=0'], ['learning_rate=0', 'positive number']),
    (['--learning_rate=inf'], ['learning_rate=inf']),
    (['--entropy_cost=-0.1'], ['entropy_cost=-0.1', 'at least 0']),
    (['--discounting=1.5'], ['discounting=1.5', 'from 0 to 1']),
    (['--seed=-1'], ['seed=-1', 'non-negative']),
    (['--mode=play'], ['mode=play', 'train', 'test', 'plot']),
    (['--eval_protocol=atari'], ['eval_protocol=atari', 'training', 'paper', 'machado']),
    (['--eval_every_frames=-1'], ['eval_every_frames=-1', 'non-negative']),
    ([CATCH, '--eval_every_frames=100', '--eval_protocol=paper'],
     ['eval_protocol=paper', 'impala/Catch-v0']),
    (['--reward_clipping=abs_two'], ['abs_two', 'abs_one', 'soft_asymmetric', 'none']),
    (['--batch_size=32', '--queue_capacity=31'], ['batch_size=32', 'queue_capacity=31']),
    ([CATCH, '--batch_size=6', '--replay_capacity=100', '--replay_fraction=0.25'],
     ['replay_fraction=0.25', 'batch_size=6', '1.5 unrolls']),
    ([CATCH, '--policy_lag=1', '--batch_size=24'], ['policy_lag=1', 'are 24', 'envs_per_actor=16']),
    ([CATCH, '--policy_lag=9', '--queue_capacity=159'], ['10 batches', 'must be at least 160']),
    ([CATCH, '--policy_lag=0', '--sample_reuse=2'], ['policy_lag=0', 'sample_reuse=2']),
    ([CATCH, '--policy_lag=0', '--dynamic_batching=true'], ['dynamic_batching=true']),
    ([CATCH, '--deterministic_training', '--policy_lag=1'], ['policy_lag=1', 'last update']),
    ([CATCH, '--deterministic_training', '--batch_size=24'],
     ['--deterministic_training plays', 'are 24', 'envs_per_actor=16']),
    ([CATCH, '--deterministic_training', '--sample_reuse=2'],
     ['--deterministic_training', 'sample_reuse=2']),
    ([CATCH, *HOSTS, '--job_name=learner', '--task=0', '--deterministic_training'],
     ['--deterministic_training is for one process', 'tasks wait for nobody']),
    ([CATCH, *HOSTS, '--job_name=learner', '--task=0', '--policy_lag=0'],
     ['policy_lag=0', 'one process']),
    ([CATCH, '--batch_size=6', '--replay_capacity=5'], ['replay_capacity=5', 'batch_size=6']),
    (['--batch_size=5', '--learner_devices=/cpu:0,/cpu:1'], ['batch_size=5', '2']),
    (['--agent_name=AlexNet'], ['AlexNet', 'SimpleConvNetAgent', 'ResNetLSTMAgent']),
    (['train'], ["'train'", '--name=value']),
    (['--flagfile=no/such.flags'], ['no/such.flags']),
    (['--observers=examples.json_lines:JsonLine'], ['examples.json_lines:JsonLine', 'JsonLines?']),
    # Environments.
    (['--level_name=impala/Cach-v0'], ['impala/Cach-v0', 'impala/Catch-v0']),
    (['--level_name=PonNoFrameskip-v4'], ['PongNoFrameskip-v4']),
    (['--level_name=impala/Catch-v0', '--agent_name=MLPAgent'],
     ['MLPAgent', '(10, 5, 1)', 'SimpleConvNetAgent']),
    (['--level_name=impala/Memory-v0', '--agent_name=resnetagent'],
     ['ResNetAgent', '(3,)', 'MLPAgent']),
    (['--level_name=impala/Memory-v0', '--observation_scaling=centred'],
     ['observation_scaling=centred', 'impala/Memory-v0', 'float32', 'running']),
    (['--level_name=impala/Catch-v0,,CartPole-v1'], ['--level_name=', 'one of them is empty']),
    (['--level_name=CartPole-v1,CartPole-v1'], ['CartPole-v1 is there twice']),
    (['--level_name=CartPole-v1,atari5'], ['atari5 is a suite', 'alone']),
    (['--level_name=CartPole-v1,impala/Memory-v0'],
     ['--level_name=', 'CartPole-v1 and impala/Memory-v0', 'float32 (4,) and', 'float32 (3,)']),
    (['--level_name=atari5', '--num_actors=4'], ['--num_actors=4', '5 levels', '--num_actors=5']),
    (['--level_name=minigrid_small', '--num_actors=4'],
     ['minigrid_small', 'needs the package minigrid', 'pip install minigrid']),
    ([CATCH, '--env_kwargs=size=5'], ['--env_kwargs=size=5 is not a JSON object']),
    ([CATCH, '--env_kwargs={"size": 5}'], ['--env_kwargs={"size": 5}', "'size' is no keyword"]),
    ([CATCH, '--env_wrappers=gymnasium.wrappers.ClipReward:{min: 1}'],
     ['--env_wrappers=', 'gymnasium.wrappers.ClipReward: is no JSON object']),
    ([CATCH, '--env_wrappers=gymnasium.wrappers.ClipRewards'], ['did you mean ClipReward?']),
    ([CATCH, '--import=no_such_module'], ['--import=no_such_module', 'on PYTHONPATH']),
    (['--level_name=Pong-v4', '--eval_every_frames=100', '--eval_protocol=paper'],
     ['eval_protocol=paper', 'Pong-v4', "ale_py's vector environment"]),
    (['--advantage_normalisation', '--value_normalisation'],
     ['--advantage_normalisation', '--value_normalisation', 'choose one']),
    # Clusters.
    (['--task=0'], ['task=0', 'job_name']),
    (['--task=-2'], ['task=-2']),
    ([*HOSTS], ['job_name', 'task']),
    ([*HOSTS, '--job_name=actor'], ['task=-1', 'actor_hosts']),
    ([*HOSTS, '--job_name=actor', '--task=1'], ['task=1', 'actor_hosts', '0 to 0']),
    ([*HOSTS, '--job_name=worker', '--task=0'], ['job_name=worker', 'ps', 'learner', 'actor']),
    (['--job_name=actor', '--task=0'], ['ps_hosts is empty']),
    ([*HOSTS[:2], '--job_name=ps', '--task=0'], ['actor_hosts is empty']),
    (['--learner_hosts=localhost:1,localhost:2', *HOSTS[::2], '--job_name=ps', '--task=0'],
     ['2 learners', 'actor_hosts only 1']),
    ([*HOSTS[:2], '--actor_hosts=localhost:8001', '--job_name=ps', '--task=0'],
     ['localhost:8001', 'learner_hosts', 'actor_hosts']),
    ([*HOSTS[:2], '--actor_hosts=localhost:1,localhost:1', '--job_name=ps', '--task=0'],
     ['localhost:1', 'actor_hosts']),
    ([*HOSTS[:2], '--actor_hosts=localhost:65536', '--job_name=ps', '--task=0'],
     ['localhost:65536', 'actor_hosts', '65535']),
    ([*HOSTS[:2], '--actor_hosts=localhost', '--job_name=ps', '--task=0'], ["'localhost'", 'port']),
    ([*HOSTS[:2], '--actor_hosts=no-such-host.invalid:1', '--job_name=ps', '--task=0'],
     ['no-such-host.invalid', 'actor_hosts', 'resolve']),
])  # fmt: skip
def test_impossible_command_lines_are_refused_in_a_sentence(flags, words, no_tensorflow):
  result = checked('--only_check_args', *flags, env=no_tensorflow)
  assert_refused(result, *words)


def test_an_unknown_level_names_the_three_closest(no_tensorflow):
  result = run('--level_name=impala/Cach-v0', env=no_tensorflow)
  assert_refused(result)
  assert result.stderr.split('the closest are ')[1].count(',') == 2


@pytest.mark.parametrize('flags, words', [
    (['--mode=test'], ['checkpoint', 'train first']),
    (['--mode=video'], ['checkpoint to film', 'train first']),
    (['--mode=export'], ['checkpoint to export', 'train first']),
    (['--mode=plot'], ['metrics.csv', 'nothing to plot']),
])  # fmt: skip
def test_without_a_run_there_is_nothing_to_test_or_plot(flags, words, tmp_path, no_tensorflow):
  logdir = tmp_path / 'none'
  flags = [*flags, CATCH, f'--logdir={logdir}']
  assert_refused(run(*flags, env=no_tensorflow), str(logdir), *words)
  assert not logdir.exists()


def test_a_logdir_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / 'file').touch()
  assert_refused(run(CATCH, f'--logdir={tmp_path}/file'), f'{tmp_path}/file')


@pytest.mark.parametrize('flags', [
    [],  # The defaults.
    [CATCH],
    ['--flagfile=flagfiles/pong.flags', '--mode=test', '--nosync_learners'],
    ['--level_name=impala/Memory-v0', '--agent_name=mlplstmagent'],
    ['--level_name=FrozenLake-v1', '--env_kwargs={"is_slippery": false}', '--import=math,json',
     '--env_wrappers=gymnasium.wrappers.ClipReward:{"min_reward": -1, "max_reward": 1}'],
    ['--level_name=Pong-ram-v4'],
    [*HOSTS, '--job_name=learner', '--task=0', '--level_name=CartPole-v1'],
    [*HOSTS, '--job_name=actor', '--task=0'],
])  # fmt: skip
def test_good_command_lines_pass_the_check_without_tensorflow(flags, no_tensorflow):
  result = checked('--only_check_args', *flags, env=no_tensorflow)
  assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


@pytest.mark.parametrize('name', sorted(os.listdir(os.path.join(ROOT, 'flagfiles'))))
def test_presets_are_good_and_say_what_they_are_for(name, no_tensorflow):
  result = checked('--only_check_args', f'--flagfile=flagfiles/{name}', env=no_tensorflow)
  assert (result.returncode, result.stderr) == (0, '')
  with open(os.path.join(ROOT, 'flagfiles', name)) as file:
    assert file.readline().startswith('# ')


@pytest.mark.parametrize('flag', ['--help', '-h', '--helpfull'])
def test_help_lists_the_flags_without_tensorflow(flag, no_tensorflow):
  result = run(flag, env=no_tensorflow)
  assert (result.returncode, result.stderr) == (0, '')
  for text in ('--level_name', '--ps_hosts', 'Frames per agent step', 'whole cluster'):
    assert text in result.stdout


@pytest.mark.slow
def test_agents_have_the_names_that_the_command_line_offers():
  import nets  # Not above: most tests here do without TensorFlow.

  assert [nets.agent_factory(name).__name__ for name in AGENTS] == list(AGENTS)
  with pytest.raises(ValueError) as refused:
    nets.agent_factory('none')
  assert str(refused.value).endswith('there are ' + ', '.join(AGENTS))


# Local runs.


class Run:
  """A local run: starts of the same command in one logdir.

  Args:
    processes: `Processes`.
    logdir: its folder.
    *flags: of every start.
  """

  def __init__(self, processes, logdir, *flags):
    self._processes, self.logdir, self._flags = processes, str(logdir), flags
    self.process = None

  def start(self, *flags, altered=None):
    """Starts experiment.py, or tests/altered_experiment.py with an alteration."""
    program = ['tests/altered_experiment.py', altered] if altered else ['experiment.py']
    self.process = self._processes.start(
        *program, f'--logdir={self.logdir}', *self._flags, *flags,
        env=dict(IMPALA_TEST=SECRET, PYTHONPATH=os.path.join(ROOT, 'tests')),
    )  # fmt: skip
    return self

  def copy(self, logdir, processes):
    """The same run in a copy of the folder."""
    shutil.copytree(self.logdir, logdir)
    return Run(processes, logdir, *self._flags)

  def rows(self, name='metrics.csv'):
    """The whole rows of a CSV file as dicts of strings."""
    return whole_rows(os.path.join(self.logdir, name))

  def frames(self):
    """Environment frames in the last row."""
    return max([int(row['environment_frames']) for row in self.rows()], default=0)

  def best(self):
    """The best mean return of 100 games (of at least 20 where there were no more)."""
    returns = [row['mean_return_100'] for row in self.rows() if row['mean_return_100']]
    return max(map(float, returns), default=-1.0)

  def until(self, condition):
    """Waits for a condition while the process runs."""

    def met_or_ended():
      return condition() or self.process.poll() is not None

    eventually(met_or_ended, LIMIT_SECS, self.process.output)
    assert condition(), self.process.output()

  def stop(self, number):
    """Sends a signal as a terminal does, to the whole process group; asserts a clean end."""
    workers = psutil.Process(self.process.pid).children(recursive=True)
    os.killpg(self.process.pid, number)
    assert self.process.exit_code(LIMIT_SECS) == 0, self.process.output()
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert not alive
    return self.process.output()

  def checkpoint(self):
    """Updates in the name of the newest checkpoint, 0 where there is none."""
    return updates_of_checkpoint(self.logdir)

  def snapshot(self, prefix=''):
    """{file name: hash} of the folder, without the lock."""
    found = {}
    for name in os.listdir(self.logdir):
      if name.startswith(prefix) and name != 'lock':
        with open(os.path.join(self.logdir, name), 'rb') as file:
          found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def assert_summary(output, reason, frames):
  """The last line says why and where the run ended; nothing else came but progress."""
  lines = output.splitlines()
  assert lines[-1].startswith(f'{reason}: {frames} frames, '), output
  assert sum(line.startswith(f'{reason}: {frames} ') for line in lines) == 1
  for noise in ('Traceback', 'WARNING', 'absl', 'oneDNN', 'uda', 'cuInit', 'Restoring', 'Deprec'):
    assert noise not in output


@pytest.fixture(scope='module')
def module_processes(tmp_path_factory):
  started = Processes(tmp_path_factory.mktemp('logs'))
  yield started
  started.close()


@pytest.fixture(scope='module')
def catch_runs(module_processes, tmp_path_factory):
  """A run on Catch, and one that learns the wrong way, at the same time."""
  folder = tmp_path_factory.mktemp('runs')
  flags = CATCH, f'--total_environment_frames={LIMIT_FRAMES}', '--metrics_secs=1'
  right = Run(module_processes, folder / 'right', *flags).start(OBSERVERS)
  wrong = Run(module_processes, folder / 'wrong', *flags)
  wrong.start(altered=f'flipped,recorded={folder}/wrong.npz')
  right.until(lambda: right.best() >= GOOD_RETURN)
  right.first_output = right.stop(signal.SIGTERM)
  return right, wrong


@pytest.fixture(scope='module')
def catch(catch_runs):
  """A run that has learned Catch and was stopped by SIGTERM; not to be changed."""
  return catch_runs[0]


def test_catch_is_learned(catch):
  assert catch.best() >= GOOD_RETURN
  assert catch.frames() < LIMIT_FRAMES


def test_catch_is_not_learned_with_the_sign_of_the_advantage_flipped(catch_runs):
  wrong = catch_runs[1]
  assert wrong.process.exit_code(LIMIT_SECS) == 0, wrong.process.output()
  assert wrong.frames() >= LIMIT_FRAMES
  assert wrong.best() < 0


def test_sigterm_leaves_a_checkpoint_and_a_summary(catch):
  assert catch.checkpoint() * CATCH_UPDATE_FRAMES == catch.frames()
  assert_summary(catch.first_output, 'SIGTERM', catch.frames())
  assert f'{catch.logdir}: new run; learns on ' in catch.first_output


def test_a_run_leaves_its_records(catch):
  files = catch.snapshot()
  for name, header in (
    ('metrics.csv', metrics.METRIC_COLUMNS),
    ('episodes.csv', metrics.EPISODE_COLUMNS),
  ):
    with open(os.path.join(catch.logdir, name)) as file:
      assert file.readline().rstrip('\n') == ','.join(header)
  games = catch.rows('episodes.csv')
  own = [int(game['environment_frames']) for game in games]
  assert own == sorted(own) and len(set(own)) > 2 * len(catch.rows())  # Not those of the rows.
  assert {(g['level_name'], g['episode_frames']) for g in games} == {('impala/Catch-v0', '9')}
  assert {g['episode_return'] for g in games} == {'1', '-1'}
  assert all(g['episode_return'] == g['clipped_return'] for g in games)
  with open(os.path.join(catch.logdir, 'learning_curve.png'), 'rb') as file:
    assert file.read(8) == b'\x89PNG\r\n\x1a\n'
  (events,) = (name for name in files if name.startswith('events.out.tfevents.'))
  with open(os.path.join(catch.logdir, events), 'rb') as file:
    assert b'1_return/mean_return_100' in file.read()


def test_observers_get_what_the_records_get_and_one_that_raises_is_left_out(catch):
  with open(os.path.join(catch.logdir, 'observed.jsonl')) as file:
    observed = [json.loads(line) for line in file]
  events = [event['event'] for event in observed]
  assert (events[0], events[-1]) == ('start', 'end')
  assert observed[0]['environment_frames'] == 0 and observed[0]['logdir'] == catch.logdir
  assert observed[0]['settings']['level_name'] == 'impala/Catch-v0'
  assert (observed[-1]['outcome'], observed[-1]['reason']) == ('stopped', 'SIGTERM')
  of = {name: [e for e in observed if e['event'] == name] for name in set(events)}
  updates = range(1, catch.checkpoint() + 1)
  assert [update['updates'] for update in of['update']] == list(updates)
  for name, kind in (('metrics.csv', 'metrics'), ('episodes.csv', 'game')):
    rows = [{k: '' if r[k] is None else str(r[k]) for k in r} for r in of[kind]]
    assert len(rows) == len(catch.rows(name))
    for row, written in zip(rows, catch.rows(name)):
      assert row['environment_frames'] == written['environment_frames']
  assert os.path.exists(of['checkpoint'][-1]['path'] + '.index')
  assert catch.first_output.count('the observer ') == 1
  assert (
    'the observer raising_observer:Raises raised OSError (raising_observer.py:8): its server is '
    'gone in on_update: it is left out, training goes on'
  ) in catch.first_output


def test_run_json_tells_flags_versions_and_machine_but_no_environment_variables(catch):
  with open(os.path.join(catch.logdir, 'run.json')) as file:
    text = file.read()
  assert SECRET not in text
  record = json.loads(text)
  assert record['flags']['level_name'] == 'impala/Catch-v0'
  assert record['flags']['batch_size'] == 16
  assert set(record) >= {'started', 'flags', 'versions', 'git_commit', 'machine', 'starts'}
  assert record['versions']['tensorflow'] and record['machine']['cores']


def test_the_same_command_resumes_exactly(catch_runs, tmp_path, processes):
  right, wrong = catch_runs
  resumed = right.copy(tmp_path / 'run', processes)
  frames, updates = right.frames(), right.checkpoint()
  num_rows = len(right.rows())
  resumed.start(altered=f'recorded={tmp_path}/found.npz')
  resumed.until(lambda: resumed.frames() > frames)
  output = resumed.stop(signal.SIGINT)

  found = np.load(tmp_path / 'found.npz')
  names = {n.split('/', 1)[1] for n in found.files if n.startswith('checkpoint/')}
  assert names == {n.split('/', 1)[1] for n in found.files if n.startswith('session/')}
  assert len(names) > 20 and any('Adam' in name for name in names)
  for name in names:
    np.testing.assert_array_equal(found[f'session/{name}'], found[f'checkpoint/{name}'], name)
  assert found['checkpoint/environment_frames'] == frames == updates * CATCH_UPDATE_FRAMES
  assert found['checkpoint/global_step'] == updates

  # A new run with the same --seed had the seeds of the first start.
  first_seeds = np.load(os.path.dirname(wrong.logdir) + '/wrong.npz')['seeds']
  assert len({*first_seeds, *found['seeds']}) == 4

  assert f'resumed at {frames} frames' in output
  assert_summary(output, 'SIGINT', resumed.frames())
  rows = resumed.rows()
  assert rows[:num_rows] == right.rows()
  for row in rows[num_rows:]:
    assert int(row['updates']) * CATCH_UPDATE_FRAMES == int(row['environment_frames'])
    rate = 1e-3 * (1 - int(row['environment_frames']) / LIMIT_FRAMES)
    # An update may come between reading the one and the other.
    assert float(row['learning_rate']) == pytest.approx(rate, abs=2e-5)
  with open(os.path.join(resumed.logdir, 'run.json')) as file:
    assert len(json.load(file)['starts']) == 1


def test_a_run_that_is_done_ends_at_once_and_knows_its_last_games(catch_runs, tmp_path, processes):
  wrong = catch_runs[1]
  assert wrong.process.exit_code(LIMIT_SECS) == 0, wrong.process.output()
  done = wrong.copy(tmp_path / 'run', processes).start(*FEW)
  assert done.process.exit_code(LIMIT_SECS) == 0, done.process.output()
  assert done.frames() == wrong.frames() >= LIMIT_FRAMES
  games = [float(game['episode_return']) for game in done.rows('episodes.csv')[-100:]]
  mean = f'mean return of the last 100 games {statistics.mean(games):.2f};'
  assert mean in done.process.output().splitlines()[-1]


def test_a_logdir_in_use_or_of_another_agent_is_refused_and_untouched(catch, tmp_path, processes):
  run_ = catch.copy(tmp_path / 'run', processes)
  before = run_.snapshot()
  refused = run(CATCH, f'--logdir={run_.logdir}', '--agent_name=SimpleConvNetLSTMAgent')
  assert_refused(refused, run_.logdir, 'SimpleConvNetAgent', 'SimpleConvNetLSTMAgent')
  refused = run(CATCH, f'--logdir={run_.logdir}', '--optimizer=rmsprop')
  assert_refused(refused, run_.logdir, 'adam', 'rmsprop')
  refused = run(CATCH, f'--logdir={run_.logdir}', '--observation_scaling=centred')
  assert_refused(refused, run_.logdir, 'observation_scaling unit', 'centred')
  for value in ('advantage_rms', 'popart'):
    refused = run(CATCH, f'--logdir={run_.logdir}', f'--return_normalisation={value}')
    assert_refused(refused, run_.logdir, 'return_normalisation none', value)
  assert run_.snapshot() == before

  run_.start(*FEW)
  run_.until(lambda: run_.frames() > catch.frames())
  refused = run(CATCH, f'--logdir={run_.logdir}')
  assert_refused(refused, run_.logdir, str(run_.process.pid))
  assert run_.process.poll() is None
  run_.stop(signal.SIGTERM)


def test_a_run_whose_frames_are_done_says_so_and_trains_no_further(catch, tmp_path, processes):
  done = catch.copy(tmp_path / 'run', processes)
  before = done.snapshot('model.ckpt')
  done.start(*FEW, '--total_environment_frames=1000')
  assert done.process.exit_code(LIMIT_SECS) == 0
  assert done.checkpoint() == catch.checkpoint()
  assert done.frames() == catch.frames()
  assert done.snapshot('model.ckpt') == before
  output = done.process.output()
  assert 'all 1000 frames were done before' in output.splitlines()[-1]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
  catch, tmp_path, processes
):
  broken = catch.copy(tmp_path / 'run', processes)
  before = broken.snapshot('model.ckpt')
  broken.start('--learning_rate=1e30')
  assert broken.process.exit_code(LIMIT_SECS) == 1
  last_line = broken.process.output().splitlines()[-1]
  assert 'the loss or its gradient is not finite at update' in last_line
  assert 'Traceback' not in broken.process.output()
  update = int(''.join(filter(str.isdigit, last_line.split('at update')[1])))
  assert update > catch.checkpoint() == broken.checkpoint()
  assert broken.snapshot('model.ckpt') == before


def test_the_checkpoint_plays_whole_games(catch, tmp_path, processes):
  # So many that luck takes the mean of a run that has learned nowhere near the bound.
  tested = catch.copy(tmp_path / 'run', processes)
  tested.start('--mode=test', '--test_num_episodes=201')
  assert tested.process.exit_code(LIMIT_SECS) == 0, tested.process.output()
  assert 'impala/Catch-v0: 201 games, mean ' in tested.process.output().splitlines()[-1]
  with open(os.path.join(tested.logdir, 'evaluation.json')) as file:
    (result,) = json.load(file)
  keys = 'level_name', 'num_episodes', 'mean', 'median', 'std', 'min', 'max', 'returns', 'frames'
  assert set(result) >= {*keys, 'mean_interval_95', 'seed', 'checkpoint'}
  assert (result['protocol'], result['deterministic']) == ('training', False)
  assert result['num_episodes'] == len(result['returns']) == 201
  assert result['frames'] == 201 * 9
  assert result['mean'] == pytest.approx(statistics.fmean(result['returns']))
  assert result['mean'] > 0.6
  assert result['median'] == statistics.median(result['returns'])
  assert result['std'] == pytest.approx(statistics.pstdev(result['returns']))
  assert (result['min'], result['max']) == (min(result['returns']), max(result['returns']))


def test_the_picture_is_drawn_again_without_tensorflow(catch, tmp_path, processes, no_tensorflow):
  plotted = catch.copy(tmp_path / 'run', processes)
  picture = os.path.join(plotted.logdir, 'learning_curve.png')
  os.remove(picture)
  result = run('--mode=plot', f'--logdir={plotted.logdir}', env=no_tensorflow)
  assert (result.returncode, result.stdout, result.stderr) == (0, picture + '\n', '')
  assert os.path.getsize(picture) > 10_000


@pytest.mark.slow
@pytest.mark.parametrize('device', ['/gpu:7', '/cpu:1', 'cpu:0', '/job:learner/cpu:0'])
def test_a_device_that_is_not_there_is_refused(tmp_path, processes, device):
  run_ = Run(processes, tmp_path / 'run', '--level_name=impala/Catch-v0')
  refused = run_.start(f'--learner_devices=/cpu:0,{device}').process
  assert refused.exit_code(LIMIT_SECS) == 2
  assert f'there is no {device!r} here, only /device:CPU:0' in refused.output().splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_before_anything_runs_is_a_clean_end_too(tmp_path, processes):
  early = Run(processes, tmp_path / 'run', CATCH).start()
  eventually(lambda: catches(early.process.pid, signal.SIGTERM), LIMIT_SECS, early.process.output)
  early.stop(signal.SIGINT)
  assert 'Traceback' not in early.process.output()


@pytest.mark.slow
def catches(pid, number):
  """Whether a process has a handler for a signal."""
  with open(f'/proc/{pid}/status') as file:
    (line,) = (line for line in file if line.startswith('SigCgt:'))
  return bool(int(line.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.slow
def test_vectors_flow_through_agents_with_and_without_memory(tmp_path, processes):
  flags = (
      '--total_environment_frames=1000', '--batch_size=4', '--num_actors=1', '--envs_per_actor=4',
      '--metrics_secs=1',
  )  # fmt: skip
  plain = Run(processes, tmp_path / 'plain', *flags, '--level_name=CartPole-v1').start()
  memory = Run(processes, tmp_path / 'memory', *flags, '--level_name=impala/Memory-v0')
  memory.start('--agent_name=MLPLSTMAgent')
  for run_, updates in ((plain, 13), (memory, 13)):  # Of 80 frames.
    assert run_.process.exit_code(LIMIT_SECS) == 0, run_.process.output()
    assert (run_.checkpoint(), run_.frames()) == (updates, updates * 80)
    assert_summary(run_.process.output(), 'all 1000 frames are done', updates * 80)
    entropies = [row['entropy_loss'] for row in run_.rows() if row['entropy_loss']]
    assert entropies and all(float(entropy) < 0 for entropy in entropies)
    assert run_.rows('episodes.csv')
  other = (f'--logdir={plain.logdir}', '--level_name=MountainCar-v0')
  before = plain.snapshot()
  assert_refused(run(*other), plain.logdir, 'CartPole-v1', 'MountainCar-v0', '--init_from=')
  assert_refused(run(*other, '--mode=test'), plain.logdir, '(4,)', '(2,)')
  assert plain.snapshot() == before
