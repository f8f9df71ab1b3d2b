"""`status`, `logs` and `attach`: what the tasks of a cluster do, as a table, as text, or live."""

import json
import os
import re
import shutil
import time

from common import background, texts
from common.texts import duration, layout, spark
from frontend import cluster as cluster_lib
from frontend.console import POLL_SECS, task_names
from frontend.errors import HostError
from frontend.host_side import tmux
from frontend.host_side.task_status import STATE_LATE_SECS

STATUS_KEYS = (
  'task',
  'host',
  'state',
  'uptime_secs',
  'restarts',
  'frames_per_sec',
  'last_seen_secs',
  'last_line',
  'training',
  'no_answer',
)
WATCH_SECS = 2.0
STATUS_SECS = 20
# How often a lost host is tried again.
RETRY_SECS = 5.0
# What absl puts before a message: level, date, time, thread, file and line.
_LOG_PREFIX = r'^[IWEF]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] '


# ---- status ------------------------------------------------------------------------------------


def rows_of(console, host):
  """What a host says about its own tasks, whatever else it says: a dict for each.

  Returns:
    List of dicts with STATUS_KEYS, 'seen' and 'exit_code' (see `task_status.status_row`), and
    'ended': whether the host says that nothing of the task is left.

  Raises:
    HostError: it does not answer.
  """
  reply = host.ask('status', STATUS_SECS, tasks=task_names(host), **console.session())
  told = {row['task']: row for row in reply['tasks']}
  return [_row(host, name, told.get(name)) for name in task_names(host)]


def _row(host, name, told, error='its host says nothing about it'):
  row = dict.fromkeys((*STATUS_KEYS, 'seen', 'exit_code'))
  row |= {'state': 'no answer', 'restarts': 0, 'last_line': str(error)}
  row |= {'task': name, 'host': host.name, 'ended': False}
  if told:
    running = told['state'] in ('running', 'restarting')  # Says the code of before `left`.
    row |= told | {'host': host.name, 'ended': not told.get('left', running)}
  return row


def task_rows(console):
  """One dict as of `rows_of` for each task, in the order of the CSV."""
  rows = {}
  for host, result in console.on_all(lambda host: rows_of(console, host)):
    if isinstance(result, HostError):
      result = [_row(host, name, None, result) for name in task_names(host)]
    rows |= {row['task']: row for row in result}
  return [rows[cluster_lib.task_name(task)] for task in console.cluster.tasks]


def status_table(rows, width):
  """The rows of `status` as text, lines cut to `width`."""
  cells = [['task', 'host', 'state', 'uptime', 'restarts', 'frames/s', 'seen', 'last line']]
  for row in rows:
    speed = row['frames_per_sec']
    seen = row['last_seen_secs']
    cells.append(
      [
        row['task'],
        row['host'],
        row['state'],
        duration(row['uptime_secs']),
        str(row['restarts']),
        '-' if speed is None else f'{speed:,.0f}',
        '-' if seen is None else f'{duration(seen)} ago',
        re.sub(_LOG_PREFIX, '', row['last_line'] or ''),
      ]
    )
  cells = [[texts.printable(cell) for cell in row] for row in cells]
  return '\n'.join(line[:width] for line in layout(cells).splitlines())


def silent_lines(rows, now):
  """Who does not answer though it should run, a line each, and who says so.

  Args:
    rows: of `status`.
    now: Unix seconds.
  """
  said = {}
  for row in rows:
    if row['state'] == 'running' and (row['last_seen_secs'] or 0) > STATE_LATE_SECS:
      said.setdefault(row['task'], []).append((row['last_seen_secs'], 'its own state file'))
    for name, secs in (row['no_answer'] or {}).items():
      said.setdefault(name, []).append((secs, row['task']))
  lines = []
  for name, witnesses in said.items():
    secs = max(secs for secs, _ in witnesses)
    clock = time.strftime('%H:%M:%S', time.localtime(now - secs))
    by = ', '.join(witness for _, witness in witnesses)
    lines.append(f'{name} does not answer since {clock} ({duration(secs)} ago), says {by}')
  return lines


class Curve:
  """The mean return for as long as it was watched, and who waits, as one line.

  Args:
    encoding: of the terminal.
  """

  def __init__(self, encoding):
    self._encoding = encoding
    self._points = {}

  def add(self, rows):
    """Takes rows of `status`, of which the chief's tells how the training goes."""
    for row in rows:
      training = row['training'] or {}
      if training.get('mean_return_100') is not None:
        self._points[training['environment_frames']] = training

  def line(self, width):
    """The line, at most `width` letters; '' while no game has ended."""
    if not self._points:
      return ''
    last = [*self._points.values()][-1]
    waits = [f'{who} {last[f"{who}_wait_fraction"] or 0:.0%}' for who in ('learner', 'actor')]
    text = f' {last["mean_return_100"]:.2f}  waits: {waits[0]} {waits[1]}'
    returns = [point['mean_return_100'] for point in self._points.values()]
    if len(returns) == 1:  # Nothing to compare it with.
      return 'mean return' + text
    return 'mean return ' + spark(returns[-max(1, width - len(text) - 12) :], self._encoding) + text


