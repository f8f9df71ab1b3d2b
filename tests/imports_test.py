"""Imports only go down: the table of rooms in docs/design.md, held against the real files.

Who may know whom, and who does without TensorFlow, stands in that table alone. TensorFlow costs
seconds and hundreds of megabytes, so what has to be quick or small is checked to do without it; and
the flags are read in two places only.
"""

import ast
import collections
import os
import re
import subprocess
import sys

import pytest

from conftest import ROOT

DESIGN = os.path.join('docs', 'design.md')
COLUMNS = ['room or module', 'promise', 'keeps out', 'may import']
READS_FLAGS = {'experiment.py', 'run_experiment_mm_raw.py'}
# Whatever else the table says: these must be able to start without TensorFlow.
STARTS_WITHOUT_TENSORFLOW = {
  'experiment.py',
  'environments.py',
  'py_process.py',
  'roles/settings.py',
  'runtime/process.py',
  'runtime/cluster.py',
  'runtime/peers.py',
  'runtime/checkpoints.py',
  'runtime/heartbeat.py',
}
TENSORFLOW = {'tensorflow', 'sonnet', 'keras'}
NO_PRODUCT = {'tests', 'benchmarks'}

Row = collections.namedtuple('Row', 'room never_tensorflow starts_without_tensorflow may_import')
Row.__doc__ = """A row of the table.

Attributes:
  room: path of a module, or 'folder/*' for the modules of a folder that has one row.
  never_tensorflow: bool, no import of TensorFlow anywhere in it.
  starts_without_tensorflow: bool, importing it does not import TensorFlow.
  may_import: tuple of rooms; 'folder/*' stands for all rows of the folder.
"""


# The table.


def parse_row(line):
  """A line of the table as a `Row`; ValueError with a sentence where it is none."""
  cells = [cell.strip() for cell in line.strip().strip('|').split('|')]
  if len(cells) != len(COLUMNS):
    raise ValueError(f'{len(cells)} cells where the table has {len(COLUMNS)}: {line}')
  room, promise, keeps_out, may_import = cells
  named = re.fullmatch(r'`((?:\w+/)*(?:\w+\.py|\*))`', room)
  if not named or named[1] == '*':
    raise ValueError(f'the first cell is no `module.py`, `folder/module.py` or `folder/*`: {line}')
  if not promise:
    raise ValueError(f'the second cell, what {named[1]} promises, is empty')
  marks = set(re.findall(r'\*\*(.*?)\*\*', keeps_out))
  if marks - {'TensorFlow', 'TensorFlow at start-up'}:
    raise ValueError(
      f'{named[1]} keeps out, in bold, {marks}; the test knows **TensorFlow** and '
      '**TensorFlow at start-up**'
    )
  if may_import != 'nothing' and not re.fullmatch(r'`[\w/.*]+`(, `[\w/.*]+`)*', may_import):
    raise ValueError(f'{named[1]} may import {may_import!r}: not `a.py`, `b/*` or the word nothing')
  return Row(named[1], 'TensorFlow' in marks, bool(marks), tuple(re.findall('`(.*?)`', may_import)))


def parse_table(text):
  """The rows of the table in a text of markdown, and a sentence for each line that is none."""
  lines = [line.strip() for line in text.splitlines()]
  header = f'| {" | ".join(COLUMNS)} |'
  if header not in lines:
    return [], [f'no line is the header of the table of rooms: {header}']
  rows, problems = [], []
  for line in lines[lines.index(header) + 2 :]:
    if not line.startswith('|'):
      break
    try:
      rows.append(parse_row(line))
    except ValueError as error:
      problems.append(str(error))
  return rows, problems + order_problems(rows)


def order_problems(rows):
  """Sentences about rows that come twice, or may import what does not stand above them."""
  problems, above = [], []
  for row in rows:
    if row.room in above:
      problems.append(f'{row.room} has two rows')
    later = [other.room for other in rows if other.room not in above]
    for entry in row.may_import:
      if not any(matches(entry, room) for room in [*above, *later]):
        problems.append(f'{row.room} may import {entry}, which has no row')
      elif any(matches(entry, room) for room in later):
        problems.append(f'{row.room} may import {entry}, which does not stand above it')
    above.append(row.room)
  return problems


def matches(entry, path):
  """Whether an entry of the table, 'a/b.py' or 'a/*', means a path or the row of a room."""
  return entry == path or (entry.endswith('/*') and path.startswith(entry[:-1]))


def read_design():
  with open(os.path.join(ROOT, DESIGN), encoding='utf-8') as file:
    return file.read()


ROWS, PROBLEMS = parse_table(read_design())


def row_of(path):
  """The row of a module; where there is none, one that allows nothing (a test says so)."""
  by_room = {row.room: row for row in ROWS}
  nothing = Row(path, False, False, ())
  return by_room.get(path) or by_room.get(f'{os.path.dirname(path)}/*', nothing)


# The files.


