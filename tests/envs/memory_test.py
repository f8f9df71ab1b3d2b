"""environments: alignment, totals, Atari games, refused levels, crashes, processes."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest
import tensorflow as tf

import counting_env
import environments
from conftest import ROOT, eventually

KILL, RAISE = counting_env.KILL, counting_env.RAISE


class Player:
  """Steps environments through a session, one call at a time."""

  def __init__(self, session, flow):
    self.flow, self._session = flow, session
    self._action = tf.compat.v1.placeholder(tf.int32, [flow.num_envs])
    self._state = tf.compat.v1.placeholder(tf.int32, [])
    self._initial = flow.initial()
    self._step = flow.step(self._action, self._state)
    self._state_v = None

  def initial(self):
    output, self._state_v = self._session.run(self._initial)
    return output

  def step(self, actions=0):
    actions = np.broadcast_to(np.array(actions, np.int32), [self.flow.num_envs])
    feed = {self._action: actions, self._state: self._state_v}
    output, self._state_v = self._session.run(self._step, feed)
    return output


@contextlib.contextmanager
def playing(level_name, num_envs, seed=1, **kwargs):
  """A `Player` in a session with a single thread for operations; closed at the end."""
  config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=1)
  flow = environments.create_environment(level_name, num_envs, seed, **kwargs)
  try:
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
      yield Player(session, flow)
  finally:
    flow.close()


def counting(name):
  return f'counting_env:{name}-v0'


def workers():
  return [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]


# Alignment and totals.


def expected_counts(num_steps, game_steps=counting_env.GAME_STEPS):
  """Reward, return, step, done, observed step and game after t = 0..num_steps actions."""
  for t in range(num_steps + 1):
    game, step = divmod(t, game_steps)
    over = t > 0 and step == 0
    played = game_steps if over else step
    yield float(played), played * (played + 1) / 2, played, over, step, game


def test_counting_environment_shows_alignment_reset_and_totals_exactly():
  with playing(counting('Counting'), 2) as player:
    outputs = [player.initial()] + [player.step(2) for _ in range(12)]
  for t, (output, expected) in enumerate(zip(outputs, expected_counts(12))):
    reward, episode_return, step, over, observed_step, game = expected
    np.testing.assert_array_equal(output.reward, [reward] * 2)
    np.testing.assert_array_equal(output.info.episode_return, [episode_return] * 2)
    np.testing.assert_array_equal(output.info.episode_step, [step] * 2)
    np.testing.assert_array_equal(output.info.game_over, [over] * 2)
    np.testing.assert_array_equal(output.done, [over or t == 0] * 2)
    np.testing.assert_array_equal(output.observation, [[observed_step, game]] * 2)


def test_steps_inside_a_scan_keep_their_order_and_static_shapes():
  flow = environments.create_environment(counting('Image'), 3, seed=1)
  try:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
      first = flow.initial()
      output, _ = tf.scan(
        lambda carry, _: flow.step(tf.zeros([3], tf.int32), carry[1]), tf.range(12), first
      )
      assert output.observation.shape == [12, 3, 4, 3, 2]
      assert output.reward.shape == output.info.episode_step.shape == [12, 3]
      output_v, first_v = session.run([output, first[0]])
  finally:
    flow.close()
  np.testing.assert_array_equal(first_v.observation, np.zeros([3, 4, 3, 2]))
  _, returns, steps, overs, observed, _ = zip(*list(expected_counts(12))[1:])
  np.testing.assert_array_equal(output_v.observation[:, 1, 2, 2, 1], observed)
  np.testing.assert_array_equal(output_v.info.episode_return[:, 2], returns)
  np.testing.assert_array_equal(output_v.info.episode_step[:, 0], steps)
  np.testing.assert_array_equal(output_v.info.game_over[:, 0], overs)


def test_initial_again_starts_all_games_anew():
  with playing(counting('Counting'), 2) as player:
    player.initial()
    player.step()
    player.step()
    output = player.initial()
    np.testing.assert_array_equal(output.observation, [[0, 1]] * 2)
    assert output.done.all() and not output.info.game_over.any()
    np.testing.assert_array_equal(player.step().info.episode_return, [1, 1])


def test_time_limit_ends_the_game():
  with playing(counting('TimeLimit'), 1) as player:
    player.initial()
    outputs = [player.step() for _ in range(4)]
  assert [bool(o.done[0]) for o in outputs] == [False, False, True, False]
  assert [bool(o.info.game_over[0]) for o in outputs] == [False, False, True, False]
  assert [float(o.observation[0, 0]) for o in outputs] == [1, 2, 0, 1]


def test_action_repeats_sum_rewards_and_stop_at_the_end():
  with playing(counting('Counting'), 1, num_action_repeats=3) as player:
    assert player.flow.spec.num_action_repeats == 3
    player.initial()
    first, second, third = player.step(), player.step(), player.step()
  assert (first.reward, first.observation[0, 0], first.done) == (1 + 2 + 3, 3, False)
  assert (second.reward, second.observation[0, 0], second.done) == (4 + 5, 0, True)
  assert second.info.episode_return == 15 and second.info.episode_step == 2
  assert third.reward == 6


@pytest.mark.parametrize(
  'name, shape, dtype, observation_of',
  [
    ('Counting', (2,), 'float32', lambda step: [step, 0]),
    ('Image', (4, 3, 2), 'uint8', lambda step: np.full((4, 3, 2), step)),
    ('BoolImage', (6, 1, 1), 'uint8', lambda step: 255 * np.eye(6)[step].reshape(6, 1, 1)),
    ('Numbered', (6,), 'float32', lambda step: np.eye(6)[step]),
  ],
)
def test_kinds_of_observations(name, shape, dtype, observation_of):
  spec = environments.environment_spec(counting(name))
  assert (spec.observation_shape, spec.observation_dtype) == (shape, dtype)
  assert (spec.num_actions, spec.num_action_repeats, spec.is_atari) == (3, 1, False)
  with playing(counting(name), 1) as player:
    for step, output in enumerate([player.initial(), player.step(), player.step()]):
      assert output.observation.dtype == dtype
      np.testing.assert_array_equal(output.observation[0], observation_of(step))


# Which levels can be played.

REFUSED_OBSERVATIONS = sorted(set(counting_env.SPACES) - {'Continuous'})


@pytest.mark.parametrize('name', REFUSED_OBSERVATIONS)
def test_observation_spaces_without_agents_are_refused(name):
  with pytest.raises(ValueError) as info:
    environments.environment_spec(counting(f'Observation{name}'))
  assert str(counting_env.SPACES[name]) in str(info.value)
  assert 'supported are images' in str(info.value) and 'Discrete' in str(info.value)


@pytest.mark.parametrize('name', ['Continuous', 'MultiDiscrete', 'Tuple'])
def test_action_spaces_other_than_discrete_are_refused(name):
  with pytest.raises(ValueError) as info:
    environments.create_environment(counting(f'Action{name}'), 2, 1)
  assert str(counting_env.SPACES[name]) in str(info.value)
  assert 'supported is Discrete' in str(info.value)
  assert not workers()


@pytest.mark.parametrize(
  'level_name, closest',
  [
    ('PongNoFrameskip-v9', 'PongNoFrameskip-v4'),
    ('CartPol-v1', 'CartPole-v1'),
    ('impala/Cath-v0', 'impala/Catch-v0'),
    ('counting_env:Cuonting-v0', 'Counting-v0'),
  ],
)
def test_unknown_id_names_the_three_closest(level_name, closest):
  with pytest.raises(ValueError, match='known to neither Gymnasium nor OpenAI Gym') as info:
    environments.environment_spec(level_name)
  named = str(info.value).rpartition('the closest are ')[2].split(', ')
  assert len(named) == 3 and closest in named


def test_module_that_cannot_be_imported_is_named():
  with pytest.raises(ValueError, match="'no_such_module:X-v0' cannot be made: .*no_such_module"):
    environments.environment_spec('no_such_module:X-v0')


def test_atari_ids_with_random_action_repeats_are_refused():
  with pytest.raises(ValueError, match='PongNoFrameskip-v4 and ALE/Pong-v5'):
    environments.environment_spec('Pong-v4')


def test_environment_that_only_openai_gym_knows():
  with playing('openai_gym_env:OnlyInOpenAIGym-v0', 2) as player:
    outputs = [player.initial(), player.step(), player.step(), player.step()]
  assert [o.observation[1, 0] for o in outputs] == [0, 1, 0, 1]
  assert [bool(o.info.game_over[0]) for o in outputs] == [False, False, True, False]
  assert outputs[2].info.episode_return[0] == 3


def test_specs_need_no_tensorflow():
  code = (
    'import sys, environments; environments.environment_spec("impala/Catch-v0"); '
    'environments.environment_spec("ALE/Pong-v5"); assert "tensorflow" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


# Atari.


def play_atari(player, num_steps):
  """Random play: the first output and those of the steps, stacked to [num_steps, N, ...]."""
  random = np.random.default_rng(0)
  shape = [num_steps, player.flow.num_envs]
  actions = random.integers(player.flow.spec.num_actions, size=shape)
  first = player.initial()
  return first, tf.nest.map_structure(lambda *ts: np.stack(ts), *[player.step(a) for a in actions])


def games_of(outputs, i):
  """(first, last) steps of every game of environment i that was played to its end."""
  ends = np.flatnonzero(outputs.info.game_over[:, i])
  return list(zip([0, *(ends[:-1] + 1)], ends))


@pytest.mark.parametrize('level_name', ['BreakoutNoFrameskip-v4', 'ALE/Breakout-v5'])
def test_whole_games_of_breakout_over_all_lives(level_name):
  with playing(level_name, 4) as player:
    assert player.flow.spec.num_actions == 4 and player.flow.spec.num_action_repeats == 4
    _, outputs = play_atari(player, 600)
  games = [(i, *game) for i in range(4) for game in games_of(outputs, i)]
  assert len(games) >= 4
  for i, first, last in games:
    lives_lost = np.flatnonzero(outputs.done[first : last + 1, i])
    assert len(lives_lost) == 5 and lives_lost[-1] == last - first
    score = np.cumsum(outputs.reward[first : last + 1, i])
    np.testing.assert_array_equal(outputs.info.episode_return[first : last + 1, i], score)
    steps = np.arange(1, last - first + 2)
    np.testing.assert_array_equal(outputs.info.episode_step[first : last + 1, i], steps)
  assert max(outputs.info.episode_return[last, i] for i, _, last in games) > 0


def test_whole_games_of_pong():
  with playing('PongNoFrameskip-v4', 2) as player:
    assert player.flow.spec.num_actions == 6
    _, outputs = play_atari(player, 1500)
  games = [(i, *game) for i in range(2) for game in games_of(outputs, i)]
  assert len(games) >= 2
  for i, first, last in games:
    rewards = outputs.reward[first : last + 1, i]
    assert max((rewards == 1).sum(), (rewards == -1).sum()) == 21
    assert outputs.info.episode_return[last, i] == rewards.sum()
  np.testing.assert_array_equal(outputs.done, outputs.info.game_over)


def test_atari_rewards_are_raw():
  with playing('SpaceInvadersNoFrameskip-v4', 4) as player:
    _, outputs = play_atari(player, 200)
  assert outputs.reward.max() >= 5


def test_atari_frames_are_stacked_with_the_newest_last():
  with playing('BreakoutNoFrameskip-v4', 2, width=60, height=50) as player:
    first, outputs = play_atari(player, 60)
  assert first.observation.shape == (2, 50, 60, 4)
  for t in range(1, 60):
    for i in np.flatnonzero(~outputs.done[t]):
      before, now = outputs.observation[t - 1, i], outputs.observation[t, i]
      np.testing.assert_array_equal(now[..., :3], before[..., 1:])
  assert (outputs.observation[..., 3] != outputs.observation[..., 2]).any()


# Seeds.


@pytest.mark.parametrize('level_name', ['BreakoutNoFrameskip-v4', counting('Random')])
def test_seeds_decide_the_first_observations(level_name):
  def first_observations(seed):
    with playing(level_name, 6, seed) as player:
      return player.initial().observation

  ours, again, others = first_observations(5), first_observations(5), first_observations(6)
  np.testing.assert_array_equal(ours, again)
  assert (ours != others).any()
  assert any((ours[0] != ours[i]).any() for i in range(1, 6))  # Each environment has its own.


# Crashes.


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
    assert len(workers()) == 3
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
    os.kill(workers()[0].pid, signal.SIGKILL)
    output = player.step()
    assert output.info.episode_step.tolist() in ([0, 1], [1, 0])
    assert player.flow.crashes == 1


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
  assert not workers()


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


# Processes.


def test_workers_are_small_and_without_tensorflow():
  with playing('impala/Catch-v0', 4) as player:
    player.initial()
    assert len(workers()) == 4
    for process in workers():
      assert process.memory_info().rss < 150e6
      assert not [m.path for m in process.memory_maps() if 'tensorflow' in m.path]
  assert not workers()


def test_environments_step_at_the_same_time(monkeypatch, tmp_path):
  monkeypatch.setenv(counting_env.BARRIER, str(tmp_path))
  (tmp_path / 'count').write_text('5')
  with playing(counting('Meeting'), 5) as player:
    player.initial()
    outputs = [player.step() for _ in range(3)]
    assert player.flow.crashes == 0
  np.testing.assert_array_equal(outputs[2].info.episode_step, [3] * 5)


def test_closing_during_a_step_leaves_no_process(monkeypatch, tmp_path):
  monkeypatch.setenv(counting_env.BARRIER, str(tmp_path / 'inside'))
  monkeypatch.setattr('worker_process.CLOSE_SECS', 0.1)
  errors = []
  with playing(counting('Slow'), 2) as player:
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
    assert not workers()
    player.flow.close()


@pytest.mark.parametrize('level_name', ['PongNoFrameskip-v4', 'impala/Catch-v0'])
def test_closed_environments_say_so(level_name):
  with playing(level_name, 2) as player:
    player.initial()
    player.flow.close()
    with pytest.raises(tf.errors.OpError, match=f'the environments of {level_name} are closed'):
      player.step()


# The environments of this project.


def test_catch_follows_the_rules():
  env = environments.Catch()
  columns = set()
  for seed, policy in itertools.product(range(60), ['chase', 'left', 'right']):
    board, _ = env.reset(seed=seed)
    assert board.shape == (10, 5, 1) and board[9, 2] == 255
    start = int(board[0].argmax())
    columns.add(start)
    for step in range(1, 10):
      paddle = int(board[9].argmax())
      move = {'chase': int(np.sign(start - paddle)), 'left': -1, 'right': 1}[policy]
      board, reward, terminated, truncated, _ = env.step(1 + move)
      assert terminated == (step == 9) and not truncated
      assert terminated or (reward == 0 and board[step, start] == 255)
    assert reward == (1 if start == {'chase': start, 'left': 0, 'right': 4}[policy] else -1)
  assert columns == set(range(5))


def play_memory(env, cue_seed, policy):
  """The return of a game; `policy(observation, last_action)` has no other memory."""
  (observation, _), action, total, done = env.reset(seed=cue_seed), None, 0, False
  while not done:
    action = policy(tuple(observation), action)
    observation, reward, done, _, _ = env.step(action)
    total += reward
  return total


def test_memory_cannot_be_solved_without_memory():
  env = environments.Memory()
  seeds = {tuple(env.reset(seed=seed)[0]): seed for seed in range(20)}
  assert sorted(seeds) == [(0, 1, 0), (1, 0, 0)]
  best, actions = -1, range(3)
  # All policies: an action for each cue, and for blank and query after each last action.
  for on_cue in itertools.product(actions, repeat=2):
    for on_blank, on_query in itertools.product(itertools.product(actions, repeat=3), repeat=2):
      table = {(1, 0, 0): on_cue[0], (0, 1, 0): on_cue[1]}
      after = {(0, 0, 0): on_blank, (0, 0, 1): on_query}

      def policy(observation, last, table=table, after=after):
        return table[observation] if observation in table else after[observation][last]

      best = max(best, sum(play_memory(env, seed, policy) for seed in seeds.values()) / 2)
  assert best == 0


def test_memory_rewards_recall():
  env = environments.Memory()
  for seed in range(10):
    remembered = {}

    def policy(observation, last, remembered=remembered):
      if last is None:
        remembered['cue'] = 1 + observation.index(1)
      return remembered['cue'] if observation == (0, 0, 1) else 0

    assert play_memory(env, seed, policy) == 1


@pytest.mark.parametrize('steps', range(environments.Memory.delay))
def test_memory_ends_at_any_action_before_the_query(steps):
  env = environments.Memory()
  env.reset(seed=0)
  for _ in range(steps):
    assert env.step(env.wait)[1:4] == (0, False, False)
  assert env.step(1)[1:4] == (-1, True, False)
