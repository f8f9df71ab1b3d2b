"""The frontend's own flags and those that pass through."""

import pytest

import run_experiment_mm_raw as frontend
from frontend import arguments
from frontend.errors import UserError


def split(*words):
  return arguments.split_arguments(words, frontend.FLAGS, frontend.ACTIONS)


@pytest.mark.parametrize(
  'words,own,training',
  [
    (['--action=stop', '--now'], ['--action=stop', '--now'], []),
    (['--action', 'stop', '--batch_size', '4'], ['--action', 'stop'], ['--batch_size', '4']),
    (['--batch_size', '4', '--json'], ['--json'], ['--batch_size', '4']),
    (['--flagfile=x', '--flagfile', 'y'], [], ['--flagfile=x', '--flagfile', 'y']),
    (['--learning_rate', '-1e-3'], [], ['--learning_rate', '-1e-3']),
    (['--logdir', 'logs'], [], ['--logdir', 'logs']),
    (['--nosync_learners', '--nonow'], ['--nonow'], ['--nosync_learners']),
    (['-tmux_sess=a', '-seed=1'], ['-tmux_sess=a'], ['-seed=1']),
    (['--level_name=a b;$(c)'], [], ['--level_name=a b;$(c)']),
  ],
)
def test_split(words, own, training):
  assert split(*words) == (own, training)


@pytest.mark.parametrize(
  'words,sentence',
  [
    (['status'], "'status' belongs to no flag; write --action=status"),
    (['--seed=1', 'status'], "'status' belongs to no flag; write --action=status"),
    (['--action=stop', 'x'], "'x' belongs to no flag; write --name=value"),
    (['--tmux_sess'], '--tmux_sess needs a value: --tmux_sess=...'),
  ],
)
def test_words_that_belong_to_no_flag(words, sentence):
  with pytest.raises(UserError) as caught:
    split(*words)
  assert str(caught.value) == sentence


def test_the_frontend_flag_that_was_meant():
  assert arguments.own_flag_meant('--tmux_ses=x', frontend.FLAGS) == 'tmux_sess'
  assert arguments.own_flag_meant('--batch_size', frontend.FLAGS) is None
