"""What all hosts say about a sweep: its list, and one row for each run."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from frontend.connection.hosts import LocalHost, SshHost
from frontend.console import Console
from frontend.errors import HostError
from frontend.host_side import sweep_contact, sweep_folder
from frontend.host_side.sweep_folder import Sweep

AnyHost = LocalHost | SshHost
REPLY_SECS = 30
# Of several places that know a run, the one that has got furthest speaks for it.
_BEST_FIRST = ('done', 'running', 'failed', 'waiting', 'moved')
ROW_KEYS = (
  'run',
  'state',
  'host',
  'frames',
  'total_frames',
  'mean_return',
  'frames_per_sec',
  'hours_left',
  'secs',
  'starts',
  'restarts',
  'last_line',
)

Row = dict[str, Any]


class Board(NamedTuple):
  """What was seen of a sweep.

  Attributes:
    sweep: the latest list that a host has; None if no host has one.
    replies: {host: its reply to `sweep_look`} of those that answered.
    errors: {host: why it did not}.
    rows: {run: its row, see `sweep_requests.run_row`}, the state being that of the whole sweep:
      `waiting`, `running`, `done`, `failed` or `unknown` (its host does not answer).
    last: {run: its state}, that which was seen last where it is `unknown` now.
    twice: runs that are running or done in two places.
    guarded: hosts that start nothing while they are in a minority.
  """

  sweep: Sweep | None
  replies: dict[AnyHost, dict[str, Any]]
  errors: dict[AnyHost, HostError]
  rows: dict[str, Row]
  last: dict[str, str]
  twice: list[str]
  guarded: set[str]


def look(console: Console, logdir: str) -> Board:
  """Asks all hosts at once.

  Args:
    console: the hosts.
    logdir: of the sweep.

  Raises:
    HostError: a host's sweep.json is not the list of a sweep.
  """
  outcomes = console.on_all(
    lambda host: host.ask('sweep_look', REPLY_SECS, logdir=logdir, host=host.name)
  )
  replies: dict[AnyHost, dict[str, Any]] = {}
  errors: dict[AnyHost, HostError] = {}
  latest: Sweep | None = None
  for host, reply in outcomes:
    if isinstance(reply, HostError):
      errors[host] = reply
      continue
    replies[host] = reply
    try:
      found = sweep_folder.from_json(reply['sweep']) if reply['sweep'] else None
    except ValueError as error:
      raise HostError('', f'{host.name}: its {sweep_folder.LIST}: {error}') from None
    if found and (latest is None or found.epoch > latest.epoch):
      latest = found
  seen = max((reply['seen'] for reply in replies.values()), key=_time, default={})
  before = seen.get('states', {})
  rows, twice = merge(latest, {host.name: r['rows'] for host, r in replies.items()}, before)
  last = {
    name: before.get(name, 'waiting') if row['state'] == 'unknown' else row['state']
    for name, row in rows.items()
  }
  guarded = set(seen.get('guarded', [])) - {host.name for host in replies}
  guarded |= {h.name for h, r in replies.items() if (r['runner'] or {}).get('is_guarded')}
  board = Board(latest, replies, errors, rows, last, twice, guarded)
  if latest and len(console.hosts) > 1:
    _remember(console, logdir, board)
  return board


def _time(seen: Mapping[str, Any]) -> float:
  return seen['time'] or 0.0


def _remember(console: Console, logdir: str, board: Board) -> None:
  """Leaves what was seen with all hosts, for a time when one of them does not answer."""
  seen = {'time': time.time(), 'states': board.last, 'guarded': sorted(board.guarded)}
  # A host that fails is noticed by the request that follows.
  console.on_all(lambda host: host.ask('sweep_seen', logdir=logdir, seen=seen), board.replies)


def lost_hosts(board: Board) -> set[str]:
  """Returns the hosts that will start nothing more, see `host_side/sweep_contact.py`.

  They do not answer, and a majority of runners has not reached them for `lost_secs`.
  """
  if board.sweep is None:
    return set()
  heard = {host.name for host in board.replies}
  secs = {
    host.name: reply['runner'].get('unreached_secs', {})
    for host, reply in board.replies.items()
    if reply['runner']
  }
  counted = [entry.name for entry in board.sweep.hosts if not entry.is_lost]
  found = {entry.name for entry in board.sweep.hosts if entry.is_lost} - heard
  for name in counted:
    tellers = [n for n, told in secs.items() if (told.get(name) or 0) >= board.sweep.lost_secs]
    is_reached = len(tellers) < len(secs)
    if name in board.guarded and name not in heard and not is_reached:
      if sweep_contact.is_majority(tellers, counted):
        found.add(name)
  return found


def merge(
  sweep: Sweep | None, seen: Mapping[str, list[Row]], before: Mapping[str, str]
) -> tuple[dict[str, Row], list[str]]:
  """Returns ({run: its row}, runs that are running or done in two places).

  Args:
    sweep: the latest list.
    seen: {name of a host that answered: its rows}.
    before: {run: its state when somebody looked before}.
  """
  if sweep is None:
    return {}, []
  places = {host.name: host.place for host in sweep.hosts}
  heard = {places.get(name, name) for name in seen}
  rows: dict[str, Row] = {}
  twice = []
  for run in sweep.runs:
    by_place: dict[str, Row] = {}
    for name, reported in seen.items():
      for row in reported:
        if row['run'] == run.name and row['state'] in _BEST_FIRST:
          by_place[places.get(name, name)] = row
    found = sorted(by_place.values(), key=lambda row: _BEST_FIRST.index(row['state']))
    best = {key: found[0].get(key) for key in ROW_KEYS} if found else _unseen_row(run)
    if sum(row['state'] in ('running', 'done') for row in found) > 1:
      twice.append(run.name)
    if best['state'] in ('waiting', 'moved'):
      best['state'] = (
        'waiting' if run.place in heard or not run.place else _unheard(before.get(run.name, ''))
      )
      best['host'] = run.place
    rows[run.name] = best
  return rows, twice


def _unheard(seen: str) -> str:
  """The state of a run whose place did not answer, given the state when it last did."""
  return seen if seen in ('done', 'failed') else 'unknown'


def _unseen_row(run: sweep_folder.Run) -> Row:
  row: Row = dict.fromkeys(ROW_KEYS)
  return row | {'run': run.name, 'state': 'waiting', 'host': run.place, 'starts': 0, 'restarts': 0}


def each_place(board: Board, place_of: Callable[[AnyHost], str]) -> dict[str, list[AnyHost]]:
  """Returns {place: its hosts that answered}."""
  found: dict[str, list[AnyHost]] = {}
  for host in board.replies:
    found.setdefault(place_of(host), []).append(host)
  return found
