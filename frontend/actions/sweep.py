"""`sweep`: starts many trainings of one process each, or goes on with them, on one host or many."""

import secrets
from collections.abc import Mapping, Sequence

from frontend import arguments, checkout
from frontend.actions import check
from frontend.cluster import placement_problem
from frontend.connection import hosts
from frontend.console import AnyHost, Console
from frontend.errors import HostError, UserError
from frontend.host_side import sweep_folder
from frontend.host_side.sweep_folder import HostEntry, Run, Sweep
from frontend.sweep import array_element, dealing, settings
from frontend.sweep import board as board_lib
from frontend.sweep.board import Board

# Restarts of a failing run within an hour; --max_restarts says otherwise.
MAX_RESTARTS = 3
REPLY_SECS = 60
# Most sentences about impossible combinations that are printed.
MOST_PROBLEMS = 20


def run(console: Console) -> int:
  """Starts the sweep, or goes on with it; returns the exit code, 1 if a host could not be used.

  Raises:
    UserError: the flags are no sweep, or the folder holds another one.
    HostError: no host answers.
  """
  logdir, words = arguments.take_logdir(console.training_flags)
  if not logdir:
    raise UserError('--action=sweep needs a folder for its runs, for example --logdir=runs/sweep1')
  asked = _asked_for(console, words)
  if console.options.element:
    return array_element.run(console, logdir, lambda old: _planned(console, old, asked, logdir))
  board = board_lib.look(console, logdir)
  if not board.replies:
    console.failures(board.errors.items())
    raise HostError('', 'no host answers; nothing was started')
  sweep = _planned(console, board.sweep, asked, logdir)
  if board.sweep is None and console.options.cluster_csv_path and not console.options.skip_check:
    # On this machine, all runs were checked; a host may lack a package or a game.
    console.training_flags = sweep_folder.run_arguments(sweep, sweep.runs[0])
    if not check.all_pass(console):
      console.say('nothing was started (--skip_check starts all the same)')
      return 1
  for host, reply in board.replies.items():
    if not reply['tmux']:
      raise UserError(
        f'tmux is not installed on {host.name}; for example: sudo apt-get install tmux'
      )
  return _go_on(console, logdir, board, sweep)


# ---- Which runs. -------------------------------------------------------------------------------


def _asked_for(console: Console, words: list[str]) -> Sweep | None:
  """The sweep of the command line; None if it names only the folder."""
  options = console.options
  if not options.sweep:
    if words:
      raise UserError(
        f'--action=sweep without --sweep goes on with a sweep, which has its flags; {words[0]} '
        'came as well'
      )
    return None
  swept = settings.parse(options.sweep)
  problem = placement_problem(words)
  if problem:
    raise UserError(problem.replace('follows from the cluster CSV', 'is set by the sweep'))
  given = {word.lstrip('-').partition('=')[0] for word in words if word.startswith('-')}
  twice = [key for key in swept if key in given or f'no{key}' in given]
  if twice:
    raise UserError(f'--{twice[0]} is swept, and cannot be given as well')
  if options.population:
    if options.population == 1:
      raise UserError('--population=1: a population has at least two members')
    if options.sweep_random:
      raise UserError('--population and --sweep_random exclude one another')
    words = [*words, f'--population_settings={",".join(swept)}']
    runs = settings.members(swept, options.population, options.sweep_seed)
  elif options.sweep_random:
    runs = settings.draw(swept, options.sweep_random, options.sweep_seed)
  else:
    runs = settings.grid(swept)
  restarts = options.max_restarts if options['max_restarts'].present else MAX_RESTARTS
  restarts = 0 if options.restart == 'never' else restarts
  return Sweep(
    list(swept),
    words,
    runs,
    epoch=0,
    max_restarts=restarts,
    population=options.population,
  )


def _planned(console: Console, old: Sweep | None, asked: Sweep | None, logdir: str) -> Sweep:
  """The sweep that is there with the runs that the command adds, whose flags are checked."""
  sweep = _joined(old, asked, logdir)
  new = sweep.runs[len(old.runs) if old else 0 :]
  if new:
    _refuse_impossible(console, sweep, new)
  return sweep


