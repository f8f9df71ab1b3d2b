"""A learner as experiment.py wires it, small, in the process of the test."""

import concurrent.futures
import contextlib
import threading

import numpy as np
import tensorflow as tf

import config
from conftest import free_ports
from roles import wiring
from roles.settings import Options, Settings
from runtime import checkpoints, placement, sessions
from runtime.cluster import LOCAL, Cluster
from simple_spaces import fields
from structs import AgentOutput, StepOutput, StepOutputInfo

TWO_CPUS = ('/cpu:0', '/cpu:1')
LIMIT_SECS = 100.0


def small_settings(**changes):
  """`roles.settings.Settings` of a small agent, the flags' defaults otherwise."""
  small = dict(
      level_name='impala/Catch-v0', agent_name='MLPLSTMAgent', unroll_length=4,
      num_action_repeats=2, total_environment_frames=1000, queue_capacity=100, batch_size=4,
      learning_rate=0.05, decay=0.9, momentum=0.5, epsilon=0.1, discounting=0.9,
      **fields((3,), 'float32', 5),
  )  # fmt: skip
  return Settings(**{**small, **changes})


def small_options(**changes):
  """`roles.settings.Options` with the flags' defaults, but for the changes."""
  return Options(**{**dict(shared=config.RunFlags(), given=set(), all_flags={}), **changes})


def random_unrolls(settings, number, seed=0, policy_version=0):
  """`number` unrolls of vector observations, flat, as the queue has them: arrays [number, ...]."""
  rng = np.random.default_rng(seed)
  shape = (number, settings.unroll_length + 1)

  def normal(*further, scale=1.0):
    return np.float32(rng.normal(scale=scale, size=(*shape, *further)))

  info = StepOutputInfo(normal(), rng.integers(0, 9, shape, np.int32), rng.random(shape) < 0.2)
  env_outputs = StepOutput(
    normal(scale=2.0), info, rng.random(shape) < 0.2, normal(*settings.observation[0].shape)
  )
  num_actions = settings.action[0].size
  action = rng.integers(0, num_actions, shape, np.int32)
  agent_outputs = AgentOutput(action, normal(num_actions), normal())
  core_state = []
  if 'LSTM' in settings.agent_name:
    core_state = [np.float32(rng.normal(size=(number, 64))) for _ in range(2)]
  ids = np.zeros(number, np.int32), np.full(number, policy_version, np.int64)
  return tf.nest.flatten([*ids, core_state, env_outputs, agent_outputs])


