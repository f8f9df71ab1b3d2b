"""The agent of the frontend on a host: reads one JSON request a line, writes one JSON reply a line.

The frontend starts it over SSH, or as a plain process on its own machine. It ends with its input;
the tmux session that it started goes on.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from common import ports as ports_lib
from frontend.errors import UserError
from frontend.host_side import (
  host_check,
  launched,
  nftables,
  processes,
  supervisor,
  sweep_requests,
  task_status,
  tmux,
)
from frontend.host_side import tensorboard as tensorboard_process

# Marks replies: a login script may print other lines.
REPLY_MARK = '@impala '
# After SIGTERM, a parameter server waits up to 20 s for the chief's checkpoint.
END_SECS = 25.0
END_NOW_SECS = 3.0


def _root() -> str:
  """Returns the folder with the code."""
  return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


# ---- Requests. A function takes the fields of the request by name and returns the reply. -------


def hello() -> dict[str, Any]:
  """Returns who answers. 'numbered': replies carry the number of their request, if it has one."""
  return {'python': sys.executable, 'workdir': _root(), 'numbered': True}


def has_session(session: str, tmux_socket: str) -> dict[str, bool]:
  """Returns whether a process runs in the session; windows of ended tasks do not count."""
  return {'there': bool(tmux.version()) and tmux.is_used(tmux_socket, session)}


def check(
  hashes: dict[str, str | None],
  packages: list[str],
  ports: list[int],
  devices: list[str | None],
  argument_lists: list[list[str]],
  own: str,
  session: str,
  tmux_socket: str,
) -> dict[str, Any]:
  """Does all checks of a host.

  Args:
    hashes: `file_hashes` of the frontend's machine.
    packages: names for `package_versions`.
    ports: `tf_port`s of this host's tasks.
    devices: their `cuda_visible_devices` cells.
    argument_lists: one list of arguments for each kind of task.
    own: the `ip` cell of this host.
    session: name of the session.
    tmux_socket: name or path, '' for the default.

  Returns:
    {'items': {name of the check: (passed, detail)}, 'versions': `package_versions`}.
  """
  versions = host_check.package_versions(packages)
  checks: dict[str, tuple[Any, ...]] = {
    'code': (host_check.check_code, _root(), hashes),
    'packages': (host_check.check_packages, versions),
    'gpus': (host_check.check_gpus, devices),
    'disk': (host_check.check_disk, _root()),
    'tmux': (host_check.check_tmux,),
    'session': (host_check.check_session, tmux_socket, session),
    'ports': (host_check.check_ports, ports),
    'firewall': (nftables.still_set, session, own, ports),
    'flags': (host_check.check_flags, _root(), argument_lists),
  }
  items = {item: _outcome(function, arguments) for item, (function, *arguments) in checks.items()}
  return {'items': items, 'versions': versions}


def _outcome(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
  try:
    return function(*arguments)
  except Exception as error:
    return False, f'could not be checked: {error or type(error).__name__}'


_LISTENERS: list[socket.socket] = []


def listen(ports: list[int]) -> dict[str, int]:
  """Listens on the tasks' ports, so that other hosts can check that they reach them."""
  for port in ports:
    with contextlib.suppress(OSError):
      _LISTENERS.append(ports_lib.listening_socket(port))
  return {'listening': len(_LISTENERS)}


def reach(addresses: list[tuple[str, int]], allow_public: bool) -> dict[str, list[str]]:
  """Tries to connect to every [address, port]; returns a sentence for each that failed."""
  return {'problems': host_check.unreachable(addresses, allow_public)}


def unlisten() -> dict[str, Any]:
  """Closes the sockets of `listen`."""
  while _LISTENERS:
    _LISTENERS.pop().close()
  return {}