def status(console):
  """Prints the table, once or again and again; returns the exit code."""
  return show(lambda: task_rows(console), console.options, console.out)


def show(read_rows, options, out):
  """Prints what `read_rows` returns as `status` does; returns the exit code.

  Args:
    read_rows: function without arguments that returns dicts with STATUS_KEYS.
    options: the frontend's own flags, as attributes.
    out: where to print.
  """
  curve = Curve(out.encoding)
  while True:
    rows = read_rows()
    if options.json:
      text = json.dumps([{key: row[key] for key in STATUS_KEYS} for row in rows], indent=2)
    else:
      width = shutil.get_terminal_size((160, 24)).columns
      curve.add(rows)
      silent = [line[:width] for line in silent_lines(rows, time.time())]
      text = '\n'.join(filter(None, [status_table(rows, width), *silent, curve.line(width)]))
    if options.watch and out.isatty():
      text = '\x1b[H\x1b[2J' + text
    print(text, file=out, flush=True)
    if not options.watch:
      return 1 if any(row['state'] == 'no answer' for row in rows) else 0
    time.sleep(WATCH_SECS)


# ---- attach ------------------------------------------------------------------------------------


def attach(console):
  """Replaces this process by tmux on the task's host."""
  name = console.options.task or 'learner-0'
  host = console.host_of(name)
  words = host.attach_arguments(
    tmux.attach_arguments(console.options.tmux_socket, console.options.tmux_sess, name)
  )
  console.close()
  environment = {key: value for key, value in os.environ.items() if key != 'TMUX'}
  try:
    os.execvpe(words[0], words, environment)
  except FileNotFoundError:
    raise ValueError(f'--action=attach needs the program {words[0]} on this machine') from None


# ---- logs --------------------------------------------------------------------------------------


def print_log(console, host, name, lines):
  """Prints the last lines of one task's log; raises HostError where its host does not answer."""
  _say_log(console, name, _read_log(console, host, name, lines, None)['lines'])


def _read_log(console, host, name, lines, offset):
  """A reply of `agent.logs`."""
  return host.ask('logs', STATUS_SECS, task=name, lines=lines, offset=offset, **console.session())


def _say_log(console, name, lines):
  for line in lines or ['nothing logged so far']:
    console.say(f'{name}: {line}')


def logs(console):
  """Prints the last lines of one task or of all; with --follow, those that come.

  Returns:
    The exit code.
  """
  options = console.options
  names = (
    [options.task] if options.task else list(map(cluster_lib.task_name, console.cluster.tasks))
  )
  places = {name: console.host_of(name) for name in names}
  lines = options.lines or (50 if options.task else 5)

  def read(host):
    return {
      name: _read_log(console, host, name, lines, None) for name in names if places[name] is host
    }

  outcomes = dict(console.on_all(read, list(dict.fromkeys(places.values()))))
  offsets, failed = dict.fromkeys(names), 0
  for name, host in places.items():
    if isinstance(outcomes[host], HostError):
      failed += 1
      console.say(f'{name}: no answer from {host.name}: {outcomes[host]}')
    else:
      _say_log(console, name, outcomes[host][name]['lines'])
      offsets[name] = outcomes[host][name]['offset']
  if options.follow:
    for text in background.stream(
      lambda host, put: _follow(
        console, host, {name: offsets[name] for name in names if places[name] is host}, lines, put
      ),
      outcomes,
    ):
      console.say(text)
  return 1 if failed else 0


def _follow(console, host, offsets, lines, put):
  """Puts the lines of a host's tasks as they come, for ever; a host that was lost is tried again.

  Args:
    console: a Console.
    host: the host.
    offsets: {name of a task: where to go on, or None for the last `lines`}.
    lines: int.
    put: function that takes a line of text.
  """
  lost = any(offset is None for offset in offsets.values())
  while True:
    time.sleep(RETRY_SECS if lost else POLL_SECS)
    try:
      for name, offset in offsets.items():
        reply = _read_log(console, host, name, lines, offset)
        if lost:
          put(f'{host.name} answers again')
          lost = False
        offsets[name] = reply['offset']
        for line in reply['lines']:
          put(f'{name}: {line}')
    except HostError as error:
      if not lost:
        put(f'{host.name}: {error}; trying again every {RETRY_SECS:g} s')
      lost = True
