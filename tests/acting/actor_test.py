"""actor: alignment, overlap and reset of unrolls, versions of weights, games, queues, batching."""

import threading

import numpy as np
import pytest
import tensorflow as tf

import counting_worlds
import dynamic_batching
import environments
import nets
from acting import actor
from conftest import eventually, free_ports
from counting_worlds import SPEC, CountingAgent, CountingWorlds
from learning import losses
from runtime import sessions
from structs import StepOutputInfo

T = 4
GAME_STEPS = [3, 5, 7]
N = len(GAME_STEPS)
LSTM_AGENT = 'MLPLSTMAgent'


@pytest.fixture(autouse=True)
def graph():
  with tf.Graph().as_default() as a_graph:
    tf.compat.v1.set_random_seed(1)
    yield a_graph


def version_variable(value=0):
  return tf.Variable(tf.constant(value, tf.int64), trainable=False)


def session():
  """A session in which all variables have their first values."""
  a_session = tf.compat.v1.Session()
  a_session.run(tf.compat.v1.global_variables_initializer())
  a_session.run(tf.compat.v1.local_variables_initializer())
  return a_session


def counting_unrolls(times, **kwargs):
  """Successive unrolls of counting agent and worlds, as numpy arrays."""
  unroll = actor.build_unroll(CountingAgent(), CountingWorlds(GAME_STEPS), T, version_variable(),
                              **kwargs)  # fmt: skip
  with session() as a_session:
    return [a_session.run(unroll) for _ in range(times)]


def joined(unrolls):
  """env_outputs and agent_outputs of one long unroll: the shared entries appear once."""
  parts = [(u.env_outputs, u.agent_outputs) for u in unrolls]
  later = tf.nest.map_structure(lambda x: x[:, 1:], parts[1:])
  return tf.nest.map_structure(lambda *xs: np.concatenate(xs, axis=1), parts[0], *later)


def flat_specs(agent):
  specs = actor.unroll_specs(agent, SPEC, T)
  return tf.nest.flatten(specs)


def unroll_queue(capacity, agent=None):
  specs = flat_specs(agent or CountingAgent())
  return tf.queue.FIFOQueue(capacity, [s.dtype for s in specs], [s.shape for s in specs])


# The unroll.


def test_an_unroll_has_t_plus_1_entries_of_n_environments():
  unroll = actor.build_unroll(CountingAgent(), CountingWorlds(GAME_STEPS), T, version_variable())
  with session() as a_session:
    unroll_v = a_session.run(unroll)
  specs = flat_specs(CountingAgent())
  tensors, values = tf.nest.flatten(unroll), tf.nest.flatten(unroll_v)
  for tensor, value, spec in zip(tensors, values, specs, strict=True):
    assert value.shape == (N, *spec.shape) == tuple(tensor.shape)
    assert tensor.dtype == spec.dtype
  assert unroll_v.env_outputs.reward.shape == (N, T + 1)


def assert_overlap(unrolls):
  """The last entry of each unroll is the first of the next."""
  for before, after in zip(unrolls, unrolls[1:]):
    for last, first in zip(
      tf.nest.flatten((before.env_outputs, before.agent_outputs)),
      tf.nest.flatten((after.env_outputs, after.agent_outputs)),
      strict=True,
    ):
      np.testing.assert_array_equal(last[:, -1], first[:, 0])


def test_entry_0_is_the_last_entry_of_the_unroll_before():
  assert_overlap(counting_unrolls(4))


def test_the_first_unroll_begins_with_the_first_observation_and_no_action():
  (unroll,) = counting_unrolls(1)
  np.testing.assert_array_equal(unroll.env_outputs.observation[:, 0], [[0, 0, -1]] * N)
  assert unroll.env_outputs.done[:, 0].all()
  for output in (unroll.env_outputs.reward, *unroll.env_outputs.info, *unroll.agent_outputs):
    assert not output[:, 0].any()


