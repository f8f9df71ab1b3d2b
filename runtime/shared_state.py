"""The ground a role stands on: server, peers, sessions, checkpoints, shared state, the end.

Nothing here knows agents, losses or environments. The engine is distributed TensorFlow
(tf.train.ClusterSpec, tf.distribute.Server); a local run is the same graph in a session of its own.
"""

import collections
import contextlib
import fcntl
import functools
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from absl import logging

STATE_SECS = 2.0  # Between two rewrites of a task's state file.
WAITING_SECS = 10.0  # Between two lines about peers that are waited for.
POLL_SECS = 0.5
PATIENCE_SECS = 20.0  # For the chief's last checkpoint, after a signal to a parameter server.
ANSWER_SECS = 5.0  # For ps 0 to tell how far the run is; it may be gone since it was looked for.
LAST_UPDATES_SECS = 10.0  # For the leave of asynchronous learners, before the last checkpoint.
LATECOMER_SECS = 15.0  # For the others' leave, after the chief's.

EXIT_OK, EXIT_FAILURE, EXIT_BAD_INPUT = 0, 1, 2


class BadInput(ValueError):
  """The user's mistake, in one sentence; the process exits with 2."""


class RunFailed(RuntimeError):
  """Nothing the user typed: the run cannot go on; the process exits with 1."""


# What TensorFlow's libraries print when they are loaded, before any log level applies.
_LOADING_NOISE = (
  r'before absl::InitializeLog|oneDNN custom operations are on|Could not find cuda drivers'
  r'|cpu_feature_guard|To enable the following instructions'
)


def import_tensorflow():
  """The module `tensorflow`; does not show what its libraries tell at every start.

  Standard error goes through grep meanwhile, so that whatever else is said is seen, even where it
  is the last thing that this process says. TF_CPP_MIN_LOG_LEVEL in the environment shows all.
  """
  os.environ.setdefault('GRPC_VERBOSITY', 'NONE')
  if 'TF_CPP_MIN_LOG_LEVEL' in os.environ:
    import tensorflow as tf
  else:
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
    with _stderr_without(_LOADING_NOISE):
      import tensorflow as tf
  tf.get_logger().setLevel('ERROR')
  return tf


@contextlib.contextmanager
def _stderr_without(pattern):
  """Standard error, of libraries too, loses the lines that match an extended regular expression."""
  if not shutil.which('grep'):
    yield
    return
  sys.stderr.flush()
  stderr = os.dup(2)
  # A session of its own: Ctrl-C is not for the filter.
  with subprocess.Popen(
    ['grep', '-vE', pattern],
    env={**os.environ, 'LC_ALL': 'C'},  # Any byte is text.
    stdin=subprocess.PIPE,
    stdout=stderr,
    start_new_session=True,
  ) as grep:
    os.dup2(grep.stdin.fileno(), 2)
    try:
      yield
    finally:
      sys.stderr.flush()
      os.dup2(stderr, 2)
      os.close(stderr)


# -------------------------------------------------------------------------------------------------
# The cluster


class Cluster(collections.namedtuple('Cluster', 'ps learner actor job task')):
  """The host lists of a run and this task's place in it; job '' is local training.

  Attributes:
    ps, learner, actor: tuples of 'host:port'.
    job: 'ps', 'learner', 'actor' or ''.
    task: int, index into the job's hosts.
  """

  __slots__ = ()

  @property
  def is_local(self):
    """Whether everything happens in this process."""
    return not self.job

  @property
  def is_chief(self):
    """Whether this task initialises variables, writes checkpoints and ends the run."""
    return self.is_local or (self.job == 'learner' and self.task == 0)

  @property
  def name(self):
    """'learner:0', or 'local'."""
    return 'local' if self.is_local else f'{self.job}:{self.task}'

  def address(self, name):
    """'host:port' of a task 'job:index'."""
    job, task = name.split(':')
    return getattr(self, job)[int(task)]

  def device(self, job, task):
    """The device scope of a task; '' in local training."""
    return '' if self.is_local else f'/job:{job}/task:{task}'

  @property
  def own_device(self):
    """The device scope of this task."""
    return self.device(self.job, self.task)

  @property
  def state_device(self):
    """Where the shared state of the run lives: the first parameter server's CPU."""
    return self.device('ps', 0) + ('' if self.is_local else '/cpu:0')

  @property
  def learner_of_actor(self):
    """The learner that this actor feeds: actors are dealt to learners round robin."""
    return self.task % len(self.learner)

  @property
  def actors_of_learners(self):
    """Names of the actors that feed each learner, a list for each."""
    step = len(self.learner)
    return [[f'actor:{a}' for a in range(i, len(self.actor), step)] for i in range(step)]

  @property
  def peers(self):
    """Names of the tasks without which this one can do nothing."""
    if self.is_local or self.job == 'ps':
      return []
    names = [f'ps:{i}' for i in range(len(self.ps))]
    return names + ([f'learner:{self.learner_of_actor}'] if self.job == 'actor' else [])

  def tf_spec(self):
    """The tf.train.ClusterSpec."""
    import tensorflow as tf

    return tf.train.ClusterSpec({
        'ps': list(self.ps), 'learner': list(self.learner), 'actor': list(self.actor)
    })  # fmt: skip


