"""The actor: one unroll of agent and environments after another, in the TensorFlow graph.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), section 3. An actor loop steps N environments
together with one call of the agent, and enqueues the unroll of each environment as a separate
element of the learner's queue.
"""

import time

import numpy as np
import tensorflow as tf

from acting import frame_stacking
from structs import AgentOutput, StepOutput, StepOutputInfo, Unroll


def unroll_specs(agent, spec, unroll_length, as_frames=False):
  """The `Unroll` of tf.TensorSpec that one environment sends; what the queue holds.

  Args:
    agent: has `initial_state`.
    spec: has `observation_shape`, `observation_dtype`, `num_actions`.
    unroll_length: T, in agent steps.
    as_frames: whether observations are stacks that travel frame by frame.
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
        frame_stacking.frames_spec(spec.observation_shape, steps)
        if as_frames
        else over_time(spec.observation_dtype, *spec.observation_shape)
      ),
    ),
    agent_outputs=AgentOutput(
      over_time(tf.int32), over_time(tf.float32, spec.num_actions), over_time(tf.float32)
    ),
  )


def build_unroll(agent, environments, unroll_length, policy_version, level_id=0, as_frames=False):
  """One unroll of N environments as graph operations.

  Local variables on the current device keep the states from one run of the graph to the next, so
  that the last entry of an unroll is the first of the next.

  Args:
    agent: `agent((last_action, env_output), core_state) -> (AgentOutput, core_state)`.
    environments: has `num_envs`, `initial()` and `step(action, state)`.
    unroll_length: T, in agent steps.
    policy_version: int64 scalar variable, updates done when the agent's weights were read.
    level_id: int, see `Unroll`.
    as_frames: whether observations are stacks that leave as `Frames`.

  Returns:
    An `Unroll` of [N, ...]. Evaluating it steps the environments T times.
  """
  num_envs = environments.num_envs
  first_env_output, first_env_state = environments.initial()
  zero_state = agent.initial_state(num_envs)
  # The action before the first is 0; the learner never uses its logits and baseline.
  action = tf.zeros([num_envs], tf.int32)
  first_agent_output, _ = agent((action, first_env_output), zero_state)
  first_agent_output = tf.nest.map_structure(tf.zeros_like, first_agent_output)
  first = (zero_state, first_env_state, first_env_output, first_agent_output)
  variables = tf.nest.map_structure(_local_variable, first)
  before = tf.nest.map_structure(lambda v: v.read_value(), variables)

  def step(carry, _):
    core_state, env_state, env_output, agent_output = carry
    agent_output, core_state = agent((agent_output.action, env_output), core_state)
    env_output, env_state = environments.step(agent_output.action, env_state)
    return core_state, env_state, env_output, agent_output

  # One iteration at a time: every step needs the action and the states of the one before.
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


def _local_variable(initial_value):
  return tf.compat.v1.Variable(
    initial_value,
    trainable=False,
    use_resource=True,
    collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
    name='actor_state',
  )


def _env_outputs(first, rest, as_frames):
  if not as_frames:
    return _with_first(first, rest)
  others = _with_first(first._replace(observation=()), rest._replace(observation=()))
  return others._replace(observation=frame_stacking.pack(first.observation, rest.observation))


def _with_first(first, rest):
  """[N, ...] and [T, N, ...] -> [N, T+1, ...]."""

  def join(head, tail):
    joined = tf.concat([head[None], tail], axis=0)
    return tf.transpose(joined, [1, 0, *range(2, joined.shape.rank)])

  return tf.nest.map_structure(join, first, rest)


class Refresh:
  """Copies the weights for acting where they have changed.

  Args:
    copy_weights: function that builds and returns the operation that copies the weights.
    updates: int64 variable, updates done so far.

  Attributes:
    version: int64 local variable: updates done when the weights were read, -1 at first.
  """

  def __init__(self, copy_weights, updates):
    self.version = _local_variable(tf.constant(-1, tf.int64))
    self._versions = [updates.read_value(), self.version.read_value()]
    # Decided in Python: the branch of a tf.cond would have the parameter servers ask the actor
    # which one it is.
    self._newest = tf.compat.v1.placeholder(tf.int64, [])
    with tf.control_dependencies([copy_weights()]):
      self._copy = self.version.assign(self._newest).op

  def on(self, session):
    """The refresh on a session, a function without arguments."""
    look = session.make_callable(self._versions)
    copy = session.make_callable(self._copy, feed_list=[self._newest])

    def refresh():
      # Read before the weights: they may be newer than their version says, never older.
      newest, version = look()
      if newest != version:
        copy(newest)

    return refresh


class BatchedAgent:
  """An agent whose single steps are merged with those of other loops of the process.

  Args:
    agent: the agent that all of them share.
    batch: decorator such as `dynamic_batching.batch_fn`.
  """

  def __init__(self, agent, batch):
    self._agent = agent
    self._step = batch(lambda *args: agent(*args))
    self.initial_state = agent.initial_state

  def __call__(self, inputs, core_state):
    """As the agent."""
    return self._step(inputs, core_state)


class EpisodeTracker:
  """Finds the games that ended within unrolls and adds up their clipped rewards.

  Args:
    num_envs: N.
    level_name: named in every game's record.
    num_action_repeats: frames per agent step.
  """

  def __init__(self, num_envs, level_name, num_action_repeats):
    self._clipped_returns = np.zeros(num_envs)
    self._level_name, self._num_action_repeats = level_name, num_action_repeats

  def reset(self):
    """All games begin anew, as they do with every session."""
    self._clipped_returns[:] = 0

  def add(self, clipped_rewards, infos):
    """Takes one unroll.

    Args:
      clipped_rewards: float32 [N, T+1]; entry 0 was counted with the unroll before.
      infos: StepOutputInfo of [N, T+1].

    Returns:
      A list of dicts with level_name, episode_return (raw, of the whole game), clipped_return and
      episode_frames, one for each game that ended.
    """
    games = []
    for t in range(1, clipped_rewards.shape[1]):
      self._clipped_returns += clipped_rewards[:, t]
      # A crashed game is not counted; its sum must not be added to that of the next one.
      for i in np.flatnonzero(infos.episode_step[:, t] == 0):
        self._clipped_returns[i] = 0
      for i in np.flatnonzero(infos.game_over[:, t]):
        games.append(self._game(i, infos.episode_return[i, t], infos.episode_step[i, t]))
        self._clipped_returns[i] = 0
    return games

  def _game(self, i, episode_return, episode_step):
    return dict(
      level_name=self._level_name,
      episode_return=float(episode_return),
      clipped_return=float(self._clipped_returns[i]),
      episode_frames=int(episode_step) * self._num_action_repeats,
    )


class EnqueueOp:
  """Takes unrolls from this process into a learner's queue.

  Args:
    queue: of single unrolls (tf.queue.FIFOQueue).
    specs: the `Unroll` of tf.TensorSpec that it holds.
  """

  def __init__(self, queue, specs):
    with tf.device(queue.queue_ref.device), tf.device('/cpu:0'):
      self._fed = [
        tf.compat.v1.placeholder(spec.dtype, [None, *spec.shape]) for spec in tf.nest.flatten(specs)
      ]
      self._enqueue = queue.enqueue_many(self._fed)

  def on(self, session):
    """A function that sends the arrays of a flat `Unroll` of [N, ...] on a session."""
    return session.make_callable(self._enqueue, feed_list=self._fed)


class ActorLoop:
  """The graph operations of one loop, and the loop itself.

  Args:
    refresh: `Refresh` of the acting weights.
    unroll: an `Unroll` of [N, ...] from `build_unroll`.
    clip_rewards: function of a float32 tensor, the learner's clipping (for the records only).
    tracker: an `EpisodeTracker`.
  """

  def __init__(self, refresh, unroll, clip_rewards, tracker):
    flat = tf.nest.flatten(unroll)
    self._refresh = refresh
    clipped = clip_rewards(unroll.env_outputs.reward)
    self._unroll = [flat, clipped, unroll.env_outputs.info]
    self._tracker = tracker
    self._steps = flat[0].shape[0] * (unroll.env_outputs.reward.shape[1] - 1)

  def run(self, session, send, should_stop, enter, report):
    """Plays until told to stop or an operation fails.

    Args:
      session: tf.compat.v1.Session of the loop's graph.
      send: function of the arrays of a flat `Unroll`; waits while the queue is full.
      should_stop: function without arguments.
      enter: function of the name of the phase that begins.
      report: function of a dict with steps (agent steps played), wait_secs (spent on the queue),
        busy_secs and episodes, after every unroll.
    """
    refresh, unroll = self._refresh.on(session), session.make_callable(self._unroll)
    self._tracker.reset()
    while not should_stop():
      began = time.monotonic()
      enter('refresh')
      refresh()
      enter('unroll')
      played, clipped_rewards, infos = unroll()
      played_at = time.monotonic()
      enter('enqueue')
      send(*played)
      report(
        dict(
          steps=self._steps,
          busy_secs=played_at - began,
          wait_secs=time.monotonic() - played_at,
          episodes=self._tracker.add(clipped_rewards, infos),
        )
      )
