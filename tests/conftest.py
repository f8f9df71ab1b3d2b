"""What tests of several modules share: processes that never outlive a test, ports, polling.

The helpers can be imported (`from conftest import eventually`) or taken as fixtures.
"""

import compileall
import contextlib
import csv
import functools
import itertools
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import forked_interpreters  # noqa: E402
from runtime.process import set_channel_options  # noqa: E402

# What servers in a test's own process need; tasks that it starts see to it themselves.
set_channel_options(os.environ)
_CHANNELS = 'TF_GRPC_DEFAULT_OPTIONS'

# A shell gives its background jobs an ignored SIGINT, and nohup an ignored SIGHUP, which all that
# tests start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What a test is given, itself or through another fixture, says what it costs; `make quick` leaves
# out the tests with these marks.
MARKS = {
  # Processes of a cluster, or an sshd.
  'cluster': {'new_cluster', 'shared_cluster', 'network', 'hosts', 'sshd', 'slurm'},
  'slow': {'catch_runs'},  # Training until something is learned.
}

# How long the children of a process may take to notice that it is gone.
_ORPHAN_LIMIT_SECS = 15.0


@pytest.fixture
def graph():
  """A tf.Graph of the test's own, in force while it runs."""
  import tensorflow as tf  # Not above: most tests do without.

  with tf.Graph().as_default() as a_graph:
    yield a_graph


def section(path, title):
  """Returns the text below a heading, up to the next heading of the same level or a higher one.

  Args:
    path: a file of Markdown, below the root of the project.
    title: text of the heading, without its `#`.
  """
  with open(os.path.join(ROOT, path), encoding='utf-8') as file:
    text = file.read()
  found = re.search(rf'^(#+) {re.escape(title)}\n', text, re.M)
  assert found, f'{path} has no heading "{title}"'
  # Blocks of code are passed over: a `#` in them begins a comment.
  end = rf'^```.*?^```|(^#{{1,{len(found[1])}}} )'
  for match in re.finditer(end, text[found.end() :], re.M | re.S):
    if match[1]:
      return text[found.end() :][: match.start()]
  return text[found.end() :]


def blocks_of(path, title, language='bash'):
  """Returns the text of each block of code of a language in a section of a document."""
  return re.findall(rf'```{language}\n(.*?)```', section(path, title), re.S)


def commands_of(path, title):
  """Returns the commands in the bash blocks of a section, each as a list of words."""
  lines = ''.join(blocks_of(path, title)).replace('\\\n', ' ').splitlines()
  return [words for line in lines if (words := shlex.split(line, comments=True))]


def eventually(predicate, limit_secs=60.0, message=None):
  """Polls until `predicate()` is true and returns its value; gives up with an AssertionError.

  A predicate that takes long, since it starts processes, is asked half of the time at most.

  Args:
    predicate: callable without arguments.
    limit_secs: when to give up.
    message: what did not happen, a string or a callable that gives one (such as a log so far).
  """
  began = time.monotonic()
  deadline = began + limit_secs
  while not (value := predicate()):
    now = time.monotonic()
    if now > deadline:
      text = message() if callable(message) else message
      raise AssertionError(f'not within {limit_secs} s: {text or predicate}')
    time.sleep(min(max(0.05, now - began), max(0.05, deadline - now)))
    began = time.monotonic()
  return value


# Files whose tests share what there is once: installed packages, hosts, tmux servers, the ports
# that the README and local_cluster_example.csv print.
_SHARING = ('tests/frontend/', 'tests/readme_test.py')
_SLURM = 'tests/slurm/'
# The groups that take longest, in the order in which they begin. Those with a network of hosts make
# it themselves.
_LONGEST = ('tests/cluster_test.py', 'sharing', 'slurm', 'tests/cluster_network_test.py')


def _group(path):
  """What is run by one test process, one test after another: a path or a word for several."""
  if path.startswith(_SLURM):
    return 'slurm'
  return 'sharing' if path.startswith(_SHARING) else path