def byte_balanced(num_ps):
  """A strategy for tf.compat.v1.train.replica_device_setter: each variable to the emptiest ps.

  The same sequence of variables is dealt the same way in every role.
  """
  import tensorflow as tf

  loads = [0] * num_ps

  def place(op):
    task = loads.index(min(loads))
    shape = tf.TensorShape(op.get_attr('shape'))
    loads[task] += shape.num_elements() * tf.dtypes.as_dtype(op.get_attr('dtype')).size
    return task

  return place


def variables_device(cluster):
  """The device scope or function under which global variables are created."""
  import tensorflow as tf

  if cluster.is_local:
    return ''
  return tf.compat.v1.train.replica_device_setter(
    cluster=cluster.tf_spec(),
    worker_device=cluster.own_device,
    ps_strategy=byte_balanced(len(cluster.ps)),
  )


def session_config(cluster, threads=0):
  """tf.compat.v1.ConfigProto: device filters, growing GPU memory, threads per pool (0: all cores).

  Without the filters a session waits for every task of the cluster, up or not.
  """
  import tensorflow as tf

  config = tf.compat.v1.ConfigProto(
    allow_soft_placement=True,
    inter_op_parallelism_threads=threads,
    intra_op_parallelism_threads=threads,
  )
  config.gpu_options.allow_growth = True
  if not cluster.is_local:
    filters = ['/job:ps', cluster.own_device]
    if cluster.job == 'actor':
      filters.append(cluster.device('learner', cluster.learner_of_actor))
    config.device_filters.extend(filters)
  return config


def check_resolves(flag, address):
  """Refuses an address whose host name does not resolve here.

  Raises:
    BadInput: naming the flag.
  """
  host = address.rpartition(':')[0].strip('[]')
  try:
    socket.getaddrinfo(host, None)
  except OSError as e:
    raise BadInput(
      f'{flag}: the host name of {address!r} does not resolve ({e.strerror})'
    ) from None


def derived_seed(*entropy):
  """A seed (int, 31 bits) that differs wherever one of the given non-negative integers does."""
  import numpy as np

  return int(np.random.SeedSequence(list(entropy)).generate_state(1)[0] >> 1)


def check_port(address):
  """Refuses a port of this host that is taken.

  Raises:
    BadInput: somebody listens there; the message names the process where the system tells.
  """
  port = int(address.rsplit(':', 1)[1])
  with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('', port))
    except OSError as e:
      if e.errno != 98:  # EADDRINUSE
        return
      raise BadInput(f'port {port} of {address} is in use{_port_owner(port)}') from None


def _port_owner(port):
  """' by process 123 (python)', or '' where the system does not tell."""
  inodes = set()
  for table in ('/proc/net/tcp', '/proc/net/tcp6'):
    try:
      with open(table) as f:
        rows = [line.split() for line in f.readlines()[1:]]
    except OSError:
      continue
    inodes |= {r[9] for r in rows if r[3] == '0A' and int(r[1].rsplit(':', 1)[1], 16) == port}
  for link in glob.glob('/proc/[0-9]*/fd/*'):
    try:
      if os.readlink(link)[8:-1] in inodes:
        pid = link.split('/')[2]
        with open(f'/proc/{pid}/comm') as f:
          return f' by process {pid} ({f.read().strip()})'
    except OSError:
      continue
  return ''


