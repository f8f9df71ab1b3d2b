"""`status`, `logs`, `stop` and `pull` of a sweep: `--logdir` is its folder."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from common import background, texts
from frontend.actions import logs, pull, stop
from frontend.connection import fetching, hosts
from frontend.console import POLL_SECS, AnyHost, Console
from frontend.errors import HostError, UserError
from frontend.host_side import sweep_folder
from frontend.sweep import board as board_lib
from frontend.sweep import settings
from frontend.sweep.board import ROW_KEYS, Board, Row

WATCH_SECS = 2.0
_STATES = ('done', 'running', 'waiting', 'failed', 'unknown')


def run(console: Console, action: str, logdir: str) -> int:
  """Runs an action on a sweep; returns the exit code.

  Args:
    console: the hosts.
    action: 'status', 'logs', 'stop' or 'pull'.
    logdir: of the sweep.

  Raises:
    UserError: no host has a sweep there.
  """
  function: Callable[[Console, str], int] = {
    'status': status, 'logs': print_logs, 'stop': end, 'pull': fetch
  }[action]  # fmt: skip
  return function(console, logdir)


def _look(console: Console, logdir: str) -> Board:
  board = board_lib.look(console, logdir)
  if board.sweep is None:
    console.failures(board.errors.items())
    if board.errors:
      raise HostError('', f'no host that answers has a sweep in {logdir}')
    raise UserError(f'--logdir={logdir} is not the folder of a sweep: no {sweep_folder.LIST} there')
  return board


# ---- status. -----------------------------------------------------------------------------------


def status(console: Console, logdir: str) -> int:
  """Prints the table of runs, repeatedly with --watch; returns 1 if a host does not answer."""
  while True:
    board = _look(console, logdir)
    if console.options.json:
      text = json.dumps(summary(board), indent=2)
    else:
      text = table(board, shutil.get_terminal_size((160, 24)).columns, console.options.watch)
    if console.options.watch and console.out.isatty():
      text = '\x1b[H\x1b[2J' + text
    print(text, file=console.out, flush=True)
    if not console.options.watch:
      return 1 if board.errors else 0
    time.sleep(WATCH_SECS)


def summary(board: Board) -> dict[str, Any]:
  """Returns what `status --json` prints of a sweep."""
  rows = list(board.rows.values())
  return {
    'runs': len(rows),
    **{state: sum(row['state'] == state for row in rows) for state in _STATES},
    'hours_left': hours_left(board),
    'twice': board.twice,
    'hosts': {
      host.name: (reply['runner'] or {}).get('problem') or ('runs' if reply['runner'] else 'idle')
      for host, reply in board.replies.items()
    }
    | {host.name: 'no answer' for host in board.errors},
    'rows': [{key: row[key] for key in ROW_KEYS} for row in rows],
  }


def hours_left(board: Board) -> float | None:
  """Returns the hours until all runs are done, on the slots of now; None if nothing is known."""
  rows = board.rows.values()
  running = [row['hours_left'] for row in rows if row['state'] == 'running']
  waiting = sum(row['state'] == 'waiting' for row in rows)
  if not running and not waiting:
    return 0.0
  whole = [row['secs'] / 3600 for row in rows if row['state'] == 'done' and row['secs']]
  whole += [
    row['hours_left'] + row['secs'] / 3600
    for row in rows
    if row['state'] == 'running' and row['hours_left'] is not None and row['secs']
  ]
  known = [hours for hours in running if hours is not None]
  if not whole or (running and not known):
    return None
  runners = [reply['runner'] for reply in board.replies.values() if reply['runner']]
  slots = sum(runner.get('slots', 1) for runner in runners)
  if waiting and not slots:
    return None
  left = (sum(known) + waiting * sum(whole) / len(whole)) / max(1, slots)
  return round(max([left, *known]), 3)


def table(board: Board, width: int, is_watched: bool) -> str:
  """Returns the runs as a table whose lines are cut to `width` characters.

  Args:
    board: what was seen.
    width: of the terminal.
    is_watched: whether runs that wait are only counted, so that the table stays small.
  """
  told = summary(board)
  counts = ', '.join(f'{told[state]} {state}' for state in _STATES if told[state])
  left = told['hours_left']
  lines = [f'{told["runs"]} runs: {counts}' + (f'; {_hours(left)} left' if left else '')]
  cells = [['run', 'state', 'host', 'frames', 'return', 'left', 'starts', 'last line']]
  for row in board.rows.values():
    if is_watched and row['state'] == 'waiting' and len(board.rows) > 30:
      continue
    cells.append([texts.printable(cell) for cell in _cells(row)])
  lines += texts.layout(cells).splitlines()
  for host, reply in board.replies.items():
    problem = (reply['runner'] or {}).get('problem')
    if problem:
      lines.append(f'{host.name}: {problem}')
    waits = any(
      row['state'] == 'waiting' and row['host'] == host.name for row in board.rows.values()
    )
    if waits and not reply['runner']:
      lines.append(f'{host.name}: no runner; --action=sweep --logdir=... starts it')
  lines += [f'{host.name} does not answer: {error}' for host, error in board.errors.items()]
  lines += [f'{name} is running or done in two places' for name in board.twice]
  return '\n'.join(line[:width] for line in lines)


def _cells(row: Row) -> list[str]:
  frames, total = row['frames'], row['total_frames']
  part = f' ({frames / total:.0%})' if frames is not None and total else ''
  return [
    row['run'],
    row['state'],
    row['host'] or '-',
    '-' if frames is None else f'{frames:,.0f}{part}',
    '-' if row['mean_return'] is None else f'{row["mean_return"]:.2f}',
    _hours(row['hours_left']),
    str(row['starts'] + row['restarts']),
    (row['last_line'] or '') if row['state'] in ('failed', 'running') else '',
  ]


def _hours(hours: float | None) -> str:
  return texts.duration(None if hours is None else hours * 3600)


# ---- logs. -------------------------------------------------------------------------------------


def print_logs(console: Console, logdir: str) -> int:
  """Prints the last lines of one run (--task=NAME) or of all that were begun."""
  options = console.options
  board = _look(console, logdir)
  if options.task and options.task not in board.rows:
    hint = texts.did_you_mean(options.task, list(board.rows), '{}')
    raise UserError(f'--task={options.task} is no run of {logdir}' + (f'; {hint}' if hint else ''))
  by_name = {host.name: host for host in console.hosts}
  names = [options.task] if options.task else list(board.rows)
  host_of = {
    name: by_name[board.rows[name]['host']]
    for name in names
    if board.rows[name]['host'] in by_name and (board.rows[name]['starts'] or options.task)
  }
  lines = options.lines or (logs.LINES_OF_ONE if options.task else logs.LINES_OF_EACH)
  offsets: dict[str, int | None] = {}
  failed = 0
  for name, host in host_of.items():
    try:
      offsets[name] = _print_lines(console, host, logdir, name, lines, None, console.say)
    except HostError as error:
      failed += 1
      console.say(f'{name}: no answer from {host.name}: {error}')
  if not host_of:
    console.say('no run has begun so far')
  if options.follow:

    def follow(host: AnyHost, put: Callable[[str], None]) -> None:
      own = {name: offset for name, offset in offsets.items() if host_of[name] is host}
      while True:
        time.sleep(POLL_SECS)
        for name, offset in own.items():
          with contextlib.suppress(HostError):  # A lost host is asked again.
            own[name] = _print_lines(console, host, logdir, name, lines, offset, put)

    for text in background.stream(follow, list(dict.fromkeys(host_of.values()))):
      console.say(text)
  return 1 if failed else 0


def _print_lines(
  console: Console,
  host: AnyHost,
  logdir: str,
  name: str,
  lines: int,
  offset: int | None,
  put: Callable[[str], None],
) -> int:
  """Puts lines of a run's log; returns the offset to go on from."""
  reply = host.ask(
    'sweep_logs', board_lib.REPLY_SECS, logdir=logdir, run=name, lines=lines, offset=offset
  )
  empty = ['nothing logged so far'] if offset is None else []
  for line in reply['lines'] or empty:
    put(f'{name}: {line}')
  return reply['offset']


