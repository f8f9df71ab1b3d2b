"""The supervisor of one task: starts it, copies its output to a log, restarts it when it fails.

It runs in the task's tmux window. The cluster's folder on the host (`run_folder`) holds:
  <task>.spec.json        what to run, written by `launch`
  <task>.supervisor.json  the supervisor's record of the task (`task_record.Record`)
  <task>.log, .log.1      the task's output, the older part in the second file
  <task>.json             the task's own state file, written by experiment.py
  stopping                exists while the cluster is being stopped: no task is restarted

Neither a full disk nor a blocked terminal stops or delays the supervisor or its task. Lost output
is counted, and the count is written to log and record as soon as they can be written.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from common import files, texts
from frontend.errors import UserError
from frontend.host_side import processes, task_record
from frontend.host_side.task_log import Log
from frontend.host_side.task_record import read_json

# Exit codes after which a task is not restarted: a normal end, and bad input, which stays bad.
FINAL_EXITS = (0, 2)
FIRST_PAUSE_SECS = 1.0
LAST_PAUSE_SECS = 60.0
# A task that ran this long had recovered: after its next failure, the pauses start over.
RECOVERED_SECS = 300.0
# Reads from the pipe of a task that never stops printing, before the task is polled again.
MOST_READS = 64
# How long a task may take to end after its window or session was closed: a chief finishes its
# update and saves a checkpoint.
HANGUP_SECS = 300.0


class Spec(NamedTuple):
  """What a supervisor runs.

  Attributes:
    task: name, such as 'learner-0'.
    argv: the command line.
    environment: {name: value, or None to remove the variable}.
    restart: 'on-failure' or 'never'.
    max_restarts: within an hour.
  """

  task: str
  argv: list[str]
  environment: dict[str, str | None]
  restart: str
  max_restarts: int


def run_folder(session: str) -> str:
  """Returns the folder of a cluster's files on a host; it is below the folder with the code."""
  code = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  return os.path.join(code, '.cluster', session)


def private_run_folder(session: str) -> str:
  """Makes the `run_folder` if there is none, readable by this user only and ignored by git."""
  folder = run_folder(session)
  os.makedirs(folder, mode=0o700, exist_ok=True)
  ignore = os.path.join(os.path.dirname(folder), '.gitignore')
  if not os.path.exists(ignore):
    with open(ignore, 'w', encoding='utf-8') as file:
      file.write('*\n')
  return folder


def path_of(folder: str, task: str, suffix: str) -> str:
  """Returns the path of one of a task's files; `task` is a name such as 'learner-0'."""
  return os.path.join(folder, f'{task}.{suffix}')


def write_json(path: str, value: Any) -> None:
  """Replaces a JSON file in one step, so that no reader sees half of it."""
  with files.replacing(path) as file:
    file.write(json.dumps(value).encode())


def pause_secs(failures: int) -> float:
  """Returns the pause before the next start after that many failures in a row (1, 2, 4 ... 60)."""
  return min(LAST_PAUSE_SECS, FIRST_PAUSE_SECS * 2 ** min(failures - 1, 10))


def may_restart(
  spec: Spec, exit_code: int, restart_times: Sequence[float], now: float
) -> tuple[bool, str]:
  """Returns whether a task that has ended should be restarted.

  Args:
    spec: of the task.
    exit_code: negative for a signal.
    restart_times: seconds of the restarts so far.
    now: seconds on the same clock.

  Returns:
    (True, '') or (False, the reason).
  """
  if exit_code in FINAL_EXITS:
    return False, 'it ended by itself' if exit_code == 0 else 'its input is bad, and would be again'
  if spec.restart == 'never':
    return False, '--restart=never'
  if sum(now - then < 3600 for then in restart_times) >= spec.max_restarts:
    return False, f'{spec.max_restarts} restarts within an hour (--max_restarts)'
  return True, ''