def start_server(cluster, config):
  """The tf.distribute.Server of this task.

  Raises:
    BadInput: its port is in use.
  """
  import tensorflow as tf

  address = cluster.address(cluster.name)
  check_port(address)
  try:
    return tf.distribute.Server(cluster.tf_spec(), cluster.job, cluster.task, config=config)
  except tf.errors.OpError as e:
    raise RunFailed(f'{cluster.name} cannot serve at {address}: {e.message}') from e


def _is_up(address, timeout_secs=2.0):
  host, port = address.rsplit(':', 1)
  try:
    with socket.create_connection((host.strip('[]'), int(port)), timeout_secs):
      return True
  except OSError:
    return False


def missing_peers(cluster, names):
  """Those of the named tasks at whose address nobody listens, as 'ps:0 at localhost:8000'."""
  return _peers(cluster, names, up=False)


def _peers(cluster, names, up):
  return [f'{n} at {cluster.address(n)}' for n in names if _is_up(cluster.address(n)) == up]


def wait_until_gone(cluster, names):
  """Returns once none of the named tasks listens any more, or after LAST_UPDATES_SECS.

  Returns:
    Those that still listen, as 'learner:1 at localhost:8001'.
  """
  deadline, told = time.monotonic() + LAST_UPDATES_SECS, False
  while True:
    there = _peers(cluster, names, up=True)
    if not there or time.monotonic() > deadline:
      return there
    if not told:
      logging.info('%s waits for %s to leave', cluster.name, ', '.join(there))
      told = True
    time.sleep(POLL_SECS)


def wait_for_peers(cluster, names, wait_secs, should_stop):
  """Returns once all of the named tasks listen, or when told to stop.

  Args:
    cluster: `Cluster`.
    names: tasks such as 'ps:0'.
    wait_secs: limit; 0 waits for ever.
    should_stop: function without arguments.

  Raises:
    RunFailed: they did not come in time.
  """
  began = said = time.monotonic()
  first = True
  while not should_stop():
    missing = missing_peers(cluster, names)
    if not missing:
      return
    now = time.monotonic()
    if first or now - said >= WAITING_SECS:
      logging.info('%s is waiting for %s', cluster.name, ', '.join(missing))
      said, first = now, False
    if wait_secs and now - began > wait_secs:
      raise RunFailed(
        f'{cluster.name} waited {wait_secs} s (--wait_secs) in vain for {", ".join(missing)}'
      )
    time.sleep(POLL_SECS)


# -------------------------------------------------------------------------------------------------
# What the tasks of a run share, on the first parameter server


class SharedState:
  """Settings, done flag, tokens and reports on the first parameter server, as graph operations.

  None of it is saved: settings and the done flag are rewritten by the chief, reports are for the
  moment.
  """

  REPORTS = 1000

  def __init__(self, cluster):
    import tensorflow as tf

    with tf.device(cluster.state_device):
      # Local variables are neither saved nor waited for.
      self.settings = self._variable(tf, '', 'shared_settings')
      self.done = self._variable(tf, False, 'run_is_done')
      self.chief_left = self._variable(tf, False, 'chief_has_left')
      self._reports = tf.queue.FIFOQueue(self.REPORTS, [tf.string], [[]], shared_name='reports')
      self._tokens = tf.queue.FIFOQueue(10_000, [tf.string], [[]], shared_name='goodbyes')
      self.dropped = self._variable(tf, tf.zeros([], tf.int64), 'dropped_reports')
      self.report = tf.compat.v1.placeholder(tf.string, [], 'report')
      self.send_report = tf.cond(
        self._reports.size() < self.REPORTS,
        lambda: tf.group(self._reports.enqueue(self.report)),
        lambda: tf.group(self.dropped.assign_add(1)),
      )
      self.num_reports = self._reports.size()
      self.how_many = tf.compat.v1.placeholder(tf.int32, [], 'how_many')
      self.take_reports = self._reports.dequeue_many(self.how_many)
      self.goodbye_from = tf.compat.v1.placeholder(tf.string, [], 'goodbye_from')
      self.say_goodbye = self._tokens.enqueue(self.goodbye_from)
      self.num_goodbyes = self._tokens.size()
      self.new_settings = tf.compat.v1.placeholder(tf.string, [], 'new_settings')
      self.write_settings = tf.group(
        self.settings.assign(self.new_settings),
        self.done.assign(False),
        self.chief_left.assign(False),
        self.dropped.assign(0),
      )
      self.mark_done = tf.group(self.done.assign(True))
      self.mark_chief_left = tf.group(self.chief_left.assign(True))
      self.is_done = self.done.read_value()
      self.chief_is_gone = self.chief_left.read_value()
      self.read_settings = self.settings.read_value()

  @staticmethod
  def _variable(tf, value, name):
    return tf.compat.v1.Variable(
      value, trainable=False, use_resource=True, collections=['shared_state'], name=name
    )


