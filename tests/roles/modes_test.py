"""Checkpoints to choose from: a real run keeps them, test, video and export take the chosen one."""

import glob
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import tensorflow  # noqa: F401 (imported later and quietly, it would change what children print)

import experiment
from conftest import ROOT, Processes, commands_of, eventually, whole_rows
from roles import modes
from runtime.checkpoints import LIST, Checkpoints, find, listed
from runtime.locks import lock_output
from runtime.process import BadInput

pytestmark = pytest.mark.slow  # Every test is one training run or several.

LIMIT_SECS = 240.0
EVERY, UPDATE_FRAMES = 500, 72  # 8 unrolls of 9 steps.
SMALL = ('--num_actors=1', '--envs_per_actor=4')  # Each environment is a process.
CATCH = ('--flagfile=flagfiles/catch.flags', *SMALL, '--batch_size=8', '--keep_checkpoints=1',
         '--metrics_secs=1', f'--keep_checkpoint_every_frames={EVERY}')  # fmt: skip
FOR_EVER = [504, 1008, 1512, 2016]  # The first updates past each 500.
BREAKOUT = (
    '--level_name=BreakoutNoFrameskip-v4', '--batch_size=1', '--unroll_length=5', '--num_actors=1',
    '--envs_per_actor=1', '--keep_checkpoint_every_frames=100', '--metrics_secs=0.1',
)  # fmt: skip


@pytest.fixture(scope='module')
def module_processes(tmp_path_factory):
  started = Processes(tmp_path_factory.mktemp('logs'))
  yield started
  started.close()


def finished(processes, *flags):
  """Runs experiment.py to a good end; what it printed."""
  process = processes.start('experiment.py', *flags)
  assert process.exit_code(LIMIT_SECS) == 0, process.output()
  return process.output()


@pytest.fixture
def refused(capfd):
  """A function that runs experiment.py here, to its refusal; it returns the one sentence said."""

  def run(*flags):
    code = experiment.main(['experiment.py', *flags])
    said = capfd.readouterr()
    assert (code, said.out) == (2, ''), said.err
    (line,) = said.err.splitlines()
    return line

  return run


@pytest.fixture(scope='module')
def catch(module_processes, tmp_path_factory):
  """The folder of a run on Catch of 2000 frames; not to be changed."""
  folder = tmp_path_factory.mktemp('runs') / 'catch'
  finished(module_processes, *CATCH, f'--logdir={folder}', '--total_environment_frames=2000')
  return folder


@pytest.fixture
def copy(catch, tmp_path):
  return shutil.copytree(catch, tmp_path / 'copy')


def rows(folder):
  return whole_rows(folder / 'metrics.csv')


def test_a_run_keeps_what_it_is_told_to(catch):
  there = listed(str(catch))
  assert [saved.frames for saved in there if saved.for_ever] == FOR_EVER
  for saved in there:
    path = str(catch / saved.name)
    assert Checkpoints.value(path, 'environment_frames') == saved.frames
    assert Checkpoints.value(path, 'global_step') == saved.updates == saved.frames / UPDATE_FRAMES
  # More than 100 games have ended: the last checkpoint has the mean return of the last row.
  assert there[-1].mean_return_100 == pytest.approx(float(rows(catch)[-1]['mean_return_100']))
  means = {s.name: s.mean_return_100 for s in there if s.mean_return_100 is not None}
  best = json.loads((catch / LIST).read_text())['best']
  assert means[best] == max(means.values())


