"""Reads a cluster's CSV: a `Cluster`, or all mistakes in the file at once.

One row per task; the tasks of a job are numbered in order of appearance. Format: docs/servers.md.
Or one row per host of a sweep, with the job `run`: docs/many_runs.md.
Cells never reach a shell; still, a value that cannot be meant is refused here.
"""

import collections
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from frontend import cluster, csv_cells
from frontend.cluster import Cluster, Host, Task
from frontend.csv_cells import COLUMNS, READERS
from frontend.errors import UserError

REQUIRED_COLUMNS = ('job', 'ip', 'tf_port')
# The job of a host of a sweep; such a CSV has no other rows.
RUN = 'run'
# Columns that a host of a sweep needs, and those that mean nothing there.
RUN_REQUIRED = ('job', 'ip')
RUN_REFUSED = ('flags', 'cpus', 'memory')
# A cluster manager chooses hosts itself, so these columns are ignored for it.
HOST_COLUMNS = ('ip', 'tf_port')
SSH_PORT = 22  # Where the cell is empty.
# The original format ended with this column; it may be there as long as it is empty.
PASSWORD_COLUMN = 'ssh_password'

_Values = dict[str, Any]  # A row: {column: value}; a column whose cell is wrong is missing.
_Row = tuple[int, _Values]  # Line number and values.


class ClusterError(UserError):
  """A cluster CSV that cannot be used.

  Attributes:
    mistakes: a sentence for each thing wrong.
  """

  def __init__(self, mistakes: Sequence[str]):
    super().__init__('\n'.join(mistakes))
    self.mistakes = mistakes


def read_cluster(path: str, with_hosts: bool = True) -> Cluster:
  """Reads a cluster CSV from disk; see `parse_cluster`."""
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      return parse_cluster(file.read(), os.path.basename(path), with_hosts)
  except OSError as error:
    raise ClusterError([f'--cluster_csv_path={path}: {error.strerror}']) from None
  except UnicodeDecodeError:
    raise ClusterError([f'--cluster_csv_path={path}: not a text file in UTF-8']) from None


def parse_cluster(text: str, name: str, with_hosts: bool = True) -> Cluster:
  """Reads the text of a cluster CSV.

  Args:
    text: the file's contents.
    name: the file's name in error messages.
    with_hosts: whether rows place tasks on hosts and ports; if not, HOST_COLUMNS may be left out
      and the Cluster has no hosts.

  Raises:
    ClusterError: with every mistake in the file.
  """
  try:
    rows = list(_rows(text))
  except UserError as error:
    raise ClusterError([f'{name} {error}']) from None
  if not rows:
    raise ClusterError([f'{name} is empty; its first line is {",".join(COLUMNS)}'])
  (header_line, header), *rows = rows
  if _is_of_sweep(header, rows):
    return _sweep_hosts(header_line, header, rows, name)
  required = [c for c in REQUIRED_COLUMNS if with_hosts or c not in HOST_COLUMNS]
  mistakes = [f'line {header_line}: {mistake}' for mistake in _header_mistakes(header, required)]
  parsed = []
  for line, cells in rows:
    values, row_mistakes = _read_row(line, header, cells, required)
    parsed.append((line, values))
    mistakes.extend(row_mistakes)
  if with_hosts:
    for check in (_port_mistakes, _ssh_port_mistakes, _host_mistakes, _loopback_mistakes):
      mistakes += check(parsed)
  mistakes += _slots_mistakes(parsed)
  if 'job' in header:
    mistakes += _job_mistakes(parsed)
  _refuse(name, mistakes)
  tasks = tuple(_tasks(parsed))
  if not with_hosts:
    return Cluster(tasks, (), ())
  return Cluster(tasks, tuple(_hosts(tasks)), tuple(_warnings(tasks)))


def _refuse(name: str, mistakes: Sequence[str]) -> None:
  """Raises ClusterError if there are mistakes."""
  if mistakes:
    raise ClusterError(
      [
        f'{name} {mistake}' if mistake.startswith('line ') else f'{name}: {mistake}'
        for mistake in mistakes
      ]
    )


def _is_of_sweep(header: Sequence[str], rows: Iterable[tuple[int, list[str]]]) -> bool:
  """Whether a row has the job `run`; others are mistakes then."""
  if 'job' not in header:
    return False
  column = header.index('job')
  return any(cells[column : column + 1] == [RUN] for _, cells in rows)


