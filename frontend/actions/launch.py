"""`launch`: every host is checked, every task started, and its first sign of life waited for."""

import time

from frontend import cluster as cluster_lib
from frontend.actions import check, firewall, status, stop
from frontend.console import POLL_SECS, task_names
from frontend.errors import HostError

# TensorFlow's import and the first sign of life take seconds; on a crowded machine, minutes.
START_SECS = 120
# A host that misses a look is lost only when it has not answered for so long.
LOST_SECS = 15


def launch(console):
  """Checks, starts every task, waits for their first signs of life; returns the exit code."""
  if _is_there(console):
    return 1
  if console.options.skip_check:
    firewall.say_what_is_gone(console)
  elif not check.all_pass(console):
    console.say('nothing was started (--skip_check starts all the same)')
    return 1
  outcomes = console.on_all(lambda host: _launch_on(console, host))
  failed = console.failures(outcomes)
  launched = [host for host, result in outcomes if not isinstance(result, HostError)]
  try:
    failed += _wait_for_life(console, launched)
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


def _is_there(console):
  """Whether the session exists on a host already; says so."""
  taken = console.on_all(lambda host: host.ask('has_session', **console.session_and_socket()))
  there = [
    host.name for host, result in taken if not isinstance(result, HostError) and result['there']
  ]
  if there:
    console.say(
      f'session {console.options.tmux_sess!r} already exists on {", ".join(there)}; nothing was '
      f'started.\n  see it:    {console.command("status")}\n'
      f'  attach:    {console.command("attach", "--task=learner:0")}\n'
      f'  stop it:   {console.command("stop")}'
    )
  return bool(there)


def _launch_on(console, host):
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


def _wait_for_life(console, launched):
  """Waits until every task has written its state file or failed; returns how many failed."""
  waiting = {name for host in launched for name in task_names(host)}
  failed = 0
  deadline = time.monotonic() + START_SECS
  seen = dict.fromkeys(launched, time.monotonic())
  while waiting and time.monotonic() < deadline:
    for host, result in console.on_all(lambda host: status.rows_of(console, host), list(seen)):
      if not isinstance(result, HostError):
        seen[host] = time.monotonic()
        failed += _note_life(console, host, result, waiting)
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


def _note_life(console, host, rows, waiting):
  """Takes the tasks that live or failed out of `waiting`, says so; returns how many failed."""
  failed = 0
  for row in rows:
    if row['task'] not in waiting:
      continue
    bad = row['restarts'] or row['exit_code'] or row['state'] == 'restarting'
    if bad:
      failed += 1
      console.say(f'{row["task"]} on {host.name} failed to start: {row["last_line"]}')
      try:
        status.print_log(console, host, row['task'], 15)
      except HostError as error:
        console.say(f'{host.name}: {error}')
    elif row['seen'] or row['state'] == 'exited 0':
      console.say(f'{row["task"]} runs on {host.name}')
    else:
      continue
    waiting.discard(row['task'])
  return failed


def _print_commands(console):
  console.say(
    f'\nattach:  {console.command("attach", "--task=learner:0")}\n'
    f'status:  {console.command("status", "--watch")}\n'
    f'stop:    {console.command("stop")}'
  )