def _remove_files_of_last_launch(session: str, names: list[str]) -> None:
  """Removes the files of earlier launches on this host, and rotates their logs.

  Files of other hosts that share the folder, and files of unknown origin, stay.
  """
  folder = supervisor.run_folder(session)
  here, _, _ = launched.records(session)
  ours = {*names, *(found['task'] for found in here if not launched.still_running([found]))}
  for name in os.listdir(folder):
    path = os.path.join(folder, name)
    task, _, suffix = name.partition('.')
    with contextlib.suppress(FileNotFoundError):  # Another host that shares the folder was faster.
      if task in ours and suffix == 'log':
        os.replace(path, path + '.1')
      elif (task in ours and suffix.endswith('json')) or name == 'stopping':
        os.remove(path)


def _refuse_running(session: str, names: list[str]) -> None:
  folder = supervisor.run_folder(session)
  here, elsewhere, _ = launched.records(session)
  alive = [found['task'] for found in launched.still_running(here)]
  if alive:
    raise UserError(
      f'{", ".join(alive)} of session {session!r} still running in {folder}; '
      'end it with --action=stop'
    )
  taken = [f'{found["task"]} on {found["host"]}' for found in elsewhere if found['task'] in names]
  if taken:
    raise UserError(
      f'{", ".join(taken)} of session {session!r} still running in {folder}, which both hosts '
      'share; end it with --action=stop and the cluster_csv_path that it was launched with (a host '
      'that was switched off counts as running for a minute)'
    )


def launch(
  session: str, tmux_socket: str, tasks: list[dict[str, Any]], restart: str, max_restarts: int
) -> dict[str, Any]:
  """Starts tasks in a new tmux session, each with a supervisor.

  Args:
    session: name of the session.
    tmux_socket: name or path, '' for the default.
    tasks: list of {'task': name, 'arguments': of experiment.py, 'environment': see
      `supervisor.Spec`}.
    restart: see `supervisor.Spec`.
    max_restarts: see `supervisor.Spec`.

  Raises:
    UserError: tasks of the session still run.
  """
  folder = supervisor.private_run_folder(session)
  names = [task['task'] for task in tasks]
  _refuse_running(session, names)
  _remove_files_of_last_launch(session, names)
  commands = []
  for task in tasks:
    spec = supervisor.Spec(
      task['task'],
      [sys.executable, 'experiment.py', f'--state_dir={folder}', *task['arguments']],
      task['environment'],
      restart,
      max_restarts,
    )
    supervisor.write_json(supervisor.path_of(folder, spec.task, 'spec.json'), spec._asdict())
    commands.append(
      (
        spec.task,
        [
          sys.executable,
          os.path.join(_root(), 'run_experiment_mm_raw.py'),
          '--action=supervise',
          f'--tmux_sess={session}',
          f'--task={spec.task}',
        ],
      )
    )
  os.chdir(_root())
  if not tmux.is_used(tmux_socket, session):
    tmux.end_session(tmux_socket, session)  # It has only windows of ended tasks.
  tmux.start_windows(tmux_socket, session, commands)
  return {}


_BOARDS: list[tensorboard_process.TensorBoard] = []


def start_tensorboard(logdir: str) -> dict[str, Any]:
  """Starts TensorBoard for a run's folder; it ends with this agent at the latest."""
  board = tensorboard_process.TensorBoard(logdir)
  _BOARDS.append(board)
  return {'pid': board.pid, 'mark': board.mark}


def tensorboard() -> dict[str, Any]:
  """Returns `TensorBoard.state` of the TensorBoard that was started last."""
  return _BOARDS[-1].state()


def end_tensorboard(pid: int, mark: str | None) -> dict[str, bool]:
  """Ends a TensorBoard, which another agent on this host may have started."""
  return {'gone': tensorboard_process.end(pid, mark)}


def hold(session: str) -> dict[str, bool]:
  """Forbids supervisors to restart tasks of this session.

  Returns:
    {'launched': whether it was ever launched, 'firewall': whether it set a firewall}.
  """
  folder = supervisor.run_folder(session)
  # `firewall` may have made the folder before the first launch.
  there = os.path.isdir(folder) and any(n.endswith('.spec.json') for n in os.listdir(folder))
  if there:
    # On a full disk, the signals that follow have to be enough.
    with contextlib.suppress(OSError):
      with open(os.path.join(folder, 'stopping'), 'w', encoding='utf-8'):
        pass
  return {'launched': there, 'firewall': nftables.is_set(folder)}


