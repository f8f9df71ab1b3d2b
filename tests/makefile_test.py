"""The Makefile's say about Pythons; nothing is installed."""

import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

# What `make test` gives to the tests.
_OF_MAKE = ('ARGS', 'PYTHON', 'MAKEFLAGS', 'MFLAGS', 'MAKELEVEL', 'MAKEOVERRIDES')


@pytest.fixture
def folder(tmp_path):
  """A folder with the Makefile and a .venv that has all it needs."""
  shutil.copy(os.path.join(ROOT, 'Makefile'), tmp_path)
  base = os.path.join(sys.base_prefix, 'bin', 'python3')
  subprocess.run([base, '-m', 'venv', '--without-pip', '.venv'], cwd=tmp_path, check=True)
  (tmp_path / 'requirements.txt').touch()
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
