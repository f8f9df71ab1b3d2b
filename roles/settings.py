"""IMPALA: trains and tests agents on Gym environments, on one machine or on a cluster.

  python experiment.py --level_name=PongNoFrameskip-v4       trains in this one process
  python experiment.py --flagfile=flagfiles/pong.flags       the same, with settings known to work
  python experiment.py --mode=test --logdir=runs/...         plays full games with the checkpoint
  python experiment.py --mode=plot --logdir=runs/...         draws the learning curve
  python experiment.py --ps_hosts=.. --learner_hosts=.. --actor_hosts=.. --job_name=.. --task=..
                                                             is one role of a cluster

This file holds the flags and the wiring of each role. It imports TensorFlow only once the flags
are good.
"""

import collections
import difflib
import functools
import json
import math
import os
import re
import sys
import threading
import time

from absl import (
  app,  # noqa: F401 (defines --only_check_args)
  flags,
  logging,
)

import runtime
from runtime import BadInput, RunFailed

AGENT_NAMES = (
  'auto',
  'SimpleConvNetAgent',
  'SimpleConvNetLSTMAgent',
  'ResNetAgent',
  'ResNetLSTMAgent',
  'MLPAgent',
  'MLPLSTMAgent',
)

FLAGS = flags.FLAGS

# What is run.
flags.DEFINE_enum('mode', 'train', ['train', 'test', 'plot'], 'train, test (play) or plot.')
flags.DEFINE_string(
  'level_name', 'BreakoutNoFrameskip-v4', 'Gym id of the environment; module:Id imports first.'
)
flags.DEFINE_enum(
    'agent_name', 'auto', AGENT_NAMES, 'Network; auto picks by the observations.',
    case_sensitive=False,
)  # fmt: skip
flags.DEFINE_string('logdir', '', 'Folder of the run; runs/<level>-<agent> if empty.')
flags.DEFINE_integer('seed', 1, 'Of weights, actions and environments.', lower_bound=0)
flags.DEFINE_integer(
  'total_environment_frames', int(1e9), 'Environment frames to train on.', lower_bound=1
)
flags.DEFINE_integer('test_num_episodes', 30, 'Games that --mode=test plays.', lower_bound=1)