@functools.lru_cache(maxsize=1)
def _shared_state_alone(cluster):
  """(graph, `SharedState`) without a role's graph; kept, since it is asked twice a second."""
  import tensorflow as tf

  with tf.Graph().as_default() as graph:
    return graph, SharedState(cluster)


@contextlib.contextmanager
def _shared_state_session(cluster, target):
  """(session, `SharedState`); needs no other task than ps 0, and waits for ps 0."""
  import tensorflow as tf

  config = session_config(cluster)
  config.device_filters[:] = ['/job:ps/task:0', cluster.own_device]
  graph, state = _shared_state_alone(cluster)
  with tf.compat.v1.Session(target, graph, config) as session:
    yield session, state


def read_shared_state(cluster, target):
  """(settings dict or None, whether the run is done), asked of ps 0 without a role's graph.

  Raises:
    tf.errors.OpError: ps 0 went away.
  """
  import tensorflow as tf

  with _shared_state_session(cluster, target) as (session, state):
    try:
      text, done = session.run([state.read_settings, state.is_done])
    except (tf.errors.FailedPreconditionError, tf.errors.NotFoundError):
      return None, False  # The chief has not been there yet.
  return (json.loads(text) if text else None), bool(done)


def say_goodbye(cluster, target):
  """Tells ps 0 that this task needs the parameter servers no more."""
  with _shared_state_session(cluster, target) as (session, state):
    run_within(session, state.say_goodbye, {state.goodbye_from: cluster.name}, 5.0)


def read_shared_settings(cluster, target, wait_secs, should_stop):
  """The run's settings (a dict), read before this task builds its own graph.

  Waits until the chief has written them; None if told to stop.

  Raises:
    RunFailed: there were none within `wait_secs` (0 = no limit).
  """
  awaited = f'the settings of the run from learner:0 at {cluster.learner[0]}'
  began = said = time.monotonic()
  look = None
  while not should_stop():
    look = look or Attempt(read_shared_state, cluster, target)
    if look.has_ended(POLL_SECS):
      try:
        settings, _ = look.result()
        if settings:
          return settings
      except Exception as e:
        if not lost_peer(e):
          raise
        logging.warning('%s lost ps:0 (%s), trying again', cluster.name, first_line(e))
        wait_for_peers(cluster, ['ps:0'], wait_secs, should_stop)
      look = None
      time.sleep(POLL_SECS)
    now = time.monotonic()
    if now - said >= WAITING_SECS:
      logging.info('%s is waiting for %s', cluster.name, awaited)
      said = now
    if wait_secs and now - began > wait_secs:
      raise RunFailed(f'{cluster.name} waited {wait_secs} s (--wait_secs) in vain for {awaited}')
  return None


def first_line(error):
  """The first telling line of an exception's message."""
  lines = [line.strip('= ') for line in str(error).splitlines()]
  empty = re.compile(r'Graph execution error:|(\w+: )?From /job:|$')
  telling = [line for line in lines if not empty.match(line)]
  return (telling or [type(error).__name__])[0]


def code_version():
  """A hash of the program's sources; tasks of one run must agree on it."""
  here = os.path.dirname(os.path.abspath(__file__))
  digest = hashlib.sha256()
  for path in sorted(glob.glob(os.path.join(here, '*.py'))):
    digest.update(os.path.basename(path).encode())
    with open(path, 'rb') as f:
      digest.update(f.read())
  return digest.hexdigest()[:12]


# -------------------------------------------------------------------------------------------------
# Checkpoints