# ---- stop. -------------------------------------------------------------------------------------


def end(console: Console, logdir: str) -> int:
  """Ends all runs, with a checkpoint, and the runners; returns 1 if a host did not answer."""
  _look(console, logdir)
  outcomes = console.on_all(
    lambda host: host.ask(
      'sweep_stop',
      stop.END_REPLY_SECS,
      logdir=logdir,
      host=host.name,
      session=settings.session_name(console.options.tmux_sess, logdir),
      tmux_socket=console.options.tmux_socket,
      now=console.options.now,
    )
  )
  for host, reply in outcomes:
    if not isinstance(reply, HostError):
      what = f'ended {", ".join(reply["ended"])}' if reply['ended'] else 'nothing ran'
      console.say(f'{host.name}: {what}')
  failed = console.failures(outcomes)
  again = console.command('sweep', f'--logdir={logdir}')
  console.say(f'\nto go on: {again}')
  return 1 if failed else 0


# ---- pull. -------------------------------------------------------------------------------------


def fetch(console: Console, logdir: str) -> int:
  """Fetches the records of all runs to folders below --to; returns 1 if a run has none so far."""
  target = console.options.to
  if not target:
    raise UserError('--action=pull needs a folder to fetch to, for example --to=results/')
  if os.path.exists(target) and not os.path.isdir(target):
    raise UserError(f'--to={target} is a file, not a folder')
  board = _look(console, logdir)
  assert board.sweep is not None
  folders = {host: reply['folder'] for host, reply in board.replies.items()}
  for host, folder in folders.items():
    is_own = isinstance(host, hosts.LocalHost)
    if is_own and os.path.realpath(folder) == os.path.realpath(target):
      raise UserError(f"--to={target} is the sweep's own folder; name another")
  os.makedirs(target, exist_ok=True)
  sweep_folder.write(target, board.sweep)
  by_name = {host.name: host for host in console.hosts}
  wanted: dict[AnyHost, list[str]] = {}
  for name, row in board.rows.items():
    host = by_name.get(row['host'])
    if host in folders and row['frames'] is not None:
      wanted.setdefault(host, []).append(name)

  def fetch_from(host: AnyHost) -> int:
    return _fetch_runs(console, host, folders[host], wanted[host], target)

  outcomes = console.on_all(fetch_from, list(wanted))
  failed = console.failures(outcomes)
  count = sum(result for _, result in outcomes if not isinstance(result, HostError))
  runs = sum(map(len, wanted.values()))
  what = f'{count} files' if count else 'nothing new'
  console.say(f'{what} of {runs} runs, of {len(board.rows)}, in {target}')
  for host, error in board.errors.items():
    console.say(f'{host.name} does not answer: {error}')
  return 1 if failed or board.errors else 0


def _fetch_runs(
  console: Console, host: AnyHost, folder: str, names: Sequence[str], target: str
) -> int:
  """Fetches runs of one host; returns the number of files."""
  count = 0
  with host.files() as files:
    for name in names:
      copied = pull.RunCopy(
        files, os.path.join(folder, name), os.path.join(target, name), lambda text: None
      )
      try:
        copied.fetch_records()
        copied.fetch_checkpoints(console.options.checkpoints)
      except fetching.Missing:
        continue
      except HostError as error:
        console.say(f'{name}: {error}')
      count += copied.count
  return count
