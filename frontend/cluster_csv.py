"""A cluster's CSV becomes a Cluster, or a list of every mistake in it.

One row a task; the tasks of a job are numbered in order of appearance. Format: README, "Your own
servers". Cells never meet a shell.
"""

import collections
import csv
import io
import os

from frontend import cluster
from frontend.cells import READERS, one_of

REQUIRED_COLUMNS = ('job', 'ip', 'tf_port')
# Without hosts, the place of a task is somebody else's choice: these cells say nothing.
HOST_COLUMNS = ('ip', 'tf_port')
COLUMNS = REQUIRED_COLUMNS + (
  'cuda_visible_devices',
  'ssh_port',
  'ssh_username',
  'workdir',
  'python',
  'flags',
  'cpus',
  'memory',
)
SSH_PORT = 22  # Where the cell is empty.
# The original format ended with this column; it may be there as long as it is empty.
PASSWORD_COLUMN = 'ssh_password'


class ClusterError(ValueError):
  """A cluster file that cannot be used; `mistakes` holds one sentence for each thing wrong."""

  def __init__(self, mistakes):
    super().__init__('\n'.join(mistakes))
    self.mistakes = mistakes


def _rows(text):
  """Yields (line number, cells) of rows that hold something; `#` starts a comment line."""
  position = {'line': 0, 'in_row': False}

  def lines():
    for number, line in enumerate(io.StringIO(text, newline=''), 1):
      if not position['in_row']:
        if _says_nothing(line):
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
      raise ValueError(f'line {position["line"]}: not CSV: {error}') from None
    if any(cell.strip() for cell in cells):
      yield position['line'], [cell.strip() for cell in cells]


def _says_nothing(line):
  """Whether a line is empty, a comment, or what Excel puts first to say which mark it uses."""
  text = line.strip()
  return not text or text[0] == '#' or (text[:4].lower() == 'sep=' and len(text) <= 5)


def _delimiter(text):
  """What stands between cells: programs of countries that write 0,5 save semicolons as CSV."""
  for line in io.StringIO(text):
    if not _says_nothing(line):
      cells = {mark: [cell.strip(' "\r\n') for cell in line.split(mark)] for mark in ',;\t'}
      return max(cells, key=lambda mark: len(set(cells[mark]) & set(COLUMNS)))
  return ','


def _header_mistakes(header, required):
  mistakes = []
  for column in header:
    if column != PASSWORD_COLUMN and column not in COLUMNS:
      what = 'a column (' + ', '.join(COLUMNS) + ')'
      mistakes.append(one_of(column, COLUMNS, what))
  for column in COLUMNS:
    if header.count(column) > 1:
      mistakes.append(f'column {column!r} is there {header.count(column)} times; keep one')
    if column in required and column not in header:
      mistakes.append(f'column {column!r} is missing')
  return mistakes


def _password_mistake(line, host):
  return (
    f'line {line}, column {PASSWORD_COLUMN}: passwords are not accepted; use an SSH key or agent '
    f'(ssh-copy-id {host} puts your key there) and leave this cell empty'
  )


def _read_row(line, header, cells, required):
  """Returns ({column: value}, mistakes) of one row."""
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
  for column in set(REQUIRED_COLUMNS) - set(required):  # Not looked at.
    given.pop(column, None)
    values[column] = None
  for column, cell in given.items():
    if column == PASSWORD_COLUMN:
      mistakes.extend([_password_mistake(line, given.get('ip') or 'HOST')] if cell else [])
    elif column in READERS:
      try:
        values[column] = READERS[column](cell)
      except ValueError as error:
        mistakes.append(f'line {line}, column {column}: {error}')
  return values, mistakes


def _host_key(ip):
  return 'localhost' if cluster.is_loopback(ip) else ip.lower()


def _same_port_mistakes(rows):
  seen, mistakes = {}, []
  for line, values in rows:
    if 'ip' in values and 'tf_port' in values:
      first = seen.setdefault((_host_key(values['ip']), values['tf_port']), line)
      if first != line:
        mistakes.append(
          f'line {line}, column tf_port: {values["tf_port"]} on {values["ip"]} is taken '
          f'by line {first}; give each task of a host its own port'
        )
  return mistakes