def ask(session: str, task: str) -> dict[str, bool]:
  """Sends SIGTERM to a running task, once per launch; returns whether the task runs."""
  record = launched.record(session, task)
  if record is None or not launched.supervisor_runs(record) or record['state'] != 'running':
    return {'asked': False}
  # A frontend that got no answer asks again; a second signal would make the task end at once.
  place = (record['supervisor_pid'], record['supervisor_mark'])
  note = supervisor.path_of(supervisor.run_folder(session), task, 'asked.json')
  if supervisor.read_json(note) == list(place):
    return {'asked': True}
  with contextlib.suppress(OSError):  # A full disk must not prevent the signal.
    supervisor.write_json(note, place)
  return {'asked': processes.send(*place, signal.SIGTERM)}


def _end_tasks(records: list[dict[str, Any]], limit_secs: float) -> None:
  """Sends SIGTERM to supervisors (to tasks that have none), and SIGKILL after the limit."""
  for record in records:
    if not processes.send(record['supervisor_pid'], record['supervisor_mark'], signal.SIGTERM):
      processes.send(record['pid'], record['mark'], signal.SIGTERM)
  processes.wait_until(lambda: not launched.still_running(records), limit_secs)
  for record in launched.still_running(records):
    if launched.task_runs(record):
      processes.kill_group(record['pid'])
  processes.wait_until(lambda: not launched.still_running(records), END_NOW_SECS)
  for record in launched.still_running(records):
    processes.send(record['supervisor_pid'], record['supervisor_mark'], signal.SIGKILL)


def end(session: str, tmux_socket: str, now: bool) -> dict[str, list[str]]:
  """Ends all tasks of the session on this host, and the tmux session.

  Args:
    session: name of the session.
    tmux_socket: name or path, '' for the default.
    now: whether to leave tasks no time for a checkpoint.

  Returns:
    {'ended': names of tasks, 'unreadable': sentences about damaged records}.
  """
  hold(session)
  here, _, unreadable = launched.records(session)
  records = launched.still_running(here)
  _end_tasks(records, END_NOW_SECS if now else END_SECS)
  if tmux.version():
    tmux.end_session(tmux_socket, session)
  return {'ended': [record['task'] for record in records], 'unreadable': unreadable}


REQUESTS: dict[str, Callable[..., dict[str, Any]]] = {
  function.__name__: function
  for function in (
    hello,
    has_session,
    check,
    listen,
    reach,
    unlisten,
    launch,
    task_status.status,
    task_status.logs,
    launched.running,
    launched.logdir,
    start_tensorboard,
    tensorboard,
    end_tensorboard,
    hold,
    ask,
    end,
    nftables.addresses,
    nftables.try_table,
    nftables.keep_table,
    nftables.end_trial,
    nftables.open_ports,
    nftables.firewall_state,
    *sweep_requests.REQUESTS,
  )
}


def answer(line: str) -> dict[str, Any]:
  """Returns the reply to a line with a request; {'error': message} if the request fails."""
  number: dict[str, Any] = {}
  try:
    request = json.loads(line)
    if 'number' in request:
      number = {'number': request.pop('number')}
    function = REQUESTS[request.pop('request')]
    inspect.signature(function).bind(**request)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    reason = f'the code here does not know this request ({error}); --action=push copies yours'
    return {'error': reason} | number
  try:
    return function(**request) | number
  except Exception as error:
    return {'error': f'{error}' or type(error).__name__} | number


def serve() -> int:
  """Answers requests until the input ends; returns the exit code."""
  tmux.leave_own_server()
  replies = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  os.dup2(2, 1)  # What a library prints must not look like a reply.
  try:
    for line in sys.stdin:
      replies.write(REPLY_MARK + json.dumps(answer(line)) + '\n')
      replies.flush()
  finally:
    for board in _BOARDS:
      tensorboard_process.end(board.pid, board.mark)
  return 0
