"""A cluster's CSV becomes tasks, and tasks become command lines. Pure: no host is touched here.

One row a task; the tasks of a job are numbered in order of appearance. Format: README, "Your own
servers". A command line is a list of arguments and stays one until `exec`: cells never meet a
shell.
"""

import collections
import csv
import difflib
import io
import ipaddress
import os
import re
import shlex

JOBS = ('ps', 'learner', 'actor')
REQUIRED_COLUMNS = ('job', 'ip', 'tf_port')
COLUMNS = REQUIRED_COLUMNS + (
  'cuda_visible_devices',
  'ssh_port',
  'ssh_username',
  'workdir',
  'python',
  'flags',
)
# The original format ended with this column; it may be there as long as it is empty.
PASSWORD_COLUMN = 'ssh_password'
# What places a task in the cluster comes from the CSV, so neither the command line nor a `flags`
# cell may set it.
PLACEMENT_FLAGS = ('ps_hosts', 'learner_hosts', 'actor_hosts', 'job_name', 'task', 'state_dir')

# One row of the CSV. index: number within its job; cuda_visible_devices: None for all GPUs, ''
# for none; ssh_port: int or None; flags: list of arguments; line: of the CSV. Other cells: str,
# '' if not given.
Task = collections.namedtuple(
  'Task',
  'job index ip tf_port cuda_visible_devices ssh_port ssh_username workdir python flags line',
)

# Tasks that run on one machine, with how to get there.
Host = collections.namedtuple('Host', 'address ssh_port ssh_username workdir python tasks')

# warnings: sentences about what is allowed but rarely meant.
Cluster = collections.namedtuple('Cluster', 'tasks hosts warnings')


class ClusterError(ValueError):
  """A cluster file that cannot be used; `mistakes` holds one sentence for each thing wrong."""

  def __init__(self, mistakes):
    super().__init__('\n'.join(mistakes))
    self.mistakes = mistakes


def task_name(task):
  """The name of a task's window and files: `learner-0`."""
  return f'{task.job}-{task.index}'


def parse_task_name(text):
  """Turns `learner:0` or `learner-0` into `learner-0`; raises ValueError for anything else."""
  match = re.fullmatch(r'(ps|learner|actor)[:-](\d{1,6})', text)
  if not match:
    raise ValueError(f'--task={text!r} is not a task: write for example --task=learner:0')
  return f'{match[1]}-{int(match[2])}'


def is_loopback(address):
  """Whether `address` (a name or an IP address) means "this machine" wherever it is read."""
  try:
    return ipaddress.ip_address(address).is_loopback
  except ValueError:
    return address.lower() == 'localhost'


# ---- One cell at a time: each function returns the value or raises ValueError(what is wrong). --


def _one_of(value, allowed, what):
  close = difflib.get_close_matches(value, allowed, 1)
  hint = f"; did you mean '{close[0]}'?" if close else ''
  return f'{value!r} is not {what}{hint}'


def _job(cell):
  if cell not in JOBS:
    raise ValueError(_one_of(cell, JOBS, 'a job (ps, learner or actor)'))
  return cell


def _ip(cell):
  if re.fullmatch(r'[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*', cell):
    try:
      cell = str(ipaddress.IPv6Address(cell))
    except ValueError:
      raise _no_address(cell) from None
  elif not re.fullmatch(r'[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?', cell):
    raise _no_address(cell)
  if cell in ('0.0.0.0', '::'):
    raise ValueError(f'{cell!r} is no address that others can reach')
  return cell


def _no_address(cell):
  return ValueError(f'{cell!r} is not an address or a host name (the port has its own column)')


def _port(cell):
  if not re.fullmatch(r'[0-9]{1,5}', cell) or not 1 <= int(cell) <= 65535:
    raise ValueError(f'{cell!r} is not a port (1-65535)')
  return int(cell)


def _optional_port(cell):
  return _port(cell) if cell else None


def _devices(cell):
  if cell in ('-1', 'none'):
    return ''
  if cell and not re.fullmatch(
    r'\d+(,\d+)*|(GPU|MIG)-[\w/-]+(,(GPU|MIG)-[\w/-]+)*', cell, re.ASCII
  ):
    raise ValueError(
      f'{cell!r} is not a list of GPUs (for example 0, or "0,1" in quotes; -1 for none)'
    )
  return cell or None


def _username(cell):
  if cell and not re.fullmatch(r'[A-Za-z0-9_][A-Za-z0-9_.@+\\-]*\$?', cell):
    raise ValueError(f'{cell!r} is not a user name')
  return cell


def _path(cell):
  if not cell.isprintable() or cell.startswith('-'):
    raise ValueError(f'{cell!r} is not a path (no control characters, no "-" in front)')
  return cell


def _flags(cell):
  try:
    arguments = shlex.split(cell)
  except ValueError as error:
    raise ValueError(f'{cell!r} cannot be split into flags: {error}') from None
  if arguments and not arguments[0].startswith('-'):
    raise ValueError(f'{cell!r} does not start with a flag such as --envs_per_actor=128')
  problem = placement_problem(arguments)
  if problem:
    raise ValueError(problem)
  return arguments


_READERS = {
  'job': _job,
  'ip': _ip,
  'tf_port': _port,
  'cuda_visible_devices': _devices,
  'ssh_port': _optional_port,
  'ssh_username': _username,
  'workdir': _path,
  'python': _path,
  'flags': _flags,
}


