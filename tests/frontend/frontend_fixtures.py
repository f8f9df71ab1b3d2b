"""Shared by the tests of the frontend: copies of the code, running it, a private tmux.

Everything that is started here is ended by process id when its fixture closes.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

import conftest
from network_fixtures import is_alive, tool

ROOT = conftest.ROOT


def copy_code(folder, experiment=None):
  """Copies the frontend into a new folder, with the text `experiment` as its experiment.py."""
  os.makedirs(folder)
  shutil.copy(os.path.join(ROOT, 'run_experiment_mm_raw.py'), folder)
  for package in ('common', 'frontend'):
    shutil.copytree(
      os.path.join(ROOT, package),
      os.path.join(folder, package),
      ignore=shutil.ignore_patterns('__pycache__'),
    )
  if experiment is not None:
    with open(os.path.join(folder, 'experiment.py'), 'w', encoding='utf-8') as file:
      file.write(experiment)
  return str(folder)


def tracked_copy(folder):
  """A checkout of its own with the files that git tracks here, as they are in the working tree."""
  names = subprocess.run(
    ['git', '-C', ROOT, 'ls-files', '-z'], check=True, capture_output=True, text=True
  ).stdout
  for name in filter(None, names.split('\0')):
    if os.path.isfile(os.path.join(ROOT, name)):
      os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
      shutil.copy2(os.path.join(ROOT, name), os.path.join(folder, name))
  subprocess.run(['git', 'init', '-q', folder], check=True)
  subprocess.run(['git', '-C', folder, 'add', '-A'], check=True)
  return str(folder)


def frontend(words, code=ROOT, prefix=(), timeout=240, cwd=None, **environment):
  """Runs the frontend to its end, in the code's folder or `cwd`; a CompletedProcess with text."""
  return subprocess.run(
    [*prefix, sys.executable, os.path.join(code, 'run_experiment_mm_raw.py'), *words],
    capture_output=True,
    text=True,
    timeout=timeout,
    stdin=subprocess.DEVNULL,
    cwd=cwd or code,
    env=dict(os.environ, **environment),
    check=False,
  )


def with_argument(text):
  """Ids of the processes that have `text` in their command line, except this one."""
  found = []
  for name in filter(str.isdigit, os.listdir('/proc')):
    with contextlib.suppress(OSError), open(f'/proc/{name}/cmdline', 'rb') as file:
      if text.encode() in file.read() and int(name) != os.getpid() and is_alive(name):
        found.append(int(name))
  return found


class Tmux:
  """A tmux server on a private socket, without the user's configuration."""

  def __init__(self, path):
    self.path = str(path)
    self._program = tool('tmux')

  def __call__(self, *words, check=True):
    """Runs a tmux command; returns its output."""
    environment = {key: value for key, value in os.environ.items() if key != 'TMUX'}
    return subprocess.run(
      [self._program, '-S', self.path, *words],
      capture_output=True,
      text=True,
      check=check,
      env=environment,
    ).stdout

  def sessions(self):
    """Names of the sessions."""
    return self('list-sessions', '-F', '#{session_name}', check=False).split()

  def close(self):
    """Ends the server, by its process id if it does not answer."""
    pid = self('display-message', '-p', '#{pid}', check=False).strip()
    self('kill-server', check=False)
    if pid:
      conftest.eventually(lambda: not is_alive(int(pid)), 20)


@pytest.fixture
def own_tmux(tmp_path):
  """A `Tmux` that ends with the test."""
  # The path of a socket must be short.
  folder = tempfile.mkdtemp(prefix='tmux')
  server = Tmux(os.path.join(folder, 's'))
  yield server
  server.close()
  shutil.rmtree(folder)