def _joined(old: Sweep | None, asked: Sweep | None, logdir: str) -> Sweep:
  """The sweep that is there with the runs that the command adds.

  Raises:
    UserError: there is another sweep in the folder, or none at all.
  """
  if asked is None:
    if old is None:
      raise UserError(
        f'--logdir={logdir} has no sweep to go on with; --sweep=seed=1..5, for example, begins one'
      )
    return old
  if old is None:
    return asked
  for what, before, now in (
    ('sweeps', old.swept, asked.swept),
    ('has the flags', old.arguments, asked.arguments),
  ):
    if before != now:
      raise UserError(
        f'--logdir={logdir} holds another sweep: it {what} {" ".join(before) or "(none)"}, and now '
        f'came {" ".join(now) or "(none)"}; --logdir alone goes on with it'
      )
  if old.population != asked.population:
    raise UserError(
      f'--logdir={logdir} holds a sweep with --population={old.population}, and members cannot be '
      'added or removed; --logdir alone goes on with it'
    )
  known = [run.settings for run in old.runs]
  added = [run for run in asked.runs if run.settings not in known]
  taken = {run.name.lower() for run in old.runs}
  clash = [run.name for run in added if run.name.lower() in taken]
  if clash:
    raise UserError(f'--logdir={logdir}: {clash[0]} is the folder of another run there already')
  return old._replace(runs=[*old.runs, *added], max_restarts=asked.max_restarts)


def _refuse_impossible(console: Console, sweep: Sweep, runs: Sequence[Run]) -> None:
  """Raises UserError with a sentence for each run that experiment.py refuses."""
  console.say(f'checking the flags of {len(runs)} runs')
  lists = [
    sweep_folder.run_arguments(sweep, run) + sweep_folder.place_arguments(sweep, 'runs', run.name)
    for run in runs
  ]
  problems = []
  for new, finished in zip(runs, checkout.check_flags(hosts.CODE, lists)):
    reason = finished.last_error or f'exit {finished.exit_code}'
    if finished.exit_code == 2:
      problems.append(f'{new.name}: {reason.removeprefix("experiment.py: ")}')
    elif finished.exit_code:
      console.say(f'warning: the flags of {new.name} could not be checked here ({reason})')
  if problems:
    more = len(problems) - MOST_PROBLEMS
    shown = problems[:MOST_PROBLEMS] + ([f'and {more} more'] if more > 0 else [])
    raise UserError(
      '\n'.join(
        [f'{len(problems)} of {len(runs)} runs are impossible; nothing was started', *shown]
      )
    )


# ---- Where, and the start. ---------------------------------------------------------------------


def _go_on(console: Console, logdir: str, board: Board, sweep: Sweep) -> int:
  """Deals the runs, tells the hosts, and starts their runners."""
  lost = _lost_hosts(console, board, sweep)
  entries = [
    entry._replace(is_lost=entry.name in lost) for entry in _entries(console, logdir, board, sweep)
  ]
  if sweep.population and len({entry.place for entry in entries}) > 1:
    raise UserError(
      '--population: the members have to see one another, but the hosts do not share the folder '
      f'{logdir}: {", ".join(sorted({entry.place for entry in entries}))}'
    )
  places = {entry.name: entry.place for entry in entries}
  epoch = (board.sweep.epoch if board.sweep else 0) + 1
  rows = board.rows
  states = {r.name: rows[r.name]['state'] if r.name in rows else 'waiting' for r in sweep.runs}
  dealt = _deal(sweep, board, places, states, _given_up(console, board, sweep, lost))
  moved = {r.name: dealt[r.name] for r in sweep.runs if r.place and dealt[r.name] != r.place}
  kept = _release(console, logdir, board, places, sweep, moved, epoch)
  for r in sweep.runs:
    if r.name in moved and r.name not in kept:
      console.say(f'moved {r.name} from {r.place} to {moved[r.name]}')
  runs = [
    r if r.name in kept else r._replace(place=_place_of(r, rows, places, dealt[r.name]))
    for r in sweep.runs
  ]
  if console.options['lost_secs'].present or board.sweep is None:
    sweep = sweep._replace(lost_secs=console.options.lost_secs)
  sweep = sweep._replace(runs=runs, hosts=entries, epoch=epoch)
  failed = _tell(console, logdir, board, sweep)
  failed += _start(console, logdir, board, sweep, states)
  _say_result(console, logdir, board, sweep, states)
  return 1 if failed else 0


def _told_lost(console: Console) -> list[str]:
  return [name for name in (console.options.lost_hosts or '').split(',') if name]