def placement_problem(arguments):
  """A sentence if an argument sets what the CSV decides or cannot be passed on; else None."""
  for argument in arguments:
    if '\0' in argument:
      return f'{argument!r} holds a NUL character, which no command line can carry'
    name = argument.lstrip('-').split('=')[0] if argument.startswith('-') else ''
    if name in PLACEMENT_FLAGS:
      return f'--{name} follows from the cluster CSV and cannot be given as well'
  return None


# ---- The whole file. ---------------------------------------------------------------------------


def _rows(text):
  """Yields (line number, cells) of rows that hold something; `#` starts a comment line."""
  position = {'line': 0, 'in_row': False}

  def lines():
    for number, line in enumerate(io.StringIO(text, newline=''), 1):
      if not position['in_row']:
        if not line.strip() or line.lstrip().startswith('#'):
          continue
        position.update(line=number, in_row=True)
      yield line

  reader = csv.reader(lines(), strict=True)
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


def _header_mistakes(header):
  mistakes = []
  for column in header:
    if column != PASSWORD_COLUMN and column not in COLUMNS:
      what = 'a column (' + ', '.join(COLUMNS) + ')'
      mistakes.append(_one_of(column, COLUMNS, what))
  for column in COLUMNS:
    if header.count(column) > 1:
      mistakes.append(f'column {column!r} is there {header.count(column)} times; keep one')
    if column in REQUIRED_COLUMNS and column not in header:
      mistakes.append(f'column {column!r} is missing')
  return mistakes


def _password_mistake(line, host):
  return (
    f'line {line}, column {PASSWORD_COLUMN}: passwords are not accepted; use an SSH key or agent '
    f'(ssh-copy-id {host} puts your key there) and leave this cell empty'
  )


def _read_row(line, header, cells):
  """Returns ({column: value}, mistakes) of one row."""
  values = {
    column: reader('') for column, reader in _READERS.items() if column not in REQUIRED_COLUMNS
  }
  mistakes = []
  if len(cells) > len(header):
    mistakes.append(
      f'line {line}: {len(cells)} cells for {len(header)} columns '
      '(a cell that holds a comma needs quotes)'
    )
  given = dict(zip(header, cells))
  for column in REQUIRED_COLUMNS:
    if column in header:
      given.setdefault(column, '')
  for column, cell in given.items():
    if column == PASSWORD_COLUMN:
      mistakes.extend([_password_mistake(line, given.get('ip') or 'HOST')] if cell else [])
    elif column in _READERS:
      try:
        values[column] = _READERS[column](cell)
      except ValueError as error:
        mistakes.append(f'line {line}, column {column}: {error}')
  return values, mistakes


def _host_key(ip):
  return 'localhost' if is_loopback(ip) else ip.lower()


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
  if all(is_loopback(ip) for _, ip in known):
    return []
  return [
    f'line {line}, column ip: {ip!r} means another machine on every host; give the address at '
    'which the others reach it'
    for line, ip in known
    if is_loopback(ip)
  ]


def _job_mistakes(rows):
  jobs = {values.get('job') for _, values in rows}
  return [f'no row has job {job}; a cluster needs at least one' for job in JOBS if job not in jobs]


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
    yield Task(index=counts[job], line=line, **values)
    counts[job] += 1


def _hosts(tasks):
  groups = {}
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


def parse_cluster(text, name):
  """Reads the text of a cluster CSV.

  Args:
    text: the file's contents.
    name: what the mistakes call the file.

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
  header_mistakes = _header_mistakes(header)
  mistakes = [f'line {header_line}: {mistake}' for mistake in header_mistakes]
  parsed = []
  for line, cells in rows:
    values, row_mistakes = _read_row(line, header, cells)
    parsed.append((line, values))
    mistakes.extend(row_mistakes)
  mistakes += _same_port_mistakes(parsed) + _one_host_mistakes(parsed) + _loopback_mistakes(parsed)
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
  return Cluster(tasks, tuple(_hosts(tasks)), tuple(_warnings(tasks)))


def read_cluster(path):
  """Reads a cluster CSV from disk; see `parse_cluster`."""
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      return parse_cluster(file.read(), os.path.basename(path))
  except OSError as error:
    raise ClusterError([f'--cluster_csv_path={path}: {error.strerror}']) from None
  except UnicodeDecodeError:
    raise ClusterError([f'--cluster_csv_path={path}: not a text file in UTF-8']) from None


# ---- Command lines. ----------------------------------------------------------------------------


def host_port(task):
  """`address:port` as TensorFlow and URLs write it."""
  return f'[{task.ip}]:{task.tf_port}' if ':' in task.ip else f'{task.ip}:{task.tf_port}'


def cluster_flags(cluster):
  """The three host lists, the same for every task."""
  return [
    f'--{job}_hosts=' + ','.join(host_port(task) for task in cluster.tasks if task.job == job)
    for job in JOBS
  ]


def task_arguments(cluster, task, training_flags):
  """What follows `experiment.py` on the command line of one task, save --state_dir.

  Args:
    cluster: a Cluster.
    task: one of its tasks.
    training_flags: list of arguments, passed on unchanged. The task's own flags come last and win.

  Returns:
    A list of arguments.
  """
  return (
    cluster_flags(cluster)
    + [f'--job_name={task.job}', f'--task={task.index}']
    + list(training_flags)
    + list(task.flags)
  )


def task_environment(task):
  """Environment variables of one task: {name: value, or None to remove it}."""
  return {'CUDA_VISIBLE_DEVICES': task.cuda_visible_devices}
