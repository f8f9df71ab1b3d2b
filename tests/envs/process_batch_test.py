"""envs.process_batch: crashes, and processes that end when they should."""

import os
import signal
import threading

import numpy as np
import pytest
import tensorflow as tf

import counting_env
import environments
from child_processes import children
from conftest import eventually
from environment_player import counting, playing
from envs import crashes, faults
from envs.faults import EnvironmentFault
from envs.process_batch import ProcessBatch
from roles import role

KILL, RAISE = counting_env.KILL, counting_env.RAISE


def assert_not_counted(output, i):
  assert output.done[i] and not output.info.game_over[i]
  assert output.reward[i] == output.info.episode_return[i] == output.info.episode_step[i] == 0
  np.testing.assert_array_equal(output.observation[i], [0, 0])


@pytest.mark.parametrize('action, reason', [(KILL, 'SIGKILL'), (RAISE, 'the simulator stumbled')])
def test_crashed_environment_is_rebuilt_in_its_batch(action, reason, caplog):
  with playing(counting('Fragile'), 3) as player:
    player.initial()
    player.step()
    crashed = player.step([0, action, 0])
    after = player.step()
    assert player.flow.crashes == 1
    assert len(children()) == 3
  assert_not_counted(crashed, 1)
  np.testing.assert_array_equal(crashed.info.episode_step, [2, 0, 2])
  np.testing.assert_array_equal(crashed.done, [False, True, False])
  np.testing.assert_array_equal(after.info.episode_step, [3, 1, 3])
  np.testing.assert_array_equal(after.info.episode_return, [6, 1, 6])
  (message,) = [r.getMessage() for r in caplog.records if 'crashed' in r.getMessage()]
  assert message.startswith('environment 1 of counting_env:Fragile-v0') and reason in message


def test_worker_killed_from_outside_is_rebuilt():
  with playing(counting('Fragile'), 2) as player:
    player.initial()
    os.kill(children()[0].pid, signal.SIGKILL)
    output = player.step()
    assert output.info.episode_step.tolist() in ([0, 1], [1, 0])
    assert player.flow.crashes == 1


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.slow
def test_ten_crashes_in_a_row_are_an_error():
  with playing(counting('Fragile'), 2) as player:
    player.initial()
    for _ in range(9):
      assert_not_counted(player.step([0, RAISE]), 1)
    with pytest.raises(
      tf.errors.OpError, match='environment 1 .* crashed 10 times in a row'
    ) as info:
      player.step([0, RAISE])
    assert 'the simulator stumbled' in info.value.message
  assert not children()


@pytest.mark.parametrize(
  'action, said',
  [
    (1, 'its reward is nan, at step 2 of a game (step 7 of this environment)'),
    (2, 'its observation holds inf at [0, 0], at step 2 of a game'),
    (3, 'its observation has shape (1,) where its space promises (2, 1), at step 2 of a game'),
  ],
)
def test_a_broken_promise_ends_the_run_at_once(action, said):
  batch = ProcessBatch(environments.environment_spec(counting('Breaking')), 3, 1)
  try:
    batch.reset()
    for step in range(6):
      rewards = batch.step(np.zeros(3, np.int32)).reward
      assert rewards.tolist() == [step % counting_env.GAME_STEPS + 1] * 3
    with pytest.raises(EnvironmentFault) as info:
      batch.step(np.int32([0, action, 0]))
    assert str(info.value).startswith(f'environment 1 of counting_env:Breaking-v0: {said}')
    assert batch.crashes == 0
  finally:
    batch.close()


def test_a_crash_is_told_with_its_traceback_once(caplog):
  crashes._told.clear()
  with playing(counting('Fragile'), 1) as player:
    player.initial()
    for _ in range(3):
      player.step(RAISE)
  crashed = [r.getMessage() for r in caplog.records if 'crashed' in r.getMessage()]
  (told,) = crashed
  first, *traceback = told.splitlines()
  assert 'your environment raised ArithmeticError in step (counting_env.py:' in first
  assert traceback[0].startswith('Traceback') and traceback[-1].endswith('simulator stumbled')
  assert told.count('Traceback') == 1