def test_what_is_kept_survives_a_kill(tmp_path, processes):
  folder = tmp_path / 'run'
  flags = [*CATCH, '--save_checkpoint_secs=0.5', '--total_environment_frames=1000000',
           f'--logdir={folder}']  # fmt: skip

  def for_ever():
    return [saved for saved in listed(str(folder)) if saved.for_ever]

  run = processes.start('experiment.py', *flags)
  eventually(lambda: for_ever() or run.poll() is not None, LIMIT_SECS, run.output)
  run.kill()
  run.wait()
  before = for_ever()
  run = processes.start('experiment.py', *flags)
  # So many frames that more than 100 games have ended.
  eventually(lambda: len(for_ever()) > len(before) + 1 or run.poll() is not None, LIMIT_SECS)
  os.killpg(run.pid, signal.SIGTERM)
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  after = for_ever()
  assert after[: len(before)] == before and len(after) > len(before)
  there = listed(str(folder))
  assert {s.frames // EVERY for s in after} == set(range(1, there[-1].frames // EVERY + 1))
  best = max(s.mean_return_100 for s in there if s.mean_return_100 is not None)
  # No more than the newest, the best, and those for ever.
  others = [s for s in there[:-1] if not s.for_ever and s.mean_return_100 != best]
  assert others == []
  on_disk = {path.name.removesuffix('.index') for path in folder.glob('*.index')}
  assert on_disk == {saved.name for saved in there}


def only(folder, choice):
  """Spoils all checkpoints of a run but the chosen one; its path."""
  chosen = find(str(folder), choice, '')
  for path in folder.glob('*.data-*'):
    if not str(path).startswith(f'{chosen}.'):
      path.write_bytes(b'no weights')
  return chosen


def assert_played(folder, chosen, choice, games):
  """The only evaluation in a run's folder is of this checkpoint."""
  (result,) = json.loads((folder / 'evaluation.json').read_text())
  frames = Checkpoints.value(chosen, 'environment_frames')
  assert (result['checkpoint'], result['checkpoint_choice'], result['checkpoint_frames']) == (
    os.path.basename(chosen), choice, frames
  )  # fmt: skip
  assert len(result['returns']) == games


def test_the_one_of_so_many_frames_plays(copy, processes):
  chosen = only(copy, '1512')
  finished(processes, '--mode=test', f'--logdir={copy}', '--checkpoint=1512',
           '--test_num_episodes=3')  # fmt: skip
  assert_played(copy, chosen, '1512', 3)


def test_the_chosen_one_is_exported_and_filmed(copy, processes):
  chosen = only(copy, '1008')
  flags = [f'--logdir={copy}', '--checkpoint=1008']
  finished(processes, '--mode=export', *flags)
  policy = json.loads((copy / 'export' / 'policy.json').read_text())
  assert (policy['checkpoint'], policy['environment_frames'], policy['checkpoint_choice']) == (
    os.path.basename(chosen), 1008, '1008'
  )  # fmt: skip
  played = processes.start(copy / 'export' / 'play_exported.py', cwd=copy, name='played')
  assert played.exit_code(LIMIT_SECS) == 0, played.output()
  assert re.search(r'^return -?1\.0$', played.output(), re.M)
  assert 'impala/Catch-v0: return ' in finished(processes, '--mode=video', *flags)
  assert (copy / 'video.webm').exists()


def test_games_that_have_ended_are_kept_at_ctrl_c(copy, processes):
  flags = ['--mode=test', f'--logdir={copy}', '--test_num_episodes=1000000']
  run = processes.start('experiment.py', *flags)
  eventually(lambda: 'of 1000000 games played, mean' in run.output(), LIMIT_SECS, run.output)
  os.kill(run.pid, signal.SIGINT)
  assert run.exit_code(LIMIT_SECS) == 1, run.output()
  (result,) = json.loads((copy / 'evaluation.json').read_text())
  assert result['asked_episodes'] == 1000000 and result['max_episode_frames'] == 27000
  assert 0 < result['num_episodes'] == len(result['returns']) < 1000000
  last = f'experiment.py: SIGINT: {result["num_episodes"]} of 1000000 games were played'
  assert last in run.output().splitlines()


@pytest.mark.parametrize('mode, output', [('video', 'film'), ('export', 'export')])
def test_what_another_process_writes_is_left_to_it(copy, refused, mode, output):
  with lock_output(str(copy), output, '--logdir'):
    before = sorted(os.listdir(copy))
    line = refused(f'--mode={mode}', f'--logdir={copy}')
    assert f'--logdir={copy}: process {os.getpid()} writes its {output} already' in line
    assert sorted(os.listdir(copy)) == before


@pytest.mark.parametrize('mode', ['test', 'video', 'export'])
def test_one_that_is_not_there_is_refused_with_those_that_are(catch, refused, mode):
  before = sorted(os.listdir(catch))
  line = refused(f'--mode={mode}', f'--logdir={catch}', '--checkpoint=1000')
  assert '--checkpoint=1000: ' in line and 'none of 1000 frames' in line
  assert re.search(r'those of 504, 1008( \(best\))?, 1512( \(best\))?, ', line)
  assert sorted(os.listdir(catch)) == before


def test_what_is_no_choice_is_refused(refused):
  for choice in ('newest', '-5', '1e6', ''):
    line = refused('--only_check_args', f'--checkpoint={choice}')
    assert f'--checkpoint={choice} is none of last, best and a number' in line


def test_in_a_folder_that_cannot_be_written_the_games_are_played_and_told(tmp_path):
  run = shutil.copytree(os.path.join(ROOT, 'tests', 'data', 'earlier_run'), tmp_path / 'run')
  before = sorted(os.listdir(run))
  done = subprocess.run(
    [sys.executable, 'experiment.py', '--mode=test', f'--logdir={run}', '--test_num_episodes=3'],
    cwd=ROOT, capture_output=True, text=True, timeout=200,
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY)),
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert f'{run} cannot be written (File too large): the result is only printed' in done.stderr
  assert re.search(r'^CartPole-v1: 3 games, mean .*; written nowhere$', done.stdout, re.M)
  assert sorted(os.listdir(run)) == before


def test_of_an_earlier_run_nobody_knows_the_best(refused, tmp_path):
  source = os.path.join(ROOT, 'tests', 'data', 'earlier_run')
  folder = shutil.copytree(source, tmp_path / 'earlier_run')
  line = refused('--mode=test', f'--logdir={folder}', '--checkpoint=best')
  assert '--checkpoint=best' in line and 'not known which is best' in line and '3072' in line


