"""envs.process_batch with several environments in a process: what crashes, and what is chosen."""

import gc
import math
import os
import signal
import threading
import time

import numpy as np
import pytest

import config
import counting_env
import environments
from child_processes import children
from conftest import eventually
from counting_env import KILL, RAISE
from environment_player import counting
from envs import crashes, probing, step_cost
from envs.faults import EnvironmentFault
from envs.process_batch import ProcessBatch
from envs.step_cost import StepCost
from envs.worker_groups import dealt
from learner_fixtures import small_options
from roles import settings as settings_lib
from roles import wiring
from runtime.cluster import LOCAL


@pytest.fixture
def batch_of():
  """Makes batches of (name, N, environments in a process), and closes them."""
  batches = []
  crashes._told.clear()  # The first crash for a reason is reported with its traceback.

  def make(name, num_envs, envs_per_worker, seed=1):
    spec = environments.environment_spec(counting(name))
    batches.append(ProcessBatch(spec, num_envs, seed, envs_per_worker=envs_per_worker))
    return batches[-1]

  yield make
  crashes._told.clear()
  for batch in batches:
    batch.close()
  assert not children()


def stepped(batch, **actions):
  """Steps with action 0, but for those given by the index of the environment (`e1=RAISE`)."""
  chosen = np.zeros(batch.num_envs, np.int32)
  for name, action in actions.items():
    chosen[int(name[1:])] = action
  return batch.step(chosen)


def test_a_crash_costs_what_it_must(batch_of, caplog):
  batch = batch_of('Fragile', 4, 2)
  batch.reset()
  stepped(batch)
  pids = {process.pid for process in children()}
  assert len(pids) == 2
  # An exception: only that environment, in the same process.
  output = stepped(batch, e1=RAISE)
  assert output.info.episode_step.tolist() == [2, 0, 2, 2] and batch.crashes == 1
  assert output.done.tolist() == [False, True, False, False] and not output.info.game_over.any()
  assert output.reward.tolist() == [2, 0, 2, 2] and output.observation[:, 0].tolist() == [
    2,
    0,
    2,
    2,
  ]
  assert {process.pid for process in children()} == pids
  # The end of a process: its environments.
  output = stepped(batch, e2=KILL)
  assert output.info.episode_step.tolist() == [3, 1, 0, 0] and batch.crashes == 3
  assert output.done.tolist() == [False, False, True, True]
  assert output.observation.tolist() == [[3, 0], [1, 0], [0, 0], [0, 0]]
  assert len({process.pid for process in children()} & pids) == 1
  # Both at once.
  output = stepped(batch, e0=RAISE, e3=KILL)
  assert output.info.episode_step.tolist() == [0, 2, 0, 0] and batch.crashes == 6
  # Killed from outside: nobody of that process is to blame.
  os.kill((pids & {process.pid for process in children()}).pop(), signal.SIGKILL)
  output = stepped(batch)
  assert output.info.episode_step.tolist() == [0, 0, 1, 1] and batch.crashes == 8
  assert stepped(batch).info.episode_return.tolist() == [1, 1, 3, 3]
  told = [r.getMessage() for r in caplog.records if 'crashed' in r.getMessage()]
  which = 'of counting_env:Fragile-v0 crashed and'
  assert told[0].startswith(f'environment 1 {which} is rebuilt, its game is not counted: your')
  assert 'simulator stumbled' in told[0].splitlines()[-1] and told[0].count('Traceback') == 1
  assert told[1].startswith(
    f'environment 2 {which} environments 2 to 3, of the same process, are rebuilt, their games are '
    'not counted: its process was killed by signal 9 (SIGKILL)'
  )
  assert len(told) == 2


def test_a_broken_promise_names_its_environment(batch_of):
  batch = batch_of('Breaking', 3, 2)
  batch.reset()
  with pytest.raises(EnvironmentFault, match='^environment 2 .* its reward is nan, at step 1 of'):
    stepped(batch, e2=1)


def test_crashes_in_a_row_are_those_of_one_environment(batch_of, monkeypatch):
  monkeypatch.setattr(crashes, 'MAX_CRASHES_IN_A_ROW', 4)
  batch = batch_of('Fragile', 3, 3)
  batch.reset()
  for name in ('e0', 'e1', 'e0', 'e1', 'e0', 'e1'):
    stepped(batch, **{name: RAISE})
  with pytest.raises(EnvironmentFault, match='environment 1 of .* crashed 4 times in a row'):
    stepped(batch, e1=RAISE)


def test_dealing_changes_no_game(batch_of):
  def played(envs_per_worker):
    batch = batch_of('Drawing', 2, envs_per_worker)
    outputs = [batch.reset()]
    outputs += [stepped(batch, e1=RAISE if step == 2 else 0) for step in range(8)]
    return np.stack([output.observation for output in outputs])

  apart, together = played(1), played(2)
  assert len(np.unique(apart)) == apart.size
  np.testing.assert_array_equal(apart, together)