def _sweep_hosts(
  header_line: int, header: Sequence[str], rows: Iterable[tuple[int, list[str]]], name: str
) -> Cluster:
  """Returns the hosts of a sweep, one per row, as a Cluster without tasks."""
  mistakes = [
    f'line {header_line}: {mistake}' for mistake in _header_mistakes(header, RUN_REQUIRED)
  ]
  hosts: dict[str, Host] = {}
  for line, cells in rows:
    given = dict(zip(header, cells))
    job = given.get('job', '')
    if job != RUN:
      mistakes.append(
        f'line {line}, column job: {job!r} beside rows {RUN}; a CSV describes either a cluster or '
        'the hosts of a sweep'
      )
      continue
    for column in RUN_REFUSED:
      if given.get(column):
        mistakes.append(f'line {line}, column {column}: it means nothing in a row {RUN}')
    # The port is TensorFlow's, and a run opens none.
    kept = [column for column in header if column not in ('job', 'tf_port')]
    own = [cell for column, cell in zip(header, cells) if column in kept]
    values, row_mistakes = _read_row(line, kept, [*own, *cells[len(header) :]], ('ip',))
    mistakes += row_mistakes
    if 'ip' in values:
      key = _host_key(values['ip'])
      if key in hosts:
        mistakes.append(f'line {line}, column ip: {values["ip"]} has a row already')
      hosts[key] = Host(
        values['ip'],
        values.get('ssh_port'),
        values.get('ssh_username', ''),
        values.get('workdir', ''),
        values.get('python', ''),
        (),
        values.get('slots', 0),
        values.get('cuda_visible_devices'),
      )
  _refuse(name, mistakes)
  return Cluster((), tuple(hosts.values()), ())


# ---- Rows of text. -------------------------------------------------------------------------------


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
  """Yields (line number, cells) of rows that are not empty; `#` starts a comment line."""
  position = {'line': 0, 'in_row': False}

  def lines() -> Iterator[str]:
    for number, line in enumerate(io.StringIO(text, newline=''), 1):
      if not position['in_row']:
        if _is_blank(line):
          continue
        position.update(line=number, in_row=True)
      yield line

  reader = csv.reader(lines(), strict=True, delimiter=_delimiter(text))
  while True:
    position['in_row'] = False
    try:
      cells = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      raise UserError(f'line {position["line"]}: not CSV: {error}') from None
    if any(cell.strip() for cell in cells):
      yield position['line'], [cell.strip() for cell in cells]


def _is_blank(line: str) -> bool:
  """Whether a line is empty, a comment, or Excel's `sep=;`, which names the delimiter."""
  text = line.strip()
  return not text or text[0] == '#' or (text[:4].lower() == 'sep=' and len(text) <= 5)


def _delimiter(text: str) -> str:
  """Tells the delimiter from the header: spreadsheets save `;` where 0,5 is written for 0.5."""
  for line in io.StringIO(text):
    if not _is_blank(line):
      cells = {mark: [cell.strip(' "\r\n') for cell in line.split(mark)] for mark in ',;\t'}
      return max(cells, key=lambda mark: len(set(cells[mark]) & set(COLUMNS)))
  return ','


def _header_mistakes(header: Sequence[str], required: Sequence[str]) -> list[str]:
  mistakes = []
  for column in header:
    if column != PASSWORD_COLUMN and column not in COLUMNS:
      mistakes.append(csv_cells.not_one_of(column, COLUMNS, f'a column ({", ".join(COLUMNS)})'))
  for column in COLUMNS:
    if header.count(column) > 1:
      mistakes.append(f'column {column!r} is there {header.count(column)} times; keep one')
    if column in required and column not in header:
      mistakes.append(f'column {column!r} is missing')
  return mistakes


def _read_row(
  line: int, header: Sequence[str], cells: Sequence[str], required: Sequence[str]
) -> tuple[_Values, list[str]]:
  """Returns (values, mistakes) of one row."""
  values = {
    column: reader('') for column, reader in READERS.items() if column not in REQUIRED_COLUMNS
  }
  mistakes = []
  if len(cells) > len(header):
    mistakes.append(
      f'line {line}: {len(cells)} cells for {len(header)} columns '
      '(a cell that holds a comma needs quotes)'
    )
  given = dict(zip(header, cells))
  for column in required:
    if column in header:
      given.setdefault(column, '')
  for column in set(REQUIRED_COLUMNS) - set(required):
    given.pop(column, None)
  for column, cell in given.items():
    if column == PASSWORD_COLUMN:
      mistakes.extend([_password_mistake(line, given.get('ip') or 'HOST')] if cell else [])
    elif column in READERS:
      try:
        values[column] = READERS[column](cell)
      except UserError as error:
        mistakes.append(f'line {line}, column {column}: {error}')
  return values, mistakes


