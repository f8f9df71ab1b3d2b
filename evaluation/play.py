"""Plays whole games with the policy of a checkpoint."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import nets
from acting import actor

MAX_ENVIRONMENTS = 16
_STEPS_PER_CALL = 20
PROGRESS_SECS = 10.0  # Between two lines of progress.


def quotas(num_episodes: int, num_envs: int) -> list[int]:
  """Returns the number of games per environment, fixed in advance to not favour short games."""
  return [num_episodes // num_envs + (i < num_episodes % num_envs) for i in range(num_envs)]


class GameCollector:
  """Collects the scores of each environment's first games, up to its quota.

  Args:
    num_episodes: games in total.
    num_envs: N, number of environments.
  """

  def __init__(self, num_episodes: int, num_envs: int):
    self.num_episodes = num_episodes
    self._quotas = quotas(num_episodes, num_envs)
    self._scores: list[list[float]] = [[] for _ in range(num_envs)]
    self._lengths: list[int] = []  # Agent steps of each game.
    self._running = np.zeros(num_envs, np.int32)

  def add(self, infos: Any) -> bool:
    """Adds one unroll; returns whether all games were played.

    Args:
      infos: StepOutputInfo of arrays [N, T+1]; entry 0 is the last of the unroll before.
    """
    for i, t in zip(*np.nonzero(infos.game_over[:, 1:]), strict=True):
      if len(self._scores[i]) < self._quotas[i]:
        self._scores[i].append(float(infos.episode_return[i, t + 1]))
        self._lengths.append(int(infos.episode_step[i, t + 1]))
    self._running = np.where(infos.game_over[:, -1], 0, infos.episode_step[:, -1])
    return self.complete

  @property
  def complete(self) -> bool:
    """Whether all games were played."""
    return all(len(s) == q for s, q in zip(self._scores, self._quotas, strict=True))

  @property
  def scores(self) -> list[float]:
    """Raw returns of the games."""
    return [score for scores in self._scores for score in scores]

  @property
  def steps(self) -> int:
    """Agent steps of the games."""
    return sum(self._lengths)

  def cut_off(self, max_steps: int) -> int:
    """Returns how many games were cut off, that is, took at least `max_steps` agent steps."""
    return sum(length >= max_steps for length in self._lengths)

  def progress(self) -> str:
    """Returns the progress of the games, in one line."""
    scores = self.scores
    mean = f', mean {np.mean(scores):.2f}' if scores else ''
    return (
      f'{len(scores)} of {self.num_episodes} games played{mean}; the longest that is running is at '
      f'agent step {self._running.max()}'
    )


class _LikeliestActions:
  """An agent that takes the likeliest action of another agent's policy.

  Args:
    agent: agent from `nets.build_agent`.
  """

  def __init__(self, agent: Any):
    self._agent, self.initial_state = agent, agent.initial_state
    self.distribution = agent.distribution

  def __call__(self, inputs: Any, core_state: Any) -> tuple[Any, Any]:
    """Calls the agent; see `nets`."""
    output, core_state = self._agent(inputs, core_state)
    action = self.distribution.mode(output.policy_logits)
    return output._replace(action=action), core_state


def play(
  checkpoint: str,
  agent_name: str,
  spec: Any,
  num_episodes: int,
  environments: Any,
  should_stop: Callable[[], bool] = lambda: False,
  deterministic: bool = False,
  threads: int = 0,
  log: Callable[[str], None] = lambda line: None,
) -> GameCollector:
  """Plays whole games with the policy of a checkpoint.

  Args:
    checkpoint: path of a checkpoint.
    agent_name: see `nets.agent_factory`.
    spec: `environments.EnvironmentSpec`, or the run's settings, which also have the scaling.
    num_episodes: games to play.
    environments: `environments.FlowEnvironment` of N environments, N <= num_episodes.
    should_stop: returns whether to stop early.
    deterministic: whether to take the likeliest action; else it is sampled, as in training.
    threads: per thread pool of TensorFlow; 0: one per core.
    log: called with a line of progress every PROGRESS_SECS.

  Returns:
    The collected games; `complete` is False after stopping early.
  """
  agent = nets.build_agent(
    agent_name,
    spec,
    scaling=getattr(spec, 'observation_scaling', 'unit'),
    value_normalisation=getattr(spec, 'value_normalisation', False),
  )
  saver = tf.compat.v1.train.Saver(agent.variables)
  version = tf.compat.v1.Variable(
      tf.zeros([], tf.int64), trainable=False, use_resource=True,
      collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
  )  # fmt: skip
  player = _LikeliestActions(agent) if deterministic else agent
  infos = actor.build_unroll(player, environments, _STEPS_PER_CALL, version).env_outputs.info
  games = GameCollector(num_episodes, environments.num_envs)
  config = tf.compat.v1.ConfigProto(
    inter_op_parallelism_threads=threads, intra_op_parallelism_threads=threads
  )
  with tf.compat.v1.Session(config=config) as session:
    saver.restore(session, checkpoint)
    session.run(tf.compat.v1.local_variables_initializer())
    unroll = session.make_callable(infos)
    logged = time.monotonic()
    while not should_stop() and not games.add(unroll()):
      if time.monotonic() - logged >= PROGRESS_SECS:
        logged = time.monotonic()
        log(games.progress())
  return games
