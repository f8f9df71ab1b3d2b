"""What the frontend asks a host about a sweep: requests of the agent, see `agent.py`.

`logdir` is the sweep's folder, absolute or below the folder with the code; `host` is the name of
the host in sweep.json.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any

from common import files
from frontend.errors import UserError
from frontend.host_side import (
  launched,
  processes,
  supervisor,
  sweep_folder,
  sweep_runner,
  task_record,
  task_status,
  tmux,
)

# A run saves a checkpoint, as a task does.
END_SECS = 60.0
END_NOW_SECS = 3.0
MARK = '.host-'


def _folder(logdir: str) -> str:
  code = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  return os.path.normpath(os.path.join(code, os.path.expanduser(logdir)))


def _sweep(logdir: str) -> tuple[str, sweep_folder.Sweep]:
  folder = _folder(logdir)
  sweep = sweep_folder.read(folder)
  if sweep is None:
    raise UserError(f'{folder} has no {sweep_folder.LIST}')
  return folder, sweep


def sweep_look(logdir: str, host: str) -> dict[str, Any]:
  """A request: what lies in the folder of a sweep, and what runs there.

  Returns:
    {'folder': absolute path, 'sweep': see `sweep_folder`, or None, 'rows': a row for each run,
    'slots': this host's default, 'runner': the record of its runner if it runs, else None,
    'tmux': whether tmux is installed, 'seen': see `sweep_folder.read_seen`}.
  """
  folder = _folder(logdir)
  sweep = sweep_folder.read(folder)
  rows = []
  if sweep:
    now, place = time.time(), _place(sweep, host)
    rows = [run_row(folder, run, place, sweep.epoch, now) for run in sweep.runs]
  return {
    'folder': folder,
    'sweep': sweep_folder.to_json(sweep) if sweep else None,
    'rows': rows,
    'slots': sweep_runner.default_slots(),
    'runner': sweep_runner.running_record(folder, host),
    'tmux': tmux.version() is not None,
    'seen': sweep_folder.read_seen(folder),
  }


def run_row(
  folder: str, run: sweep_folder.Run, place: str, epoch: int, now: float
) -> dict[str, Any]:
  """Returns how a run is.

  Returns:
    {'run': name, 'state': one of `sweep_folder.STATES`, 'host' that claimed it last, 'frames' and
    'total_frames' (environment frames), 'mean_return', 'frames_per_sec', 'hours_left' (all None if
    unknown), 'secs' since its latest start, 'starts', 'restarts' by its supervisor, 'last_line' of
    its log}.
  """
  tasks = sweep_folder.tasks_folder(folder, run.name)
  state = sweep_folder.state(folder, run, place, epoch)
  number, claim = sweep_folder.last_claim(tasks)
  record = task_record.read(supervisor.path_of(tasks, sweep_folder.TASK, 'supervisor.json')) or {}
  own = task_record.read_state(supervisor.path_of(tasks, sweep_folder.TASK, 'json'))
  ended = sweep_folder.outcome(tasks)
  total = _total_frames(os.path.join(folder, run.name))
  frames, speed = own.get('environment_frames'), own.get('frames_per_sec')
  left = None
  if state == 'running' and speed and total and frames is not None:
    left = round(max(0.0, total - frames) / speed / 3600, 4)
  end = ended.time if ended and ended.claim == number else now
  lines = task_status.last_log_line(tasks, sweep_folder.TASK)
  return {
    'run': run.name,
    'state': state,
    'host': claim.host if claim else '',
    'frames': frames,
    'total_frames': total,
    'mean_return': own.get('mean_return_100'),
    'frames_per_sec': speed if state == 'running' else None,
    'hours_left': left,
    'secs': round(end - claim.time, 1) if claim else None,
    'starts': number,
    'restarts': record.get('restarts', 0),
    'last_line': lines,
  }


def _total_frames(logdir: str) -> float | None:
  """The frames after which a run ends, from the run.json of its trainer."""
  record = task_record.read_json(os.path.join(logdir, 'run.json'))
  flags = record.get('flags') if isinstance(record, dict) else None
  total = flags.get('total_environment_frames') if isinstance(flags, dict) else None
  return total if isinstance(total, int | float) and total > 0 else None


def sweep_share(logdir: str, mark: str) -> dict[str, Any]:
  """A request: leaves a mark in the sweep's folder; returns {'marks': those that lie there now}."""
  folder = _folder(logdir)
  os.makedirs(folder, exist_ok=True)
  with open(os.path.join(folder, MARK + mark), 'w', encoding='utf-8'):
    pass
  return sweep_marks(logdir)