def _lost_hosts(console: Console, board: Board, sweep: Sweep) -> set[str]:
  """Returns the hosts that are lost, by the user's word or by that of the other hosts."""
  told = _told_lost(console)
  names = [entry.name for entry in sweep.hosts]
  for name in told:
    if name not in names:
      raise UserError(f'--lost_hosts={name} is no host of this sweep: {", ".join(names)}')
    if name in {host.name for host in board.replies}:
      raise UserError(f'--lost_hosts={name}: it answers, so it is not lost')
  found = board_lib.lost_hosts(board)
  known = {entry.name for entry in sweep.hosts if entry.is_lost}
  for name in sorted(found - known - set(told)):
    console.say(
      f'{name} was not reached by the others for {sweep.lost_secs:g} s: they get what it had not '
      'begun when it was seen last'
    )
  return found | set(told)


def _given_up(console: Console, board: Board, sweep: Sweep, lost: set[str]) -> set[str]:
  """Returns the runs that others get though their place does not answer.

  Where the user says that a host is switched off, these are all that are not done. Where its own
  runner must have ceased to start runs, they are those that nobody has seen begun.
  """
  told = _told_lost(console)
  hosts_of: dict[str, list[str]] = {}
  for entry in sweep.hosts:
    hosts_of.setdefault(entry.place, []).append(entry.name)
  found = set()
  for r in sweep.runs:
    names = hosts_of.get(r.place, [])
    if names and lost.issuperset(names):
      last = board.last.get(r.name, 'waiting')
      given = ('waiting', 'running') if set(told).issuperset(names) else ('waiting',)
      if last in given:
        found.add(r.name)
  return found


def _place_of(
  r: Run, rows: Mapping[str, board_lib.Row], places: Mapping[str, str], dealt: str
) -> str:
  """The place of a run that is running or has ended is where that was, whoever was to run it."""
  row = rows.get(r.name)
  if row and row['state'] in ('running', 'done', 'failed') and row['host'] in places:
    return places[row['host']]
  return dealt


def _entries(console: Console, logdir: str, board: Board, sweep: Sweep) -> list[HostEntry]:
  """All hosts of the sweep, those of earlier commands included, with their places."""
  old = {entry.name: entry for entry in sweep.hosts}
  shared = _shared_folders(console, logdir, list(board.replies))
  entries = dict(old)
  for host in console.hosts:
    sharing = [other.name for other in shared.get(host, [host])]
    known = [old[name].place for name in sharing if name in old]
    place = known[0] if known else sharing[0]
    ssh_port = host.host.ssh_port or 22
    slots = _slots(console, host, old.get(host.name))
    entries[host.name] = HostEntry(host.name, place, slots, host.host.devices, ssh_port)
  return list(entries.values())


def _slots(console: Console, host: AnyHost, old: HostEntry | None) -> int:
  """The slots of a host, 0 for its default; on this machine, those of an earlier command stay."""
  says = console.options.cluster_csv_path or console.options['slots'].present
  return host.host.slots if says or not old else old.slots


def _shared_folders(
  console: Console, logdir: str, targets: list[AnyHost]
) -> dict[AnyHost, list[AnyHost]]:
  """Returns {host: the hosts that have its folder, in the order of the CSV}.

  Each host leaves a mark in the sweep's folder and looks for those of the others.
  """
  if len(targets) < 2:
    return {}
  marks = {host: secrets.token_hex(6) for host in targets}
  try:
    ask = {'timeout_secs': REPLY_SECS, 'logdir': logdir}
    console.on_all(lambda host: host.ask('sweep_share', mark=marks[host], **ask), targets)
    outcomes = console.on_all(lambda host: host.ask('sweep_marks', **ask), targets)
  finally:
    console.on_all(lambda host: host.ask('sweep_unmark', mark=marks[host], **ask), targets)
  return {
    host: [other for other in targets if marks[other] in reply['marks']] or [host]
    for host, reply in outcomes
    if not isinstance(reply, HostError)
  }


def _deal(
  sweep: Sweep,
  board: Board,
  places: Mapping[str, str],
  states: Mapping[str, str],
  given_up: set[str],
) -> dict[str, str]:
  slots = {host.name: host.host.slots or reply['slots'] for host, reply in board.replies.items()}
  found: dict[str, dealing.Place] = {}
  for name, count in slots.items():
    place = places[name]
    before = found.get(place, dealing.Place(0))
    found[place] = before._replace(slots=before.slots + count)
  for place in found:
    there = [row for row in board.rows.values() if row['host'] and places.get(row['host']) == place]
    running = sum(_left(row) for row in there if row['state'] == 'running')
    speeds = [row['frames'] / row['secs'] for row in there if row['frames'] and row['secs']]
    speed = sum(speeds) / len(speeds) if speeds else 0.0
    found[place] = found[place]._replace(running=running, speed=speed)
  begun = {name for name, row in board.rows.items() if row['state'] == 'waiting' and row['frames']}
  return dealing.deal(sweep.runs, states, begun, found, given_up)


