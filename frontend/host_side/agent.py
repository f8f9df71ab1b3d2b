"""The frontend's side on a host: one JSON request a line in, one JSON reply a line out.

The frontend starts it over SSH, or as a plain process on its own machine, and talks to it for as
long as it needs; the end of its input ends it. What it starts (tmux) outlives it.
"""

import contextlib
import inspect
import json
import os
import signal
import sys

from common import ports as ports_lib
from frontend.host_side import (
  host_check,
  launched,
  nftables,
  processes,
  supervisor,
  task_status,
  tmux,
)
from frontend.host_side import tensorboard as tensorboard_process

# Lines of a login script may come first; only lines with this in front are replies.
REPLY_MARK = '@impala '
# After SIGTERM a parameter server waits up to 20 s for the chief's checkpoint.
END_SECS = 25.0
END_NOW_SECS = 3.0


def _root():
  return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


# ---- Requests. Each takes the request's fields by name and returns the reply as a dict. --------


def hello():
  """Who answers here, and that replies carry the number of their request where it has one."""
  return {'python': sys.executable, 'workdir': _root(), 'numbered': True}


def has_session(session, tmux_socket):
  """Whether something runs in the session; windows of tasks that have ended do not count."""
  return {'there': bool(tmux.version()) and tmux.is_used(tmux_socket, session)}


def check(hashes, packages, ports, devices, argument_lists, own, session, tmux_socket):
  """Every check that a host can do alone: {item: [passed, detail]}; `own` is its `ip` cell."""
  versions = host_check.package_versions(packages)
  checks = {
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


def _outcome(function, arguments):
  try:
    return function(*arguments)
  except Exception as error:
    return False, f'could not be checked: {error or type(error).__name__}'


_LISTENERS = []


def listen(ports):
  """Listens on the tasks' ports, so that the other hosts can try to reach them."""
  for port in ports:
    with contextlib.suppress(OSError):
      _LISTENERS.append(ports_lib.listening_socket(port))
  return {'listening': len(_LISTENERS)}


def reach(addresses, allow_public):
  """Tries to connect to every [address, port]; returns what failed."""
  return {'problems': host_check.unreachable(addresses, allow_public)}


def unlisten():
  """Closes what `listen` opened."""
  while _LISTENERS:
    _LISTENERS.pop().close()
  return {}


def _forget_last_run(session, names):
  """Removes what earlier launches left on this host; logs are kept, and the new ones begin empty.

  Other hosts may share the folder: what they have written, or what nobody can tell, stays.
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


def _refuse_running(session, names):
  folder = supervisor.run_folder(session)
  here, elsewhere, _ = launched.records(session)
  alive = [found['task'] for found in launched.still_running(here)]
  if alive:
    raise ValueError(
      f'{", ".join(alive)} of session {session!r} still running in {folder}; '
      'end it with --action=stop'
    )
  taken = [f'{found["task"]} on {found["host"]}' for found in elsewhere if found['task'] in names]
  if taken:
    raise ValueError(
      f'{", ".join(taken)} of session {session!r} still running in {folder}, which both hosts '
      'share; end it with --action=stop and the cluster_csv_path that it was launched with (a host '
      'that was switched off counts as running for a minute)'
    )


def launch(session, tmux_socket, tasks, restart, max_restarts):
  """Starts tasks: [{task, arguments, environment}] in a new tmux session."""
  folder = supervisor.private_run_folder(session)
  names = [task['task'] for task in tasks]
  _refuse_running(session, names)
  _forget_last_run(session, names)
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
    tmux.end_session(tmux_socket, session)  # Windows of tasks that have ended.
  tmux.start_windows(tmux_socket, session, commands)
  return {}


_BOARDS = []


def start_tensorboard(logdir):
  """Starts TensorBoard for a run's folder; it ends with this conversation at the latest."""
  board = tensorboard_process.TensorBoard(logdir)
  _BOARDS.append(board)
  return {'pid': board.pid, 'mark': board.mark}


def tensorboard():
  """What became of it; see `TensorBoard.state`."""
  return _BOARDS[-1].state()


def end_tensorboard(pid, mark):
  """Ends it, whichever conversation began it."""
  return {'gone': tensorboard_process.end(pid, mark)}


def hold(session):
  """Nothing of this session is started again from now on.

  Returns:
    {'launched': whether it was ever launched, 'firewall': whether it set a firewall}.
  """
  folder = supervisor.run_folder(session)
  # A firewall may have been set there before the first launch.
  there = os.path.isdir(folder) and any(n.endswith('.spec.json') for n in os.listdir(folder))
  if there:
    # On a full disk the signals that follow have to be enough.
    with contextlib.suppress(OSError):
      with open(os.path.join(folder, 'stopping'), 'w', encoding='utf-8'):
        pass
  return {'launched': there, 'firewall': nftables.is_set(folder)}


def ask(session, task):
  """Asks one running task to finish (SIGTERM), once; returns whether it runs."""
  record = launched.record(session, task)
  if not launched.supervisor_runs(record) or record['state'] != 'running':
    return {'asked': False}
  # Whoever did not get the answer asks again, and a second signal would be impatience.
  place = (record['supervisor_pid'], record['supervisor_mark'])
  note = supervisor.path_of(supervisor.run_folder(session), task, 'asked.json')
  if supervisor.read_json(note) == list(place):
    return {'asked': True}
  with contextlib.suppress(OSError):  # A full disk must not keep a run from its end.
    supervisor.write_json(note, place)
  return {'asked': processes.send(*place, signal.SIGTERM)}


def _end_tasks(records, limit_secs):
  """SIGTERM to the supervisors (or to tasks that lost theirs), then SIGKILL to what is left."""
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


def end(session, tmux_socket, now):
  """Ends what is left of the session on this host, the tmux session included."""
  hold(session)
  here, _, unreadable = launched.records(session)
  records = launched.still_running(here)
  _end_tasks(records, END_NOW_SECS if now else END_SECS)
  if tmux.version():
    tmux.end_session(tmux_socket, session)
  return {'ended': [record['task'] for record in records], 'unreadable': unreadable}


REQUESTS = {
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
  )
}


def answer(line):
  """The reply to one request line, as a dict; a failure becomes {'error': sentence}."""
  number = {}
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


def serve():
  """Answers requests until the input ends."""
  replies = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  os.dup2(2, 1)  # Whatever prints by accident must not look like a reply.
  try:
    for line in sys.stdin:
      replies.write(REPLY_MARK + json.dumps(answer(line)) + '\n')
      replies.flush()
  finally:
    for board in _BOARDS:
      tensorboard_process.end(board.pid, board.mark)
  return 0