class Checkpoints:
  """Saves and restores the global variables of the graph, through this task, onto its own disk.

  Unsharded: sharded savers let every parameter server write to a disk that nobody else can read.

  Args:
    logdir: folder.
    device: of the task that reads and writes.
  """

  PREFIX = 'model.ckpt'

  def __init__(self, logdir, device):
    import tensorflow as tf

    self._logdir = logdir
    with tf.device(device + '/cpu:0' if device else '/cpu:0'):
      self.saver = tf.compat.v1.train.Saver(
        tf.compat.v1.global_variables(), sharded=False, max_to_keep=3, save_relative_paths=True
      )
    state = tf.train.get_checkpoint_state(logdir)
    if state:  # An earlier process's checkpoints grow old too.
      self.saver.recover_last_checkpoints(state.all_model_checkpoint_paths)

  def save(self, session, updates):
    """Writes a checkpoint named by the number of updates."""
    path = os.path.join(self._logdir, self.PREFIX)
    with session.graph.as_default():  # Graphs in force are known to one thread only.
      self.saver.save(session, path, global_step=int(updates), write_meta_graph=False)

  @staticmethod
  def exist(logdir):
    """Whether a checkpoint was ever written to `logdir`; without TensorFlow."""
    return os.path.exists(os.path.join(logdir, 'checkpoint'))

  @staticmethod
  def latest(logdir):
    """The path of the newest whole checkpoint in `logdir`, or None."""
    import tensorflow as tf

    return tf.train.latest_checkpoint(logdir)

  @staticmethod
  def shapes(path):
    """{variable name: shape list} of a checkpoint."""
    import tensorflow as tf

    return tf.train.load_checkpoint(path).get_variable_to_shape_map()

  @staticmethod
  def value(path, name):
    """A variable's value in a checkpoint, a numpy array."""
    import tensorflow as tf

    return tf.train.load_checkpoint(path).get_tensor(name)


# -------------------------------------------------------------------------------------------------
# Sessions and threads


class Loops:
  """Threads that share a session; the first to end, for whatever reason, ends the group."""

  def __init__(self):
    self._stop, self._ended = threading.Event(), threading.Event()
    self._threads, self._lock = [], threading.Lock()
    self.error = None

  def start(self, name, function, *args):
    """Runs `function(*args)` in a thread."""
    thread = threading.Thread(target=self._run, args=(function, args), name=name, daemon=True)
    self._threads.append(thread)
    thread.start()

  def _run(self, function, args):
    try:
      function(*args)
    except BaseException as e:  # Whatever it is, the main thread must hear of it.
      with self._lock:
        if self.error is None and not self._stop.is_set():
          self.error = e
    finally:
      self._ended.set()

  def should_stop(self):
    """Whether the loops are asked to come to an end."""
    return self._stop.is_set()

  def stop(self):
    """Asks the loops to come to an end; errors from now on are consequences and not kept."""
    with self._lock:
      self._stop.set()

  def wait(self, secs):
    """Waits for the first end of a loop; True if there was one."""
    return self._ended.wait(secs)

  def join(self, secs):
    """Waits for all loops; True if all have ended."""
    deadline = time.monotonic() + secs
    for thread in self._threads:
      thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in self._threads)


def lost_peer(error):
  """Whether an exception says that another task went away, is frozen or has not recovered yet."""
  import tensorflow as tf

  return isinstance(
    error,
    (
      tf.errors.UnavailableError,
      tf.errors.AbortedError,
      tf.errors.CancelledError,
      tf.errors.DeadlineExceededError,
      tf.errors.FailedPreconditionError,
      tf.errors.OutOfRangeError,
    ),
  )


def open_session(target, config, chief, init_op, local_init_op, ready_op, saver=None, path=None):
  """A session in which every variable has a value; waits for the chief where it is not the chief.

  Args:
    target: of the server, '' in local training.
    config: tf.compat.v1.ConfigProto.
    chief: whether this task gives the global variables their values.
    init_op: for the global variables of a new run.
    local_init_op: for this task's own variables.
    ready_op: lists the global variables without a value.
    saver: tf.compat.v1.train.Saver that restores, the chief's.
    path: of the checkpoint to restore, or None.
  """
  import tensorflow as tf

  manager = tf.compat.v1.train.SessionManager(
    local_init_op=local_init_op,
    ready_op=ready_op,
    ready_for_local_init_op=ready_op,
    graph=tf.compat.v1.get_default_graph(),
    recovery_wait_secs=1,
  )
  if not chief:
    return manager.wait_for_session(target, config=config)
  return manager.prepare_session(
    target, init_op=init_op, saver=saver, checkpoint_filename_with_path=path, config=config
  )


def close_session(session, secs=5.0):
  """Closes a session, whose calls in flight are cancelled; gives up on one that does not close."""
  thread = threading.Thread(target=_close_quietly, args=(session,), daemon=True)
  thread.start()
  thread.join(secs)


def _close_quietly(session):
  import tensorflow as tf

  try:
    session.close()
  except tf.errors.OpError as e:
    logging.info('closing the session: %s', first_line(e))