def _left(row: board_lib.Row) -> float:
  """The part of a run that is still to be done, 0 to 1."""
  if not row['total_frames'] or row['frames'] is None:
    return 1.0
  return max(0.0, 1.0 - row['frames'] / row['total_frames'])


def _release(
  console: Console,
  logdir: str,
  board: Board,
  places: Mapping[str, str],
  sweep: Sweep,
  moved: Mapping[str, str],
  epoch: int,
) -> set[str]:
  """Has places that answer give up what is to move; returns the runs that they keep.

  One host of each place is asked. A run that was begun meanwhile stays, and so do all if the host
  is lost now.
  """
  kept: set[str] = set()
  first = {place: found[0] for place, found in board_lib.each_place(board, _placed(places)).items()}
  asked = {place: {r.name for r in sweep.runs if r.place == place} & set(moved) for place in first}

  def release(host: AnyHost) -> set[str]:
    names = asked[places[host.name]]
    moves = {name: moved[name] for name in names}
    reply = host.ask(
      'sweep_release', REPLY_SECS, logdir=logdir, host=host.name, moves=moves, epoch=epoch
    )
    return names - set(reply['released'])

  targets = [host for place, host in first.items() if asked[place]]
  for host, result in console.on_all(release, targets):
    if isinstance(result, HostError):
      console.say(f'{host.name}: {result}; what it was to run stays there')
      result = asked[places[host.name]]
    kept |= result
  return kept


def _placed(places: Mapping[str, str]):
  return lambda host: places[host.name]


def _tell(console: Console, logdir: str, board: Board, sweep: Sweep) -> int:
  """Writes the list to each place; returns how many failed."""
  places = {entry.name: entry.place for entry in sweep.hosts}
  first = [found[0] for found in board_lib.each_place(board, _placed(places)).values()]
  value = sweep_folder.to_json(sweep)
  ask = {'timeout_secs': REPLY_SECS, 'logdir': logdir, 'sweep': value}
  outcomes = console.on_all(lambda host: host.ask('sweep_write', host=host.name, **ask), first)
  return console.failures(outcomes)


def _start(
  console: Console, logdir: str, board: Board, sweep: Sweep, states: Mapping[str, str]
) -> int:
  """Starts the runners where there is something to run; returns how many hosts failed."""
  if not console.options.start:
    return 0
  places = {entry.name: entry.place for entry in sweep.hosts}
  retry = [name for name, state in states.items() if state == 'failed']
  retry = retry if console.options.retry_failed else []
  needed = {r.place for r in sweep.runs if states[r.name] != 'done' or r.name in retry}
  targets = [host for host in board.replies if places[host.name] in needed]
  outcomes = console.on_all(
    lambda host: host.ask(
      'sweep_start',
      REPLY_SECS,
      logdir=logdir,
      host=host.name,
      session=settings.session_name(console.options.tmux_sess, logdir),
      tmux_socket=console.options.tmux_socket,
      retry=retry,
    ),
    targets,
  )
  for host, reply in outcomes:
    if not isinstance(reply, HostError):
      verb = 'started' if reply['started'] else 'goes on'
      console.say(f'{host.name}: the runner {verb}')
  return console.failures(outcomes)


def _say_result(
  console: Console, logdir: str, board: Board, sweep: Sweep, states: Mapping[str, str]
) -> None:
  counts = {
    state: sum(s == state for s in states.values()) for state in dict.fromkeys(states.values())
  }
  text = ', '.join(f'{count} {state}' for state, count in counts.items())
  console.say(f'{len(sweep.runs)} runs in {logdir}: {text}')
  for host, error in board.errors.items():
    console.say(f'{host.name} does not answer: {error}')
  heard = {host.name for host in board.replies}
  for entry in sweep.hosts:
    there = [r.name for r in sweep.runs if r.place == entry.name and states[r.name] == 'unknown']
    if there and entry.name not in heard:
      console.say(
        f'{len(there)} runs stay with {entry.name}, since it may still run them; if it is switched '
        f'off, --lost_hosts={entry.name} deals them to the others'
      )
  for name in board.twice:
    console.say(f'warning: {name} is running or done in two places')
  extra = [f'--logdir={logdir}']
  console.say(f'\nstatus:  {console.command("status", *extra, "--watch")}')
  console.say(f'stop:    {console.command("stop", *extra)}')
