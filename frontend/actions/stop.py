"""`stop`: the chief saves a checkpoint and ends the run, then all that is left is ended."""

import contextlib
import time

from frontend.actions import firewall, status
from frontend.console import POLL_SECS, task_names
from frontend.errors import HostError

# How long the chief may take for its checkpoint, and all others to follow it (30 s are promised).
CHIEF_SECS = 120
FOLLOW_SECS = 35
# How long the chief's host may be lost before the rest is left as it is.
LOST_SECS = 60
LOOK_SECS = 20
# A request that ends tasks waits for them, at most twice agent.END_SECS.
END_REPLY_SECS = 120


def stop(console):
  """Ends the cluster, gently unless --now; reports every task's exit; returns the exit code."""
  outcomes = console.on_all(lambda host: host.ask('hold', LOOK_SECS, **console.session()))
  silent = {host for host, result in outcomes if isinstance(result, HostError)}
  launched = silent or any(result['launched'] for _, result in outcomes)
  may_end = not launched or console.options.now or _end_with_chief(console)
  failed = end_tasks(console, console.options.now) if may_end else 1
  closed = [host for host, result in outcomes if host not in silent and result.get('firewall')]
  if launched:
    for row in status.task_rows(console):
      console.say(f'{row["task"]:<12} {row["host"]:<20} {row["state"]:<12} {row["last_line"]}')
      failed += not row['ended']
  else:
    console.say(f'nothing was launched as session {console.options.tmux_sess}')
  if closed and not failed:
    failed = firewall.open_ports(console, closed)
  return 1 if failed else 0


def end_tasks(console, now, targets=None):
  """Ends what is left of the session, without the chief's consent.

  Args:
    console: a Console.
    now: whether tasks get little time to end by themselves.
    targets: hosts; all by default.

  Returns:
    How many hosts failed.
  """
  request = {'timeout_secs': END_REPLY_SECS, 'now': now, **console.session_and_socket()}
  outcomes = console.on_all(lambda host: host.ask('end', **request), targets)
  for host, result in outcomes:
    for sentence in [] if isinstance(result, HostError) else result.get('unreadable', []):
      console.say(f'{host.name}: {sentence}')
  return console.failures(outcomes)


def _end_with_chief(console):
  """Asks the chief to end the run, and waits until it was seen to end, and then for the others.

  Returns:
    Whether what is left may be ended: not under a chief that may still save.
  """
  host = console.host_of('learner-0')
  left = _wait_for_chief(console, host)
  if left is None:
    left = console.on_all(lambda host: _wait_for_followers(console, host))
    _say_left(console, left)
    return True
  if not isinstance(left, HostError):
    console.say(f'the chief did not end within {CHIEF_SECS} s')
    return True
  console.say(
    f'learner-0 was not seen to end: {host.name}: {left}. Nothing else was ended, since it cannot '
    f'save without the others; to end them all the same: {console.command("stop", "--now")}'
  )
  return False


def _wait_for_chief(console, host):
  """Asks the chief to end; returns None when it has, else a row of its status or the HostError."""
  asked, look, seen = False, None, time.monotonic()
  deadline = seen + CHIEF_SECS
  while look is None or time.monotonic() < deadline:
    try:
      if not asked:
        asked = host.ask('ask', LOOK_SECS, task='learner-0', **console.session())['asked']
        if asked:
          console.say('asked the chief to save a checkpoint and end the run')
      rows = {row['task']: row for row in status.rows_of(console, host)}
      look, seen = rows['learner-0'], time.monotonic()
      if look['ended']:
        if not asked:
          console.say('the chief (learner-0) does not run; ending the rest')
        return None
    except HostError as error:
      if not isinstance(look, HostError):
        console.say(f'{host.name}: {error}; trying again, since the chief may be saving there')
      look = error
      if time.monotonic() - seen > LOST_SECS:
        break
    time.sleep(POLL_SECS)
  return look


def _wait_for_followers(console, host):
  """Waits until all tasks of a host have ended; returns the names of those not seen to."""
  deadline = time.monotonic() + FOLLOW_SECS
  left = task_names(host)
  while left and time.monotonic() < deadline:
    with contextlib.suppress(HostError):
      left = [row['task'] for row in status.rows_of(console, host) if not row['ended']]
    time.sleep(POLL_SECS if left else 0)
  return left


def _say_left(console, outcomes):
  left = [name for _, names in outcomes if not isinstance(names, HostError) for name in names]
  if left:
    console.say(f'{", ".join(left)} did not follow within {FOLLOW_SECS} s; ending the rest')
