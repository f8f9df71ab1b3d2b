"""The checkout on this machine: its files, the package versions it pins, and its experiment.py.

`code` is the checkout's folder throughout.
"""

import glob
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from frontend.errors import UserError

LOCK = 'requirements.lock'
REQUIREMENTS = 'requirements.txt'
# They build and install packages; no task imports them.
_TOOLS = ('pip', 'setuptools', 'wheel')


# ---- Files. --------------------------------------------------------------------------------------


def git_files(code: str, *arguments: str) -> list[str] | None:
  """Returns the existing files that `git ls-files` lists, by default all tracked ones.

  None if this is no git checkout, or git is not installed.
  """
  try:
    result = subprocess.run(
      ['git', '-C', code, 'ls-files', '-z', *arguments],
      capture_output=True,
      text=True,
      check=False,
    )
  except FileNotFoundError:
    return None
  if result.returncode:
    return None
  names = [name for name in result.stdout.split('\0') if name]
  return [name for name in names if os.path.isfile(os.path.join(code, name))]


def tracked_files(code: str) -> list[str]:
  """Returns the files that `push` copies.

  Raises:
    UserError: git tracks no files in `code`.
  """
  names = git_files(code)
  if not names:
    raise UserError(
      f'--action=push copies the files that git tracks, and {code} is no git checkout '
      'with committed files'
    )
  return names


def untracked_files(code: str) -> list[str]:
  """Returns the files that `push` leaves behind: git neither tracks nor ignores them."""
  return git_files(code, '--others', '--exclude-standard') or []


def source_files(code: str) -> list[str]:
  """Returns the Python files of the project and its packages, which `check` compares by hash."""
  names = git_files(code, '--', '*.py')
  if names is None:
    depths = ('*.py', '*/*.py', '*/*/*.py')
    names = [name for depth in depths for name in glob.glob(depth, root_dir=code)]
  packages = {os.path.dirname(name) for name in names if os.path.basename(name) == '__init__.py'}
  return sorted(name for name in names if os.path.dirname(name) in packages | {''})


# ---- Pinned packages. ----------------------------------------------------------------------------


def requirements_file(code: str) -> tuple[str, str]:
  """Returns which file pip is given: the lock, unless requirements.txt has changed since.

  Returns:
    (name, a sentence that says why it is not the lock, or '').
  """
  try:
    with open(os.path.join(code, LOCK), encoding='utf-8') as file:
      first = file.readline()
    with open(os.path.join(code, REQUIREMENTS), 'rb') as file:
      digest = hashlib.sha256(file.read()).hexdigest()
  except OSError:
    return REQUIREMENTS, ''
  if first.split()[-1:] == [digest]:
    return LOCK, ''
  return REQUIREMENTS, (
    f'{REQUIREMENTS} has changed since {LOCK} was made of it, so versions are not pinned, and '
    'hashes are not compared; .ci/lock makes it anew'
  )


def pinned_versions(code: str) -> dict[str, set[str]]:
  """Returns {normalised package name: versions in the lock}; {} without a lock.

  A package has several versions if not every Python gets the same.
  """
  found = {}
  try:
    with open(os.path.join(code, LOCK), encoding='utf-8') as file:
      for line in file:
        match = re.match(r'([A-Za-z0-9._-]+)==([^\s;]+)', line)
        if match and normalised(match[1]) not in _TOOLS:
          found.setdefault(normalised(match[1]), set()).add(match[2])
  except OSError:
    return {}
  return found


def normalised(package: str) -> str:
  """Returns a package's name in the form in which package indexes compare names."""
  return re.sub(r'[-_.]+', '-', package).lower()


def other_versions(
  installed: Mapping[str, str | None], pinned: Mapping[str, set[str]]
) -> list[str]:
  """Returns what is installed in another version than the lock's.

  Args:
    installed: {package: version, or None if it is not installed}.
    pinned: see `pinned_versions`.

  Returns:
    List of 'numpy 2.2.6 (2.4.6 or 2.5.5)', sorted.
  """
  return [
    f'{package} {version} ({" or ".join(sorted(pinned[package]))})'
    for package, version in sorted(installed.items())
    if version and package in pinned and version not in pinned[package]
  ]


# ---- experiment.py. ------------------------------------------------------------------------------


class Finished(NamedTuple):
  """A run of experiment.py that has ended.

  Attributes:
    exit_code: of the process.
    output: all of its standard output.
    last_error: last line of its standard error, or ''.
  """

  exit_code: int
  output: str
  last_error: str


def run_experiment(code: str, arguments: list[str]) -> Finished:
  """Runs experiment.py to its end, for questions such as --only_check_args."""
  result = subprocess.run(
    [sys.executable, 'experiment.py', *arguments],
    cwd=code,
    capture_output=True,
    text=True,
    stdin=subprocess.DEVNULL,
    check=False,
  )
  lines = result.stderr.strip().splitlines()
  return Finished(result.returncode, result.stdout, lines[-1] if lines else '')


# Imports the trainer once for many command lines, which costs seconds; each is then a fork, so that
# none sees what another has set. The first one is done before, so that the forks inherit what it
# has imported. Standard input is a list of lists of words, standard output a line of JSON for each.
_CHECK_MANY = """
import contextlib, io, json, os, sys
sys.path.insert(0, os.getcwd())
import experiment

def check(words):
  said = io.StringIO()
  with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
    code = experiment.main(['experiment.py', '--only_check_args', *words])
  lines = said.getvalue().strip().splitlines()
  return code, lines[-1][:1000] if lines else ""

replies = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)
for number, words in enumerate(json.load(sys.stdin)):
  if number == 0:
    answer = check(words)
  else:
    read, write = os.pipe()
    if not os.fork():
      os.write(write, json.dumps(check(words)).encode()[:4000])
      os._exit(0)
    os.close(write)
    with os.fdopen(read, 'rb') as pipe:
      answer = json.loads(pipe.read() or b'[1, "the check was killed"]')
    os.wait()
  replies.write(json.dumps(answer) + chr(10))
  replies.flush()
"""


def check_flags(code: str, argument_lists: Sequence[Sequence[str]]) -> list[Finished]:
  """Runs experiment.py --only_check_args with each list of arguments, in one process.

  Returns:
    What became of each; a shorter list, ending with a failure, if the process could not go on.
  """
  result = subprocess.run(
    [sys.executable, '-c', _CHECK_MANY],
    cwd=code,
    capture_output=True,
    text=True,
    input=json.dumps([list(words) for words in argument_lists]),
    check=False,
  )
  finished = [
    Finished(exit_code, '', text) for exit_code, text in map(json.loads, result.stdout.splitlines())
  ]
  if len(finished) < len(argument_lists):
    lines = result.stderr.strip().splitlines()
    finished.append(Finished(result.returncode or 1, '', lines[-1] if lines else ''))
  return finished
