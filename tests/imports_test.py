"""Imports only go down: who may know whom, as data, held against the real files.

TensorFlow costs seconds and hundreds of megabytes, so what has to be quick or small is checked to
do without it; and the flags are read in two places only.
"""

import ast
import os
import subprocess
import sys

import pytest

from conftest import ROOT

TRAINER = {
  'vtrace',
  'nets',
  'py_process',
  'dynamic_batching',
  'reporting',
  'environments',
  'actor',
  'learner',
  'runtime',
  'evaluation',
}

# Module -> the project's other modules that it may import, anywhere in its code.
ALLOWED = {
  # Level 0.
  'vtrace': set(),
  'observation_scaling': set(),
  'nets': {'observation_scaling'},
  'worker_process': set(),
  'dynamic_batching': set(),
  'reporting': set(),
  'frontend': set(),
  # Level 1.
  'py_process': {'worker_process'},
  'envs': {'worker_process'},
  'actor': {'dynamic_batching'},
  'learner': {'vtrace'},
  'runtime': set(),
  # Level 2.
  'environments': {'envs'},
  # Level 3.
  'evaluation': {'nets', 'environments', 'actor', 'reporting', 'runtime'},
  'roles': TRAINER - {'vtrace', 'py_process', 'evaluation'},
  # Level 4.
  'experiment': TRAINER | {'roles'},
  'run_experiment_mm_raw': {'frontend'},
}
READS_FLAGS = {'experiment', 'run_experiment_mm_raw'}
FRONTEND = {'run_experiment_mm_raw', 'frontend'}
IMPORTED_WITHOUT_TENSORFLOW = FRONTEND | {
  'experiment',
  'environments',
  'envs',
  'py_process',
  'worker_process',
  'reporting',
  'runtime/process',
  'runtime/cluster',
  'runtime/peers',
  'runtime/checkpoints',
  'runtime/heartbeat',
  'roles/settings',
}
TENSORFLOW = {'tensorflow', 'sonnet', 'keras'}


def python_files(*folders):
  """Paths below the root of the Python files that lie directly in these folders."""
  return [
    os.path.join(folder, name)
    for folder in folders
    if os.path.isdir(os.path.join(ROOT, folder))
    for name in sorted(os.listdir(os.path.join(ROOT, folder)))
    if name.endswith('.py')
  ]


PRODUCT = python_files('', 'frontend', 'reporting', 'evaluation', 'runtime', 'roles', 'envs')
BENCHMARKS = python_files('benchmarks')


def parsed(path):
  with open(os.path.join(ROOT, path), encoding='utf-8') as file:
    return ast.parse(file.read(), path)


def room(path):
  """'frontend/tmux.py' -> 'frontend', 'nets.py' -> 'nets'."""
  return path.split(os.sep)[0].removesuffix('.py')


def imported(path):
  """First names of all that a file imports, at its top or inside of functions."""
  names = set()
  for node in ast.walk(parsed(path)):
    if isinstance(node, ast.Import):
      names |= {alias.name.split('.')[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names.add(room(path) if node.level else node.module.split('.')[0])
  return names


def test_every_room_of_the_table_exists_and_every_module_has_one():
  assert {room(path) for path in PRODUCT} == set(ALLOWED)


@pytest.mark.parametrize('path', PRODUCT)
def test_imports_only_go_down(path):
  own = {room(path)}
  assert imported(path) & set(ALLOWED) - own <= ALLOWED[room(path)]


def test_the_table_has_no_cycle():
  def reached(name, path=()):
    assert name not in path
    for other in ALLOWED[name]:
      reached(other, (*path, name))

  for name in ALLOWED:
    reached(name)


@pytest.mark.parametrize('path', [path for path in PRODUCT if room(path) in FRONTEND])
def test_the_frontend_never_imports_tensorflow(path):
  assert not imported(path) & TENSORFLOW


@pytest.mark.parametrize('path', [path for path in PRODUCT if room(path) == 'reporting'])
def test_reporting_never_imports_tensorflow(path):
  assert not imported(path) & TENSORFLOW


@pytest.mark.parametrize(
  'path',
  [
    path for path in PRODUCT if {room(path), path.removesuffix('.py')} & IMPORTED_WITHOUT_TENSORFLOW
  ],
)
def test_importing_it_does_not_import_tensorflow(path):
  module = path.removesuffix('.py').replace(os.sep, '.').removesuffix('.__init__')
  program = f'import sys, {module}; print(*sorted(set({sorted(TENSORFLOW)}) & set(sys.modules)))'
  result = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=120
  )
  assert (result.returncode, result.stdout.split()) == (0, []), result.stderr


@pytest.mark.parametrize('path', PRODUCT)
def test_only_the_two_command_lines_read_flags(path):
  reads = [
    node.lineno
    for node in ast.walk(parsed(path))
    if isinstance(node, ast.Name)
    and node.id == 'FLAGS'
    or isinstance(node, ast.Attribute)
    and node.attr == 'FLAGS'
    or isinstance(node, ast.ImportFrom)
    and node.module == 'absl'
    and 'flags' in {alias.name for alias in node.names}
    or isinstance(node, ast.Import)
    and 'absl.flags' in {alias.name for alias in node.names}
  ]
  assert bool(reads) == (room(path) in READS_FLAGS), f'lines {reads}'


def test_there_are_benchmarks():
  assert os.path.join('benchmarks', 'throughput.py') in BENCHMARKS


def calls_the_product(path):
  """Whether a benchmark imports or runs the product, itself or through a benchmark it imports."""
  programs = {
    node.value
    for node in ast.walk(parsed(path))
    if isinstance(node, ast.Constant)
    and isinstance(node.value, str)
    and node.value.endswith(('experiment.py', 'run_experiment_mm_raw.py'))
  }
  siblings = [other for other in BENCHMARKS if room(os.path.basename(other)) in imported(path)]
  return bool(imported(path) & set(ALLOWED) or programs) or any(map(calls_the_product, siblings))


@pytest.mark.parametrize('path', BENCHMARKS)
def test_benchmarks_call_the_product(path):
  assert calls_the_product(path)
