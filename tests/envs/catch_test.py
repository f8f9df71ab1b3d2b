"""envs.catch: the rules."""

import itertools

import numpy as np

from envs.catch import Catch


def test_catch_follows_the_rules():
  env = Catch()
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