def _start(spec: Spec) -> subprocess.Popen[bytes]:
  environment = dict(os.environ)
  for name, value in spec.environment.items():
    if value is None:
      environment.pop(name, None)
    else:
      environment[name] = value
  # In a session of its own, so that Ctrl-C in the window reaches it only through the supervisor.
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
  """Runs one task until it has ended for good.

  Single-threaded: signal handlers only set attributes and forward the signal.

  Args:
    folder: of the task's files, see the module.
    spec: what to run.
  """

  def __init__(self, folder: str, spec: Spec) -> None:
    self._folder = folder
    self._spec = spec
    self._log = Log(path_of(folder, spec.task, 'log'))
    self._record_file = task_record.RecordFile(path_of(folder, spec.task, 'supervisor.json'))
    # What was recorded last: state, exit code, problem of the log.
    self._recorded: tuple[str, int | None, str | None] | None = None
    self._failure: dict[str, Any] | None = None
    self._child: subprocess.Popen[bytes] | None = None
    self._child_mark: str | None = None
    self._signals = 0
    self._hangup_at: float | None = None
    self._restart_times: list[float] = []
    self._started = time.time()

  def run(self) -> int:
    """Runs the task; returns its last exit code (128 + n for signal n)."""
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):  # Ctrl-Z, for example.
      signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
      if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # Under nohup.
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
  def was_asked_to_stop(self) -> bool:
    """Whether the supervisor has got a signal to end."""
    return bool(self._signals)

  def _on_signal(self, number: int, frame: object) -> None:
    del frame
    self._signals += 1
    if number == signal.SIGHUP and self._hangup_at is None:
      self._hangup_at = time.monotonic()
    if self._child and self._child.poll() is None:
      self._child.send_signal(signal.SIGTERM)

  def _stopping(self) -> bool:
    return bool(self._signals) or os.path.exists(os.path.join(self._folder, 'stopping'))

  def _record(self, state: str, exit_code: int | None = None) -> None:
    child, log = self._child, self._log
    lost = f'{log.lost_bytes:,} bytes of its log are lost: {log.lost_why}'
    self._recorded = (state, exit_code, log.problem)
    self._record_file.write(
      task_record.Record(
        task=self._spec.task,
        state=state,
        exit_code=exit_code,
        pid=child.pid if child else None,
        mark=self._child_mark,
        supervisor_pid=os.getpid(),
        supervisor_mark=processes.start_mark(os.getpid()),
        started=self._started,
        restarts=len(self._restart_times),
        host=socket.gethostname(),
        realm=processes.realm(),
        problem=log.problem and f'its log cannot be written: {log.problem}',
        gap=lost if log.lost_bytes else None,
        failure=self._failure,
      )
    )

  def _keep_files(self) -> None:
    """Retries failed writes, and records a new problem of the log or its end."""
    self._log.retry()
    if self._recorded and self._log.problem != self._recorded[2]:
      self._record(*self._recorded[:2])
    self._record_file.keep()

  def _run_once(self) -> tuple[int, float]:
    """Runs the task to its end; returns (exit code, seconds that it ran)."""
    self._started = time.time()
    began = time.monotonic()
    try:
      child = self._child = _start(self._spec)
    except OSError as error:
      self._log.say(f'cannot start {self._spec.argv[0]}: {error.strerror}')
      return 127, 0.0
    self._child_mark = processes.start_mark(child.pid)
    if self._signals:
      # A signal that arrived before `self._child` was assigned has not been forwarded.
      child.send_signal(signal.SIGTERM)
    self._record('running')
    self._copy_output(child)
    return child.returncode, time.monotonic() - began

  def _copy_output(self, child: subprocess.Popen[bytes]) -> None:
    """Copies the task's output until it has ended, then kills what remains of its group."""
    assert child.stdout is not None
    pipe = child.stdout.fileno()
    os.set_blocking(pipe, False)
    while child.poll() is None:
      self._kill_if_late(child)
      self._keep_files()
      if select.select([pipe], [], [], 0.2)[0] and not self._copy_available(pipe):
        # The task has closed its output and still runs.
        time.sleep(0.2)
    processes.kill_group(child.pid)
    self._copy_available(pipe)
    child.stdout.close()

  def _copy_available(self, pipe: int) -> bool:
    """Copies what the pipe holds; returns whether it held anything."""
    copied = False
    with contextlib.suppress(BlockingIOError):
      for _ in range(MOST_READS):
        data = os.read(pipe, 65536)
        if not data:
          break
        copied = True
        self._log.write(data)
    return copied

  def _kill_if_late(self, child: subprocess.Popen[bytes]) -> None:
    if self._hangup_at is not None and time.monotonic() - self._hangup_at > HANGUP_SECS:
      self._log.say(f'still running {HANGUP_SECS:.0f} s after its window was closed: killed')
      processes.kill_group(child.pid)

  def _prepare_restart(self, exit_code: int, failures: int) -> bool:
    """Waits for the pause before a restart; returns whether to restart the task."""
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

    def should_stop() -> bool:
      self._keep_files()
      return self._stopping()

    return not processes.wait_until(should_stop, pause)


def describe_exit(exit_code: int) -> str:
  """Returns 'exited 1', or for a signal 'was ended by SIGKILL'."""
  if exit_code >= 0:
    return f'exited {exit_code}'
  try:
    return f'was ended by {signal.Signals(-exit_code).name}'
  except ValueError:
    return f'was ended by signal {-exit_code}'


def supervise(session: str, task: str) -> int:
  """Supervises a task of a session in this process; returns its last exit code.

  Raises:
    UserError: the task was not launched here.
  """
  folder = run_folder(session)
  spec = read_json(path_of(folder, task, 'spec.json'))
  if spec is None:
    raise UserError(
      f'{path_of(folder, task, "spec.json")} is missing; tasks are started by --action=launch'
    )
  os.chdir(os.path.dirname(os.path.dirname(folder)))
  return Supervisor(folder, Spec(**spec)).run()