class _ByGroup(LoadScopeScheduling):
  """Groups go, in the order of the tests, to whichever test process is free."""

  def __init__(self, config, log):
    config.option.loadscopereorder = False  # Else the groups of most tests come first.
    super().__init__(config, log)

  def _split_scope(self, nodeid):
    return _group(nodeid.split('::')[0])


@pytest.hookimpl(optionalhook=True)  # With `-p no:xdist` nobody knows this hook.
def pytest_xdist_make_scheduler(config, log):
  """Groups by file: the marks of `--dist=loadgroup` are without effect from pytest 9.2 on.

  See https://github.com/pytest-dev/pytest-xdist/issues/1386.
  """
  return _ByGroup(config, log)


def pytest_sessionstart(session):
  """Compiles the program once, for the hundreds of processes that will import it.

  Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each would compile it anew.
  """
  if not getattr(session.config.option, 'numprocesses', None):  # A worker, or few tests.
    return
  for name in os.listdir(ROOT):
    path = os.path.join(ROOT, name)
    if os.path.exists(os.path.join(path, '__init__.py')):
      compileall.compile_dir(path, quiet=2)
    elif name.endswith('.py'):
      compileall.compile_file(path, quiet=2)


def _longest_first(item):
  """The longest groups begin; all else fills up what is left.

  Three processes on two cores: a third of the time these groups wait, for a port, a node or a host.
  """
  group = _group(item.nodeid.split('::')[0])
  return _LONGEST.index(group) if group in _LONGEST else len(_LONGEST)


def pytest_collection_modifyitems(items):
  """Orders tests, and marks them by what they are given, wherever they are."""
  items.sort(key=_longest_first)
  for item in items:
    for mark, fixtures in MARKS.items():
      if fixtures & set(item.fixturenames):
        item.add_marker(mark)


def _own_ports():
  """All ports for this test process, in an order of its own.

  They are below those that systems give to outgoing connections, one of which could otherwise take
  the port of a task that is about to start again. Three test processes have no port in common.
  """
  number = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw')) % 3
  first = 11_000 + 7_000 * number
  return random.sample(range(first, first + 7_000), 7_000)


_ports = itertools.cycle(_own_ports())


def free_ports(n):
  """n different ports of the loopback interface that nobody listens on right now."""
  found = []
  while len(found) < n:
    port = next(_ports)
    with socket.socket() as probe, contextlib.suppress(OSError):
      probe.bind(('127.0.0.1', port))
      found.append(port)
  return found


def whole_rows(path):
  """The rows of a CSV file that may be growing, dicts of strings; none where there is no file."""
  if not os.path.exists(path):
    return []
  with open(path, newline='') as file:
    return [row for row in csv.DictReader(file) if None not in row.values()]


def updates_of_checkpoint(logdir):
  """Updates in the name of the newest checkpoint of a run, 0 where there is none."""
  path = os.path.join(logdir, 'checkpoint')
  if not os.path.exists(path):
    return 0
  with open(path, encoding='utf-8') as file:
    return int(re.search(r'ckpt-(\d+)', file.readline())[1])


class Process(subprocess.Popen):
  """A subprocess in a session of its own; what it prints goes to the file `log`."""

  def __init__(self, args, log, **kwargs):
    self.log = log
    with open(log, 'ab') as file:
      super().__init__(
        args,
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **kwargs,
      )

  def output(self):
    """What it printed so far, standard output and errors together."""
    with open(self.log, encoding='utf-8', errors='replace') as file:
      return file.read()

  def exit_code(self, limit_secs=60.0):
    """Waits for the end; an AssertionError with the output if it does not come."""
    eventually(
      lambda: self.poll() is not None,
      limit_secs,
      lambda: f'{self.args} did not end:\n{self.output()}',
    )
    return self.returncode


@functools.cache
def _interpreter(kind):
  """The interpreter of a kind of this test process."""
  return forked_interpreters.Interpreter(kind)


