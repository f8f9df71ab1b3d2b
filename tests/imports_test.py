"""What the top-level modules import, who reads flags, and what starts without TensorFlow.

import-linter holds the layers of packages (pyproject.toml, `make lint`). TensorFlow costs seconds
and hundreds of megabytes, so the modules that must be quick or small are imported here to see that
they do not load it.
"""

import ast
import os
import subprocess
import sys

import pytest

from conftest import ROOT

# What each top-level module and each package below it may import of this project.
MAY_IMPORT = {
  'structs.py': set(),
  'vtrace.py': set(),
  'dynamic_batching.py': set(),
  'config.py': {'structs', 'common'},
  'py_process.py': {'acting', 'common'},
  'environments.py': {'envs', 'common', 'structs'},
  'nets.py': {'learning', 'structs', 'common'},
  'common/': {'common'},
  'acting/': {'acting', 'common', 'structs'},
  'envs/': {'envs', 'acting', 'common', 'structs'},
  'learning/': {'learning', 'acting', 'config', 'vtrace', 'structs', 'common'},
  'reporting/': {'reporting', 'runtime', 'common', 'config', 'structs'},
  'runtime/': {'runtime', 'common'},
  'frontend/': {'frontend', 'common'},
  'plot_runs.py': {'reporting', 'runtime', 'common', 'config'},
  'run_experiment_mm_raw.py': {'frontend', 'common'},
}
READS_FLAGS = {'experiment.py', 'run_experiment_mm_raw.py'}
# Modules and packages that may need TensorFlow when they are imported, except those below.
MAY_LOAD_TENSORFLOW = (
  'vtrace.py', 'nets.py', 'dynamic_batching.py', 'acting/', 'evaluation/', 'learning/', 'roles/',
  'runtime/',
)  # fmt: skip
STARTS_WITHOUT_TENSORFLOW = {
  'acting/worker_messages.py',
  'acting/worker_process.py',
  'acting/worker_program.py',
  'evaluation/card.py',
  'evaluation/low_priority.py',
  'evaluation/periodic.py',
  'evaluation/picture.py',
  'evaluation/protocols.py',
  'evaluation/records.py',
  'roles/modes.py',
  'roles/presets.py',
  'roles/resuming.py',
  'roles/settings.py',
  'roles/sizes.py',
  'runtime/checkpoint_folder.py',
  'runtime/checkpoints.py',
  'runtime/cluster.py',
  'runtime/cluster_file.py',
  'runtime/cluster_sources.py',
  'runtime/heartbeat.py',
  'runtime/kept_checkpoints.py',
  'runtime/listening.py',
  'runtime/locks.py',
  'runtime/paths.py',
  'runtime/peers.py',
  'runtime/process.py',
  'runtime/processors.py',
  'runtime/slurm.py',
  'runtime/unresponsive.py',
  'runtime/waiting.py',
}
TENSORFLOW = {'tensorflow', 'sonnet', 'keras'}
NO_PRODUCT = {'tests', 'benchmarks', 'examples'}


def product_files(root=ROOT):
  """Paths below the root of all Python files but those of NO_PRODUCT, runs and exports.

  What a program writes, such as the play_exported.py of an export, git ignores too.
  """
  with open(os.path.join(ROOT, '.gitignore'), encoding='utf-8') as file:
    written = {line.strip().strip('/') for line in file if line.strip().endswith('/')}
  paths = []
  for folder, names, files in os.walk(root):
    if {'run.json', 'saved_model.pb'} & set(files):  # A run or an export, wherever it was put.
      names[:] = []
      continue
    if folder == root:
      names[:] = [name for name in names if name not in NO_PRODUCT | written]
    names[:] = [
      name
      for name in names
      if name[0] not in '._' and not os.path.exists(os.path.join(folder, name, 'pyvenv.cfg'))
    ]
    paths += [os.path.relpath(os.path.join(folder, f), root) for f in files if f.endswith('.py')]
  return sorted(paths)


PRODUCT = product_files()


def test_what_programs_write_is_no_product(tmp_path):
  for name in ('runs/a/export/play_exported.py', 'wheels/x.py', 'export/play_exported.py',
               'mine/run.json', 'mine/export/play.py', 'elsewhere/saved_model.pb',
               'elsewhere/play_exported.py', 'results/x.py', 'envs/new.py', 'new.py'):  # fmt: skip
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  assert product_files(str(tmp_path)) == ['envs/new.py', 'new.py']


