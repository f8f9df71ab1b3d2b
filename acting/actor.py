"""The actor: generates unrolls of agent and environments in the TensorFlow graph.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), section 3. An actor loop steps N environments with
one call of the agent, and enqueues the unroll of each environment as a separate element of the
learner's queue.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from acting import frame_stacking
from acting.fixed_lag import FixedLag
from structs import (
  AgentOutput,
  CoreState,
  Spaces,
  StepOutput,
  StepOutputInfo,
  Unroll,
  action_dtype,
  action_shape,
  as_observation,
)


class Agent(Protocol):
  """The part of `nets.Agent` that an actor uses."""

  distribution: Any  # `learning.distributions.Distribution`.

  def initial_state(self, batch_size: int) -> CoreState:
    """See `nets.Agent.initial_state`."""
    ...

  def __call__(
    self, inputs: tuple[tf.Tensor, StepOutput], core_state: CoreState
  ) -> tuple[AgentOutput, CoreState]:
    """See `nets.Agent.__call__`."""
    ...


class Environments(Protocol):
  """The part of `environments.FlowEnvironment` that an actor uses."""

  num_envs: int
  spec: Any

  def initial(self) -> tuple[StepOutput, tf.Tensor]:
    """See `environments.FlowEnvironment.initial`."""
    ...

  def step(self, action: tf.Tensor, state: tf.Tensor) -> tuple[StepOutput, tf.Tensor]:
    """See `environments.FlowEnvironment.step`."""
    ...


def unroll_specs(agent: Agent, spec: Spaces, unroll_length: int, as_frames: bool = False) -> Unroll:
  """Returns the `Unroll` of tf.TensorSpec for one environment, an element of the queue.

  Args:
    agent: gives the shapes of the core state.
    spec: spaces of the environment.
    unroll_length: T, in agent steps.
    as_frames: whether stacked observations are sent as `Frames`.
  """
  steps = unroll_length + 1

  def over_time(dtype, *shape):
    return tf.TensorSpec([steps, *shape], dtype)

  return Unroll(
    level_id=tf.TensorSpec([], tf.int32),
    policy_version=tf.TensorSpec([], tf.int64),
    core_state=tf.nest.map_structure(
      lambda t: tf.TensorSpec(t.shape[1:], t.dtype), agent.initial_state(1)
    ),
    env_outputs=StepOutput(
      reward=over_time(tf.float32),
      info=StepOutputInfo(over_time(tf.float32), over_time(tf.int32), over_time(tf.bool)),
      done=over_time(tf.bool),
      observation=(
        frame_stacking.frames_spec(spec.observation[0].shape, steps)
        if as_frames
        else as_observation([over_time(array.dtype, *array.shape) for array in spec.observation])
      ),
    ),
    agent_outputs=AgentOutput(
      over_time(action_dtype(spec.action), *action_shape(spec.action)),
      over_time(tf.float32, agent.distribution.num_parameters),
      over_time(tf.float32),
    ),
  )


def build_unroll(
  agent: Agent,
  environments: Environments,
  unroll_length: int,
  policy_version: tf.Variable,
  level_id: int = 0,
  as_frames: bool = False,
  seed: int | None = None,
  state: list[tf.Variable] | None = None,
) -> Unroll:
  """Builds one unroll of N environments.

  Local variables on the current device keep the states between runs of the graph, so that the last
  entry of an unroll is the first entry of the next.

  Args:
    agent: a local copy, so that a step reads no variable of another task.
    environments: N environments.
    unroll_length: T, in agent steps.
    policy_version: int64 scalar variable, updates done when the agent's weights were read.
    level_id: int, see `Unroll`.
    as_frames: whether stacked observations are sent as `Frames`.
    seed: draws the actions from the agent's policy by this seed and the number of the step, and not
      by the agent; None leaves that to the agent, whose random operations keep a state that no
      checkpoint has.
    state: a list that gets the local variables.

  Returns:
    An `Unroll` of [N, ...]. Evaluating it steps the environments T times.
  """
  act, num_envs = _with_baseline_of(agent, level_id), environments.num_envs
  first = _first_entry(agent, act, environments)
  first_draw = [] if seed is None else [tf.constant([seed, 0], tf.int32)]
  variables = tf.nest.map_structure(_local_variable, (*first, first_draw))
  if state is not None:
    state.extend(tf.nest.flatten(variables))
  before = tf.nest.map_structure(lambda v: v.read_value(), variables)

  def step(carry, _):
    core_state, env_state, env_output, agent_output, draw = carry
    agent_output, core_state = act((agent_output.action, env_output), core_state)
    if draw:
      action = agent.distribution.sample(agent_output.policy_logits, draw[0])
      agent_output, draw = agent_output._replace(action=action), [draw[0] + [0, 1]]
    env_output, env_state = environments.step(agent_output.action, env_state)
    return core_state, env_state, env_output, agent_output, draw

  # parallel_iterations=1, since every step needs the action and the states of the previous one.
  over_time = tf.scan(step, tf.range(unroll_length), initializer=before, parallel_iterations=1)
  after = tf.nest.map_structure(lambda t: t[-1], over_time)
  with tf.control_dependencies(tf.nest.flatten(before)):
    saves = [
      v.assign(t) for v, t in zip(tf.nest.flatten(variables), tf.nest.flatten(after), strict=True)
    ]
  with tf.control_dependencies(saves):
    return Unroll(
      level_id=tf.fill([num_envs], level_id),
      policy_version=tf.fill([num_envs], policy_version.read_value()),
      core_state=tf.nest.map_structure(tf.identity, before[0]),
      env_outputs=_env_outputs(before[2], over_time[2], as_frames),
      agent_outputs=_with_first(before[3], over_time[3]),
    )


def _first_entry(
  agent: Agent, act: Callable[..., tuple[AgentOutput, CoreState]], environments: Environments
) -> tuple[CoreState, tf.Tensor, StepOutput, AgentOutput]:
  """Returns core state, state of the environments and both outputs before the first step."""
  first_env_output, first_env_state = environments.initial()
  zero_state = agent.initial_state(environments.num_envs)
  # The action before the first is 0; the learner never uses its logits and baseline.
  parts = environments.spec.action
  action = tf.zeros([environments.num_envs, *action_shape(parts)], action_dtype(parts))
  first_agent_output, _ = act((action, first_env_output), zero_state)
  first_agent_output = tf.nest.map_structure(tf.zeros_like, first_agent_output)
  return zero_state, first_env_state, first_env_output, first_agent_output


def _with_baseline_of(agent: Agent, level_id: int) -> Callable[..., tuple[AgentOutput, CoreState]]:
  """Returns a function like the agent; of a baseline for each level it keeps that of one."""

  def act(inputs, core_state):
    output, core_state = agent(inputs, core_state)
    if (output.baseline.shape.rank or 0) > 1:
      output = output._replace(baseline=output.baseline[:, level_id])
    return output, core_state

  return act


def _local_variable(initial_value: tf.Tensor) -> tf.Variable:
  return tf.compat.v1.Variable(
    initial_value,
    trainable=False,
    use_resource=True,
    collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
    name='actor_state',
  )


def _env_outputs(first: StepOutput, rest: StepOutput, as_frames: bool) -> StepOutput:
  if not as_frames:
    return _with_first(first, rest)
  others = _with_first(first._replace(observation=()), rest._replace(observation=()))
  stacks: tuple[Any, Any] = first.observation, rest.observation
  return others._replace(observation=frame_stacking.pack(*stacks))


def _with_first(first: Any, rest: Any) -> Any:
  """[N, ...] and [T, N, ...] -> [N, T+1, ...]."""

  def join(head, tail):
    joined = tf.concat([head[None], tail], axis=0)
    return tf.transpose(joined, [1, 0, *range(2, joined.shape.rank)])

  return tf.nest.map_structure(join, first, rest)


class Refresh:
  """Refreshes an actor's copy of the weights when they have changed.

  Args:
    copy_weights: builds and returns the operation that copies the weights.
    updates: int64 scalar variable, updates so far.

  Attributes:
    version: int64 scalar local variable, updates when the weights were read; -1 at first.
  """

  def __init__(self, copy_weights: Callable[[], tf.Operation], updates: tf.Variable):
    self.version = _local_variable(tf.constant(-1, tf.int64))
    self._versions = [updates.read_value(), self.version.read_value()]
    # Decided in Python: for a tf.cond, parameter servers would fetch the predicate from the actor.
    self._newest = tf.compat.v1.placeholder(tf.int64, [])
    with tf.control_dependencies([copy_weights()]):
      self._copy = self.version.assign(self._newest).op

  def on(self, session: tf.compat.v1.Session) -> Callable[[], None]:
    """Returns a function that refreshes the weights on a session."""
    look = session.make_callable(self._versions)
    copy = session.make_callable(self._copy, feed_list=[self._newest])

    def refresh():
      # The version is read before the weights, so the weights may be newer, but never older.
      newest, version = look()
      if newest != version:
        copy(newest)

    return refresh


class BatchedAgent:
  """An agent whose steps are batched across the actor loops of the process.

  Args:
    agent: shared by all loops.
    batch: decorator such as `dynamic_batching.batch_fn`.
  """

  def __init__(self, agent: Agent, batch: Callable[[Callable], Callable]):
    self._step = batch(lambda *args: agent(*args))
    self.initial_state, self.distribution = agent.initial_state, agent.distribution

  def __call__(
    self, inputs: tuple[tf.Tensor, StepOutput], core_state: CoreState
  ) -> tuple[AgentOutput, CoreState]:
    """As the agent."""
    return self._step(inputs, core_state)


class EpisodeTracker:
  """Finds the games that ended within unrolls and sums their clipped rewards.

  Args:
    num_envs: N.
    level_name: stored in the record of every game.
    num_action_repeats: frames per agent step.

  Attributes:
    level_name: as given.
  """

  def __init__(self, num_envs: int, level_name: str, num_action_repeats: int):
    self._clipped_returns, self._first = np.zeros(num_envs), np.zeros(num_envs)
    self.level_name, self._num_action_repeats = level_name, num_action_repeats

  @property
  def clipped_returns(self) -> np.ndarray:
    """The sums of the running games, float64 [N]."""
    return self._clipped_returns.copy()

  def begin_with(self, clipped_returns: np.ndarray) -> None:
    """Makes the next `reset` set these sums; raises ValueError if they are not [N]."""
    self._first[:] = clipped_returns

  def reset(self) -> None:
    """Resets the sums; called for every new session, which starts new games or goes on."""
    self._clipped_returns[:] = self._first
    self._first[:] = 0

  def add(self, clipped_rewards: np.ndarray, infos: StepOutputInfo) -> list[dict[str, Any]]:
    """Adds one unroll.

    Args:
      clipped_rewards: float32 [N, T+1]; entry 0 was counted with the previous unroll.
      infos: StepOutputInfo of [N, T+1].

    Returns:
      A list of dicts with level_name, episode_return (raw, of the whole game), clipped_return and
      episode_frames, one for each game that ended.
    """
    games = []
    for t in range(1, clipped_rewards.shape[1]):
      self._clipped_returns += clipped_rewards[:, t]
      # A crashed game is not counted; its sum must not be added to the next game's sum.
      for i in np.flatnonzero(infos.episode_step[:, t] == 0):
        self._clipped_returns[i] = 0
      for i in np.flatnonzero(infos.game_over[:, t]):
        games.append(self._game(int(i), infos.episode_return[i, t], infos.episode_step[i, t]))
        self._clipped_returns[i] = 0
    return games

  def _game(self, i: int, episode_return: float, episode_step: int) -> dict[str, Any]:
    return dict(
      level_name=self.level_name,
      episode_return=float(episode_return),
      clipped_return=float(self._clipped_returns[i]),
      episode_frames=int(episode_step) * self._num_action_repeats,
    )


class EnqueueOp:
  """Enqueues this process's unrolls in a learner's queue.

  Args:
    queue: queue of single unrolls.
    specs: `Unroll` of tf.TensorSpec, the structure of an element.
  """

  def __init__(self, queue: tf.queue.QueueBase, specs: Unroll):
    with tf.device(queue.queue_ref.device), tf.device('/cpu:0'):
      self._fed = [
        tf.compat.v1.placeholder(spec.dtype, [None, *spec.shape]) for spec in tf.nest.flatten(specs)
      ]
      self._enqueue = queue.enqueue_many(self._fed)

  def on(self, session: tf.compat.v1.Session) -> Callable[..., Any]:
    """Returns a function that enqueues the flattened arrays of an `Unroll` of [N, ...]."""
    return session.make_callable(self._enqueue, feed_list=self._fed)


class ActorLoop:
  """One actor loop and its graph operations.

  Args:
    refresh: refreshes the acting weights.
    unroll: an `Unroll` of [N, ...] from `build_unroll`.
    clip_rewards: clips a float32 tensor of rewards as the learner does; for the records only.
    tracker: tracks the episodes of the same environments.
    lag: fixes the policy lag; None leaves it as it comes.
    index: of this loop in the process.
  """

  def __init__(
    self,
    refresh: Refresh,
    unroll: Unroll,
    clip_rewards: Callable[[tf.Tensor], tf.Tensor],
    tracker: EpisodeTracker,
    lag: FixedLag | None = None,
    index: int = 0,
  ):
    flat = tf.nest.flatten(unroll)
    self._refresh = refresh
    clipped = clip_rewards(unroll.env_outputs.reward)
    self._unroll = [flat, clipped, unroll.env_outputs.info]
    self._tracker, self._lag, self._index = tracker, lag, index
    self._num_envs = flat[0].shape[0]
    self._steps = self._num_envs * (unroll.env_outputs.reward.shape[1] - 1)

  def run(
    self,
    session: tf.compat.v1.Session,
    send: Callable[..., Any],
    should_stop: Callable[[], bool],
    enter: Callable[[str], None],
    report: Callable[[dict[str, Any]], None],
  ) -> None:
    """Generates and sends unrolls until stopped or an operation fails.

    Args:
      session: session of the loop's graph.
      send: sends the flattened arrays of an `Unroll`; blocks while the queue is full.
      should_stop: called before every unroll.
      enter: called with the name of each phase when it begins.
      report: called after every unroll with a dict of level_name, steps (agent steps played),
        wait_secs (spent waiting for the queue), busy_secs and episodes.
    """
    refresh, unroll = self._refresh.on(session), session.make_callable(self._unroll)
    self._tracker.reset()
    while not should_stop():
      place = self._wait_for_turn(enter)
      if self._lag and should_stop():
        return  # The turn may not have come.
      began = time.monotonic()
      enter('refresh')
      refresh()
      enter('unroll')
      played, clipped_rewards, infos = unroll()
      played_at = time.monotonic()
      enter('enqueue')
      with self._lag.in_order(place, self._num_envs) if self._lag else contextlib.nullcontext():
        send(*played)
        # In order, too, so that the learner's next update begins after this report.
        report(
          dict(
            level_name=self._tracker.level_name,
            steps=self._steps,
            busy_secs=played_at - began,
            wait_secs=time.monotonic() - played_at,
            episodes=self._tracker.add(clipped_rewards, infos),
          )
        )

  def _wait_for_turn(self, enter: Callable[[str], None]) -> int:
    """Returns the place of the next unrolls in the queue; 0 if the lag is not fixed."""
    if not self._lag:
      return 0
    enter('turn')
    return self._lag.take_place(self._num_envs, self._index)