def _ssh_port_mistakes(rows):
  """A task at the port of SSH cannot start, and a firewall would close the way to its host."""
  return [
    f'line {line}, column tf_port: {values["tf_port"]} is the port of SSH on {values["ip"]}; give '
    'the task another one'
    for line, values in rows
    if values.get('tf_port') and values['tf_port'] == (values.get('ssh_port') or SSH_PORT)
  ]


def _one_host_mistakes(rows):
  """One host is reached in one way and has one copy of the code: its rows must agree."""
  seen, mistakes = {}, []
  for line, values in rows:
    if 'ip' in values:
      first_line, first = seen.setdefault(_host_key(values['ip']), (line, values))
      for column in ('ssh_port', 'ssh_username', 'workdir', 'python'):
        if values[column] != first[column]:
          mistakes.append(
            f'line {line}, column {column}: {values[column] or ""!r} differs from '
            f'{first[column] or ""!r} on line {first_line}, and both are on {values["ip"]}'
          )
  return mistakes


def _loopback_mistakes(rows):
  known = [(line, values['ip']) for line, values in rows if 'ip' in values]
  if all(cluster.is_loopback(ip) for _, ip in known):
    return []
  return [
    f'line {line}, column ip: {ip!r} means another machine on every host; give the address at '
    'which the others reach it'
    for line, ip in known
    if cluster.is_loopback(ip)
  ]


def _job_mistakes(rows):
  jobs = {values.get('job') for _, values in rows}
  return [
    f'no row has job {job}; a cluster needs at least one' for job in cluster.JOBS if job not in jobs
  ]


def _warnings(tasks):
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


def _tasks(rows):
  counts = collections.Counter()
  for line, values in rows:
    job = values['job']
    if values['cuda_visible_devices'] is None and job != 'learner':
      values = dict(values, cuda_visible_devices='')
    yield cluster.Task(index=counts[job], line=line, **values)
    counts[job] += 1


def _hosts(tasks):
  groups = {}
  for task in tasks:
    groups.setdefault(_host_key(task.ip), []).append(task)
  return [
    cluster.Host(
      group[0].ip,
      group[0].ssh_port,
      group[0].ssh_username,
      group[0].workdir,
      group[0].python,
      tuple(group),
    )
    for group in groups.values()
  ]


def parse_cluster(text, name, with_hosts=True):
  """Reads the text of a cluster CSV.

  Args:
    text: the file's contents.
    name: what the mistakes call the file.
    with_hosts: whether the rows say on which host and port each task runs; if not, these columns
      may be left out, and the Cluster has no hosts.

  Returns:
    A Cluster.

  Raises:
    ClusterError: with every mistake in the file.
  """
  try:
    rows = list(_rows(text))
  except ValueError as error:
    raise ClusterError([f'{name} {error}']) from None
  if not rows:
    raise ClusterError([f'{name} is empty; its first line is {",".join(COLUMNS)}'])
  (header_line, header), *rows = rows
  required = [c for c in REQUIRED_COLUMNS if with_hosts or c not in HOST_COLUMNS]
  header_mistakes = _header_mistakes(header, required)
  mistakes = [f'line {header_line}: {mistake}' for mistake in header_mistakes]
  parsed = []
  for line, cells in rows:
    values, row_mistakes = _read_row(line, header, cells, required)
    parsed.append((line, values))
    mistakes.extend(row_mistakes)
  if with_hosts:
    for check in (
      _same_port_mistakes,
      _ssh_port_mistakes,
      _one_host_mistakes,
      _loopback_mistakes,
    ):
      mistakes += check(parsed)
  if 'job' in header:
    mistakes += _job_mistakes(parsed)
  if mistakes:
    raise ClusterError(
      [
        f'{name} {mistake}' if mistake.startswith('line ') else f'{name}: {mistake}'
        for mistake in mistakes
      ]
    )
  tasks = tuple(_tasks(parsed))
  if not with_hosts:
    return cluster.Cluster(tasks, (), ())
  return cluster.Cluster(tasks, tuple(_hosts(tasks)), tuple(_warnings(tasks)))


def read_cluster(path, with_hosts=True):
  """Reads a cluster CSV from disk; see `parse_cluster`."""
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      return parse_cluster(file.read(), os.path.basename(path), with_hosts)
  except OSError as error:
    raise ClusterError([f'--cluster_csv_path={path}: {error.strerror}']) from None
  except UnicodeDecodeError:
    raise ClusterError([f'--cluster_csv_path={path}: not a text file in UTF-8']) from None