def delete(path):
  for file in glob.glob(glob.escape(path) + '.*'):
    os.remove(file)


def test_one_that_its_run_deletes_before_it_is_read_is_chosen_again(copy):
  there, chosen = listed(str(copy)), []

  def frames(path):
    chosen.append(os.path.basename(path))
    if len(chosen) == 1:
      delete(path)
    return Checkpoints.value(path, 'environment_frames')

  assert modes.with_checkpoint(str(copy), 'last', frames) == there[-2].frames
  assert chosen == [there[-1].name, there[-2].name]
  chosen.clear()
  with pytest.raises(BadInput, match='--checkpoint=1008: .*none of 1008 frames; there are those'):
    modes.with_checkpoint(str(copy), '1008', frames)

  def fail(path):
    chosen.append(path)
    raise ZeroDivisionError

  chosen.clear()
  with pytest.raises(ZeroDivisionError):  # Not for want of the checkpoint.
    modes.with_checkpoint(str(copy), 'last', fail)
  assert len(chosen) == 1


@pytest.fixture(scope='module')
def breakout(module_processes, tmp_path_factory):
  """The folder of a run on Breakout of 300 frames; not to be changed."""
  folder = tmp_path_factory.mktemp('runs') / 'breakout'
  finished(module_processes, *BREAKOUT, f'--logdir={folder}', '--total_environment_frames=300')
  return folder


@pytest.mark.timeout(580)  # Real games, on a busy machine.
def test_a_checkpoint_of_an_atari_game_is_chosen_by_its_frames(breakout, tmp_path, processes):
  folder = shutil.copytree(breakout, tmp_path / 'breakout')
  assert [s.frames for s in listed(str(folder)) if s.for_ever] == [100, 200, 300]
  only(folder, '200')
  finished(processes, '--mode=test', f'--logdir={folder}', '--checkpoint=200',
           '--test_num_episodes=1', '--eval_protocol=paper')  # fmt: skip
  (result,) = json.loads((folder / 'evaluation.json').read_text())
  assert (result['checkpoint_frames'], result['protocol']) == (200, 'paper')
  assert result['mean'] >= 0 and result['frames'] > 100


@pytest.mark.timeout(580)  # Real games, on a busy machine.
def test_the_commands_of_the_documentation_from_a_run_to_its_card(breakout, tmp_path, processes):
  # Breakout, in the folder that the page names: its games are shorter than Pong's.
  folder = tmp_path / 'runs' / 'PongNoFrameskip-v4-SimpleConvNetAgent-seed1'
  shutil.copytree(breakout, folder)
  for title in ('Test', 'Video', 'Export'):
    for python, program, *flags in commands_of('docs/after_training.md', title):
      assert (os.path.basename(python), program) == ('python', 'experiment.py')
      flags = [re.sub('RUN$', str(folder), flag).replace('=30', '=2') for flag in flags]
      if title == 'Test':  # As a user starts it; the others are forks.
        program = os.path.join(ROOT, program)
      run = processes.start(program, *flags, cwd=tmp_path, name=f'{title}{len(flags)}')
      assert run.exit_code(LIMIT_SECS) == 0, run.output()
  (evaluation,) = json.loads((folder / 'evaluation.json').read_text())
  assert evaluation['protocol'] == 'paper'
  exported = {path.name for path in (folder / 'export').iterdir()}
  assert exported >= {
    'saved_model.pb', 'policy.json', 'play_exported.py', 'MODEL_CARD.md', 'learning_curve.png',
    'evaluation.json', 'video.webp', 'video.webm',
  }  # fmt: skip
  card = (folder / 'export' / 'MODEL_CARD.md').read_text()
  assert f'| **2** | **{evaluation["mean"]:.2f} (' in card
  assert '--level_name=BreakoutNoFrameskip-v4 --agent_name=SimpleConvNetAgent --total_' in card
  assert '| `unroll_length` | 5 |' in card and 'discounting' not in card
  played = processes.start(folder / 'export' / 'play_exported.py', cwd=tmp_path, name='played')
  assert played.exit_code(LIMIT_SECS) == 0, played.output()
  assert re.search(r'^return \d+\.0$', played.output(), re.M)


def test_the_commands_of_the_documentation(copy, tmp_path, processes):
  tested, begun = commands_of('docs/after_training.md', 'Checkpoints to choose from')
  assert tested[:2] == begun[:2] == ['python', 'experiment.py']
  chosen = only(copy, 'best')
  finished(processes, *[word.replace('RUN', str(copy)) for word in tested[2:]])
  assert_played(copy, chosen, 'best', 30)  # The default.
  earlier = os.path.join(ROOT, 'tests', 'data', 'earlier_run')
  flags = [word.replace('RUN:best', earlier).replace('runs/', f'{tmp_path}/') for word in begun[2:]]
  output = finished(processes, *flags, *SMALL, '--total_environment_frames=500', '--batch_size=4')
  assert 'second: new run from the weights of ' in output
