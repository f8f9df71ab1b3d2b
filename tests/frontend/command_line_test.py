"""The frontend's command line: bad input, the help, and what `plan` prints."""

import importlib
import inspect
import os
import subprocess
import sys

import pytest

import conftest
import frontend_fixtures
import run_experiment_mm_raw
from frontend.actions import stop
from frontend_fixtures import own_tmux  # noqa: F401


@pytest.mark.parametrize(
  'words,sentence',
  [
    (['--action=stat'], "value should be one of"),
    (['--task=learner:0'], '--task belongs to attach and logs, not to launch'),
    (['--action=logs', '--task=actor:9'],
     '--task=actor:9: the cluster has 1 ps, 2 learner, 5 actor'),
    (['--action=logs', '--task=boss:0'], 'is not a task'),
    (['--action=stop', '--seed=1'], '--action=stop takes no training flags, but --seed=1 came'),
    (['--action=stop', '--tmux_ses=x'], '(or the flag --tmux_sess of the frontend?)'),
    (['--job_name=ps'], '--job_name follows from the cluster CSV'),
    (['--tmux_sess=a b'], 'is not a name of letters, digits, _ and -'),
    (['--tmux_socket=$(touch x)'], 'is not a name or path'),
    (['--levl_name=x'], 'there is no flag --levl_name; did you mean --level_name?'),
    (['--batch_size', 'four'], 'batch_size'),
    (['--action=push', '--wheelhouse=/nowhere'], '--wheelhouse=/nowhere is not a folder'),
  ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_2(words, sentence, own_tmux):  # noqa: F811
  result = frontend_fixtures.frontend(
    ['--cluster_csv_path=local_cluster_example.csv', f'--tmux_socket={own_tmux.path}', *words]
  )
  assert result.returncode == 2
  assert sentence in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1
  assert own_tmux.sessions() == []


def test_a_missing_csv():
  result = frontend_fixtures.frontend([])
  assert result.returncode == 2 and '--cluster_csv_path is missing' in result.stderr


@pytest.mark.parametrize('name', run_experiment_mm_raw.ACTIONS)
def test_each_action_is_the_function_run_of_a_module_of_its_name(name):
  module = importlib.import_module(f'frontend.actions.{name}')
  assert list(inspect.signature(module.run).parameters) == ['console']


def test_a_bug_does_not_look_like_a_wrong_flag(monkeypatch):
  def broken(console):
    raise ValueError('a bug')

  monkeypatch.setattr(stop, 'run', broken)
  with pytest.raises(ValueError, match='a bug'):
    run_experiment_mm_raw.main(['--cluster_csv_path=local_cluster_example.csv', '--action=stop'])


def test_plan_names_every_command_and_starts_nothing(own_tmux):  # noqa: F811
  result = frontend_fixtures.frontend(
    ['--cluster_csv_path=local_cluster_example.csv', f'--tmux_socket={own_tmux.path}',
     '--action=plan', '--agent_name=ResNetLSTMAgent'])  # fmt: skip
  assert result.returncode == 0, result.stderr
  lines = [line for line in result.stdout.splitlines() if line.startswith('  ')]
  assert len(lines) == 8 and all('--agent_name=ResNetLSTMAgent' in line for line in lines)
  assert lines[7].startswith('  actor-4: CUDA_VISIBLE_DEVICES= ')
  assert own_tmux.sessions() == []


def test_help_needs_no_other_package():
  program = os.path.join(conftest.ROOT, 'run_experiment_mm_raw.py')
  result = subprocess.run(
    [sys.executable, '-X', 'importtime', program, '--help'],
    capture_output=True, text=True, check=True)  # fmt: skip
  for name in ('--cluster_csv_path', '--tmux_sess', '--wheelhouse', 'launch', 'push'):
    assert name in result.stdout
  imported = {line.rpartition('|')[2].strip().split('.')[0] for line in result.stderr.splitlines()}
  assert not imported & {'tensorflow', 'paramiko', 'libtmux', 'numpy', 'gymnasium', 'experiment'}