def test_environments_go_one_step_per_entry():
  env_outputs, _ = joined(counting_unrolls(5))
  steps = np.arange(5 * T + 1)
  for i, game_steps in enumerate(GAME_STEPS):
    np.testing.assert_array_equal(env_outputs.observation[i, :, 0], steps % game_steps)
    np.testing.assert_array_equal(env_outputs.observation[i, :, 1], steps // game_steps)


def test_reward_and_done_came_with_the_observation():
  env_outputs, _ = joined(counting_unrolls(5))
  for i, game_steps in enumerate(GAME_STEPS):
    step = env_outputs.observation[i, :, 0]
    np.testing.assert_array_equal(env_outputs.done[i], step == 0)
    # The step that a reward tells is the one just done, also when the observation is a new game's.
    np.testing.assert_array_equal(
      env_outputs.reward[i, 1:], np.where(step == 0, game_steps, step)[1:]
    )
    np.testing.assert_array_equal(env_outputs.info.game_over[i, 1:], env_outputs.done[i, 1:])


def test_action_t_led_to_observation_t():
  env_outputs, agent_outputs = joined(counting_unrolls(5))
  np.testing.assert_array_equal(agent_outputs.action[:, 1:], env_outputs.observation[:, 1:, 2])
  assert len(np.unique(agent_outputs.action)) == counting_worlds.NUM_ACTIONS


def test_outputs_t_were_computed_from_entry_t_minus_1():
  env_outputs, agent_outputs = joined(counting_unrolls(5))
  seen = agent_outputs.policy_logits[:, 1:]
  np.testing.assert_array_equal(seen[..., :3], env_outputs.observation[:, :-1])
  np.testing.assert_array_equal(seen[..., 3], env_outputs.reward[:, :-1])
  np.testing.assert_array_equal(seen[..., 4], env_outputs.done[:, :-1])
  step = env_outputs.observation[:, :-1, 0] + agent_outputs.baseline[:, 1:]
  last_action = agent_outputs.action[:, :-1]
  np.testing.assert_array_equal(agent_outputs.action[:, 1:], (3 * last_action + step) % 5)


def test_core_state_is_the_one_before_entry_0():
  for k, unroll in enumerate(counting_unrolls(5)):
    # The baseline repeats the core state after the step that led to the entry.
    np.testing.assert_array_equal(unroll.core_state[:, 0], unroll.agent_outputs.baseline[:, 0])
    assert unroll.core_state.any() == (k > 0)


def test_core_state_starts_anew_after_done():
  env_outputs, agent_outputs = joined(counting_unrolls(5))
  count, done = agent_outputs.baseline, env_outputs.done
  np.testing.assert_array_equal(count[:, 1:], np.where(done[:, :-1], 1, count[:, :-1] + 1))
  assert count.max(axis=1).tolist() == GAME_STEPS


def test_policy_version_and_level_travel():
  version = version_variable(7)
  unroll = actor.build_unroll(CountingAgent(), CountingWorlds(GAME_STEPS), T, version, level_id=3)
  newer = version.assign(9)
  with session() as a_session:
    first = a_session.run(unroll)
    a_session.run(newer)
    second = a_session.run(unroll)
  assert first.level_id.tolist() == second.level_id.tolist() == [3] * N
  assert first.policy_version.tolist() == [7] * N
  assert second.policy_version.tolist() == [9] * N
  assert first.policy_version.dtype == np.int64


def test_the_baseline_of_an_unroll_is_that_of_its_level():
  agent = nets.build_agent('MLPAgent', SPEC, value_normalisation=3)
  unroll = actor.build_unroll(agent, CountingWorlds(GAME_STEPS), T, version_variable(), level_id=1)
  env_outputs, agent_outputs = tf.nest.map_structure(
    lambda x: tf.transpose(x, [1, 0, *range(2, x.shape.rank)]),
    (unroll.env_outputs, unroll.agent_outputs),
  )
  of_levels = agent.unroll(agent_outputs.action, env_outputs, unroll.core_state)[0].baseline
  with session() as a_session:
    told, of_levels = a_session.run([agent_outputs.baseline, of_levels])
  assert told.shape == (T + 1, N) and of_levels.shape == (T + 1, N, 3)
  np.testing.assert_allclose(told[1:], of_levels[:-1, :, 1], rtol=1e-4, atol=1e-5)
  assert np.abs(told[1:] - of_levels[:-1, :, 0]).max() > 1e-3


def assert_learner_agrees(agent, unrolls, a_session):
  """The agent, run over unrolls as a learner does, says what the actor's agent said."""
  inputs = tf.nest.map_structure(lambda x: tf.compat.v1.placeholder(x.dtype, x.shape), unrolls[0])
  env_outputs, agent_outputs = tf.nest.map_structure(
    lambda x: tf.transpose(x, [1, 0, *range(2, x.shape.rank)]),
    (inputs.env_outputs, inputs.agent_outputs),
  )
  outputs, _ = agent.unroll(agent_outputs.action, env_outputs, inputs.core_state)
  for unroll in unrolls:
    feed = dict(zip(tf.nest.flatten(inputs), tf.nest.flatten(unroll), strict=True))
    outputs_v, agent_outputs_v = a_session.run((outputs, agent_outputs), feed)
    for name in ('policy_logits', 'baseline'):
      np.testing.assert_allclose(
        getattr(outputs_v, name)[:-1], getattr(agent_outputs_v, name)[1:], rtol=1e-4, atol=1e-5
      )


def test_a_learner_computes_the_same_from_an_unroll_as_the_actor_did():
  agent = nets.build_agent(LSTM_AGENT, SPEC)
  unroll = actor.build_unroll(agent, CountingWorlds(GAME_STEPS), T, version_variable())
  with session() as a_session:
    unrolls = [a_session.run(unroll) for _ in range(4)]
    assert any(state.any() for state in tf.nest.flatten(unrolls[1].core_state))
    assert_learner_agrees(agent, unrolls, a_session)


def test_environments_in_processes_unroll_without_a_gap():
  flow = environments.create_environment('counting_env:Counting-v0', 2, seed=1)
  try:
    agent = nets.build_agent(LSTM_AGENT, flow.spec)
    unroll = actor.build_unroll(agent, flow, T, version_variable())
    with session() as a_session:
      unrolls = [a_session.run(unroll) for _ in range(3)]
  finally:
    flow.close()
  assert_overlap(unrolls)
  env_outputs, _ = joined(unrolls)
  steps = np.arange(3 * T + 1)
  for i in range(2):
    np.testing.assert_array_equal(env_outputs.observation[i, :, 0], steps % 5)
    np.testing.assert_array_equal(env_outputs.done[i], steps % 5 == 0)
    np.testing.assert_array_equal(env_outputs.reward[i, 1:], (steps[1:] - 1) % 5 + 1)
    np.testing.assert_array_equal(
      env_outputs.info.episode_return[i, env_outputs.info.game_over[i]], [15, 15]
    )


# Acting weights.


def test_weights_are_copied_only_when_the_version_changed():
  updates, weights = version_variable(5), tf.Variable(1.0)
  acting, copies = tf.Variable(0.0), tf.Variable(0)

  def copy_weights():
    return tf.group(acting.assign(weights), copies.assign_add(1))

  refresh = actor.Refresh(copy_weights, updates)
  learn, count = weights.assign_add(1.0), updates.assign_add(3)
  read = [refresh.version.read_value(), acting.read_value(), copies.read_value()]
  with session() as a_session:
    assert a_session.run(read) == [-1, 0, 0]
    refresh.on(a_session)()
    assert a_session.run(read) == [5, 1, 1]
    a_session.run(learn)
    refresh.on(a_session)()
    assert a_session.run(read) == [5, 1, 1]
    a_session.run(count)
    refresh.on(a_session)()
    assert a_session.run(read) == [8, 2, 2]


def test_version_and_acting_state_are_local():
  keys = tf.compat.v1.GraphKeys
  version = actor.Refresh(tf.no_op, version_variable()).version
  actor.build_unroll(CountingAgent(), CountingWorlds(GAME_STEPS), T, version)
  graph = tf.compat.v1.get_default_graph()
  assert version in graph.get_collection(keys.LOCAL_VARIABLES)
  assert len(graph.get_collection(keys.GLOBAL_VARIABLES)) == 1  # The counter of updates.


# Games.


def tracked(unrolls, repeats=4):
  """Every unroll's list of games."""
  tracker = actor.EpisodeTracker(N, 'a level', repeats)
  return [tracker.add(np.clip(u.env_outputs.reward, -1, 1), u.env_outputs.info) for u in unrolls]


def test_games_have_raw_and_clipped_returns_of_the_whole_game():
  lists = tracked(counting_unrolls(5))
  games = [game for games in lists for game in games]
  assert {game['level_name'] for game in games} == {'a level'}
  for steps in GAME_STEPS:
    mine = [game for game in games if game['episode_frames'] == 4 * steps]
    assert len(mine) == 5 * T // steps
    for game in mine:
      assert game['episode_return'] == steps * (steps + 1) / 2
      assert game['clipped_return'] == steps
  assert len(games) == sum(5 * T // steps for steps in GAME_STEPS)


def test_a_game_is_reported_with_the_unroll_in_which_it_ended():
  lists = tracked(counting_unrolls(3))
  assert [[g['episode_frames'] // 4 for g in games] for games in lists] == [
      [3], [5, 3, 7], [3, 5, 3]]  # fmt: skip


def test_a_game_that_crashed_is_not_counted():
  tracker = actor.EpisodeTracker(2, 'a level', 1)
  # Environment 0 crashes at entry 2 and its next game ends at entry 4; environment 1 plays on.
  steps = np.array([[5, 6, 0, 1, 2], [5, 6, 7, 8, 9]], np.int32)
  over = np.array([[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]], bool)
  returns = np.array([[50, 60, 0, 10, 20], [50, 60, 70, 80, 90]], np.float32)
  rewards = np.array([[10, 10, 0, 10, 10], [10, 10, 10, 10, 10]], np.float32)
  games = tracker.add(np.clip(rewards, -1, 1), StepOutputInfo(returns, steps, over))
  assert [(g['episode_return'], g['clipped_return'], g['episode_frames']) for g in games] == [
      (20.0, 2.0, 2), (90.0, 4.0, 9)]  # fmt: skip


# The loop.


class RunningLoop:
  """An actor loop in a thread, with what it said."""

  def __init__(self, loop_and_sender, a_session, enter=lambda phase: None):
    self.phases, self.reports, self.error = [], [], None
    self.stop = threading.Event()
    self._enter = enter
    self._thread = threading.Thread(
      target=self._run, args=(*loop_and_sender, a_session), daemon=True
    )
    self._thread.start()

  def _run(self, loop, sender, a_session):
    send = sender.on(a_session)
    try:
      loop.run(a_session, send, self.stop.is_set, self._on_enter, self.reports.append)
    except Exception as e:
      self.error = e

  def _on_enter(self, phase):
    self.phases.append(phase)
    self._enter(phase)

  def ended(self):
    return not self._thread.is_alive()


UNROLL_SPECS = actor.unroll_specs(CountingAgent(), SPEC, T)


def actor_loop(queue):
  version = version_variable(2)
  refresh = actor.Refresh(tf.no_op, version)
  loop = actor.ActorLoop(
    refresh,
    actor.build_unroll(CountingAgent(), CountingWorlds(GAME_STEPS), T, refresh.version),
    lambda rewards: losses.clip_rewards(rewards, 'abs_one'),
    actor.EpisodeTracker(N, 'a level', 4),
  )
  return loop, actor.EnqueueOp(queue, UNROLL_SPECS)


def test_a_full_queue_blocks_and_loses_nothing():
  queue = unroll_queue(2 * N)
  loop, size, take = actor_loop(queue), queue.size(), queue.dequeue_many(N)
  with session() as a_session:
    running = RunningLoop(loop, a_session)
    eventually(lambda: running.phases.count('enqueue') == 3)
    assert a_session.run(size) == 2 * N
    assert len(running.reports) == 2
    taken = []
    for k in range(4):
      taken.append(tf.nest.pack_sequence_as(UNROLL_SPECS, a_session.run(take)))
      eventually(lambda k=k: running.phases.count('enqueue') == 4 + k)
      assert len(running.reports) == 3 + k
      assert a_session.run(size) == 2 * N
    running.stop.set()
    a_session.run(take)
    eventually(running.ended)
  assert running.error is None
  assert running.phases[:6] == ['refresh', 'unroll', 'enqueue'] * 2
  env_outputs, _ = joined(taken)
  for i, game_steps in enumerate(GAME_STEPS):
    np.testing.assert_array_equal(
      env_outputs.observation[i, :, 0], np.arange(4 * T + 1) % game_steps
    )
  assert {u.policy_version[0] for u in taken} == {2}


def test_every_unroll_is_reported():
  queue = unroll_queue(2 * N)
  loop = actor_loop(queue)
  with session() as a_session:
    running = RunningLoop(loop, a_session)
    eventually(lambda: running.phases.count('enqueue') == 3)
    first, second = running.reports
    assert first['steps'] == second['steps'] == N * T
    assert first['wait_secs'] >= 0 and first['busy_secs'] > 0
    assert [g['clipped_return'] for g in first['episodes']] == [3]
    assert [g['episode_return'] for g in second['episodes']] == [15, 6, 28]
    running.stop.set()
    a_session.run(queue.close(cancel_pending_enqueues=True))
    eventually(running.ended)


def test_closing_the_queue_ends_a_loop_that_waits():
  queue = unroll_queue(N)
  loop, close = actor_loop(queue), queue.close(cancel_pending_enqueues=True)
  with session() as a_session:
    running = RunningLoop(loop, a_session)
    eventually(lambda: running.phases.count('enqueue') == 2)
    a_session.run(close)
    eventually(running.ended)
  assert isinstance(running.error, tf.errors.CancelledError)
  assert sessions.lost_peer(running.error)


def test_a_loop_goes_on_after_its_session_was_lost_before_queueing():
  # Only a server keeps anything from one session to the next.
  server = tf.distribute.Server(
    {'local': [f'localhost:{free_ports(1)[0]}']}, job_name='local', task_index=0
  )
  queue = unroll_queue(1000 * N)
  loop = actor_loop(queue)
  init = [tf.compat.v1.global_variables_initializer(), tf.compat.v1.local_variables_initializer()]
  lost = tf.compat.v1.Session(server.target)
  lost.run(init)
  phases = []

  def lose_the_second(phase):
    phases.append(phase)
    if phases.count('enqueue') == 2:
      lost.close()

  running = RunningLoop(loop, lost, lose_the_second)
  eventually(running.ended)
  assert running.error and len(running.reports) == 1
  with tf.compat.v1.Session(server.target) as a_session:
    a_session.run(init)
    running = RunningLoop(loop, a_session)
    eventually(lambda: len(running.reports) >= 2, message=lambda: f'stuck in {running.phases}')
    running.stop.set()
    eventually(running.ended)
  # The first session broke off games, of which the new ones know nothing.
  games = [game for report in running.reports for game in report['episodes']]
  assert games and all(g['clipped_return'] == g['episode_frames'] / 4 for g in games)


# Batched inference.


def test_a_batched_agent_plays_exactly_the_same():
  def loops(agents):
    return [
      actor.build_unroll(agent, CountingWorlds(steps), T, version_variable())
      for agent, steps in zip(agents, (GAME_STEPS, [2]), strict=True)
    ]

  batched = actor.BatchedAgent(CountingAgent(), dynamic_batching.batch_fn)
  plain_loops, batched_loops = loops([CountingAgent()] * 2), loops([batched] * 2)
  with session() as a_session:
    for _ in range(4):
      for plain, merged in zip(*(tf.nest.flatten(a_session.run(x)) for x in
                                 (plain_loops, batched_loops)), strict=True):  # fmt: skip
        np.testing.assert_array_equal(merged, plain)


def test_a_learner_agrees_with_a_batched_agent():
  agent = nets.build_agent(LSTM_AGENT, SPEC)
  batched = actor.BatchedAgent(agent, dynamic_batching.batch_fn)
  loops = [
    actor.build_unroll(batched, CountingWorlds([steps] * N), T, version_variable())
    for steps in (3, 6)
  ]
  with session() as a_session:
    unrolls = [unroll for _ in range(3) for unroll in a_session.run(loops)]
    assert_learner_agrees(agent, unrolls, a_session)
