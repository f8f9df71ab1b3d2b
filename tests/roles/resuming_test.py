"""roles.resuming: what a command goes on with, from records alone; no TensorFlow, no training."""

import json
import os
import pathlib
import shlex

import pytest

import experiment
from conftest import ROOT
from envs import probing
from roles import resuming
from roles import settings as settings_lib
from runtime import process
from runtime.cluster import LOCAL
from runtime.process import BadInput
from structs import Level

MEMORY = dict(level_name='impala/Memory-v0', agent_name='MLPLSTMAgent', unroll_length=9, seed=7)


def planned(*flags):
  """The `Plan` of a command line."""
  experiment.parse_args(['experiment.py', *flags])
  return resuming.plan(experiment.options())


def record(folder, **flags):
  """Writes the run.json of a run as training does."""
  words = [f'--{name}={value}' for name, value in {**MEMORY, **flags}.items()]
  plan = planned(f'--logdir={folder}', *words)
  resuming.lock_run_folder(plan, LOCAL).close()
  return plan


def save(folder):
  """What looks like a checkpoint of a run."""
  for name in ('model.ckpt-1.index', 'model.ckpt-1.data-00000-of-00001'):
    (folder / name).touch()
  (folder / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-1"\n')


@pytest.fixture
def run(tmp_path):
  return tmp_path / 'run'


def test_a_folder_alone_goes_on_as_before(run):
  first = record(run, learning_rate=0.01, num_actors=3, eval_every_frames=500, sample_reuse=2)
  again = planned(f'--logdir={run}')
  assert again.settings == first.settings
  assert (again.options.num_actors, again.options.eval_every_frames) == (3, 500)
  assert again.options.all_flags == {**first.options.all_flags, 'agent_name': 'MLPLSTMAgent',
                                     'num_action_repeats': 1}  # fmt: skip
  (notice,) = again.notices
  assert notice.startswith(f'{run}: settings kept from its last start: ') and '->' not in notice
  for words in ('level_name impala/Memory-v0', 'learning_rate 0.01', 'seed 7', 'num_actors 3'):
    assert words in notice
  assert (
    'eval_every_frames 500' in notice and 'discounting' not in notice
  )  # The default, of this command too.
  resuming.lock_run_folder(again, LOCAL).close()
  assert planned(f'--logdir={run}').settings == first.settings


def test_what_a_command_changes_is_said_in_one_line(run):
  record(run, entropy_cost=0.5, num_actors=3, sync_learners='true')
  flags = '--entropy_cost=0.25', '--num_actors=1', '--nosync_learners', '--seed=7'
  plan = planned(f'--logdir={run}', *flags)
  assert plan.notices[1:] == [
    f'{run}: settings changed since its last start: entropy_cost 0.5 -> 0.25, '
    'sync_learners true -> false, num_actors 3 -> 1'
  ]
  assert (plan.settings.entropy_cost, plan.settings.unroll_length) == (0.25, 9)
  assert plan.options.num_actors == 1


def test_a_queue_that_was_left_open_follows_the_batch_and_no_other_does(run, tmp_path):
  record(run, batch_size=4)
  assert planned(f'--logdir={run}', '--batch_size=50').settings.queue_capacity == 100
  record(tmp_path / 'narrow', batch_size=4, queue_capacity=5)
  assert planned(f'--logdir={tmp_path}/narrow').settings.queue_capacity == 5
  with pytest.raises(BadInput, match='batch_size=6 can never be filled .*--queue_capacity=0'):
    planned(f'--logdir={tmp_path}/narrow', '--batch_size=6')
  plan = planned(f'--logdir={tmp_path}/narrow', '--batch_size=6', '--queue_capacity=0')
  assert plan.settings.queue_capacity == 12


@pytest.mark.parametrize('flags', [
    ['--level_name=CartPole-v1'],  # Of other spaces.
    ['--level_name=impala/Catch-v0'],  # Which the run's agent cannot see.
    ['--level_name=CartPole-v0', '--agent_name=MLPAgent', '--seed=3'],
])  # fmt: skip
def test_a_folder_of_another_level_is_refused_and_names_the_way_out(run, flags):
  record(run)
  before = (run / 'run.json').read_bytes()
  with pytest.raises(BadInput) as refused:
    planned(f'--logdir={run}', *flags)
  for word in ('impala/Memory-v0', flags[0].partition('=')[2], f'--init_from={run}'):
    assert word in str(refused.value)
  assert (run / 'run.json').read_bytes() == before


def test_the_default_folder_carries_the_seed_and_tells_what_goes_on(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  words = ['--level_name=impala/Memory-v0', '--agent_name=MLPLSTMAgent']
  first = planned(*words)
  assert first.logdir == 'runs/impala-Memory-v0-MLPLSTMAgent-seed1'
  resuming.lock_run_folder(first, LOCAL).close()
  assert planned(*words, '--learning_rate=0.5').notices == [
    f'{first.logdir}: settings changed since its last start: learning_rate 0.0006 -> 0.5'
  ]
  (tmp_path / 'runs' / 'broken').mkdir()
  (tmp_path / 'runs' / 'broken' / 'run.json').write_text('[')
  other_agent = planned('--level_name=impala/Memory-v0')
  assert any(f'to resume {first.logdir}: ' in notice for notice in other_agent.notices)
  second = planned(*words, '--seed=2', '--learning_rate=0.1')
  assert second.logdir == 'runs/impala-Memory-v0-MLPLSTMAgent-seed2'
  (notice,) = second.notices
  words_to_paste = shlex.split(notice.partition(f'to resume {first.logdir}: ')[2])
  assert words_to_paste[2:] == [f'--logdir={first.logdir}']
  assert planned(*words_to_paste[2:]).settings == first.settings
  # The folder of an earlier version is found, by the seed in its record.
  os.rename(first.logdir, 'runs/impala-Memory-v0-MLPLSTMAgent')
  assert planned(*words).logdir == 'runs/impala-Memory-v0-MLPLSTMAgent'
  assert planned(*words, '--seed=2').logdir == second.logdir


@pytest.fixture
def trap(run, monkeypatch):
  """The run of a level whose module lies in its folder, below the code; importing it leaves a file.

  Returns:
    (level, the file).
  """
  record(run)
  save(run)
  monkeypatch.syspath_prepend(str(run.parent))
  text = (
    'import os, gymnasium\n'
    'open(os.path.join(os.path.dirname(__file__), "ran"), "w").close()\n'
    'gymnasium.register("Own-v0", "envs.memory:Memory")\n'
  )
  (run / 'trap_env.py').write_text(text)
  written = json.loads((run / 'run.json').read_text())
  level = 'run.trap_env:Own-v0'  # A namespace package, without an __init__.py.
  written['settings']['level_name'] = written['flags']['level_name'] = level
  (run / 'run.json').write_text(json.dumps(written))
  return level, run / 'ran'


@pytest.mark.parametrize('mode', ['train', 'test', 'video', 'export', 'sizes', 'check'])
def test_a_module_that_only_the_record_names_is_not_imported(run, trap, capsys, mode):
  level, ran = trap
  asked = '--only_check_args' if mode == 'check' else f'--mode={mode}'
  assert experiment.main(['experiment.py', f'--logdir={run}', asked]) == process.EXIT_BAD_INPUT
  assert not ran.exists()
  (line,) = capsys.readouterr().err.splitlines()
  assert f'--level_name={level}' in line and 'run.json' in line


@pytest.mark.parametrize('asked', ['--mode=train', '--mode=test', '--only_check_args'])
def test_an_agent_that_only_the_record_names_is_not_imported(run, trap, capsys, asked):
  level, ran = trap
  path = run / 'run.json'
  path.write_text(path.read_text().replace('"MLPLSTMAgent"', '"run.trap_env:Agent"'))
  path.write_text(path.read_text().replace(level, 'impala/Memory-v0'))
  assert experiment.main(['experiment.py', f'--logdir={run}', asked]) == process.EXIT_BAD_INPUT
  assert not ran.exists()
  (line,) = capsys.readouterr().err.splitlines()
  assert line.endswith('if you trust it, add --agent_name=run.trap_env:Agent')
  command = resuming.command(str(run), json.loads(path.read_text())['settings'])
  assert command.endswith(f'--logdir={run} --agent_name=run.trap_env:Agent')


def test_observers_of_the_record_are_not_imported(run):
  record(run)
  written = json.loads((run / 'run.json').read_text())
  written['flags']['observers'] = ['run.trap_env:Observer']
  (run / 'run.json').write_text(json.dumps(written))
  assert planned(f'--logdir={run}').options.observers == []
  assert experiment.main(['experiment.py', '--only_check_args', f'--logdir={run}']) == 0


def test_a_module_that_the_command_names_too_is_imported(run, trap, capsys):
  level, ran = trap
  flags = ['--only_check_args', f'--logdir={run}', f'--level_name={level}']
  assert experiment.main(['experiment.py', *flags]) == process.EXIT_OK, capsys.readouterr().err
  assert ran.exists()
  command = resuming.command(str(run), {'level_name': level, 'agent_name': 'MLPAgent'})
  assert command.endswith(f'--logdir={run} --level_name={level}')


WRAPPED = {
  'level_name': 'Steps-v0',
  'env_kwargs': '{"game_steps": 3}',
  'env_wrappers': 'trap_of_a_record.Plus:{"n": 10},trap_of_a_record.Double',
  'import': 'trap_of_a_record:register',
}


@pytest.fixture
def wrapped(run, tmp_path, monkeypatch):
  """The record of a run with a keyword, wrappers and an import; a file that the import creates."""
  folder = tmp_path / 'own'
  folder.mkdir()
  ran = tmp_path / 'ran'
  code = pathlib.Path(ROOT, 'tests', 'wrapped_env.py').read_text()
  (folder / 'trap_of_a_record.py').write_text(f'{code}\nopen({str(ran)!r}, "w").close()\n')
  monkeypatch.syspath_prepend(folder)

  def forget():
    probing._probe.cache_clear()
    settings_lib._spec.cache_clear()

  forget()
  record(run, agent_name='MLPAgent', **WRAPPED)
  assert ran.exists()
  ran.unlink()
  forget()
  return ran


@pytest.mark.parametrize('mode', ['train', 'test', 'video', 'export', 'sizes', 'check'])
def test_no_wrapper_and_no_import_that_only_the_record_names_is_imported(
  run, wrapped, capsys, mode
):
  asked = '--only_check_args' if mode == 'check' else f'--mode={mode}'
  assert experiment.main(['experiment.py', f'--logdir={run}', asked]) == process.EXIT_BAD_INPUT
  assert not wrapped.exists()
  (line,) = capsys.readouterr().err.splitlines()
  added = shlex.split(line.rpartition('if you trust it, add ')[2])
  assert added == [f'--{name}={WRAPPED[name]}' for name in ('import', 'env_wrappers')]
  # One of the two is not enough.
  for word in added:
    flags = [f'--logdir={run}', asked, word]
    assert experiment.main(['experiment.py', *flags]) == process.EXIT_BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    (missing,) = shlex.split(line.rpartition('if you trust it, add ')[2])
    assert {word, missing} == set(added) and not wrapped.exists()


def test_wrappers_and_imports_that_the_command_names_too_go_on(run, wrapped):
  flags = [f'--{name}={WRAPPED[name]}' for name in ('env_wrappers', 'import')]
  plan = planned(f'--logdir={run}', *flags)
  assert plan.settings.level == Level(
    'Steps-v0', WRAPPED['env_kwargs'], WRAPPED['env_wrappers'], WRAPPED['import']
  )
  words = shlex.split(resuming.command(str(run), vars(plan.settings)))
  assert {*flags} <= {*words} and len(words) == 5
  # Another spelling of the same is no change.
  same = flags[0].replace('{"n": 10}', '{"n":10}').replace(',', ' , ')
  assert planned(f'--logdir={run}', same, flags[1]).settings == plan.settings


@pytest.mark.parametrize('flag, theirs', [
  ('--env_kwargs={"game_steps": 4}', 'env_kwargs .*3}, this one has {"game_steps": 4}'),
  ('--env_wrappers=', 'env_wrappers trap_of_a_record.Plus.*, this one has none: choose another'),
])  # fmt: skip
def test_a_run_keeps_the_environment_that_it_began_with(run, wrapped, flag, theirs):
  flags = [f'--{name}={WRAPPED[name]}' for name in ('env_wrappers', 'import')] + [flag]
  with pytest.raises(BadInput, match=f'holds a run with {theirs}.*--init_from={run} begins'):
    planned(f'--logdir={run}', *flags)


def test_a_run_of_before_there_were_keywords_had_none(run):
  record(run)
  written = json.loads((run / 'run.json').read_text())
  for part in ('settings', 'flags'):
    for name in ('env_kwargs', 'env_wrappers', 'imports'):
      del written[part][name]
  (run / 'run.json').write_text(json.dumps(written))
  planned(f'--logdir={run}')
  wrapper = '--env_wrappers=gymnasium.wrappers.ClipReward:{"min_reward": 0}'
  with pytest.raises(BadInput, match='holds a run with env_wrappers none, this one'):
    planned(f'--logdir={run}', wrapper)
  with pytest.raises(
    BadInput, match='holds a run with env_kwargs none, this one has {"max_episode'
  ):
    planned(f'--logdir={run}', '--env_kwargs={"max_episode_steps": 5}')


def test_flags_are_checked_on_any_host_whatever_lies_in_a_folder_there(run, capsys):
  record(run)
  flags = [f'--logdir={run}', '--level_name=CartPole-v1', '--optimizer=adam']
  assert experiment.main(['experiment.py', '--only_check_args', *flags]) == process.EXIT_OK
  flags += ['--eval_every_frames=5', '--eval_protocol=paper']
  assert experiment.main(['experiment.py', '--only_check_args', *flags]) == process.EXIT_BAD_INPUT
  assert 'eval_protocol=paper' in capsys.readouterr().err


@pytest.mark.parametrize('part, name, value', [
    ('settings', 'batch_size', 'many'),
    ('settings', 'learning_rate', -1),
    ('settings', 'optimizer', 'sgd'),
    ('settings', 'level_name', ['os']),
    ('settings', 'agent_name', None),
    ('flags', 'num_actors', 0),
    ('flags', 'metrics_secs', float('nan')),
])  # fmt: skip
def test_a_record_holds_nothing_that_the_command_line_would_not_take(run, part, name, value):
  record(run)
  written = json.loads((run / 'run.json').read_text())
  written[part][name] = value
  (run / 'run.json').write_text(json.dumps(written))
  with pytest.raises(BadInput, match=rf'run\.json says {name} is '):
    planned(f'--logdir={run}')


@pytest.mark.parametrize('text', ['[1]', '{"settings": [1]}', '{"flags": 3, "settings": {}}', '7'])
def test_a_record_that_is_none_is_refused(run, text):
  run.mkdir()
  (run / 'run.json').write_text(text)
  with pytest.raises(BadInput, match='is no run.json that experiment.py wrote'):
    planned(f'--logdir={run}')


def test_a_command_line_knows_nothing_of_the_one_before():
  experiment.parse_args(['experiment.py', '--seed=5', '--learner_devices=/cpu:0', '--annotate'])
  experiment.parse_args(['experiment.py', '--batch_size=8'])
  options = experiment.options()
  assert options.given == {'batch_size'}
  assert (options.shared.seed, options.learner_devices) == (1, [])
  assert not options.all_flags['annotate']


@pytest.mark.parametrize('flags, preset', [
    (['--level_name=CartPole-v1'], 'cartpole'),
    (['--level_name=Acrobot-v1', '--num_actors=1', '--total_environment_frames=5'], 'vector'),
    (['--level_name=impala/Memory-v0'], 'memory'),
    (['--level_name=Pendulum-v1'], 'mujoco'),
    (['--level_name=impala/Catch-v0', '--seed=3'], 'catch'),
    (['--level_name=Acrobot-v1', '--entropy_cost=0.01'], ''),  # A setting of learning.
    (['--level_name=Acrobot-v1', '--flagfile=flagfiles/vector.flags'], ''),
    (['--level_name=PongNoFrameskip-v4'], ''),
])  # fmt: skip
def test_a_new_run_on_the_defaults_of_atari_hears_of_a_preset(run, flags, preset, monkeypatch):
  monkeypatch.chdir(ROOT)
  plan = planned(f'--logdir={run}', *flags)
  assert len(plan.notices) == bool(preset)
  if preset:
    (notice,) = plan.notices
    assert 'Atari' in notice and notice.endswith(f'--flagfile=flagfiles/{preset}.flags')
    assert os.path.exists(f'flagfiles/{preset}.flags')
    resuming.lock_run_folder(plan, LOCAL).close()
    assert not any('flagfile' in notice for notice in planned(f'--logdir={run}', *flags).notices)
