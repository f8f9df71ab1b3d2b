"""The supervisor of one task: starts it, copies its output to a log, starts it again when it fails.

It runs in the task's tmux window and keeps, in the cluster's folder on that host (`run_folder`):
  <task>.spec.json        what to run, written at launch
  <task>.supervisor.json  what became of it (see `task_record.Record`)
  <task>.log, .log.1      its output, the older part in the second file
  <task>.json             the task's own state file, written by experiment.py
  stopping                there while the cluster is being stopped: nothing is started again

Neither a full disk nor a terminal that takes nothing ends the supervisor or its task, or holds
them up: what is lost meanwhile is counted, and said in log and record when they can be written.
"""

import collections
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time

from common import files, texts
from frontend.host_side import processes, task_record
from frontend.host_side.task_log import Log
from frontend.host_side.task_record import read_json

# Exit codes after which a task is left alone: a normal end, and input that stays bad.
FINAL_EXITS = (0, 2)
FIRST_PAUSE_SECS = 1.0
LAST_PAUSE_SECS = 60.0
# A task that ran this long had recovered: its next failure starts with the first pause again.
RECOVERED_SECS = 300.0
# What is taken from the pipe of a task that never stops printing, before it is looked at again.
MOST_READS = 64
# How long a task may take to end after its window or session was closed: a chief finishes its
# update and saves a checkpoint.
HANGUP_SECS = 300.0

# argv: list of arguments; environment: {name: value, or None to remove it}; restart: 'on-failure'
# or 'never'; max_restarts: in any hour.
Spec = collections.namedtuple('Spec', 'task argv environment restart max_restarts')


def run_folder(session):
  """Where a cluster keeps its files on a host, below the folder with the code."""
  code = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  return os.path.join(code, '.cluster', session)


def private_run_folder(session):
  """The same, made where it is not there: nobody else may look into it, and git does not."""
  folder = run_folder(session)
  os.makedirs(folder, mode=0o700, exist_ok=True)
  ignore = os.path.join(os.path.dirname(folder), '.gitignore')
  if not os.path.exists(ignore):
    with open(ignore, 'w', encoding='utf-8') as file:
      file.write('*\n')
  return folder


def path_of(folder, task, suffix):
  """Path of one of a task's files; `task` is a name such as `learner-0`."""
  return os.path.join(folder, f'{task}.{suffix}')


def write_json(path, value):
  """Replaces a JSON file in one step, so that no reader sees half of it."""
  with files.replacing(path) as file:
    file.write(json.dumps(value).encode())


def pause_secs(failures):
  """Seconds to wait before the next start after this many failures in a row (1, 2, 4 ... 60)."""
  return min(LAST_PAUSE_SECS, FIRST_PAUSE_SECS * 2 ** min(failures - 1, 10))


def may_restart(spec, exit_code, restart_times, now):
  """Whether a task that ended is to be started again.

  Args:
    spec: its Spec.
    exit_code: int, negative for a signal.
    restart_times: seconds of the restarts so far.
    now: seconds on the same clock.

  Returns:
    (bool, the reason in words).
  """
  if exit_code in FINAL_EXITS:
    return False, 'it ended by itself' if exit_code == 0 else 'its input is bad, and would be again'
  if spec.restart == 'never':
    return False, '--restart=never'
  if sum(now - then < 3600 for then in restart_times) >= spec.max_restarts:
    return False, f'{spec.max_restarts} restarts within an hour (--max_restarts)'
  return True, ''


def _start(spec):
  environment = dict(os.environ)
  for name, value in spec.environment.items():
    if value is None:
      environment.pop(name, None)
    else:
      environment[name] = value
  # A session of its own: Ctrl-C in the window reaches the task once, through the supervisor.
  return subprocess.Popen(
    spec.argv,
    env=environment,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    start_new_session=True,
    preexec_fn=processes.end_with_parent,
  )


