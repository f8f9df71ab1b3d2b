"""`launch`: checks every host, starts every task, and waits until each has written its state."""

import time
from typing import Any

from frontend import cluster as cluster_lib
from frontend.actions import check, firewall, logs, stop, task_rows
from frontend.console import POLL_SECS, AnyHost, Console, task_names
from frontend.errors import HostError

# Limit for a task's first state file. TensorFlow's import takes seconds, on a busy machine minutes.
START_SECS = 120
# A host counts as lost after this long without an answer.
LOST_SECS = 15


def run(console: Console) -> int:
  """Checks all hosts, starts all tasks and waits for them; returns the exit code."""
  if _session_exists(console):
    return 1
  if console.options.skip_check:
    firewall.warn_of_missing(console)
  elif not check.all_pass(console):
    console.say('nothing was started (--skip_check starts all the same)')
    return 1
  outcomes = console.on_all(lambda host: _launch_on(console, host))
  failed = console.failures(outcomes)
  launched = [host for host, result in outcomes if not isinstance(result, HostError)]
  try:
    failed += _wait_until_up(console, launched)
  except KeyboardInterrupt:
    console.say('\nno longer waiting; the tasks go on')
    _print_commands(console)
    raise
  if failed and not console.options.keep_going:
    console.say('stopping what was started (--keep_going leaves it)')
    stop.end_tasks(console, True, launched)
    return 1
  _print_commands(console)
  return 1 if failed else 0


def _session_exists(console: Console) -> bool:
  """Whether the session exists on a host already; if so, prints what to do about it."""
  outcomes = console.on_all(lambda host: host.ask('has_session', **console.session_and_socket()))
  names = [
    host.name for host, result in outcomes if not isinstance(result, HostError) and result['there']
  ]
  if names:
    console.say(
      f'session {console.options.tmux_sess!r} already exists on {", ".join(names)}; nothing was '
      f'started.\n  see it:    {console.command("status")}\n'
      f'  attach:    {console.command("attach", "--task=learner:0")}\n'
      f'  stop it:   {console.command("stop")}'
    )
  return bool(names)


def _launch_on(console: Console, host: AnyHost) -> dict[str, Any]:
  return host.ask(
    'launch',
    tasks=[
      {
        'task': cluster_lib.task_name(task),
        'arguments': cluster_lib.task_arguments(console.cluster, task, console.training_flags),
        'environment': cluster_lib.task_environment(task),
      }
      for task in host.host.tasks
    ],
    restart=console.options.restart,
    max_restarts=console.options.max_restarts,
    **console.session_and_socket(),
  )


def _wait_until_up(console: Console, launched: list[AnyHost]) -> int:
  """Waits until every task has written its state file or failed; returns how many failed."""
  waiting = {name for host in launched for name in task_names(host)}
  failed = 0
  deadline = time.monotonic() + START_SECS
  seen = dict.fromkeys(launched, time.monotonic())
  while waiting and time.monotonic() < deadline:
    for host, result in console.on_all(lambda host: task_rows.rows_of(console, host), list(seen)):
      if not isinstance(result, HostError):
        seen[host] = time.monotonic()
        failed += _note_up(console, host, result, waiting)
      elif time.monotonic() - seen[host] > LOST_SECS:
        lost = waiting & set(task_names(host))
        waiting -= lost
        failed += len(lost)
        console.say(f'{host.name}: {result}')
        del seen[host]
    time.sleep(POLL_SECS if waiting else 0)
  for name in sorted(waiting):
    console.say(f'{name}: started, but gave no sign of life within {START_SECS} s')
  return failed


def _note_up(console: Console, host: AnyHost, rows: list[task_rows.Row], waiting: set[str]) -> int:
  """Removes tasks that are up or failed from `waiting` and reports them.

  Returns:
    How many failed.
  """
  failed = 0
  for row in rows:
    if row['task'] not in waiting:
      continue
    bad = row['restarts'] or row['exit_code'] or row['state'] == 'restarting'
    if bad:
      failed += 1
      console.say(f'{row["task"]} on {host.name} failed to start: {row["last_line"]}')
      try:
        logs.print_last(console, host, row['task'], 15)
      except HostError as error:
        console.say(f'{host.name}: {error}')
    elif row['seen'] or row['state'] == 'exited 0':
      console.say(f'{row["task"]} runs on {host.name}')
    else:
      continue
    waiting.discard(row['task'])
  return failed


def _print_commands(console: Console) -> None:
  console.say(
    f'\nattach:  {console.command("attach", "--task=learner:0")}\n'
    f'status:  {console.command("status", "--watch")}\n'
    f'stop:    {console.command("stop")}'
  )