# Where it is run.
flags.DEFINE_integer('task', -1, "Index in the job's host list; -1 trains in this process.")
flags.DEFINE_enum('job_name', '', ['', 'ps', 'learner', 'actor'], 'Role in a cluster.')
flags.DEFINE_list('ps_hosts', [], 'host:port of every parameter server.')
flags.DEFINE_list('learner_hosts', [], 'host:port of every learner; the first is the chief.')
flags.DEFINE_list('actor_hosts', [], 'host:port of every actor.')
flags.DEFINE_bool('sync_learners', True, 'Learners update together (true) or each on its own.')
flags.DEFINE_list('learner_devices', [], 'Devices that share the batch; empty: all GPUs.')
flags.DEFINE_integer('wait_secs', 0, 'Seconds to wait for peers; 0 = for ever.', lower_bound=0)
flags.DEFINE_integer(
    'watchdog_secs', 300, 'Seconds without progress after which a role leaves; 0 = never.',
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_string('state_dir', '', 'Folder of the state file of this task; none if empty.')
flags.DEFINE_integer('threads', 0, 'Threads per TensorFlow pool; 0 = one per core.', lower_bound=0)

# Acting.
flags.DEFINE_integer(
    'num_actors', 2,
    'Actor loops in this process (the original counted those of the whole cluster).', lower_bound=1,
)  # fmt: skip
flags.DEFINE_integer('envs_per_actor', 16, 'Environments per actor loop.', lower_bound=1)
flags.DEFINE_integer('unroll_length', 20, 'Agent steps per unroll.', lower_bound=1)
flags.DEFINE_integer(
  'num_action_repeats', 0, 'Frames per agent step; 0 = 4 for Atari, else 1.', lower_bound=0
)
flags.DEFINE_integer('width', 84, 'Pixels of an Atari observation.', lower_bound=1)
flags.DEFINE_integer('height', 84, 'Pixels of an Atari observation.', lower_bound=1)
flags.DEFINE_integer(
  'queue_capacity', 0, 'Unrolls that a learner keeps waiting; 0 = two batches.', lower_bound=0
)
flags.DEFINE_enum(
    'dynamic_batching', 'auto', ['auto', 'true', 'false'],
    'Merge the inference of the loops of a process; auto: where loops have at most 4 environments.',
)  # fmt: skip

# Learning. Defaults: IMPALA (arXiv 1802.01561), Table G.1, Atari.
flags.DEFINE_integer('batch_size', 32, 'Unrolls per update and learner.', lower_bound=1)
flags.DEFINE_float('learning_rate', 6e-4, 'At the start; falls linearly to 0 at the last frame.')
flags.DEFINE_enum('optimizer', 'rmsprop', ['rmsprop', 'adam'], 'Optimizer.')
flags.DEFINE_float('decay', 0.99, 'Of RMSProp.')
flags.DEFINE_float('momentum', 0.0, 'Of RMSProp.')
flags.DEFINE_float('epsilon', 0.01, 'Of RMSProp or Adam.')
flags.DEFINE_float('gradient_clipping', 40.0, 'Largest global norm of the gradient.')
flags.DEFINE_float('entropy_cost', 0.01, 'Weight of the entropy.')
flags.DEFINE_float('baseline_cost', 0.5, 'Weight of the baseline loss.')
flags.DEFINE_float('discounting', 0.99, 'Discount per agent step.')
flags.DEFINE_float('vtrace_lambda', 1.0, 'Of the V-trace coefficients.')
flags.DEFINE_enum(
  'reward_clipping', 'abs_one', ['abs_one', 'soft_asymmetric', 'none'], 'Of learned rewards.'
)
flags.DEFINE_enum(
  'learner_precision', 'float32', ['float32', 'bfloat16'], 'Of the torso in the learner.'
)

# Records.
flags.DEFINE_float('save_checkpoint_secs', 600, 'Seconds between checkpoints.')
flags.DEFINE_float('metrics_secs', 10, 'Seconds between rows of metrics.csv.')

# What every task of a run has to agree on; what a command line leaves open is adopted from the
# chief.
SHARED_FLAGS = (
    'level_name', 'agent_name', 'unroll_length', 'num_action_repeats', 'width', 'height',
    'reward_clipping', 'total_environment_frames', 'seed', 'queue_capacity', 'batch_size',
    'learning_rate', 'optimizer', 'decay', 'momentum', 'epsilon', 'gradient_clipping',
    'entropy_cost', 'baseline_cost', 'discounting', 'vtrace_lambda', 'learner_precision',
    'sync_learners',
)  # fmt: skip
SPACES = ('observation_shape', 'observation_dtype', 'num_actions')

_POSITIVE = (
    'learning_rate', 'epsilon', 'gradient_clipping', 'save_checkpoint_secs', 'metrics_secs'
)  # fmt: skip
_NOT_NEGATIVE = ('entropy_cost', 'baseline_cost', 'momentum')
_FRACTIONS = ('decay', 'discounting', 'vtrace_lambda')


# -------------------------------------------------------------------------------------------------
# The command line


def parse_args(argv):
  """Parses and checks the command line, without TensorFlow.

  Returns:
    `runtime.Cluster`.

  Raises:
    BadInput: in one sentence.
  """
  try:
    rest = FLAGS(argv)[1:]
  except flags.UnrecognizedFlagError as e:
    close = difflib.get_close_matches(e.flagname, list(FLAGS), 1)
    hint = f'; did you mean --{close[0]}?' if close else ''
    raise BadInput(f'there is no flag --{e.flagname}{hint}') from None
  except (flags.Error, OSError) as e:
    raise BadInput(' '.join(str(e).removeprefix('ERROR:: ').split())) from None
  if rest:
    raise BadInput(f'{rest[0]!r} is not a flag; flags are written --name=value')
  _check_numbers()
  cluster = _parse_cluster()
  if FLAGS.mode == 'train' and FLAGS.queue_capacity and FLAGS.queue_capacity < FLAGS.batch_size:
    raise BadInput(
      f'--batch_size={FLAGS.batch_size} can never be filled from --queue_capacity='
      f'{FLAGS.queue_capacity}; the capacity must be at least the batch size'
    )
  devices = max(1, len(FLAGS.learner_devices))
  if FLAGS.batch_size % devices:
    raise BadInput(
      f'--batch_size={FLAGS.batch_size} cannot be split evenly over {devices} --learner_devices'
    )
  return cluster


def _check_numbers():
  checks = (
    [(n, lambda x: x > 0, 'a positive number') for n in _POSITIVE]
    + [(n, lambda x: x >= 0, 'a number of at least 0') for n in _NOT_NEGATIVE]
    + [(n, lambda x: 0 <= x <= 1, 'a number from 0 to 1') for n in _FRACTIONS]
  )
  for name, good, wanted in checks:
    value = FLAGS[name].value
    if not (math.isfinite(value) and good(value)):
      raise BadInput(f'--{name}={value:g} is not {wanted}')


def _parse_cluster():
  jobs = {'ps': FLAGS.ps_hosts, 'learner': FLAGS.learner_hosts, 'actor': FLAGS.actor_hosts}
  if FLAGS.task < -1:
    raise BadInput(f'--task={FLAGS.task} is neither -1 (local training) nor an index from 0')
  if not FLAGS.job_name:
    if FLAGS.task >= 0:
      raise BadInput(f'--task={FLAGS.task} needs --job_name=ps, learner or actor')
    if any(jobs.values()):
      raise BadInput('a cluster needs --job_name and --task; without hosts, training is local')
    return runtime.Cluster((), (), (), '', -1)
  seen = {}
  for job, hosts in jobs.items():
    if not hosts:
      raise BadInput(f'--{job}_hosts is empty; a cluster needs at least one {job}')
    for host in hosts:
      _check_address(job, host)
      if host in seen:
        raise BadInput(f'{host} appears twice, in --{seen[host]}_hosts and --{job}_hosts')
      seen[host] = job
  if len(FLAGS.actor_hosts) < len(FLAGS.learner_hosts):
    raise BadInput(
      f'--learner_hosts names {len(FLAGS.learner_hosts)} learners, but --actor_hosts only '
      f'{len(FLAGS.actor_hosts)}: every learner needs an actor of its own'
    )
  hosts = jobs[FLAGS.job_name]
  if not 0 <= FLAGS.task < len(hosts):
    raise BadInput(
      f'--task={FLAGS.task} is outside --{FLAGS.job_name}_hosts, which has the tasks 0 to '
      f'{len(hosts) - 1}'
    )
  return runtime.Cluster(*(tuple(jobs[j]) for j in jobs), FLAGS.job_name, FLAGS.task)


def _check_address(job, address):
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
    raise BadInput(f'--{job}_hosts: {address!r} is not host:port with a port from 1 to 65535')
  runtime.check_resolves(f'--{job}_hosts', address)


# -------------------------------------------------------------------------------------------------
# Settings: what the tasks of a run agree on


Settings = collections.namedtuple('Settings', SHARED_FLAGS + SPACES)


def own_settings():
  """The settings as this command line gives them; the environment says what the spaces are.

  Raises:
    BadInput: the environment cannot be made, or the agent cannot see it.
  """
  import environments

  try:
    spec = environments.environment_spec(
      FLAGS.level_name, FLAGS.num_action_repeats, FLAGS.width, FLAGS.height
    )
  except ValueError as e:
    raise BadInput(f'--level_name={FLAGS.level_name}: {e}') from None
  values = {name: FLAGS[name].value for name in SHARED_FLAGS}
  values['num_action_repeats'] = spec.num_action_repeats
  values['queue_capacity'] = FLAGS.queue_capacity or 2 * FLAGS.batch_size
  values['agent_name'] = _fitting_agent(values['agent_name'], spec.observation_shape)
  spaces = (tuple(spec.observation_shape), spec.observation_dtype, spec.num_actions)
  return Settings(**values, **dict(zip(SPACES, spaces, strict=True)))


def _fitting_agent(agent_name, observation_shape):
  is_image = len(observation_shape) == 3
  default = 'SimpleConvNetAgent' if is_image else 'MLPAgent'
  if agent_name == 'auto':
    return default
  if agent_name.startswith('MLP') == is_image:
    raise BadInput(
      f'--agent_name={agent_name} takes {"vectors" if is_image else "images"}, but those of '
      f'{FLAGS.level_name} are of shape {tuple(observation_shape)}; {default} would fit'
    )
  return agent_name


def adopt_settings(shared):
  """The run's settings, once this command line is known not to contradict them.

  Args:
    shared: dict that the chief wrote.

  Raises:
    BadInput: a flag was given with another value, or the code differs.
  """
  if shared['code_version'] != runtime.code_version():
    raise BadInput(
      f'the code here has version {runtime.code_version()}, but the run has '
      f'{shared["code_version"]}: bring the same code to every host'
    )
  for name in SHARED_FLAGS:
    flag, theirs = FLAGS[name], shared[name]
    open_values = {'agent_name': 'auto', 'num_action_repeats': 0, 'queue_capacity': 0}
    if flag.present and flag.value != theirs and flag.value != open_values.get(name, theirs):
      raise BadInput(f'--{name}={flag.value} contradicts the run, which has {name}={theirs}')
  fields = {name: shared[name] for name in Settings._fields}
  return Settings(**{**fields, 'observation_shape': tuple(shared['observation_shape'])})


def logdir(settings):
  """Where the run is recorded."""
  level = settings.level_name.replace('/', '-').replace(':', '-')
  return FLAGS.logdir or os.path.join('runs', f'{level}-{settings.agent_name}')


# -------------------------------------------------------------------------------------------------
# Wiring


class Graph:
  """What every role builds first, in the same order and under the same names.

  Args:
    settings: `Settings`.
    cluster: `runtime.Cluster`.
  """

  def __init__(self, settings, cluster):
    import tensorflow as tf

    import learner
    import nets

    self.settings, self.cluster = settings, cluster
    with tf.compat.v1.device(runtime.variables_device(cluster)):
      self.agent = nets.build_agent(settings.agent_name, settings)
      self.counters = learner.create_counters()
    self.shared = runtime.SharedState(cluster)

  def unroll_queue(self, learner_task):
    """The queue of unrolls on a learner; actors and that learner name the same one."""
    import tensorflow as tf

    import actor
    import environments
    import nets

    specs = actor.unroll_specs(
      self.agent,
      nets.AgentOutput,
      (environments.StepOutput, environments.StepOutputInfo),
      self.settings,
      self.settings.unroll_length,
    )
    flat = tf.nest.flatten(specs)
    with tf.device(self.cluster.device('learner', learner_task)):
      queue = tf.queue.FIFOQueue(
        self.settings.queue_capacity,
        [spec.dtype for spec in flat],
        [spec.shape for spec in flat],
        shared_name='unrolls',
      )
    return queue, specs

  def local_agent(self, precision='float32'):
    """A copy of the agent on this task's device, and the function that copies the weights."""
    import nets

    return nets.local_copy(self.agent, self.settings.agent_name, self.settings, precision)


class ActorSide:
  """The actor loops of this process.

  Args:
    graph: `Graph`.
    queue: of the learner that is fed.
    start_frames: environment frames when this process began: seeds differ after a resume.
  """

  def __init__(self, graph, queue, start_frames):
    import tensorflow as tf

    self._graph, self._queue = graph, queue
    self._environments, self.loops = [], []
    with tf.device(graph.cluster.own_device):
      agents = self._agents()
      for i, (agent, refresh, version) in enumerate(agents):
        self.loops.append(self._loop(i, agent, refresh, version, start_frames))

  def _agents(self):
    """(agent, refresh, version of its weights) for each loop."""
    merge = FLAGS.dynamic_batching == 'true' or (
      FLAGS.dynamic_batching == 'auto' and FLAGS.num_actors > 1 and FLAGS.envs_per_actor <= 4
    )
    if not merge:
      return [self._versioned_agent() for _ in range(FLAGS.num_actors)]
    import actor
    import dynamic_batching

    agent, refresh, version = self._versioned_agent()
    batched = actor.BatchedAgent(
      agent, dynamic_batching.batch_fn_with_options(minimum_batch_size=1, timeout_ms=1)
    )
    return [(batched, refresh, version)] * FLAGS.num_actors

  def _versioned_agent(self):
    import actor

    agent, copy_weights = self._graph.local_agent()
    return agent, *actor.versioned_refresh(copy_weights, self._graph.counters.updates)

  def _loop(self, index, agent, refresh, version, start_frames):
    import actor
    import environments
    import learner

    settings = self._graph.settings
    entropy = [settings.seed, max(0, self._graph.cluster.task), index, start_frames]
    batch = environments.create_environment(
      settings.level_name,
      FLAGS.envs_per_actor,
      runtime.derived_seed(*entropy),
      settings.num_action_repeats,
      settings.width,
      settings.height,
    )
    self._environments.append(batch)
    return actor.ActorLoop(
      refresh,
      actor.build_unroll(agent, batch, settings.unroll_length, version),
      self._queue,
      lambda rewards: learner.clip_rewards(rewards, settings.reward_clipping),
      actor.EpisodeTracker(FLAGS.envs_per_actor, settings.level_name, settings.num_action_repeats),
    )

  @property
  def crashes(self):
    """Environments rebuilt so far."""
    return sum(batch.crashes for batch in self._environments)

  def close(self):
    """Ends the environments."""
    for batch in self._environments:
      batch.close()


class LearnerSide:
  """The learner of this process: queue, batches, update.

  Args:
    graph: `Graph`.
    devices: of the towers.
  """

  def __init__(self, graph, devices):
    import tensorflow as tf

    import learner

    cluster, settings = graph.cluster, graph.settings
    self.device_names = ', '.join(d.rpartition('/')[2].removeprefix('device:') for d in devices)
    self.queue, specs = graph.unroll_queue(max(0, cluster.task))
    self.queue_size = self.queue.size()
    self.close_queue = self.queue.close(cancel_pending_enqueues=True)
    hyperparameters = learner.Hyperparameters(
      **{name: getattr(settings, name) for name in learner.Hyperparameters._fields}
    )
    with tf.device(cluster.own_device):
      frames = graph.counters.environment_frames.read_value()
      self.learning_rate = learner.learning_rate(hyperparameters, frames)
      self.loop = learner.LearnerLoop(self.queue, specs, settings.batch_size)
      agent, copy_weights = graph.local_agent(settings.learner_precision)
      optimizer, self.sync = learner.build_optimizer(
        hyperparameters, graph.counters, max(1, len(cluster.learner)), settings.sync_learners
      )
      self.update = learner.build_update(
        graph.agent,
        agent,
        copy_weights(),
        self.loop.batch,
        hyperparameters,
        graph.counters,
        optimizer,
        devices,
      )


def learner_devices(cluster):
  """Where the towers run: --learner_devices, else every GPU, else the CPU.

  Raises:
    BadInput: there is no such device here, or the batch cannot be split evenly.
  """
  import tensorflow as tf

  here = [d.name.rpartition('device:')[2] for d in tf.config.list_physical_devices()]
  gpus = [f'/device:{name}' for name in here if name.startswith('GPU')]
  names = FLAGS.learner_devices or gpus or ['/cpu:0']
  for name in names:
    known = re.fullmatch(r'/(?:device:)?(\w+:\d+)', name)
    if not known or known[1].upper() not in here:
      raise BadInput(
        f'--learner_devices: there is no {name!r} here, only '
        + ', '.join(f'/device:{device}' for device in here)
      )
  if FLAGS.batch_size % len(names):
    raise BadInput(
      f'--batch_size={FLAGS.batch_size} cannot be split evenly over {len(names)} devices'
    )
  return [cluster.own_device + name for name in names]


# -------------------------------------------------------------------------------------------------
# Roles


class Role:
  """A task of a run that has a graph: local training, a learner or an actor.

  Args:
    cluster: `runtime.Cluster`.
    interrupts: `runtime.Interrupts`.
    claim: the chief's `Claim`.
  """

  def __init__(self, cluster, interrupts, claim=None):
    self.cluster, self.interrupts, self.claim = cluster, interrupts, claim
    self.learner_side = self.actor_side = self.records = self.reports = None
    self.heartbeat = runtime.Heartbeat(cluster, FLAGS.state_dir, FLAGS.watchdog_secs, self._excuse)
    self.config = runtime.session_config(cluster, FLAGS.threads)
    self.target, self.server = '', None
    self._look = None  # At the shared state, while connecting.

  # Set-up

  def prepare(self):
    """Builds server, settings and graph. False if told to stop meanwhile."""
    import tensorflow as tf

    import nets  # noqa: F401 (Sonnet has to be imported outside of any graph)

    if not self.cluster.is_local:
      self.server = runtime.start_server(self.cluster, self.config)
      self.target = self.server.target
    self.settings = self._agree_on_settings()
    if self.settings is None:
      return False
    if self.cluster.is_chief:
      self.start_frames = self._frames_so_far()
    with tf.Graph().as_default() as self.tf_graph:
      self._build()
      self.tf_graph.finalize()
    self.reports = Reports(self)
    if self.cluster.is_chief:
      self.records = Records(self)
    return True

  def _agree_on_settings(self):
    if self.cluster.is_chief:
      self.logdir = self.claim.logdir
      self._wait_for(self.cluster.peers)
      return None if self.interrupts.is_set() else self.claim.settings
    self._wait_for(['ps:0'])
    shared = runtime.read_shared_settings(
      self.cluster, self.target, FLAGS.wait_secs, self.interrupts.is_set
    )
    if not shared:
      return None
    self.start_frames = shared['start_frames']
    return adopt_settings(shared)

  def _wait_for(self, names):
    self.heartbeat.phase('waiting for peers')
    runtime.wait_for_peers(self.cluster, names, FLAGS.wait_secs, self.interrupts.is_set)

  def _frames_so_far(self):
    path = runtime.Checkpoints.latest(self.logdir)
    return int(runtime.Checkpoints.value(path, 'environment_frames')) if path else 0

  def _build(self):
    import tensorflow as tf

    place = max(0, self.cluster.task) + (10_000 if self.cluster.job == 'actor' else 0)
    tf.compat.v1.set_random_seed(runtime.derived_seed(self.settings.seed, place))
    graph = self.graph = Graph(self.settings, self.cluster)
    if self.cluster.job != 'actor':
      self.learner_side = LearnerSide(graph, learner_devices(self.cluster))
      queue = self.learner_side.queue
    else:
      queue, _ = graph.unroll_queue(self.cluster.learner_of_actor)
    self.queue_size = queue.size()
    if self.cluster.job != 'learner':
      self.actor_side = ActorSide(graph, queue, self.start_frames)
    v1 = tf.compat.v1
    self.init_op = v1.global_variables_initializer()
    self.local_init_op = v1.local_variables_initializer()
    self.ready_op = v1.report_uninitialized_variables(v1.global_variables())
    if self.cluster.is_chief:
      self.checkpoints = runtime.Checkpoints(self.logdir, self.cluster.own_device)
    if self.learner_side and self.learner_side.sync:
      import learner

      self.sync_ops = learner.SyncOps(self.learner_side.sync)
    else:
      self.sync_ops = None

  # The run

  def run(self):
    """From the first connection to the end; returns the reason of the end."""
    if not self.prepare():
      return self.interrupts.reason
    try:
      while True:
        session = self._connect()
        if session is None:
          return self.interrupts.reason
        if self._train(session):
          return self.interrupts.reason
    finally:
      if self.actor_side:
        self.actor_side.close()

  def _connect(self):
    """A session with everything in place, or None if the end came first."""
    self.heartbeat.phase('connecting')
    session = None
    while session is None:
      if self.cluster.peers:
        self._wait_for([name for name in self.cluster.peers if name.startswith('ps')])
        runtime.wait_for_peers(self.cluster, self.cluster.peers, FLAGS.wait_secs, self._run_is_over)
        if not self.interrupts.is_set():
          logging.info('%s connects: all its peers are up', self.cluster.name)
      # Peers may go between the look at them and the session, which then waits for ever.
      attempt, said = runtime.Attempt(self._open_session), time.monotonic()
      while not attempt.has_ended(runtime.POLL_SECS) and not self._run_is_over():
        if time.monotonic() - said >= runtime.WAITING_SECS:
          said = time.monotonic()
          logging.info(
              '%s is waiting for an answer of %s%s', self.cluster.name,
              ', '.join(self.cluster.peers),
              '' if self.cluster.is_chief else ', and for learner:0 to fill the variables',
          )  # fmt: skip
      if self._run_is_over():
        logging.info('%s leaves: %s', self.cluster.name, self.interrupts.reason)
        self._say_goodbye()
        return None
      try:
        session, path = attempt.result()
      except Exception as e:
        if self.cluster.is_local or not runtime.lost_peer(e):
          raise
        self._remember_loss(e)
        time.sleep(runtime.POLL_SECS)
    logging.info('%s is connected%s', self.cluster.name, f', resumed from {path}' if path else '')
    return session

  def _open_session(self):
    """(session, path of the checkpoint that the chief resumed from or None)."""
    chief = self.cluster.is_chief
    path = runtime.Checkpoints.latest(self.logdir) if chief else None
    with self.tf_graph.as_default():
      session = runtime.open_session(
          self.target, self.config, chief, self.init_op, self.local_init_op, self.ready_op,
          self.checkpoints.saver if chief else None, path,
      )  # fmt: skip
    if self.sync_ops:
      session.run(self.sync_ops.chief_init if chief else self.sync_ops.init)
      if chief and path:
        session.run(self.sync_ops.spare_tokens)
    if chief:
      self.records.begin(session, path)
    return session, path

  def _run_is_over(self):
    """Whether there is nothing left to connect to: ps 0 says so, or a signal came."""
    if self.cluster.is_local:
      return self.interrupts.is_set()
    if self.cluster.is_chief:  # It connects even after a signal: to tell the others.
      return self.interrupts.is_set() and bool(
        runtime.missing_peers(self.cluster, self.cluster.peers)
      )
    if self._look is None:
      self._look = runtime.Attempt(runtime.read_shared_state, self.cluster, self.target)
    if self._look.has_ended(runtime.POLL_SECS):
      look, self._look = self._look, None
      try:
        if look.result()[1]:
          self.interrupts.set('the run is done')
      except Exception as e:
        if not runtime.lost_peer(e):
          raise
    return self.interrupts.is_set()

  def _remember_loss(self, error):
    reason = runtime.first_line(error)
    self.heartbeat.facts['last_error'] = reason
    logging.warning('%s lost a peer and connects again: %s', self.cluster.name, reason)

  def _train(self, session):
    """Runs the loops on a session; True at the end of the run, False when a peer was lost."""
    loops = runtime.Loops()
    if not self._was_done_before():
      self._start_loops(loops, session)
    while not loops.wait(runtime.POLL_SECS) and not self.interrupts.is_set():
      pass
    if loops.error is None or self.interrupts.is_set():
      self._leave(loops, session)
      return True
    loops.stop()
    closing = runtime.Attempt(self._close, loops, session)
    # A session may not close before its peers are back; they will not be if the run is over.
    while not closing.has_ended(runtime.POLL_SECS) and not self._run_is_over():
      pass
    if self.cluster.is_local or not runtime.lost_peer(loops.error):
      raise RunFailed(failure(loops.error)) from loops.error
    self._remember_loss(loops.error)
    return False

  def _close(self, loops, session):
    runtime.close_session(session)
    loops.join(5.0)

  def _was_done_before(self):
    """Whether the checkpoint that was resumed leaves nothing to do."""
    total = self.settings.total_environment_frames
    if self.start_frames < total:
      return False
    self.interrupts.set(f'all {total} frames were done before (--total_environment_frames)')
    return True

  def _start_loops(self, loops, session):
    stop, entering = loops.should_stop, self.heartbeat.entering
    self.heartbeat.clear()
    if self.actor_side:
      for i, loop in enumerate(self.actor_side.loops):
        enter = entering(f'actor loop {i}')
        loops.start(f'actor-{i}', loop.run, session, stop, enter, self.reports.add_unroll)
    if self.learner_side:
      loop = self.learner_side.loop
      loops.start('staging', loop.run_staging, session, stop, entering('staging'))
      report = functools.partial(self._on_update, session, entering('learner'))

      def learner_stop():  # No update comes after the one that reached the last frame.
        return stop() or self.interrupts.is_set()

      loops.start('learner', loop.run, session, self.learner_side.update, learner_stop,
                  entering('learner'), report)  # fmt: skip
    if self.sync_ops and self.cluster.is_chief:
      loops.start('sync', self.sync_ops.run, session, stop)
    loops.start('reports', self.reports.run, session, stop)
    if self.cluster.is_chief:
      loops.start('records', self.records.run, session, stop)

  def _on_update(self, session, enter, values, wait_secs, busy_secs):
    """After each update of this learner."""
    self.heartbeat.facts['environment_frames'] = int(values['environment_frames'])
    if not self.cluster.is_chief:
      self.reports.add_wait(wait_secs, busy_secs)
      return
    self.records.add_update(values, wait_secs, busy_secs)
    if self.end_if_done(values['environment_frames']):
      return
    if self.records.checkpoint_is_due():
      enter('save')
      self.checkpoints.save(session, values['updates'])
      self.records.checkpoint_was_saved()

  def end_if_done(self, environment_frames):
    """Asks for the end of the run if so many frames are all; whether they are."""
    total = self.settings.total_environment_frames
    if environment_frames < total:
      return False
    self.interrupts.set(f'all {total} frames are done')
    return True

  def _excuse(self, phase):
    """Why a long stay in a phase is a wait for others, or '' if it is not."""
    if self.cluster.is_local:
      return 'the queue is full' if phase == 'enqueue' else ''
    needed = list(self.cluster.peers)
    together = phase == 'update' and self.settings.sync_learners
    if together:
      needed += [f'learner:{i}' for i in range(len(self.cluster.learner))]
    missing = runtime.missing_peers(self.cluster, needed)
    if together and not missing:
      missing = self._lost_actors_of_a_learner()
    if missing:
      return 'waiting for ' + ', '.join(missing)
    if phase == 'enqueue' and self.reports.queue_is_full():
      return 'the queue is full'
    return ''

  def _lost_actors_of_a_learner(self):
    """The missing actors of the first learner that has no other."""
    for actors in self.cluster.actors_of_learners:
      missing = runtime.missing_peers(self.cluster, actors)
      if len(missing) == len(actors):
        return missing
    return []

  def _leave(self, loops, session):
    """The end: the chief says so to all, queues close, the last checkpoint is written, goodbye."""
    logging.info('%s leaves: %s', self.cluster.name, self.interrupts.reason)
    self.heartbeat.phase('leaving')
    shared, chief = self.graph.shared, self.cluster.is_chief
    loops.stop()
    try:
      if chief:
        runtime.run_within(session, shared.mark_done)
      if self.learner_side:
        runtime.run_within(session, self.learner_side.close_queue)
      loops.join(5.0)
      if chief:
        self._wait_for_last_updates()
        updates = runtime.run_within(session, self.graph.counters.updates)
        self.checkpoints.save(session, updates)
        self.records.close(session)
        runtime.run_within(session, shared.mark_chief_left)
    except Exception as e:
      if self.cluster.is_local or not runtime.lost_peer(e):
        raise
      logging.warning('%s could not take leave: %s', self.cluster.name, runtime.first_line(e))
      if chief:
        raise RunFailed(f'the last checkpoint could not be written: {runtime.first_line(e)}') from e
    finally:
      runtime.close_session(session)
      self._say_goodbye()

  def _wait_for_last_updates(self):
    """Lets asynchronous learners finish and leave: what they add belongs to the last checkpoint."""
    others = [f'learner:{i}' for i in range(1, len(self.cluster.learner))]
    if self.settings.sync_learners or not others:
      return
    still_there = runtime.wait_until_gone(self.cluster, others)
    if still_there:
      logging.warning(
          '%s saves without the last updates of %s: still there after %.0f s',
          self.cluster.name, ', '.join(still_there), runtime.LAST_UPDATES_SECS,
      )  # fmt: skip

  def _say_goodbye(self):
    import tensorflow as tf

    if self.cluster.is_local:
      return
    goodbye = runtime.Attempt(runtime.say_goodbye, self.cluster, self.target)
    try:
      if goodbye.has_ended(runtime.ANSWER_SECS):
        goodbye.result()
      else:
        logging.info('%s left without a goodbye: no answer from ps:0', self.cluster.name)
    except tf.errors.OpError as e:
      logging.info('%s left without a goodbye: %s', self.cluster.name, runtime.first_line(e))


class Reports:
  """What this task tells the chief, once a second; and what it hears: whether the run is done.

  Args:
    role: `Role`.
  """

  def __init__(self, role):
    self._role, self._lock = role, threading.Lock()
    self._seen_full = -math.inf
    self._clear()
    self._sent = time.monotonic()

  def _clear(self):
    self._steps, self._wait_secs, self._busy_secs, self._episodes = 0, 0.0, 0.0, []

  def add_unroll(self, unroll):
    """Takes an actor loop's report of one unroll."""
    with self._lock:
      self._steps += unroll['steps']
      self._wait_secs += unroll['wait_secs']
      self._busy_secs += unroll['busy_secs']
      self._episodes += unroll['episodes']

  def add_wait(self, wait_secs, busy_secs):
    """Takes a learner's report of one update."""
    with self._lock:
      self._wait_secs += wait_secs
      self._busy_secs += busy_secs

  def queue_is_full(self):
    """Whether the queue of unrolls was full when an actor looked, which it does once a second."""
    return time.monotonic() - self._seen_full < runtime.WAITING_SECS

  def run(self, session, should_stop):
    """Sends and listens until told to stop."""
    shared = self._role.graph.shared
    sends = self._role.cluster.job != 'learner' or not self._role.cluster.is_chief
    while not should_stop():
      if sends:
        session.run(shared.send_report, {shared.report: self._next()})
      if not self._role.cluster.is_chief and session.run(shared.is_done):
        self._role.interrupts.set('the run is done')
        return
      if self._role.cluster.job == 'actor':
        self._look_at_queue(session)
      time.sleep(1.0)
    if sends:  # The games of the last second; where a peer was lost, nobody hears of them.
      session.run(shared.send_report, {shared.report: self._next()})

  def _look_at_queue(self, session):
    import tensorflow as tf

    try:
      size = runtime.run_within(session, self._role.queue_size, secs=runtime.ANSWER_SECS)
    except tf.errors.DeadlineExceededError:
      return  # Its learner does not answer; whether the run is done, ps 0 knows.
    if size >= self._role.settings.queue_capacity:
      self._seen_full = time.monotonic()

  def _next(self):
    role, now = self._role, time.monotonic()
    with self._lock:
      frames = self._steps * role.settings.num_action_repeats
      report = dict(
        job=role.cluster.job or 'actor',
        task=max(0, role.cluster.task),
        pid=os.getpid(),
        frames=frames,
        wait_secs=self._wait_secs,
        busy_secs=self._busy_secs,
        episodes=self._episodes,
        crashes=role.actor_side.crashes if role.actor_side else 0,
      )
      self._clear()
    if role.cluster.job == 'actor':
      role.heartbeat.facts['frames_per_sec'] = frames / (now - self._sent)
    self._sent = now
    return json.dumps(report)


class Records:
  """The chief's book-keeping: settings for all, reports from all, metrics, games, verdicts.

  Args:
    role: the chief's `Role`.
  """

  ROWS_PER_VERDICT = 6  # Once a minute, by default.

  def __init__(self, role):
    import reporting

    self._role, self._reporting = role, reporting
    self._statistics = reporting.RunStatistics()
    self._writer = reporting.open_run(
      role.logdir, role.settings.total_environment_frames, FLAGS.metrics_secs
    )
    self._next_row, self._rows = time.monotonic() + FLAGS.metrics_secs, 0
    self.checkpoint_was_saved()

  def begin(self, session, path):
    """Announces the run on a new session: shared settings, and where the frames stand."""
    role, shared = self._role, self._role.graph.shared
    frames = int(session.run(role.graph.counters.environment_frames))
    settings = {
        **role.settings._asdict(), 'code_version': runtime.code_version(), 'start_frames': frames
    }  # fmt: skip
    session.run(shared.write_settings, {shared.new_settings: json.dumps(settings)})
    self._statistics.start(frames, self._reporting.last_returns(role.logdir, frames))
    where = f'resumed at {frames} frames from {path}' if path else 'new run'
    devices = role.learner_side.device_names
    self._writer.message(f'{role.logdir}: {where}; learns on {devices}')

  def add_update(self, values, wait_secs, busy_secs):
    """Takes the numbers of one update."""
    self._statistics.add_update(values, wait_secs, busy_secs)

  def checkpoint_is_due(self):
    """Whether --save_checkpoint_secs have gone by since the last one."""
    return time.monotonic() >= self._next_checkpoint

  def checkpoint_was_saved(self):
    """Starts the time to the next checkpoint."""
    self._next_checkpoint = time.monotonic() + FLAGS.save_checkpoint_secs

  def run(self, session, should_stop):
    """Collects and writes until told to stop."""
    while not should_stop():
      self._collect(session)
      # Other learners may reach the last frame while the chief's own waits for data.
      frames = runtime.run_within(session, self._role.graph.counters.environment_frames)
      if self._role.end_if_done(frames):
        return
      now = time.monotonic()
      if now >= self._next_row:
        self._next_row = now + FLAGS.metrics_secs
        row = self._write_row(session)
        self._rows += 1
        if self._rows % self.ROWS_PER_VERDICT == 0:
          self._say_verdict(row)
      time.sleep(runtime.POLL_SECS)

  def _collect(self, session):
    shared = self._role.graph.shared
    waiting = int(runtime.run_within(session, shared.num_reports))
    if not waiting:
      return
    for text in runtime.run_within(session, shared.take_reports, {shared.how_many: waiting}):
      report = json.loads(text)
      if report['job'] == 'actor':
        self._statistics.add_actor_report(report)
      else:
        self._statistics.add_learner_wait(report['wait_secs'], report['busy_secs'])

  def _write_row(self, session):
    counters, side = self._role.graph.counters, self._role.learner_side
    frames, updates, rate, depth = runtime.run_within(
      session,
      [counters.environment_frames, counters.updates, side.learning_rate, side.queue_size],
    )
    row = self._statistics.row(int(frames), int(updates), float(rate), int(depth))
    self._role.heartbeat.facts.update(
      frames_per_sec=row['frames_per_sec'], environment_frames=int(frames)
    )
    self._writer.write(row)
    self._writer.write_episodes(self._statistics.pop_episodes(int(frames)))
    return row

  def _say_verdict(self, row):
    if not self._role.cluster.is_local:
      self._writer.message(self._reporting.cluster_line(row))
      actors = row['connected_actors']
    else:
      actors = FLAGS.num_actors
    text = self._reporting.verdict(row['learner_wait_fraction'], row['actor_wait_fraction'], actors)
    if text:
      self._writer.message(text)

  def close(self, session):
    """Writes the last row, the summary line and the learning curve."""
    self._collect(session)
    row = self._write_row(session)
    games = row['mean_return_100']
    self._writer.close()
    self._writer.message(
      f'{self._role.interrupts.reason}: {row["environment_frames"]} frames, {row["updates"]} '
      f'updates, mean return of the last 100 games '
      f'{"unknown" if games is None else format(games, ".2f")}; checkpoint in {self._role.logdir}'
    )
    path = os.path.join(self._role.logdir, 'learning_curve.png')
    self._reporting.plot_learning_curve(self._role.logdir, path)


def failure(error):
  """What went wrong in a loop, in words that a person can act on."""
  message = getattr(error, 'message', None) or str(error)
  marker = 'the loss or its gradient is not finite at update'
  if marker in message:
    update = ''.join(c for c in message.split(marker)[1][:30] if c.isdigit())
    return f'{marker} {update}; the last checkpoint before it is kept'
  return f'{type(error).__name__}: {message}'


Claim = collections.namedtuple('Claim', 'settings logdir lock')


def claim_logdir():
  """Makes the folder of the run, as this command line describes it, this process's alone.

  All that the user may have to put right is found out here, before TensorFlow is imported.

  Returns:
    `Claim`; its lock holds as long as the process.

  Raises:
    BadInput: the environment cannot be made, another process trains in the folder, or it holds a
      run with another agent or other spaces.
  """
  import reporting

  settings = own_settings()
  path = logdir(settings)
  lock = runtime.lock_folder(path, '--logdir')
  check_same_run(path, settings, 'optimizer')  # Its slots are in the checkpoint.
  reporting.write_run_json(
    path, {name: FLAGS[name].value for name in own_flags()}, {'settings': settings._asdict()}
  )
  return Claim(settings, path, lock)


def check_same_run(path, settings, *more_fields):
  """Refuses a folder of another agent, other spaces or other values of `more_fields`.

  Raises:
    BadInput: naming the field and both values.
  """
  import reporting

  fields = ('agent_name', *SPACES, *more_fields)
  ours = json.loads(json.dumps({name: getattr(settings, name) for name in fields}))
  theirs = reporting.read_run_json(os.path.join(path, 'run.json')).get('settings', {})
  for name in fields:
    if name in theirs and theirs[name] != ours[name]:
      raise BadInput(
        f'--logdir={path} holds a run with {name} {theirs[name]}, this one has {ours[name]}: '
        'choose another --logdir'
      )


def own_flags():
  """The names of the flags declared in this file."""
  return [flag.name for flag in FLAGS.flags_by_module_dict().get(_FLAGS_MODULE, [])]


# -------------------------------------------------------------------------------------------------
# The parameter server, and main


def run_ps(cluster, interrupts):
  """Serves until the run is done and everybody has left."""
  heartbeat = runtime.Heartbeat(cluster, FLAGS.state_dir)
  server = runtime.start_server(cluster, runtime.session_config(cluster, FLAGS.threads))
  heartbeat.phase('serving')
  logging.info('%s serves at %s', cluster.name, cluster.address(cluster.name))
  reason = runtime.serve_to_the_end(cluster, server.target, interrupts)
  logging.info('%s leaves: %s', cluster.name, reason)


def train(cluster):
  """Runs this task's role to its end."""
  interrupts = runtime.Interrupts()
  if cluster.is_local:
    logging.set_verbosity(logging.WARNING)  # The live line says it all.
  if cluster.job in ('ps', 'actor'):
    os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')
  claim = claim_logdir() if cluster.is_chief else None
  runtime.import_tensorflow()
  if cluster.job == 'ps':
    runtime.Attempt(run_ps, cluster, interrupts).result()
  else:
    role = Role(cluster, interrupts, claim)
    runtime.Attempt(role.run).result()


def test():
  """Plays --test_num_episodes whole games with the last checkpoint of a run."""
  interrupts = runtime.Interrupts()
  settings = own_settings()
  folder = logdir(settings)
  if not runtime.Checkpoints.exist(folder):
    raise BadInput(f'--logdir={folder} has no checkpoint to test; train first')
  check_same_run(folder, settings)
  tf = runtime.import_tensorflow()
  import environments
  import evaluation
  import nets  # noqa: F401 (Sonnet has to be imported outside of any graph)

  checkpoint = runtime.Checkpoints.latest(folder)
  with tf.Graph().as_default():
    tf.compat.v1.set_random_seed(settings.seed)
    batch = environments.create_environment(
      settings.level_name,
      min(FLAGS.test_num_episodes, evaluation.MAX_ENVIRONMENTS),
      runtime.derived_seed(settings.seed, 20_000),
      settings.num_action_repeats,
      settings.width,
      settings.height,
    )
    try:
      games = evaluation.play(
        checkpoint,
        settings.agent_name,
        settings,
        FLAGS.test_num_episodes,
        batch,
        interrupts.is_set,
      )
    finally:
      batch.close()
  if interrupts.is_set():
    raise RunFailed(f'{interrupts.reason}: not all games were played, nothing is written')
  result = evaluation.summary(settings.level_name, games, settings.num_action_repeats)
  print(evaluation.write(folder, result, checkpoint))


def plot():
  """Draws learning_curve.png of a run."""
  import reporting

  folder = FLAGS.logdir or logdir(own_settings())
  path = os.path.join(folder, 'learning_curve.png')
  try:
    reporting.plot_learning_curve(folder, path)
  except ValueError as e:
    raise BadInput(f'--logdir={folder}: {e}') from None
  print(path)


def main(argv):
  """The program; returns its exit code."""
  if any(arg in ('-h', '-help', '--help', '--helpfull') for arg in argv[1:]):
    print(__doc__ + FLAGS.module_help(_FLAGS_MODULE))
    return runtime.EXIT_OK
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  try:
    cluster = parse_args(argv)
    if FLAGS.only_check_args:
      if cluster.job not in ('ps', 'actor') or FLAGS['level_name'].present:
        own_settings()
    elif FLAGS.mode == 'train':
      train(cluster)
    elif FLAGS.mode == 'test':
      test()
    else:
      plot()
    return runtime.EXIT_OK
  except BadInput as e:
    print(f'experiment.py: {e}', file=sys.stderr)
    return runtime.EXIT_BAD_INPUT
  except Exception as e:
    if not isinstance(e, RunFailed):
      logging.exception('a bug, or something that nobody thought of:')
    print(f'experiment.py: {e}', file=sys.stderr)
    return runtime.EXIT_FAILURE
  except KeyboardInterrupt:  # Before `Interrupts` listens.
    print('experiment.py: SIGINT before anything began', file=sys.stderr)
    return runtime.EXIT_FAILURE


_FLAGS_MODULE = sys.argv[0] if __name__ == '__main__' else __name__

if __name__ == '__main__':
  runtime.leave(main(sys.argv))
