"""The frontend's side on a host: one JSON request a line in, one JSON reply a line out.

The frontend starts it over SSH, or as a plain process on its own machine, and talks to it for as
long as it needs; the end of its input ends it. What it starts (tmux) outlives it.
"""

import contextlib
import json
import os
import signal
import sys
import time

from frontend import (
  firewall,
  host_check,
  launched,
  nftables,
  plain_text,
  processes,
  supervisor,
  tensorboard_process,
  tmux,
)

# Lines of a login script may come first; only lines with this in front are replies.
REPLY_MARK = '@impala '
# After SIGTERM a parameter server waits up to 20 s for the chief's checkpoint.
END_SECS = 25.0
END_NOW_SECS = 3.0
TAIL_BYTES = 64 * 1024
# What a chief's state file tells of the training.
TRAINING_KEYS = (
  'environment_frames',
  'mean_return_100',
  'learner_wait_fraction',
  'actor_wait_fraction',
)


def _root():
  return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# ---- Requests. Each takes the request's fields by name and returns the reply as a dict. --------


def hello():
  """Who answers here."""
  return {'python': sys.executable, 'workdir': _root()}


def has_session(session, tmux_socket):
  """Whether the session is there, or tasks of it still run outside it."""
  return {'there': bool(tmux.version()) and tmux.has_session(tmux_socket, session)}


