"""Python programs that begin as forks of an interpreter that has imported what takes long.

The import of TensorFlow takes about two seconds of a processor, and tests start about two hundred
trainers; that of Gymnasium, which a check of flags needs, takes a quarter of a second. Such a
trainer is a process like any other, a child of the test process with its own session, signals and
files; only these packages have been imported already. Those that are started as a user does it
import them themselves: the first commands of a page of the documentation, and the tasks of the
frontend, of Slurm and Kubernetes.
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
_FD_BYTES = array.array('i').itemsize
# Process ids of the interpreters that `Interpreter` has started: they live as long as this process.
pids: set[int] = set()
_libc = ctypes.CDLL(None, use_errno=True)
# What TensorFlow's libraries may read while they are loaded.
_READ_AT_IMPORT = ('TF_', 'GRPC_', 'CUDA_', 'OMP_', 'LD_', 'PYTHONHASHSEED')


class Interpreter:
  """An interpreter of which `fork` makes processes that run programs.

  Args:
    kind: 'trainer', which has TensorFlow, or 'checker', which has only Gymnasium and environments.
  """

  def __init__(self, kind='trainer'):
    self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
      self._process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), str(theirs.fileno()), kind],
        stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True, cwd=_ROOT,
      )  # fmt: skip
    pids.add(self._process.pid)

  def fork(self, argv, outputs, cwd, env, inside=None):
    """Starts a program; returns its process id, a child of this process.

    Args:
      argv: the program, a path below the root, and its arguments.
      outputs: file descriptors for standard output and for standard error.
      cwd: working directory.
      env: all its environment variables.
      inside: id of a process whose network and mounts the program has; None for those of here.
    """
    request = json.dumps([argv, os.fspath(cwd), env, inside]).encode()
    fds = array.array('i', outputs)
    # A child of a child that has ended becomes that of the nearest subreaper above.
    _be_subreaper(True)
    try:
      self._socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
      answer = self._socket.recv(100)
    finally:
      _be_subreaper(False)
    if not answer:
      raise RuntimeError('the interpreter has ended')
    return int(answer)


def can_run(argv, env):
  """Whether a command line with the environment variables it is given may begin as a fork."""
  programs = {'experiment.py', 'tests/altered_experiment.py'}
  return argv[0] in programs and not any(map(_is_read_at_import, env))


def _is_read_at_import(name):
  return name.startswith(_READ_AT_IMPORT)


def _be_subreaper(be):
  if _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(be), 0, 0, 0):
    raise OSError(ctypes.get_errno(), 'prctl')


def _import(kind):
  """Imports what programs of this kind need."""
  sys.path[0] = _ROOT
  if kind == 'trainer':
    from runtime import process

    process.import_tensorflow()
    import matplotlib.figure  # noqa: F401 (with it, the picture at the end of a run costs half)
  else:
    import environments  # noqa: F401

    assert 'tensorflow' not in sys.modules  # Else nobody would notice a check that imports it.


def _serve(requests):
  """Forks a process for each request, until the other end is closed."""
  while True:
    data, ancillary, _, _ = requests.recvmsg(1 << 20, socket.CMSG_SPACE(2 * _FD_BYTES))
    if not data:
      return
    outputs = array.array('i', ancillary[0][2])
    read_end, write_end = os.pipe()
    between = os.fork()
    if not between:
      if os.fork():
        os._exit(0)
      os.setsid()
      os.write(write_end, str(os.getpid()).encode())
      for unused in (requests.detach(), read_end, write_end):
        os.close(unused)
      _become(*json.loads(data), outputs)
    for unused in (*outputs, write_end):
      os.close(unused)
    os.waitpid(between, 0)
    requests.send(os.read(read_end, 100))
    os.close(read_end)


def _enter(pid):
  """Enters the network and mounts of a process, as nsenter does."""
  kinds = [os.open(f'/proc/{pid}/ns/{kind}', os.O_RDONLY) for kind in ('net', 'mnt')]
  for kind in kinds:
    if _libc.setns(kind, 0):
      raise OSError(ctypes.get_errno(), 'setns')
    os.close(kind)


def _become(argv, cwd, env, inside, outputs):
  """Runs the program in this process, to its end."""
  for number, output in enumerate(outputs, 1):
    os.dup2(output, number)
    os.close(output)
  if inside is not None:
    _enter(inside)
  os.chdir(cwd)
  os.environ.clear()
  os.environ.update(env)
  paths = [os.path.join(cwd, path) for path in env.get('PYTHONPATH', '').split(':') if path]
  program = os.path.join(_ROOT, argv[0])
  sys.argv[:] = argv
  sys.path[:1] = [os.path.dirname(program), *paths]
  runpy.run_path(program, run_name='__main__')
  sys.exit()


if __name__ == '__main__':
  warnings.simplefilter('ignore', DeprecationWarning)  # Of forks in a process with threads.
  _import(sys.argv[2])
  with socket.socket(fileno=int(sys.argv[1])) as _requests:
    _serve(_requests)