def test_a_fault_is_found_in_what_tensorflow_says_of_it():
  with playing(counting('Breaking'), 1) as player:
    player.initial()
    with pytest.raises(tf.errors.OpError) as info:
      player.step(1)
  sentence = faults.sentence_in(info.value)
  assert sentence.startswith('environment 0 of counting_env:Breaking-v0: its reward is nan')
  assert '\n' not in sentence and faults.sentence_in(KeyError('EnvironmentFault')) == ''
  assert role.failure(info.value) == sentence


def test_finished_game_ends_the_row_of_crashes():
  with playing(counting('Fragile'), 1) as player:
    player.initial()
    for _ in range(2):
      for _ in range(6):
        player.step(RAISE)
      for _ in range(counting_env.GAME_STEPS):
        player.step()
    assert player.flow.crashes == 12


def test_environment_that_cannot_be_rebuilt_is_an_error(monkeypatch, tmp_path):
  monkeypatch.setenv(counting_env.BROKEN, str(tmp_path / 'broken'))
  with playing(counting('Fragile'), 2) as player:
    player.initial()
    (tmp_path / 'broken').touch()
    with pytest.raises(tf.errors.OpError, match='10 times in a row') as info:
      player.step([KILL, 0])
    assert 'the simulator is gone' in info.value.message


def test_workers_are_small_and_without_tensorflow():
  with playing('impala/Catch-v0', 4) as player:
    player.initial()
    assert len(children()) == 4
    for process in children():
      assert process.memory_info().rss < 150e6
      assert not [m.path for m in process.memory_maps() if 'tensorflow' in m.path]
  assert not children()


def test_environments_step_at_the_same_time(monkeypatch, tmp_path):
  monkeypatch.setenv(counting_env.BARRIER, str(tmp_path))
  with playing(counting('Meeting'), 5) as player:
    (tmp_path / 'count').write_text('5')
    player.initial()
    outputs = [player.step() for _ in range(3)]
    assert player.flow.crashes == 0
  np.testing.assert_array_equal(outputs[2].info.episode_step, [3] * 5)


def test_closing_during_a_step_leaves_no_process(monkeypatch, tmp_path):
  monkeypatch.setenv(counting_env.BARRIER, str(tmp_path / 'inside'))
  monkeypatch.setattr('acting.worker_process.CLOSE_SECS', 0.1)
  errors = []
  with playing(counting('Slow'), 2) as player:
    (tmp_path / 'inside.announced').touch()
    player.initial()

    def step():
      with pytest.raises(tf.errors.OpError) as info:
        player.step()
      errors.append(info.value.message)

    stepping = threading.Thread(target=step)
    stepping.start()
    eventually((tmp_path / 'inside').exists)
    player.flow.close()
    stepping.join(60)
    assert 'are closed' in errors[0]
    assert player.flow.crashes == 0
    assert not children()
    player.flow.close()


@pytest.mark.parametrize('where', ['making', 'reset'])
def test_closing_during_a_rebuild_that_hangs_leaves_no_process(monkeypatch, tmp_path, where):
  monkeypatch.setenv(counting_env.BARRIER, str(tmp_path / 'inside'))
  monkeypatch.setenv(counting_env.BROKEN, str(tmp_path / 'broken'))
  with playing(counting('Stuck'), 2) as player:
    player.initial()
    (tmp_path / 'broken').write_text(where)
    errors = []

    def step():
      with pytest.raises(tf.errors.OpError) as info:
        player.step([0, KILL])
      errors.append(info.value.message)

    stepping = threading.Thread(target=step, daemon=True)
    stepping.start()
    eventually((tmp_path / 'inside').exists)
    closing = threading.Thread(target=player.flow.close, daemon=True)
    closing.start()
    closing.join(60)
    stepping.join(60)
    assert not closing.is_alive() and 'are closed' in errors[0]
    assert player.flow.crashes == 1  # Of what was killed at the end nobody hears.
    assert not children()
