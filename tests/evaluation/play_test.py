"""evaluation.play: fixed quotas, and the policy of a checkpoint on whole games."""

import os

import numpy as np
import pytest
import tensorflow as tf

import environments
import nets
from counting_worlds import SPEC, CountingWorlds
from evaluation import play
from structs import StepOutputInfo

BEST = 2
CATCH = 'impala/Catch-v0'


def checkpoint(folder, agent_name, spec, certain=None, strength=1000.0):
  """A checkpoint of an agent that has not learned; it prefers the action `certain`, if any."""
  with tf.Graph().as_default():
    tf.compat.v1.set_random_seed(1)
    agent = nets.build_agent(agent_name, spec)
    saver = tf.compat.v1.train.Saver()
    bias = next(v for v in agent.variables if v.op.name == 'agent/policy/b')
    with tf.compat.v1.Session() as session:
      session.run(tf.compat.v1.global_variables_initializer())
      if certain is not None:
        session.run(bias.assign(strength * tf.one_hot(certain, spec.num_actions)))
      return saver.save(session, os.path.join(folder, 'model.ckpt'), global_step=3)


def play_in_graph(folder, game_steps, num_episodes, certain=None, strength=1000.0, **kwargs):
  """Plays counting games whose reward is 1 for each action BEST, 0 for others."""
  path = checkpoint(folder, 'MLPAgent', SPEC, certain, strength)
  with tf.Graph().as_default():
    tf.compat.v1.set_random_seed(1)
    worlds = CountingWorlds(game_steps, reward=lambda step, action: tf.equal(action, BEST))
    return play.play(path, 'MLPAgent', SPEC, num_episodes, worlds, **kwargs)


@pytest.mark.parametrize(
  'num_episodes, num_envs, expected',
  [(30, 16, [2] * 14 + [1] * 2), (3, 3, [1, 1, 1]), (10, 4, [3, 3, 2, 2]), (1, 1, [1])],
)
def test_quotas_are_even(num_episodes, num_envs, expected):
  assert play.quotas(num_episodes, num_envs) == expected


def test_short_games_are_not_favoured(tmp_path):
  # Until a game of 47 steps is over, 23 games of 2 steps are.
  games = play_in_graph(tmp_path, [2, 47, 2, 30], num_episodes=10, certain=BEST)
  assert games.scores == [2] * 3 + [47] * 3 + [2] * 2 + [30] * 2
  assert games.steps == sum(games.scores)


def test_the_first_games_of_each_environment_count():
  games = play.GameCollector(num_episodes=3, num_envs=2)
  steps = np.full([2, 4], 7, np.int32)

  def infos(scores, over):
    return StepOutputInfo(np.array(scores, np.float32), steps, np.array(over, bool))

  # Entry 0 was counted with the call before.
  assert not games.add(infos([[9, 1, 2, 3], [9, 8, 7, 6]], [[1, 0, 1, 0], [1, 1, 0, 1]]))
  assert games.scores == [2, 8]
  assert not games.add(infos([[9, 1, 2, 3], [9, 8, 7, 6]], [[0, 0, 0, 0], [0, 1, 0, 1]]))
  assert games.add(infos([[9, 1, 2, 3], [9, 8, 7, 6]], [[0, 0, 0, 1], [0, 1, 0, 1]]))
  assert games.scores == [2, 3, 8]
  assert games.steps == 21


def test_the_policy_of_the_checkpoint_plays(tmp_path):
  best = play_in_graph(tmp_path, [10] * 4, 8, certain=BEST)
  assert best.scores == [10] * 8
  worst = play_in_graph(tmp_path, [10] * 4, 8, certain=BEST + 1)
  assert worst.scores == [0] * 8


def test_actions_are_sampled(tmp_path):
  # The first weights give every action about the same probability: the reward is that of a fifth.
  scores = play_in_graph(tmp_path, [100] * 4, 8).scores
  assert len(set(scores)) > 1
  assert 10 < np.mean(scores) < 30


def test_the_likeliest_action_is_taken_if_told(tmp_path):
  # BEST has a probability of about .4, each other action .15.
  leaning = dict(num_episodes=4, certain=BEST, strength=1.0)
  for folder in ('sampled', 'likeliest'):
    (tmp_path / folder).mkdir()
  sampled = play_in_graph(tmp_path / 'sampled', [50] * 2, **leaning).scores
  assert 10 < np.mean(sampled) < 30
  games = play_in_graph(tmp_path / 'likeliest', [50] * 2, deterministic=True, **leaning)
  assert games.scores == [50] * 4


def test_told_to_stop_it_ends_before_all_are_played(tmp_path):
  games = play_in_graph(tmp_path, [2, 47], 4, should_stop=lambda: True)
  assert games.scores == []


def catch_games(folder, num_episodes, num_envs):
  spec = environments.environment_spec(CATCH)
  path = checkpoint(folder, 'SimpleConvNetLSTMAgent', spec, certain=1)
  with tf.Graph().as_default():
    flow = environments.create_environment(CATCH, num_envs, seed=1)
    try:
      games = play.play(path, 'SimpleConvNetLSTMAgent', flow.spec, num_episodes, flow)
    finally:
      flow.close()
    names = {v.op.name for v in tf.compat.v1.global_variables()}
  return path, games, names


@pytest.fixture(scope='module')
def catch(tmp_path_factory):
  return catch_games(str(tmp_path_factory.mktemp('catch')), num_episodes=20, num_envs=3)


def test_catch_is_played_to_the_end(catch):
  _, games, _ = catch
  assert len(games.scores) == 20
  assert games.steps == 20 * 9
  # The paddle stays in the middle, so a ball in one of five columns is caught.
  assert set(games.scores) == {-1, 1}
  assert -1 < np.mean(games.scores) < 0.2


def test_variables_have_the_names_of_the_checkpoint(catch):
  path, _, names = catch
  assert names == set(tf.train.load_checkpoint(path).get_variable_to_shape_map())