class Interrupts:
  """SIGINT and SIGTERM ask for the end; a second one leaves at once.

  Attributes:
    reason: '' or the name of the signal that came first.
  """

  def __init__(self):
    self._event = threading.Event()
    self.reason = ''
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, self._handle)

  def _handle(self, number, frame):
    del frame
    if self._event.is_set():
      os.write(2, b'second signal: leaving at once\n')
      os._exit(EXIT_FAILURE)
    self.reason = signal.Signals(number).name
    self._event.set()

  def is_set(self):
    """Whether a signal came."""
    return self._event.is_set()

  def set(self, reason):
    """Asks for the end as a signal would."""
    self.reason = self.reason or reason
    self._event.set()


class Attempt:
  """`function(*args)` in a thread, which the process does not wait for when it leaves.

  For what may never return, such as a session whose peers went away; and for a role as a whole, so
  that the main thread stays free to hear signals.
  """

  def __init__(self, function, *args):
    self._value = self._error = None
    self._thread = threading.Thread(
      target=self._run, args=(function, args), daemon=True, name=function.__name__
    )
    self._thread.start()

  def _run(self, function, args):
    try:
      self._value = function(*args)
    except BaseException as e:
      self._error = e

  def has_ended(self, secs):
    """Whether it ended, waiting for that for so long at most."""
    self._thread.join(secs)
    return not self._thread.is_alive()

  def result(self):
    """Waits for the end; returns what the function returned, raises what it raised."""
    while not self.has_ended(POLL_SECS):
      pass
    if self._error is not None:
      raise self._error
    return self._value


# -------------------------------------------------------------------------------------------------
# Signs of life


class Heartbeat:
  """Knows in which phase each loop of a task is, writes the state file, and watches over progress.

  Args:
    cluster: `Cluster`.
    state_dir: folder of the state file, or '' for none.
    watchdog_secs: a loop that stays in a working phase for longer, without an excuse, ends the
      process; 0 = never.
    excused: function of a phase; whether a stay in it now is a wait for others, to be reported
    only.
  """

  WORKING = ('refresh', 'unroll', 'enqueue', 'update', 'save')

  def __init__(self, cluster, state_dir='', watchdog_secs=0, excused=lambda phase: ''):
    self._cluster, self._state_dir = cluster, state_dir
    self._watchdog_secs, self._excused = watchdog_secs, excused
    self._phases, self._lock = {}, threading.Lock()
    self._started = time.time()
    self._last_excuses, self._said = {}, 0.0
    self.facts = {'frames_per_sec': None, 'environment_frames': None, 'last_error': ''}
    if state_dir:
      os.makedirs(state_dir, exist_ok=True)
    threading.Thread(target=self._live, daemon=True, name='heartbeat').start()

  def enter(self, loop, phase):
    """The named loop begins a phase."""
    with self._lock:
      self._phases[loop] = (phase, time.monotonic())

  def entering(self, loop):
    """`enter` for one loop, as a function of the phase."""
    return lambda phase: self.enter(loop, phase)

  def clear(self):
    """No loop runs: a session is being made."""
    with self._lock:
      self._phases.clear()

  def phase(self, phase):
    """The task as a whole is in this phase, no loop runs."""
    with self._lock:
      self._phases = {'task': (phase, time.monotonic())}

  def _live(self):
    while True:
      self.write()
      self._watch()
      time.sleep(STATE_SECS)

  def write(self):
    """Rewrites the state file."""
    if not self._state_dir:
      return
    with self._lock:
      phases = '+'.join(sorted({phase for phase, _ in self._phases.values()}))
    state = dict(
      job=self._cluster.job or 'local',
      task=self._cluster.task,
      pid=os.getpid(),
      phase=phases,
      last_seen=time.time(),
      started=self._started,
      **self.facts,
    )
    path = os.path.join(self._state_dir, f'{state["job"]}-{max(0, state["task"])}.json')
    try:
      with open(path + '.new', 'w') as f:
        json.dump(state, f)
      os.replace(path + '.new', path)
    except OSError as e:
      logging.warning('cannot write the state file %s: %s', path, e)

  def _watch(self):
    now = time.monotonic()
    with self._lock:
      phases = dict(self._phases)
    for loop, (phase, since) in phases.items():
      stuck = now - since
      if not self._watchdog_secs or phase not in self.WORKING or stuck < self._watchdog_secs:
        continue
      excuse = self._excused(phase)
      if excuse:
        self._last_excuses[loop] = now
      elif now - self._last_excuses.get(loop, since) < self._watchdog_secs:
        continue  # A peer that is back needs its time, too.
      else:
        self.die(
          f'{self._cluster.name}: {loop} made no progress for {stuck:.0f} s in phase {phase} '
          '(--watchdog_secs)'
        )
      if now - self._said > WAITING_SECS:
        logging.info('%s: %s has been in phase %s for %.0f s: %s', self._cluster.name, loop, phase,
                     stuck, excuse)  # fmt: skip
        self._said = now

  def die(self, reason):
    """Leaves the process at once with exit 1, the reason last."""
    self.facts['last_error'] = reason
    self.write()
    logging.error(reason)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_FAILURE)


