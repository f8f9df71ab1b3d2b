"""envs.memory: nothing but memory wins."""

import itertools

import pytest

from envs.memory import Memory


def play_memory(env, cue_seed, policy):
  """The return of a game; `policy(observation, last_action)` has no other memory."""
  (observation, _), action, total, done = env.reset(seed=cue_seed), None, 0, False
  while not done:
    action = policy(tuple(observation), action)
    observation, reward, done, _, _ = env.step(action)
    total += reward
  return total


def test_memory_cannot_be_solved_without_memory():
  env = Memory()
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
  env = Memory()
  for seed in range(10):
    remembered = {}

    def policy(observation, last, remembered=remembered):
      if last is None:
        remembered['cue'] = 1 + observation.index(1)
      return remembered['cue'] if observation == (0, 0, 1) else 0

    assert play_memory(env, seed, policy) == 1


@pytest.mark.parametrize('steps', range(Memory.delay))
def test_memory_ends_at_any_action_before_the_query(steps):
  env = Memory()
  env.reset(seed=0)
  for _ in range(steps):
    assert env.step(env.wait)[1:4] == (0, False, False)
  assert env.step(1)[1:4] == (-1, True, False)