def checked(*flags, env=None, limit_secs=120.0):
  """Runs experiment.py, which needs no TensorFlow for these flags, as a fork; a CompletedProcess.

  Args:
    *flags: its command line.
    env: all its environment variables; by default those of this process.
    limit_secs: when to give up.
  """
  argv, ended = ['experiment.py', *flags], []
  with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    outputs = out.fileno(), err.fileno()
    pid = _interpreter('checker').fork(argv, outputs, ROOT, env or dict(os.environ))

    def has_ended():
      found, status = os.waitpid(pid, os.WNOHANG)
      ended.extend([os.waitstatus_to_exitcode(status)] * bool(found))
      return found

    try:
      eventually(has_ended, limit_secs, f'{argv} did not end')
    finally:
      if not ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    texts = [os.pread(fd, os.fstat(fd).st_size, 0).decode() for fd in outputs]
  return subprocess.CompletedProcess(argv, ended[0], *texts)


class Fork(Process):
  """A `Process` that begins as a fork of an interpreter with TensorFlow."""

  def __init__(self, args, log, cwd, env, inside):
    self.log, self._begin = log, (cwd, env, inside)
    subprocess.Popen.__init__(self, args)

  def _execute_child(self, args, *rest):
    del rest
    with open(self.log, 'ab') as file:
      self.pid = _interpreter('trainer').fork(args, [file.fileno()] * 2, *self._begin)
    self._child_created = True


class Processes:
  """Starts processes and, at the end of the test, leaves none of them behind."""

  def __init__(self, folder):
    self._folder = folder
    self._started = []

  def start(self, *args, name=None, env=None, cwd=ROOT, inside=None):
    """Starts a program.

    Args:
      *args: the command line; a first argument that ends in .py is run by this Python. If it is a
        trainer, by its path below the root, it is a fork of an interpreter with TensorFlow.
      name: names the log file; the same name again appends to the same log.
      env: dict of environment variables that are set in addition to this process's own.
      cwd: its working directory; the repository's root by default.
      inside: of a trainer: id of a process whose network and mounts it has, see
        `network_fixtures.Network.pid`.

    Returns:
      A `Process`.
    """
    args = [str(arg) for arg in args]
    log = os.path.join(self._folder, f'{name or len(self._started)}.log')
    environ = {name: value for name, value in os.environ.items() if name != _CHANNELS}
    environ |= env or {}
    if forked_interpreters.can_run(args, env or {}):
      process = Fork(args, log, cwd, environ, inside)
    else:
      assert inside is None, args
      program = [sys.executable] if args[0].endswith('.py') else []
      process = Process([*program, *args], log, env=environ, cwd=cwd)
    self._started.append(process)
    return process

  def close(self):
    """Kills what still runs, by pid, and fails if any process that came from here survives.

    Only the processes that were started here are killed at first: those that they started have to
    notice by themselves.
    """
    family = {child.pid: child for process in self._started for child in _descendants(process)}
    for process in self._started:
      if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    sessions = {process.pid for process in self._started}
    deadline = time.monotonic() + _ORPHAN_LIMIT_SECS
    while (orphans := _alive(family, sessions)) and time.monotonic() < deadline:
      time.sleep(0.05)
    for orphan in orphans:
      _kill(orphan)
    names = [f'{orphan.pid}: {command}' for orphan, command in orphans.items()]
    assert not orphans, f'processes that outlived those that started them: {names}'


def _descendants(process):
  try:
    return psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
  except psutil.NoSuchProcess:
    return []


def _alive(family, sessions):
  """Those of `family`, and of all processes in `sessions`, that live: psutil process -> command."""
  candidates = dict(family)
  for process in psutil.process_iter():
    try:
      if os.getsid(process.pid) in sessions:
        candidates[process.pid] = process
    except OSError:
      pass
  alive = {}
  for process in candidates.values():
    try:
      if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        alive[process] = ' '.join(process.cmdline())
    except psutil.NoSuchProcess:
      pass
  return alive


def _kill(process):
  try:
    process.kill()
  except psutil.NoSuchProcess:
    pass


@pytest.fixture
def processes(tmp_path):
  """A `Processes` whose processes end with the test."""
  started = Processes(tmp_path)
  yield started
  started.close()


@pytest.fixture(name='eventually')
def _eventually():
  return eventually


@pytest.fixture(name='free_ports')
def _free_ports():
  return free_ports