# -------------------------------------------------------------------------------------------------
# The parameter server's part, and the way out


def run_within(session, fetches, feed=None, secs=20.0):
  """`session.run` that fails with DeadlineExceededError after `secs`."""
  import tensorflow as tf

  options = tf.compat.v1.RunOptions(timeout_in_ms=int(secs * 1000))
  return session.run(fetches, feed, options=options)


def serve_to_the_end(cluster, target, interrupts):
  """Waits, on a parameter server, until the run is done and the others have taken their leave.

  The parameter servers are the last to go: sessions of the others cannot close without them.
  After a signal the chief has PATIENCE_SECS for its last checkpoint.

  Returns:
    The reason of the end, for the log.
  """
  everybody = len(cluster.learner) + len(cluster.actor)
  if cluster.task == 0:  # The other parameter servers ask it, so it goes after them.
    everybody += len(cluster.ps) - 1
  deadline = question = None
  while True:
    if question is None:
      question, asked = Attempt(_ask_how_far, cluster, target), time.monotonic()
    answered, now = question.has_ended(POLL_SECS), time.monotonic()
    if not answered and now - asked < ANSWER_SECS:
      continue
    phase = None
    if answered:
      phase, question = question.result(), None
    if phase is None and interrupts.is_set():
      return f'{interrupts.reason}, and no chief is connected'
    if phase and phase.chief_is_gone and phase.goodbyes >= everybody:
      if cluster.task > 0:
        Attempt(say_goodbye, cluster, target).has_ended(ANSWER_SECS)
      return 'the run is done and everybody has left'
    if deadline is None and (interrupts.is_set() or (phase and phase.chief_is_gone)):
      deadline = now + (PATIENCE_SECS if interrupts.is_set() else LATECOMER_SECS)
    if deadline is not None and now > deadline:
      if interrupts.is_set():
        return f'{interrupts.reason}, and the chief did not leave within {PATIENCE_SECS:.0f} s'
      return 'the run is done; some tasks never took their leave'
    if interrupts.is_set() and phase and phase.chief_is_gone:
      return f'{interrupts.reason}, and the chief has left'
    time.sleep(POLL_SECS)


class _HowFar(collections.namedtuple('_HowFar', 'is_done chief_is_gone goodbyes')):
  __slots__ = ()


def _ask_how_far(cluster, target):
  """How far the run's end has come, or None while no chief has been there or ps 0 is away."""
  import tensorflow as tf

  if cluster.task > 0 and not _is_up(cluster.ps[0]):
    return None
  try:
    with _shared_state_session(cluster, target) as (session, state):
      fetches = [state.is_done, state.chief_is_gone, state.num_goodbyes]
      return _HowFar(*run_within(session, fetches))
  except tf.errors.OpError:
    return None


def lock_folder(path, flag):
  """Creates a folder and locks it for this process; returns what holds the lock.

  Raises:
    BadInput: it cannot be written, or another process holds it.
  """
  try:
    os.makedirs(path, exist_ok=True)
    file = open(os.path.join(path, 'lock'), 'a+')
  except OSError as e:
    raise BadInput(f'{flag}={path} cannot be written: {e.strerror}') from None
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    file.seek(0)
    holder = file.read().strip() or 'unknown'
    raise BadInput(f'{flag}={path} is in use by process {holder}: choose another one') from None
  file.truncate(0)
  file.write(str(os.getpid()))
  file.flush()
  return file


def leave(code):
  """Ends the process without waiting for threads that TensorFlow may hold up."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):  # Nobody reads any more, as in `--help | head`.
      stream.flush()
  os._exit(code)