def _password_mistake(line: int, host: str) -> str:
  return (
    f'line {line}, column {PASSWORD_COLUMN}: passwords are not accepted; use an SSH key or agent '
    f'(ssh-copy-id {host} puts your key there) and leave this cell empty'
  )


# ---- Mistakes that show only when rows are compared. ---------------------------------------------


def _host_key(ip: str) -> str:
  return 'localhost' if cluster.is_loopback(ip) else ip.lower()


def _port_mistakes(rows: Iterable[_Row]) -> list[str]:
  first_lines, mistakes = {}, []
  for line, values in rows:
    if 'ip' in values and 'tf_port' in values:
      first = first_lines.setdefault((_host_key(values['ip']), values['tf_port']), line)
      if first != line:
        mistakes.append(
          f'line {line}, column tf_port: {values["tf_port"]} on {values["ip"]} is taken '
          f'by line {first}; give each task of a host its own port'
        )
  return mistakes


def _ssh_port_mistakes(rows: Iterable[_Row]) -> list[str]:
  """A task at the port of SSH cannot start, and a firewall would lock this machine out."""
  return [
    f'line {line}, column tf_port: {values["tf_port"]} is the port of SSH on {values["ip"]}; give '
    'the task another one'
    for line, values in rows
    if {'ip', 'tf_port'} <= values.keys()
    and values['tf_port'] == (values.get('ssh_port') or SSH_PORT)
  ]


def _host_mistakes(rows: Iterable[_Row]) -> list[str]:
  """A host is reached in one way and has one copy of the code, so its rows must agree."""
  first_rows, mistakes = {}, []
  for line, values in rows:
    if 'ip' in values:
      first_line, first = first_rows.setdefault(_host_key(values['ip']), (line, values))
      for column in ('ssh_port', 'ssh_username', 'workdir', 'python'):
        if values[column] != first[column]:
          mistakes.append(
            f'line {line}, column {column}: {values[column] or ""!r} differs from '
            f'{first[column] or ""!r} on line {first_line}, and both are on {values["ip"]}'
          )
  return mistakes


def _loopback_mistakes(rows: Iterable[_Row]) -> list[str]:
  known = [(line, values['ip']) for line, values in rows if 'ip' in values]
  if all(cluster.is_loopback(ip) for _, ip in known):
    return []
  return [
    f'line {line}, column ip: {ip!r} means another machine on every host; give the address at '
    'which the others reach it'
    for line, ip in known
    if cluster.is_loopback(ip)
  ]


def _job_mistakes(rows: Iterable[_Row]) -> list[str]:
  jobs = {values.get('job') for _, values in rows}
  return [
    f'no row has job {job}; a cluster needs at least one' for job in cluster.JOBS if job not in jobs
  ]


# ---- The cluster. --------------------------------------------------------------------------------


def _slots_mistakes(rows: Iterable[_Row]) -> list[str]:
  return [
    f'line {line}, column slots: it means nothing in the row of a task, only in a row {RUN}'
    for line, values in rows
    if values.get('slots')
  ]


def _tasks(rows: Iterable[_Row]) -> Iterator[Task]:
  counts = collections.Counter()
  for line, values in rows:
    job = values['job']
    if values['cuda_visible_devices'] is None and job != 'learner':
      values = dict(values, cuda_visible_devices='')
    no_host = {'ip': '', 'tf_port': 0}
    values.pop('slots')
    yield Task(index=counts[job], line=line, **no_host | values)
    counts[job] += 1


def _hosts(tasks: Iterable[Task]) -> list[Host]:
  groups: dict[str, list[Task]] = {}
  for task in tasks:
    groups.setdefault(_host_key(task.ip), []).append(task)
  return [
    Host(
      group[0].ip,
      group[0].ssh_port,
      group[0].ssh_username,
      group[0].workdir,
      group[0].python,
      tuple(group),
    )
    for group in groups.values()
  ]


def _warnings(tasks: Iterable[Task]) -> list[str]:
  greedy = collections.Counter(
    _host_key(task.ip)
    for task in tasks
    if task.job == 'learner' and task.cuda_visible_devices is None
  )
  return [
    f'{count} learners on {host} would each take all its GPUs; give each its own '
    'cuda_visible_devices'
    for host, count in greedy.items()
    if count > 1
  ]