BENCHMARKS = sorted(
  os.path.join('benchmarks', name)
  for name in os.listdir(os.path.join(ROOT, 'benchmarks'))
  if name.endswith('.py')
)


def is_frontend(path):
  return path == 'run_experiment_mm_raw.py' or path.startswith('frontend/')


def is_package(path):
  return os.path.basename(path) == '__init__.py'


MODULES = [path for path in PRODUCT if not is_package(path)]


def parsed(path):
  with open(os.path.join(ROOT, path), encoding='utf-8') as file:
    return ast.parse(file.read(), path)


def imported_names(path):
  """Dotted names of all that a file imports, at its top or inside of functions."""
  package = path.split(os.sep)[:-1]
  names = set()
  for node in ast.walk(parsed(path)):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = package[: len(package) + 1 - node.level] if node.level else []
      base = '.'.join(base + ([node.module] if node.module else []))
      names |= {f'{base}.{alias.name}' for alias in node.names}
  return names


def file_of(name):
  """The product's file that holds a dotted name, None where it is not ours."""
  parts = name.split('.')
  for end in range(len(parts), 0, -1):
    path = '/'.join(parts[:end])
    for candidate in (f'{path}.py', f'{path}/__init__.py'):
      if candidate in PRODUCT:
        return candidate
  return None


def imported_files(path):
  """The product's files that a file imports, itself left out."""
  return {file_of(name) for name in imported_names(path)} - {None, path}


def imported_packages(path):
  """First names of all that a file imports."""
  return {name.split('.')[0] for name in imported_names(path)}


@pytest.mark.parametrize('path', list(filter(is_package, PRODUCT)), ids=os.path.dirname)
def test_a_package_opens_with_its_docstring_and_nothing_else(path):
  (docstring,) = parsed(path).body
  assert isinstance(docstring, ast.Expr) and isinstance(docstring.value.value, str)


@pytest.mark.parametrize('path', [path for path in MODULES if path.startswith(tuple(MAY_IMPORT))])
def test_imports_only_go_down(path):
  (allowed,) = (allowed for start, allowed in MAY_IMPORT.items() if path.startswith(start))
  imported = {other.split('/')[0].removesuffix('.py') for other in imported_files(path)}
  assert imported <= allowed


def test_only_the_trainer_above_has_no_limits_here():
  """import-linter holds evaluation and roles; nobody imports experiment.py."""
  free = {path for path in PRODUCT if not path.startswith(tuple(MAY_IMPORT))}
  assert {path.split('/')[0] for path in free} == {'evaluation', 'roles', 'experiment.py'}


def test_no_module_imports_itself_over_others():
  finished = set()

  def visit(path, way=()):
    assert path not in way, f'a cycle: {" -> ".join([*way, path])}'
    if path not in finished:
      for other in imported_files(path):
        visit(other, (*way, path))
      finished.add(path)

  for path in PRODUCT:
    visit(path)


@pytest.mark.parametrize('path', [path for path in PRODUCT if is_frontend(path)])
def test_the_frontend_never_imports_tensorflow(path):
  assert not imported_packages(path) & TENSORFLOW


IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
  importlib.import_module(name)
  if {'tensorflow', 'sonnet', 'keras'} & set(sys.modules):
    sys.exit(f'{name} loads TensorFlow')
"""


def starts_without_tensorflow(path):
  return path in STARTS_WITHOUT_TENSORFLOW or not path.startswith(MAY_LOAD_TENSORFLOW)


def test_what_has_to_be_quick_starts_without_tensorflow():
  assert STARTS_WITHOUT_TENSORFLOW <= set(MODULES)
  paths = [path for path in PRODUCT if is_package(path) or starts_without_tensorflow(path)]
  names = [p.removesuffix('.py').replace('/', '.').removesuffix('.__init__') for p in paths]
  result = subprocess.run(
    [sys.executable, '-c', IMPORT_ALL, *names],
    cwd=ROOT, capture_output=True, text=True, timeout=120)  # fmt: skip
  assert result.returncode == 0, result.stderr


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
  assert bool(reads) == (path in READS_FLAGS), f'lines {reads}'


# Benchmarks measure the product and not a copy of it.


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
  siblings = [
    other
    for other in BENCHMARKS
    if os.path.basename(other).removesuffix('.py') in imported_packages(path)
  ]
  return bool(imported_files(path) or programs) or any(map(calls_the_product, siblings))


@pytest.mark.parametrize('path', BENCHMARKS)
def test_benchmarks_call_the_product(path):
  assert calls_the_product(path)