class Supervisor:
  """Runs one task until it ended for good. Single-threaded; signals only set flags and forward."""

  def __init__(self, folder, spec):
    self._folder = folder
    self._spec = spec
    self._log = Log(path_of(folder, spec.task, 'log'))
    self._record_file = task_record.RecordFile(path_of(folder, spec.task, 'supervisor.json'))
    self._state = None
    self._failure = None
    self._child = None
    self._child_mark = None
    self._signals = 0
    self._hangup_at = None
    self._restart_times = []
    self._started = time.time()

  def run(self):
    """Returns the task's last exit code (128 + n for signal n)."""
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):  # Ctrl-Z, and its like.
      signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
      if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # As nohup has it.
        signal.signal(number, self._on_signal)
    failures = 0
    while True:
      exit_code, ran_secs = self._run_once()
      failures = 1 if ran_secs >= RECOVERED_SECS else failures + 1
      if not self._prepare_restart(exit_code, failures):
        self._record('exited', exit_code)
        self._log.close()
        return exit_code if exit_code >= 0 else 128 - exit_code
      self._restart_times.append(time.monotonic())

  @property
  def was_asked_to_stop(self):
    """Whether a signal asked for the end."""
    return bool(self._signals)

  def _on_signal(self, number, frame):
    del frame
    self._signals += 1
    if number == signal.SIGHUP and self._hangup_at is None:
      self._hangup_at = time.monotonic()
    if self._child and self._child.poll() is None:
      self._child.send_signal(signal.SIGTERM)

  def _stopping(self):
    return bool(self._signals) or os.path.exists(os.path.join(self._folder, 'stopping'))

  def _record(self, state, exit_code=None):
    child, log = self._child, self._log
    lost = f'{log.lost_bytes:,} bytes of its log are lost: {log.lost_why}'
    self._state = (state, exit_code, log.problem)
    self._record_file.write(
      task_record.Record(
        self._spec.task,
        state,
        exit_code,
        child and child.pid,
        self._child_mark,
        os.getpid(),
        processes.start_mark(os.getpid()),
        self._started,
        len(self._restart_times),
        socket.gethostname(),
        processes.realm(),
        log.problem and f'its log cannot be written: {log.problem}',
        lost if log.lost_bytes else None,
        self._failure,
      )
    )

  def _keep_files(self):
    """Tries again what could not be written; the record says how it stands with the log."""
    self._log.retry()
    if self._state and self._log.problem != self._state[2]:
      self._record(*self._state[:2])
    self._record_file.keep()

  def _run_once(self):
    """Runs the task to its end; returns (exit code, seconds it ran)."""
    self._started = time.time()
    began = time.monotonic()
    try:
      self._child = _start(self._spec)
    except OSError as error:
      self._log.say(f'cannot start {self._spec.argv[0]}: {error.strerror}')
      return 127, 0.0
    self._child_mark = processes.start_mark(self._child.pid)
    if self._signals:
      # A signal may have arrived between the start and the assignment, and found nothing to
      # forward to.
      self._child.send_signal(signal.SIGTERM)
    self._record('running')
    self._copy_output()
    return self._child.returncode, time.monotonic() - began

  def _copy_output(self):
    """Copies until the task has ended, then ends what it left behind."""
    pipe = self._child.stdout.fileno()
    os.set_blocking(pipe, False)
    while self._child.poll() is None:
      self._hang_up_if_late()
      self._keep_files()
      if select.select([pipe], [], [], 0.2)[0] and not self._copy_available(pipe):
        # The task closed its output and goes on.
        time.sleep(0.2)
    processes.kill_group(self._child.pid)
    self._copy_available(pipe)
    self._child.stdout.close()

  def _copy_available(self, pipe):
    copied = False
    with contextlib.suppress(BlockingIOError):
      for _ in range(MOST_READS):
        data = os.read(pipe, 65536)
        if not data:
          break
        copied = True
        self._log.write(data)
    return copied

  def _hang_up_if_late(self):
    if self._hangup_at is not None and time.monotonic() - self._hangup_at > HANGUP_SECS:
      self._log.say(f'still running {HANGUP_SECS:.0f} s after its window was closed: killed')
      processes.kill_group(self._child.pid)

  def _prepare_restart(self, exit_code, failures):
    """Waits out the pause; returns whether to start the task again."""
    self._log.say(f'{self._spec.task} {describe_exit(exit_code)}')
    if exit_code:
      line = texts.printable(self._log.last_line.decode(errors='replace'))
      self._failure = {'exit_code': exit_code, 'time': time.time(), 'line': line[:200]}
    if self._stopping():
      return False
    again, reason = may_restart(self._spec, exit_code, self._restart_times, time.monotonic())
    if not again:
      self._log.say(f'not started again: {reason}')
      return False
    pause = pause_secs(failures)
    self._log.say(f'starting it again in {pause:.0f} s')
    self._record('restarting', exit_code)

    def told_to_stop():
      self._keep_files()
      return self._stopping()

    return not processes.wait_until(told_to_stop, pause)


def describe_exit(exit_code):
  """`exited 1`, or for a signal `was ended by SIGKILL`."""
  if exit_code >= 0:
    return f'exited {exit_code}'
  try:
    return f'was ended by {signal.Signals(-exit_code).name}'
  except ValueError:
    return f'was ended by signal {-exit_code}'


def supervise(session, task):
  """Runs the task `task` of the cluster `session` in this process; returns its exit code."""
  folder = run_folder(session)
  spec = read_json(path_of(folder, task, 'spec.json'))
  if spec is None:
    raise ValueError(
      f'{path_of(folder, task, "spec.json")} is missing; tasks are started by --action=launch'
    )
  os.chdir(os.path.dirname(os.path.dirname(folder)))
  return Supervisor(folder, Spec(**spec)).run()
