"""Python programs that begin as forks of an interpreter that has imported TensorFlow.

The import takes about two seconds of a processor, and tests start about two hundred trainers. Such
a trainer is a process like any other, a child of the test process with its own session, signals and
files; only TensorFlow has been imported already. Those that are started as a user does it import it
themselves: the commands of the documentation, the tasks of the frontend, of Slurm and Kubernetes,
and what runs in namespaces.
"""

import array
import ctypes
import json
import os
import runpy
import socket
import subprocess
import sys
import warnings

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PR_SET_CHILD_SUBREAPER = 36
# Process ids of the interpreters that `Interpreter` has started: they live as long as this process.
pids: set[int] = set()
_libc = ctypes.CDLL(None, use_errno=True)
# What TensorFlow's libraries may read while they are loaded.
_READ_AT_IMPORT = ('TF_', 'GRPC_', 'CUDA_', 'OMP_', 'LD_', 'PYTHONHASHSEED')


class Interpreter:
  """An interpreter with TensorFlow, of which `fork` makes processes that run programs."""

  def __init__(self):
    self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
      self._process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), str(theirs.fileno())],
        stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True, cwd=_ROOT,
      )  # fmt: skip
    pids.add(self._process.pid)

  def fork(self, argv, log, cwd, env):
    """Starts a program; returns its process id, a child of this process.

    Args:
      argv: the program, a path below `cwd`, and its arguments.
      log: file descriptor for standard output and standard error.
      cwd: working directory.
      env: all its environment variables.
    """
    request = json.dumps([argv, os.fspath(cwd), env]).encode()
    fds = array.array('i', [log])
    # A child of a child that has ended becomes that of the nearest subreaper above.
    _be_subreaper(True)
    try:
      self._socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
      answer = self._socket.recv(100)
    finally:
      _be_subreaper(False)
    if not answer:
      raise RuntimeError('the interpreter with TensorFlow has ended')
    return int(answer)


def can_run(argv, cwd, env):
  """Whether a command line with the environment variables it is given may begin as a fork."""
  programs = {'experiment.py', 'tests/altered_experiment.py'}
  return argv[0] in programs and cwd == _ROOT and not any(map(_is_read_at_import, env))


def _is_read_at_import(name):
  return name.startswith(_READ_AT_IMPORT)


def _be_subreaper(be):
  if _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(be), 0, 0, 0):
    raise OSError(ctypes.get_errno(), 'prctl')


def _serve(requests):
  """Forks a process for each request, until the other end is closed."""
  sys.path[0] = _ROOT
  from runtime import process

  process.import_tensorflow()
  import matplotlib.figure  # noqa: F401 (with it, the picture at the end of a run costs half)

  while True:
    data, ancillary, _, _ = requests.recvmsg(1 << 20, socket.CMSG_SPACE(array.array('i').itemsize))
    if not data:
      return
    (log,) = array.array('i', ancillary[0][2])
    read_end, write_end = os.pipe()
    between = os.fork()
    if not between:
      if os.fork():
        os._exit(0)
      os.setsid()
      os.write(write_end, str(os.getpid()).encode())
      for unused in (requests.detach(), read_end, write_end):
        os.close(unused)
      _become(*json.loads(data), log)
    for unused in (log, write_end):
      os.close(unused)
    os.waitpid(between, 0)
    requests.send(os.read(read_end, 100))
    os.close(read_end)


def _become(argv, cwd, env, log):
  """Runs the program in this process, to its end."""
  os.dup2(log, 1)
  os.dup2(log, 2)
  os.close(log)
  os.chdir(cwd)
  os.environ.clear()
  os.environ.update(env)
  paths = [os.path.join(cwd, path) for path in env.get('PYTHONPATH', '').split(':') if path]
  sys.argv[:] = argv
  sys.path[:1] = [os.path.dirname(os.path.join(cwd, argv[0])), *paths]
  runpy.run_path(argv[0], run_name='__main__')
  sys.exit()


if __name__ == '__main__':
  warnings.simplefilter('ignore', DeprecationWarning)  # Of forks in a process with threads.
  with socket.socket(fileno=int(sys.argv[1])) as _requests:
    _serve(_requests)
