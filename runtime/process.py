"""A process of a run: its exit codes, its signals, how it loads TensorFlow.

Nothing in `runtime` knows agents, losses or environments. The engine is distributed TensorFlow
(tf.train.ClusterSpec, tf.distribute.Server); a local run is the same graph in a session of its own.
"""

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

POLL_SECS = 0.5  # Between two looks at something that is waited for.
WAITING_SECS = 10.0  # Between two lines about what is waited for.
ONE_SIGNAL_SECS = 0.5  # Within these, two equal signals are one: nobody presses a key so fast.

EXIT_OK, EXIT_FAILURE, EXIT_BAD_INPUT = 0, 1, 2
EXIT_LEFT = 128 + signal.SIGTERM  # This task was told to leave, and the run goes on.


class BadInput(ValueError):
  """The user's mistake, in one sentence; the process exits with 2."""


class RunFailed(RuntimeError):
  """Nothing the user typed: the run cannot go on; the process exits with 1."""


# What TensorFlow's libraries print when they are loaded, before any log level applies.
_LOADING_NOISE = (
  r'before absl::InitializeLog|oneDNN custom operations are on|Could not find cuda drivers'
  r'|cpu_feature_guard|To enable the following instructions'
)


# How gRPC's clients, TensorFlow's servers among them, keep their connections; docs/design.md says
# why ("Peers that vanish").
_CHANNEL_OPTIONS = {
  'grpc.keepalive_time_ms': '310000',
  'grpc.keepalive_timeout_ms': '10000',
  'grpc.http2.max_pings_without_data': '0',
  'grpc.enable_http_proxy': '0',
}


def set_channel_options(environ):
  """Gives the tasks' connections their options; those that are in `environ` already are kept.

  Args:
    environ: dict, of environment variables; TensorFlow reads it once.
  """
  given = [option for option in environ.get('TF_GRPC_DEFAULT_OPTIONS', '').split(',') if option]
  names = {option.partition('=')[0].strip() for option in given}
  ours = [f'{name}={value}' for name, value in _CHANNEL_OPTIONS.items() if name not in names]
  environ['TF_GRPC_DEFAULT_OPTIONS'] = ','.join(given + ours)


def import_tensorflow():
  """The module `tensorflow`, without Keras, and without what its libraries tell at every start.

  Keras (and matplotlib, which it loads) is a fifth of the time that importing TensorFlow takes;
  nobody here uses it, and `tf.keras` still loads it for who does. TensorFlow uses oneDNN by itself
  on processors with AVX-512 VNNI only; without, its own gradients of convolutions take up to twice
  as long (docs/performance.md). TF_ENABLE_ONEDNN_OPTS in the environment decides.

  Standard error goes through grep meanwhile, so that whatever else is said is seen, even where it
  is the last thing that this process says. TF_CPP_MIN_LOG_LEVEL in the environment shows all.
  """
  os.environ.setdefault('GRPC_VERBOSITY', 'NONE')
  set_channel_options(os.environ)
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
  shows_all = 'TF_CPP_MIN_LOG_LEVEL' in os.environ
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  quietly = contextlib.nullcontext() if shows_all else _stderr_without(_LOADING_NOISE)
  with quietly, _other_keras(), _without_collecting():
    import tensorflow as tf
  tf.get_logger().setLevel('ERROR')
  return tf


@contextlib.contextmanager
def _without_collecting():
  """What is made while TensorFlow is loaded is not looked through for garbage: modules stay."""
  if not gc.isenabled() or 'tensorflow' in sys.modules:
    yield
    return
  gc.disable()
  try:
    yield
    gc.freeze()
  finally:
    gc.enable()


@contextlib.contextmanager
def _other_keras():
  """TensorFlow is told to load Keras 2 instead, which is not there."""
  name = 'TF_USE_LEGACY_KERAS'
  if name in os.environ:
    yield
    return
  os.environ[name] = '1'
  try:
    yield
  finally:
    del os.environ[name]


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


class Interrupts:
  """SIGINT, SIGTERM and SIGHUP ask for the end; what it takes is said at once.

  SIGTERM and SIGHUP may come any number of times: timeout(1) sends one to its child and one to the
  group of both, Slurm tells every process of a step, and so does the supervisor of a task, which is
  told as well. Only a person presses Ctrl-C: SIGINT after the first signal leaves at once. SIGHUP
  stays ignored where it was, as nohup(1) has it.

  Args:
    sigterm_ends_run: whether SIGTERM and SIGHUP are about the run, as SIGINT always is, or this
      task alone.

  Attributes:
    reason: '' or why the end was asked for first, for a signal its name.
  """

  def __init__(self, sigterm_ends_run=True):
    self._sigterm_ends_run = sigterm_ends_run
    self._event, self._first = threading.Event(), None  # The first signal and when it came.
    self.reason, self._at_end, self._if_forced = '', 'ending', 'at once'
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
      if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, self._handle)

  def _handle(self, number, frame):
    del frame
    now = time.monotonic()
    if self._first is None:
      self._first = number, now
      name = signal.Signals(number).name
      again = 'once more' if number == signal.SIGINT else 'Ctrl-C'
      _say(f'{name}: {self._at_end}; {again} leaves {self._if_forced}')
      self.set(name)
      return
    first, came_at = self._first
    if number != signal.SIGINT or (first == number and now - came_at < ONE_SIGNAL_SECS):
      return
    _say(f'SIGINT again: leaving {self._if_forced}')
    os._exit(EXIT_FAILURE)

  def describe_end(self, at_end, if_forced='at once'):
    """Sets the answer to a signal: what the end takes, and how a second Ctrl-C leaves."""
    self._at_end, self._if_forced = at_end, if_forced

  def is_set(self):
    """Whether the end was asked for."""
    return self._event.is_set()

  def set(self, reason):
    """Asks for the end as a signal would."""
    self.reason = self.reason or reason
    self._event.set()

  @property
  def had_signal(self):
    """Whether a signal came, be it after the end had begun by itself."""
    return self._first is not None

  @property
  def run_goes_on(self):
    """Whether this task alone was told to leave: it is started again, and the others wait."""
    return self.reason in ('SIGTERM', 'SIGHUP') and not self._sigterm_ends_run


def _say(text):
  """A line on standard error, in place of a live line; for handlers of signals."""
  with contextlib.suppress(OSError):  # The terminal has gone, as SIGHUP may say.
    start = '\r\x1b[K' if os.isatty(2) else ''
    os.write(2, f'{start}{text}\n'.encode())


def interrupt_on_signals():
  """Until `Interrupts` listens, SIGTERM and SIGHUP raise KeyboardInterrupt as SIGINT does.

  SIGHUP stays ignored where it was.
  """

  def interrupt(number, frame):
    raise KeyboardInterrupt(signal.Signals(number).name)

  for number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:
      signal.signal(number, interrupt)


def leave(code):
  """Ends the process without waiting for threads that TensorFlow may hold up."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):  # Nobody reads any more, as in `--help | head`.
      stream.flush()
  os._exit(code)