def sweep_marks(logdir: str) -> dict[str, Any]:
  """A request: {'marks': the marks of `sweep_share` in the sweep's folder}."""
  names = files.names(_folder(logdir))
  return {'marks': sorted(n.removeprefix(MARK) for n in names if n.startswith(MARK))}


def sweep_unmark(logdir: str, mark: str) -> dict[str, Any]:
  """A request: removes a mark of `sweep_share`."""
  with contextlib.suppress(OSError):
    os.remove(os.path.join(_folder(logdir), MARK + mark))
  return {}


def sweep_write(logdir: str, host: str, sweep: dict[str, Any]) -> dict[str, Any]:
  """A request: replaces sweep.json, unless that of a later dealing lies there.

  A runner may be about to start a run by the old list. So what other places have now is claimed for
  them first: whoever claims first, the other one knows.

  Raises:
    UserError: another frontend has dealt the runs meanwhile.
  """
  folder = _folder(logdir)
  new, old = sweep_folder.from_json(sweep), sweep_folder.read(folder)
  if old and old.epoch >= new.epoch:
    raise UserError(f'the runs in {folder} were dealt by somebody else at the same time; try again')
  place = _place(new, host)
  if old:
    others = {run.name: run.place for run in new.runs if run.place not in ('', place)}
    _give_away(folder, old, host, others, new.epoch)
  sweep_folder.write(folder, new)
  return {}


def _place(sweep: sweep_folder.Sweep, host: str) -> str:
  return next((entry.place for entry in sweep.hosts if entry.name == host), '')


def sweep_seen(logdir: str, seen: dict[str, Any]) -> dict[str, Any]:
  """A request: keeps what a frontend has seen of all hosts, see `sweep_folder.write_seen`."""
  sweep_folder.write_seen(_folder(logdir), seen)
  return {}


def sweep_release(
  logdir: str, host: str, moves: dict[str, str], epoch: int
) -> dict[str, list[str]]:
  """A request: gives waiting runs away, so that no runner of this folder ever starts them.

  Args:
    logdir: of the sweep.
    host: name of this host.
    moves: {run: the place that gets it}.
    epoch: of the sweep.json that says so.

  Returns:
    {'released': the runs that nobody had begun here}.
  """
  folder, sweep = _sweep(logdir)
  return {'released': _give_away(folder, sweep, host, moves, epoch)}


def _give_away(
  folder: str, sweep: sweep_folder.Sweep, host: str, moves: dict[str, str], epoch: int
) -> list[str]:
  """Claims waiting runs for other places; returns those of `moves` that nobody has begun here."""
  given = []
  place = _place(sweep, host)
  for run in sweep.runs:
    if run.name in moves:
      tasks = sweep_folder.tasks_folder(folder, run.name)
      number, _ = sweep_folder.last_claim(tasks)
      state = sweep_folder.state(folder, run, place, sweep.epoch)
      if state == 'moved' or (
        state == 'waiting' and sweep_folder.claim(tasks, number + 1, host, epoch, moves[run.name])
      ):
        given.append(run.name)
  return given