def check(hashes, ports, devices, argument_lists, session, tmux_socket):
  """Every check that a host can do alone: {item: [passed, detail]}."""
  versions = host_check.package_versions()
  checks = {
    'code': (host_check.check_code, _root(), hashes),
    'packages': (host_check.check_packages, versions),
    'gpus': (host_check.check_gpus, devices),
    'disk': (host_check.check_disk, _root()),
    'tmux': (host_check.check_tmux,),
    'session': (host_check.check_session, tmux_socket, session),
    'ports': (host_check.check_ports, ports),
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
      _LISTENERS.append(host_check.listen(port))
  return {'listening': len(_LISTENERS)}


def reach(addresses, allow_public):
  """Tries to connect to every [address, port]; returns what failed."""
  return {'problems': host_check.unreachable(addresses, allow_public)}


def unlisten():
  """Closes what `listen` opened."""
  while _LISTENERS:
    _LISTENERS.pop().close()
  return {}


def _private_folder(folder):
  os.makedirs(folder, mode=0o700, exist_ok=True)
  ignore = os.path.join(os.path.dirname(folder), '.gitignore')
  if not os.path.exists(ignore):
    with open(ignore, 'w', encoding='utf-8') as file:
      file.write('*\n')


def _forget_last_run(folder):
  """Removes what an earlier launch left; its logs are kept, and the new ones begin empty."""
  for name in os.listdir(folder):
    path = os.path.join(folder, name)
    if name.endswith('.log'):
      os.replace(path, path + '.1')
    elif name.endswith('.json') or name == 'stopping':
      os.remove(path)


def launch(session, tmux_socket, tasks, restart, max_restarts):
  """Starts tasks: [{task, arguments, environment}] in a new tmux session."""
  folder = supervisor.run_folder(session)
  _private_folder(folder)
  alive = [
    name
    for name in launched.known_tasks(folder)
    if launched.supervised(launched.record(session, name))
  ]
  if alive:
    raise ValueError(
      f'{", ".join(alive)} of session {session!r} still running in {folder}; '
      'end it with --action=stop'
    )
  _forget_last_run(folder)
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
  tmux.start_windows(tmux_socket, session, commands)
  return {}


def last_lines(path, count):
  """The last lines of a file that may be large, as text without control characters."""
  try:
    with open(path, 'rb') as file:
      file.seek(max(0, os.path.getsize(path) - TAIL_BYTES))
      lines = file.read().decode(errors='replace').splitlines()
  except OSError:
    return []
  return [plain_text.printable(line) for line in lines[-count:]] if count else []


def last_words(folder, task):
  """The last line of a log; the supervisor's own lines only where there is no other."""
  lines = [line for line in last_lines(supervisor.path_of(folder, task, 'log'), 20) if line.strip()]
  own = [line for line in lines if not line.startswith(supervisor.LINE_MARK)]
  return (own or lines or [''])[-1]


def task_status(session, task, now):
  """One task's row of the status table; ages in seconds by this host's clock."""
  folder = supervisor.run_folder(session)
  record = launched.record(session, task) or {}
  own = supervisor.read_json(supervisor.path_of(folder, task, 'json')) or {}
  return status_row(folder, task, record, own, launched.supervised(record), now)


def status_row(folder, task, record, own, alive, now):
  """A row of the status table, a dict.

  Args:
    folder: with the task's log.
    task: name of its files.
    record: of its supervisor, {} without one.
    own: its own state file, {} without one; may be that of a process before.
    alive: whether the record is still kept, should the task not have ended.
    now: Unix seconds.
  """
  state = record.get('state')
  if state == 'exited':
    state = f'exited {record["exit_code"]}'
  elif not alive:
    state = 'no answer'
  running = state == 'running'
  fresh = own.get('pid') == record.get('pid')
  return {
    'task': task,
    'state': state,
    'pid': record.get('pid'),
    'exit_code': record.get('exit_code'),
    'seen': running and fresh and bool(own.get('phase')),
    'uptime_secs': round(now - record['started'], 1) if running else None,
    'restarts': record.get('restarts', 0),
    'frames_per_sec': own.get('frames_per_sec') if running and fresh else None,
    'last_seen_secs': max(0.0, round(now - own['last_seen'], 1)) if own.get('last_seen') else None,
    'last_line': last_words(folder, task) if record else 'not launched',
    'training': training_of(own),
  }


def training_of(state):
  """What a task's state file tells of the training, a dict; None where it is not the chief's."""
  return {name: state.get(name) for name in TRAINING_KEYS} if 'logdir' in state else None


def status(session, tasks):
  """The status of the named tasks."""
  now = time.time()
  return {'tasks': [task_status(session, task, now) for task in tasks]}


def logs(session, task, lines, offset):
  """Log of one task.

  Args:
    session: name of the session.
    task: name of the task.
    lines: how many of the last lines, when `offset` is None.
    offset: None, or the position in the file that the last reply ended at.

  Returns:
    {'lines': list of str, 'offset': where to go on}.
  """
  path = supervisor.path_of(supervisor.run_folder(session), task, 'log')
  size = os.path.getsize(path) if os.path.exists(path) else 0
  if offset is None:
    found = last_lines(path, lines)
    if len(found) < lines:
      found = last_lines(path + '.1', lines - len(found)) + found if found else []
    return {'lines': found, 'offset': size}
  if size < offset:  # The file is full and a new one was begun.
    offset = 0
  if size == offset:
    return {'lines': [], 'offset': offset}
  with open(path, 'rb') as file:
    file.seek(offset)
    data = file.read(TAIL_BYTES)
  whole = (
    data[: data.rfind(b'\n') + 1] if b'\n' in data else data[: len(data) // TAIL_BYTES * TAIL_BYTES]
  )
  text = whole.decode(errors='replace').splitlines()
  return {'lines': [plain_text.printable(line) for line in text], 'offset': offset + len(whole)}


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
  launched = os.path.isdir(folder) and any(n.endswith('.spec.json') for n in os.listdir(folder))
  if launched:
    with open(os.path.join(folder, 'stopping'), 'w', encoding='utf-8'):
      pass
  return {'launched': launched, 'firewall': nftables.is_set(folder)}


def ask(session, task):
  """Asks one running task to finish (SIGTERM); returns whether it runs."""
  record = launched.record(session, task)
  if not launched.supervised(record) or record['state'] != 'running':
    return {'asked': False}
  return {
    'asked': processes.send(record['supervisor_pid'], record['supervisor_mark'], signal.SIGTERM)
  }


def _end_tasks(records, limit_secs):
  """SIGTERM to the supervisors (or to tasks that lost theirs), then SIGKILL to what is left."""
  for record in records:
    if not processes.send(record['supervisor_pid'], record['supervisor_mark'], signal.SIGTERM):
      processes.send(record['pid'], record['mark'], signal.SIGTERM)
  processes.wait_until(lambda: not launched.left(records), limit_secs)
  for record in launched.left(records):
    if launched.left_of_task(record):
      processes.kill_group(record['pid'])
  processes.wait_until(lambda: not launched.left(records), END_NOW_SECS)
  for record in launched.left(records):
    processes.send(record['supervisor_pid'], record['supervisor_mark'], signal.SIGKILL)


def end(session, tmux_socket, now):
  """Ends what is left of the session on this host, the tmux session included."""
  hold(session)
  folder = supervisor.run_folder(session)
  names = launched.known_tasks(folder) if os.path.isdir(folder) else []
  records = launched.left([launched.record(session, name) for name in names])
  _end_tasks(records, END_NOW_SECS if now else END_SECS)
  if tmux.version():
    tmux.end_session(tmux_socket, session)
  return {'ended': [record['task'] for record in records]}


def close_ports(session, ports, own, others, interface, all_ports, apply):
  """The nftables table that closes this host's ports to strangers; sets it with `apply`.

  Where `all_ports` (those of all hosts) is not empty, strangers are other users of this host too.

  Returns:
    {'text': the table, 'set': bool, 'reason': why this login could not set it, or None, 'command':
    what an administrator runs}.
  """
  addresses = nftables.resolve(own, others)
  user_id = os.geteuid() if all_ports else None
  text = firewall.table(session, ports, addresses, interface, user_id, all_ports)
  reason = command = None
  if apply:
    folder = supervisor.run_folder(session)
    _private_folder(folder)
    reason, command = nftables.apply(session, folder, own, text)
  return {'text': text, 'set': apply and not reason, 'reason': reason, 'command': command}


def open_ports(session, own):
  """Undoes `close_ports`; {'removed': bool, 'reason', 'command'}."""
  removed, reason, command = nftables.remove(session, supervisor.run_folder(session), own)
  return {'removed': removed, 'reason': reason, 'command': command}


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
    status,
    logs,
    launched.running,
    launched.logdir,
    start_tensorboard,
    tensorboard,
    end_tensorboard,
    hold,
    ask,
    end,
    close_ports,
    open_ports,
  )
}


def answer(line):
  """The reply to one request line, as a dict; a failure becomes {'error': sentence}."""
  try:
    request = json.loads(line)
    return REQUESTS[request.pop('request')](**request)
  except (KeyError, TypeError) as error:
    return {
      'error': f'the code here does not know this request ({error}); --action=push copies yours'
    }
  except Exception as error:
    return {'error': f'{error}' or type(error).__name__}


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
