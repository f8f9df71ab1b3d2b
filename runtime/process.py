"""Exit codes, errors and signals of a run's processes, and how they import TensorFlow."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from types import FrameType, ModuleType
from typing import NoReturn

POLL_SECS = 0.5  # Polling interval of waits.
WAITING_SECS = 10.0  # Interval between log lines about a wait.
ONE_SIGNAL_SECS = 0.5  # Equal signals within this time count as one; no user presses keys so fast.

EXIT_OK, EXIT_FAILURE, EXIT_BAD_INPUT = 0, 1, 2
EXIT_LEFT = 128 + signal.SIGTERM  # This task was asked to leave, but the run continues.


class BadInput(ValueError):
  """A user error, described in one sentence; the process exits with code 2."""


class RunFailed(RuntimeError):
  """The run cannot continue, but not by a user error; the process exits with code 1."""


# Messages that TensorFlow's libraries print while loading, before any log level applies.
_LOADING_NOISE = (
  r'before absl::InitializeLog|oneDNN custom operations are on|Could not find cuda drivers'
  r'|cpu_feature_guard|To enable the following instructions'
)


# Keepalive of gRPC clients, which include TensorFlow's servers; see "Peers that vanish" in
# docs/design.md.
_CHANNEL_OPTIONS = {
  'grpc.keepalive_time_ms': '310000',
  'grpc.keepalive_timeout_ms': '10000',
  'grpc.http2.max_pings_without_data': '0',
  'grpc.enable_http_proxy': '0',
}


def set_channel_options(environ: MutableMapping[str, str]) -> None:
  """Sets gRPC's options for connections between tasks, unless `environ` sets them already.

  Args:
    environ: environment variables, changed in place. TensorFlow reads them only once.
  """
  given = [option for option in environ.get('TF_GRPC_DEFAULT_OPTIONS', '').split(',') if option]
  names = {option.partition('=')[0].strip() for option in given}
  ours = [f'{name}={value}' for name, value in _CHANNEL_OPTIONS.items() if name not in names]
  environ['TF_GRPC_DEFAULT_OPTIONS'] = ','.join(given + ours)


def import_tensorflow() -> ModuleType:
  """Imports TensorFlow without Keras and without the messages that its libraries always print.

  Keras (and matplotlib, which it loads) takes a fifth of the import time, and nothing here uses it;
  `tf.keras` still loads it on demand. By itself TensorFlow enables oneDNN only on processors with
  AVX-512 VNNI; without it, gradients of convolutions take up to twice as long
  (docs/performance.md). TF_ENABLE_ONEDNN_OPTS in the environment overrides this.

  During the import, standard error is piped through grep, so that all other messages are shown,
  even if the process crashes. TF_CPP_MIN_LOG_LEVEL in the environment shows all messages.
  """
  os.environ.setdefault('GRPC_VERBOSITY', 'NONE')
  set_channel_options(os.environ)
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
  shows_all = 'TF_CPP_MIN_LOG_LEVEL' in os.environ
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  quietly = contextlib.nullcontext() if shows_all else _stderr_without(_LOADING_NOISE)
  with quietly, _keras_on_demand(), _without_garbage_collection():
    import tensorflow as tf
  tf.get_logger().setLevel('ERROR')
  return tf


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
  """Pauses garbage collection and exempts objects created inside, since modules are permanent."""
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
def _keras_on_demand() -> Iterator[None]:
  """Makes TensorFlow look for Keras 2, which is not installed, so that it loads no Keras."""
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
def _stderr_without(pattern: str) -> Iterator[None]:
  """Removes lines that match an extended regular expression from standard error."""
  if not shutil.which('grep'):
    yield
    return
  sys.stderr.flush()
  stderr = os.dup(2)
  # A session of its own, so that Ctrl-C does not end the filter.
  with subprocess.Popen(
    ['grep', '-vE', pattern],
    env={**os.environ, 'LC_ALL': 'C'},  # In this locale, grep treats any byte as text.
    stdin=subprocess.PIPE,
    stdout=stderr,
    start_new_session=True,
  ) as grep:
    assert grep.stdin
    os.dup2(grep.stdin.fileno(), 2)
    try:
      yield
    finally:
      sys.stderr.flush()
      os.dup2(stderr, 2)
      os.close(stderr)


class Interrupts:
  """Handles SIGINT, SIGTERM and SIGHUP as requests to end, and prints at once what happens next.

  SIGTERM and SIGHUP may arrive twice without a user: timeout(1) signals its child and then the
  process group, and both Slurm and a task's supervisor signal each process. Only SIGINT always
  means Ctrl-C, so only SIGINT forces an exit after a first signal. If SIGHUP was ignored, as with
  nohup(1), it stays ignored.

  Args:
    sigterm_ends_run: whether SIGTERM and SIGHUP end the whole run, as SIGINT always does, or only
      this task.

  Attributes:
    reason: reason of the first request, such as the name of a signal; '' before.
  """

  def __init__(self, sigterm_ends_run: bool = True):
    self._sigterm_ends_run = sigterm_ends_run
    self._event = threading.Event()
    self._first: tuple[int, float] | None = None  # The first signal and its time.
    self._defers, self._deferred = False, ''
    self.reason, self._at_end, self._if_forced = '', 'ending', 'at once'
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
      if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, self._handle)

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    now = time.monotonic()
    if self._first is None:
      self._first = number, now
      name = signal.Signals(number).name
      again = 'once more' if number == signal.SIGINT else 'Ctrl-C'
      _say(f'{name}: {self._at_end}; {again} leaves {self._if_forced}')
      if self._defers:
        self._deferred = name
      else:
        self.set(name)
      return
    first, came_at = self._first
    if number != signal.SIGINT or (first == number and now - came_at < ONE_SIGNAL_SECS):
      return
    _say(f'SIGINT again: leaving {self._if_forced}')
    os._exit(EXIT_FAILURE)

  def describe_end(self, at_end: str, if_forced: str = 'at once') -> None:
    """Sets the text printed on a signal.

    Args:
      at_end: what happens before the process ends.
      if_forced: how a second Ctrl-C ends the process.
    """
    self._at_end, self._if_forced = at_end, if_forced

  def defer_signals(self) -> None:
    """Makes a signal request the end only when `take_signal` is called next."""
    self._defers = True

  def take_signal(self) -> None:
    """Requests the end if a signal was deferred."""
    if self._deferred:
      self.set(self._deferred)

  def is_set(self) -> bool:
    """Returns whether the end was requested."""
    return self._event.is_set()

  def set(self, reason: str) -> None:
    """Requests the end, as a signal does."""
    self.reason = self.reason or reason
    self._event.set()

  @property
  def had_signal(self) -> bool:
    """Whether a signal has arrived, even if the end was requested before."""
    return self._first is not None

  @property
  def run_goes_on(self) -> bool:
    """Whether only this task was asked to leave; the others wait until it is restarted."""
    return self.reason in ('SIGTERM', 'SIGHUP') and not self._sigterm_ends_run


def _say(text: str) -> None:
  """Prints a line on standard error over the live line; safe in a signal handler."""
  with contextlib.suppress(OSError):  # The terminal may be closed.
    start = '\r\x1b[K' if os.isatty(2) else ''
    os.write(2, f'{start}{text}\n'.encode())


# Errors of disks, permissions and process limits, which are not bugs.
_OF_THE_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ESTALE, errno.EMFILE, errno.ENFILE,
    errno.ENOMEM, errno.ETXTBSY, errno.ELOOP,
}  # fmt: skip


def failure_reason(error: BaseException | None) -> str:
  """Returns why a program failed in one sentence, or '' if the exception may be a bug."""
  if isinstance(error, RunFailed):
    return str(error)
  while error is not None:
    if text := _of_the_machine(error):
      return text
    error = error.__cause__
  return ''


def _of_the_machine(error: BaseException) -> str:
  if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
    where = f'{os.fsdecode(error.filename)}: ' if isinstance(error.filename, (str, bytes)) else ''
    limit = ''
    if error.errno == errno.EMFILE:
      limit = f' (ulimit -n is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})'
    return where + os.strerror(error.errno) + limit
  if isinstance(error, MemoryError):
    return ' '.join(['this machine is out of memory', *str(error).split()])
  # TensorFlow's error messages contain the text of the system's error.
  message = getattr(error, 'message', None)
  if isinstance(message, str):
    for line in message.splitlines():
      if any(line.rstrip().endswith(os.strerror(number)) for number in _OF_THE_MACHINE):
        return line.strip()
  return ''


def leave(code: int) -> NoReturn:
  """Ends the process without waiting for threads, which may be blocked in TensorFlow."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):  # A closed pipe, as in `--help | head`.
      stream.flush()
  os._exit(code)