def sweep_start(
  logdir: str, host: str, session: str, tmux_socket: str, retry: list[str]
) -> dict[str, bool]:
  """A request: starts the runner of a host in a tmux session, unless it runs.

  Args:
    logdir: of the sweep.
    host: name of this host.
    session: name of the session.
    tmux_socket: name or path, '' for the default.
    retry: failed runs that are to be tried again.

  Returns:
    {'started': whether it did not run before}.
  """
  folder, _ = _sweep(logdir)
  sweep_folder.give_failed_another_try(folder, retry)
  sweep_folder.set_stopping(folder, False)
  if sweep_runner.running_record(folder, host):
    return {'started': False}
  with contextlib.suppress(OSError):
    os.remove(sweep_runner.record_path(folder, host))
  command = [
    sys.executable, '-m', 'frontend.host_side.sweep_runner', folder, f'--host={host}', '--wait',
  ]  # fmt: skip
  os.chdir(_folder(''))
  if not tmux.is_used(tmux_socket, session):
    tmux.end_session(tmux_socket, session)
  tmux.start_windows(tmux_socket, session, [('runner', command)])
  started = processes.wait_until(lambda: sweep_runner.running_record(folder, host), 30)
  if not started:
    raise UserError(
      f'the runner in {folder} did not start; `{" ".join(command)}` in {_folder("")} says why'
    )
  return {'started': True}


def sweep_stop(
  logdir: str, host: str, session: str, tmux_socket: str, now: bool
) -> dict[str, list[str]]:
  """A request: ends the runner of a host and its runs; they go on from their checkpoints later.

  Args:
    logdir: of the sweep.
    host: name of this host.
    session: name of the session.
    tmux_socket: name or path, '' for the default.
    now: whether to leave runs no time for a checkpoint.

  Returns:
    {'ended': the runs that ran here}.
  """
  folder, sweep = _sweep(logdir)
  with contextlib.suppress(OSError):  # On a full disk, the signals have to be enough.
    sweep_folder.set_stopping(folder, True)
  runner = sweep_runner.running_record(folder, host) or {}
  ended: set[str] = set()
  # The runner asks its runs to end, each once: a second signal would cost a checkpoint.
  runner_asks = processes.send(runner.get('pid'), runner.get('mark'), signal.SIGTERM)

  def is_over() -> bool:
    # Read at each look: the supervisor of a run that is being started writes its record later.
    found = _runs_here(folder, sweep)
    if not runner_asks:
      for name in set(found) - ended:
        _signal(found[name])
    ended.update(found)
    return not found and not processes.is_running(runner.get('pid'), runner.get('mark'))

  if not processes.wait_until(is_over, END_NOW_SECS if now else END_SECS):
    for record in _runs_here(folder, sweep).values():
      if launched.task_runs(record):
        processes.kill_group(record['pid'])
    processes.wait_until(is_over, END_NOW_SECS)
  processes.send(runner.get('pid'), runner.get('mark'), signal.SIGKILL)
  if tmux.version():
    tmux.end_session(tmux_socket, session)
  return {'ended': sorted(ended)}


def _runs_here(folder: str, sweep: sweep_folder.Sweep) -> dict[str, dict[str, Any]]:
  """Returns {run: record of its supervisor} of those that run on this host."""
  records = {}
  for run in sweep.runs:
    tasks = sweep_folder.tasks_folder(folder, run.name)
    found = task_record.read(supervisor.path_of(tasks, sweep_folder.TASK, 'supervisor.json'))
    if found and launched.still_running([found]):
      records[run.name] = found
  return records


def _signal(record: dict[str, Any]) -> None:
  if not processes.send(record['supervisor_pid'], record['supervisor_mark'], signal.SIGTERM):
    processes.send(record['pid'], record['mark'], signal.SIGTERM)


def sweep_logs(logdir: str, run: str, lines: int, offset: int | None) -> dict[str, Any]:
  """A request: lines of a run's log, see `task_status.log_lines`."""
  folder, sweep = _sweep(logdir)
  if run not in {known.name for known in sweep.runs}:
    raise UserError(f'{folder} has no run {run}')
  path = supervisor.path_of(sweep_folder.tasks_folder(folder, run), sweep_folder.TASK, 'log')
  return task_status.log_lines(path, lines, offset)


REQUESTS = (
  sweep_look,
  sweep_share,
  sweep_marks,
  sweep_unmark,
  sweep_write,
  sweep_seen,
  sweep_release,
  sweep_start,
  sweep_stop,
  sweep_logs,
)