def product_files(root=ROOT):
  """Paths below the root of all Python files but those of tests, benchmarks, runs and exports.

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


def needs_row(path):
  """Whether a file has to be in the table; the docstring of a package has not."""
  return os.path.basename(path) != '__init__.py'


MODULES = [path for path in PRODUCT if needs_row(path)]


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


# The table is whole.


def test_the_table_of_rooms_can_be_read():
  assert not PROBLEMS, '\n'.join([f'{DESIGN}:', *PROBLEMS])


def test_every_module_has_a_row():
  rooms = {row.room for row in ROWS}
  missing = [path for path in MODULES if not {path, f'{os.path.dirname(path)}/*'} & rooms]
  assert not missing, f'{DESIGN}: its table of rooms has no row for {", ".join(missing)}'


def test_every_row_has_a_module():
  empty = [row.room for row in ROWS if not any(matches(row.room, path) for path in MODULES)]
  assert not empty, f'{DESIGN}: rows without a file: {", ".join(empty)}'


@pytest.mark.parametrize(
  'path', [path for path in PRODUCT if not needs_row(path)], ids=os.path.dirname
)
def test_a_package_opens_with_its_docstring_and_nothing_else(path):
  (docstring,) = parsed(path).body
  assert isinstance(docstring, ast.Expr) and isinstance(docstring.value.value, str)


HEADER = f'| {" | ".join(COLUMNS)} |\n| --- | --- | --- | --- |\n'
LOW = '| `low.py` | a | b | nothing |\n'


@pytest.mark.parametrize(
  'text, problem',
  [
    ('', 'no line is the header'),
    (HEADER + '| `low.py` | a | b |', '3 cells where the table has 4'),
    (HEADER + '| low.py | a | b | nothing |', 'the first cell is no `module.py`'),
    (HEADER + '| `low.py` | | b | nothing |', 'what low.py promises, is empty'),
    (HEADER + '| `low.py` | a | **flags** | nothing |', 'keeps out, in bold'),
    (HEADER + '| `low.py` | a | b | |', "low.py may import ''"),
    (HEADER + '| `low.py` | a | b | all |', "low.py may import 'all'"),
    (HEADER + '| `up.py` | a | b | `low.py` |\n' + LOW, 'low.py, which does not stand above it'),
    (HEADER + '| `up.py` | a | b | `no/*` |\n' + LOW, 'up.py may import no/*, which has no row'),
    (HEADER + LOW + LOW, 'low.py has two rows'),
    (
      HEADER + '| `a/x.py` | a | b | nothing |\n| `up.py` | a | b | `a/*` |\n'
      '| `a/y.py` | a | b | nothing |',
      'up.py may import a/*, which does not stand above it',
    ),
  ],
)
def test_a_broken_table_is_told_by_what_is_wrong(text, problem):
  _, (told,) = parse_table(text)
  assert problem in told


def test_a_good_table_is_read():
  rows, problems = parse_table(
    'x\n' + HEADER + LOW + '| `up/*` | a | b, **TensorFlow** | `low.py` |\n'
    '| `top.py` | a | **TensorFlow at start-up** | `low.py`, `up/*` |\n\n| not | ours |'
  )
  assert problems == []
  assert rows == [
    Row('low.py', False, False, ()),
    Row('up/*', True, True, ('low.py',)),
    Row('top.py', False, True, ('low.py', 'up/*')),
  ]


# The files keep to it.


@pytest.mark.parametrize('path', MODULES)
def test_imports_only_go_down(path):
  row = row_of(path)
  allowed = [*row.may_import, *([row.room] if row.room.endswith('/*') else [])]
  refused = [
    other
    for other in sorted(imported_files(path))
    if not any(matches(entry, other) for entry in allowed)
  ]
  assert refused == [], f'{path} may import {", ".join(allowed) or "nothing"} ({DESIGN})'


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
def test_the_frontend_imports_neither_tensorflow_nor_the_trainer(path):
  assert not imported_packages(path) & TENSORFLOW
  # What says that packages are missing is of neither, and imports nothing.
  assert all(map(is_frontend, imported_files(path) - {'common/missing_packages.py'}))
  assert not imported_files('common/missing_packages.py')


@pytest.mark.parametrize('path', [path for path in MODULES if row_of(path).never_tensorflow])
def test_what_keeps_tensorflow_out_never_imports_it(path):
  assert not imported_packages(path) & TENSORFLOW


def test_the_table_keeps_tensorflow_out_of_what_has_to_start_without_it():
  for path in MODULES:
    row = row_of(path)
    if is_frontend(path) or path.startswith('reporting'):
      assert row.never_tensorflow, f'{path} needs **TensorFlow** in the third column'
    elif path in STARTS_WITHOUT_TENSORFLOW:
      assert row.starts_without_tensorflow, f'{path} needs **TensorFlow at start-up** there'


@pytest.mark.parametrize(
  'path',
  [path for path in MODULES if row_of(path).starts_without_tensorflow]
  + [path for path in PRODUCT if not needs_row(path)],
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