def test_an_observation_stays_as_it_was(batch_of):
  batch = batch_of('Held', 2, 2)
  outputs = [batch.reset()] + [stepped(batch) for _ in range(counting_env.GAME_STEPS - 1)]
  for step, output in enumerate(outputs):
    assert (output.observation == step).all()
    assert output.observation.ctypes.data % 64 == 0  # TensorFlow does not copy it again.
    assert output.reward.tolist() == [step] * 2


@pytest.mark.parametrize('where', ['making', 'reset'])
def test_closing_ends_a_rebuild_that_hangs(batch_of, monkeypatch, tmp_path, where):
  monkeypatch.setenv(counting_env.BARRIER, str(tmp_path / 'inside'))
  monkeypatch.setenv(counting_env.BROKEN, str(tmp_path / 'broken'))
  batch = batch_of('Stuck', 2, 2)
  batch.reset()
  (tmp_path / 'broken').write_text(where)
  errors = []

  def step():
    with pytest.raises(RuntimeError) as info:
      stepped(batch, e1=RAISE)
    errors.append(str(info.value))

  stepping = threading.Thread(target=step, daemon=True)
  stepping.start()
  eventually((tmp_path / 'inside').exists)
  closing = threading.Thread(target=batch.close, daemon=True)
  closing.start()
  closing.join(30)
  was_closed = not closing.is_alive()
  for process in children():  # A batch that cannot be closed would keep this test.
    process.kill()
    was_closed = False
  stepping.join(60)
  assert was_closed and 'are closed' in errors[0] and batch.crashes == 1


def test_a_process_that_dies_often_is_divided(batch_of, monkeypatch):
  monkeypatch.setattr(step_cost, 'envs_per_worker', lambda num_envs, cost: 2)
  batch = batch_of('Fragile', 3, 0)
  batch.reset()
  assert len(children()) == 2
  stepped(batch, e2=KILL)
  assert len(children()) == 2
  assert stepped(batch, e1=KILL).info.episode_step.tolist() == [2, 0, 0]
  assert len(children()) == 3 and batch.crashes == 4
  assert stepped(batch, e2=KILL).info.episode_step.tolist() == [3, 1, 0]
  assert stepped(batch).observation.tolist() == [[4, 0], [2, 0], [1, 0]]


def test_a_batch_leaves_no_file_open():
  def open_files():
    gc.collect()
    links = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')]
    return sorted(os.readlink(link) for link in links if os.path.islink(link))

  def play():
    batch = ProcessBatch(environments.environment_spec(counting('Counting')), 2, 1, 0, 2)
    try:
      output = batch.reset()
      assert any('memfd:environments' in path for path in open_files())
    finally:
      batch.close()
    return output

  play()  # From here on, the process that watches this one runs, too.
  before = open_files()
  output = play()
  assert open_files() == before and output.done.all()


def test_an_actor_loop_gets_what_the_flag_says():
  flags = config.RunFlags(level_name='impala/Catch-v0', agent_name='auto')
  settings = settings_lib.own_settings(flags)
  options = small_options(num_actors=1, envs_per_actor=5, envs_per_worker=3)
  (flow,) = wiring.create_environments(settings, LOCAL, options, 0)
  try:
    assert len(children()) == 2
  finally:
    flow.close()


def test_what_a_step_costs_is_measured():
  cheap, drawing = (
    probing.probe(environments.level_of(counting(n))).cost for n in ('Counting', 'Drawing')
  )
  assert 0 < cheap.secs < step_cost.HEAVY_SECS and not cheap.draws
  assert drawing.draws and step_cost.envs_per_worker(8, drawing) == 1


def test_an_environment_that_hangs_is_not_measured():
  start = time.monotonic()
  cost = probing.probe(environments.level_of('hanging_env:Hanging-v0')).cost
  assert cost == StepCost(math.inf, False) and time.monotonic() - start < probing.CHECK_SECS


@pytest.mark.parametrize(
  'num_envs, secs, processors, expected',
  [(32, 1e-5, 2, 16), (64, 1e-5, 2, 32), (64, 1e-5, 64, 11), (5, 1e-5, 2, 3), (1, 1e-5, 2, 1),
   (64, 2e-4, 8, 8), (64, 2e-4, 2, 32), (64, 1e-3, 2, 1), (64, math.inf, 2, 1), (2, 1e-6, 8, 2)],
)  # fmt: skip
def test_environments_in_a_worker_are_chosen(num_envs, secs, processors, expected):
  assert step_cost.envs_per_worker(num_envs, StepCost(secs, False), processors) == expected


def test_environments_are_dealt_evenly():
  assert [list(r) for r in dealt(5, 2)] == [[0], [1, 2], [3, 4]]
  assert dealt(4, 9) == [range(4)] and dealt(2, 1) == [range(1), range(1, 2)]