class Learner:
  """Graph and session of one learner; `put` feeds it, `update` lets it learn.

  Args:
    settings: `roles.settings.Settings`.
    cluster: `runtime.cluster.Cluster`.
    devices: of the towers.
  """

  def __init__(self, settings, cluster=LOCAL, devices=('/cpu:0',)):
    v1 = tf.compat.v1
    self._cluster = cluster
    with tf.Graph().as_default() as self.tf_graph:
      v1.set_random_seed(settings.seed)
      self.graph = wiring.Graph(settings, cluster)
      unrolls = self.graph.unroll_queue(max(0, cluster.task))
      self.side = wiring.LearnerSide(
        self.graph, unrolls, [cluster.own_device + device for device in devices]
      )
      self.whole = self.side.whole_weights()
      self.variables = checkpoints.saved_variables(self.whole)
      queue = unrolls.queue
      self._elements = [
        v1.placeholder(dtype, [None, *shape])
        for dtype, shape in zip(queue.dtypes, queue.shapes, strict=True)
      ]
      self._put = queue.enqueue_many(self._elements)
      self._ready = v1.report_uninitialized_variables(v1.global_variables())
      self._init = v1.global_variables_initializer(), v1.local_variables_initializer()
    self._loops = self.session = None

  def open(self, target='', config=None, saver=None, path=None):
    """Opens a session, as `roles.connection.Connection` does, and begins to stage batches."""
    config = config or two_cpus(placement.session_config(self._cluster))
    self._loops = sessions.Loops()
    with self.tf_graph.as_default():
      init, local_init = self._init

      def fill(session):
        if path:
          saver.restore(session, path)
        else:
          session.run(init)

      self.session = sessions.open_session(
        target, config, local_init, self._ready, fill if self._cluster.is_chief else None
      )
    self._start('staging', self.side.loop.run_staging, lambda phase: None)
    if self.side.sync_ops:
      chief = self._cluster.is_chief
      self.session.run(self.side.sync_ops.chief_init if chief else self.side.sync_ops.init)
      if chief:
        self._start('sync', self.side.sync_ops.run)
    return self

  def _start(self, name, loop, *args):
    self._loops.start(name, loop, self.session, self._loops.should_stop, *args)

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._loops.stop()
    sessions.close_session(self.session)
    assert not self._loops.join(60.0)

  def put(self, unrolls):
    """Enqueues unrolls as of `random_unrolls`."""
    self.session.run(self._put, dict(zip(self._elements, unrolls, strict=True)))

  def update(self, times=1):
    """Updates; returns what the learner reported of each update."""
    reports = []
    limit = threading.Timer(LIMIT_SECS, self.session.close)  # Cancels an update that hangs.
    limit.start()
    try:
      self.side.loop.run(
          self.session, self.side.update, lambda: len(reports) >= times, lambda phase: None,
          lambda values, wait_secs, busy_secs: reports.append(values),
      )  # fmt: skip
    finally:
      limit.cancel()
    return reports

  def values(self):
    """{name: numpy value} of all that a checkpoint holds: weights, slots, counters."""
    self.session.run(self.whole.gather)
    return self.session.run(self.variables)

  def assign(self, values):
    """Gives the variables the values of a dict like `values`, or some of it."""
    self.session.run(self.whole.gather)
    for name, value in values.items():
      initializer = self.variables[name].initializer
      self.session.run(initializer, {initializer.inputs[1]: value})
    self.session.run(self.whole.scatter)


def two_cpus(config):
  """Two logical CPU devices, and an error where an operation asks for any other."""
  config.device_count['CPU'] = 2
  config.allow_soft_placement = False
  return config


def assert_same(actual, expected, **tolerance):
  """Two dicts of `Learner.values` agree: exactly, or within a tolerance as numpy's allclose."""
  assert actual.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(actual[name], value, err_msg=name, **{'rtol': 0, **tolerance})


def learned(settings, unrolls, devices=('/cpu:0',), times=2):
  """(values before, values after, reports) of a learner that updates `times` times."""
  with Learner(settings, devices=devices).open() as one:
    before = one.values()
    one.put(unrolls)
    reports = one.update(times)
    return before, one.values(), reports


@contextlib.contextmanager
def two_learners(settings, devices=('/cpu:0',), num_ps=1):
  """Parameter servers and two learners, each with its own server, graph and session.

  Args:
    settings: `roles.settings.Settings` of each.
    devices: of each learner's towers.
    num_ps: parameter servers.
  """
  addresses = [f'localhost:{port}' for port in free_ports(3 + num_ps)]
  hosts = tuple(addresses[3:]), tuple(addresses[:2]), (addresses[2],)
  with contextlib.ExitStack() as stack:
    learners = []
    for job, task in [*(('ps', i) for i in range(num_ps)), ('learner', 0), ('learner', 1)]:
      cluster = Cluster(*hosts, job, task)
      config = two_cpus(placement.session_config(cluster, threads=2))
      server = sessions.start_server(cluster, config)
      if job == 'learner':
        one = Learner(settings, cluster, devices)
        learners.append(stack.enter_context(one.open(server.target, config)))
    yield learners


def update_together(learners, times):
  """Reports of each learner; they update at the same time."""
  with concurrent.futures.ThreadPoolExecutor() as pool:
    futures = [pool.submit(one.update, times) for one in learners]
    return [future.result() for future in futures]


def rows(unrolls, *batches):
  """The unrolls of some half batches of 2."""
  return [np.concatenate([x[2 * b : 2 * b + 2] for b in batches]) for x in unrolls]
