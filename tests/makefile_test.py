"""What the Makefile says about Pythons, and which versions it installs."""

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT
from tiny_package import make_wheel

# What `make test` gives to the tests.
_OF_MAKE = ('ARGS', 'PYTHON', 'MAKEFLAGS', 'MFLAGS', 'MAKELEVEL', 'MAKEOVERRIDES')


@pytest.fixture
def folder(tmp_path):
  """A folder with the Makefile and a .venv that has all it needs."""
  shutil.copy(os.path.join(ROOT, 'Makefile'), tmp_path)
  base = os.path.join(sys.base_prefix, 'bin', 'python3')
  subprocess.run([base, '-m', 'venv', '--without-pip', '.venv'], cwd=tmp_path, check=True)
  for name in ('requirements.txt', 'requirements.lock'):
    (tmp_path / name).touch()
  (tmp_path / '.venv' / '.requirements').touch()
  (tmp_path / 'experiment.py').write_text('print("trains")\n')
  return tmp_path


def make_train(folder, *arguments, **environment):
  """(exit code, standard output, standard error) of `make train`."""
  env = {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
  done = subprocess.run(
    ['make', 'train', *arguments],
    cwd=folder, env={**env, **environment}, capture_output=True, text=True, timeout=60,
  )  # fmt: skip
  return done.returncode, done.stdout, done.stderr


def test_the_python_of_the_venv_or_none_named_trains(folder):
  base = os.path.join(sys.base_prefix, 'bin', 'python3')
  for arguments in ([], [f'PYTHON={base}'], ['PYTHON=.venv/bin/python']):
    assert make_train(folder, *arguments) == (0, 'trains\n', '')


def test_another_python_than_that_of_the_venv_is_said(folder):
  other = folder / 'python3.12'
  other.write_text('#!/bin/sh\necho Python 3.12.1 in /opt/python\n')
  other.chmod(0o755)
  code, out, err = make_train(folder, f'PYTHON={other}')
  assert (code, out) == (2, '') and 'make clean' in err
  assert '.venv was made by Python ' in err and f'PYTHON={other} is Python 3.12.1' in err
  code, out, err = make_train(folder, PYTHON=str(other))  # Of the environment.
  assert (code, out) == (2, '') and f'PYTHON={other} is Python 3.12.1' in err


@pytest.mark.parametrize('python, told', [
    ('/no/such/python', '/no/such/python was not found: name another Python'),
    ('python9.99', 'python9.99 was not found: name another Python'),
    ('/bin/false', '/bin/false or .venv/bin/python cannot be run as a Python'),
])  # fmt: skip
def test_a_python_that_is_none_is_said(folder, python, told):
  code, out, err = make_train(folder, f'PYTHON={python}')
  assert (code, out) == (2, '') and told in err


@pytest.mark.parametrize(
  'arguments, flags',
  [
    ([], ['--flagfile=flagfiles/pong.flags']),
    (['ARGS=--seed=2 --num_actors=1'],
     ['--flagfile=flagfiles/pong.flags', '--seed=2', '--num_actors=1']),
    (['ARGS=--flagfile=flagfiles/catch.flags'], ['--flagfile=flagfiles/catch.flags']),
  ],
)  # fmt: skip
def test_args_are_added_to_the_preset_of_pong_or_name_another(folder, arguments, flags):
  (folder / 'experiment.py').write_text('import sys\nprint(*sys.argv[1:])\n')
  assert make_train(folder, *arguments) == (0, ' '.join(flags) + '\n', '')


def test_make_installs_the_versions_of_the_lock_unless_the_list_has_changed(folder):
  digests = {version: make_wheel(folder / 'wheels', version) for version in (1, 2)}
  subprocess.run([folder / '.venv/bin/python', '-m', 'ensurepip'], check=True, capture_output=True)
  (folder / 'requirements.txt').write_text('tiny\n')
  made_of = hashlib.sha256(b'tiny\n').hexdigest()
  lock = f'# Made of {made_of}\ntiny==1 --hash=sha256:{digests[1]}\n'
  (folder / 'requirements.lock').write_text(lock)
  (folder / '.venv' / '.requirements').unlink()
  (folder / 'experiment.py').write_text('import tiny\nprint("tiny", tiny.x)\n')
  index = {'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': str(folder / 'wheels')}
  code, out, err = make_train(folder, **index)
  assert (code, out.splitlines()[-1], err) == (0, 'tiny 1', '')

  (folder / 'requirements.txt').write_text('tiny>=2\n')
  code, out, err = make_train(folder, **index)
  assert (code, out.splitlines()[-1]) == (0, 'tiny 2')
  assert 'requirements.txt has changed since requirements.lock was made' in err

  (folder / 'requirements.txt').write_text('tiny\n')
  (folder / 'requirements.lock').write_text(lock.replace(digests[1], digests[2]))
  code, out, err = make_train(folder, **index)
  assert (code, out.count('tiny')) == (2, 0) and 'pip could not install requirements.lock' in err


@pytest.mark.parametrize('name', ['requirements', 'requirements-dev'])
def test_the_locks_are_those_of_their_lists(name):
  with open(os.path.join(ROOT, f'{name}.txt'), 'rb') as file:
    digest = hashlib.sha256(file.read()).hexdigest()
  with open(os.path.join(ROOT, f'{name}.lock'), encoding='utf-8') as file:
    assert digest in file.readline()
