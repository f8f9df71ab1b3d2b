"""`stop`: the chief saves a checkpoint and ends the run; then whatever still runs is ended."""

import contextlib
import time

from frontend.actions import firewall, task_rows
from frontend.actions.task_rows import Row
from frontend.console import POLL_SECS, AnyHost, Console, task_names
from frontend.errors import HostError

# How long the chief may take for its checkpoint, and the others to end after it: experiment.py
# promises 30 s.
CHIEF_SECS = 120
FOLLOW_SECS = 35
# After this long without an answer from the chief's host, nothing else is ended.
LOST_SECS = 60
REPLY_SECS = 20
# The request `end` waits for the tasks, at most twice agent.END_SECS.
END_REPLY_SECS = 120


def run(console: Console) -> int:
  """Ends the cluster and prints each task's exit; returns the exit code.

  Unless --now is given, the chief is asked to save a checkpoint first.
  """
  outcomes = console.on_all(lambda host: host.ask('hold', REPLY_SECS, **console.session()))
  replies = {host: reply for host, reply in outcomes if not isinstance(reply, HostError)}
  launched = len(replies) < len(outcomes) or any(r['launched'] for r in replies.values())
  may_end = not launched or console.options.now or _end_with_chief(console)
  failed = end_tasks(console, console.options.now) if may_end else 1
  closed = [host for host, reply in replies.items() if reply.get('firewall')]
  if launched:
    for row in task_rows.all_rows(console):
      console.say(f'{row["task"]:<12} {row["host"]:<20} {row["state"]:<12} {row["last_line"]}')
      failed += not row['ended']
  else:
    console.say(f'nothing was launched as session {console.options.tmux_sess}')
  if closed and not failed:
    failed = firewall.remove(console, closed)
  return 1 if failed else 0


def end_tasks(console: Console, now: bool, targets: list[AnyHost] | None = None) -> int:
  """Ends all tasks of the session that still run, without asking the chief.

  Args:
    console: the cluster.
    now: whether to shorten the time that tasks get between SIGTERM and SIGKILL.
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


def _end_with_chief(console: Console) -> bool:
  """Asks the chief to end the run, and waits until it and then the others have ended.

  Returns:
    Whether the remaining tasks may be ended: False while the chief may still be saving.
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


def _wait_for_chief(console: Console, host: AnyHost) -> Row | HostError | None:
  """Asks the chief to end; returns None once it has, else its last row or HostError."""
  asked, seen = False, time.monotonic()
  look: Row | HostError | None = None
  deadline = seen + CHIEF_SECS
  while look is None or time.monotonic() < deadline:
    try:
      if not asked:
        asked = host.ask('ask', REPLY_SECS, task='learner-0', **console.session())['asked']
        if asked:
          console.say('asked the chief to save a checkpoint and end the run')
      rows = {row['task']: row for row in task_rows.rows_of(console, host)}
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


def _wait_for_followers(console: Console, host: AnyHost) -> list[str]:
  """Waits until all tasks of a host have ended; returns the names of those that did not."""
  deadline = time.monotonic() + FOLLOW_SECS
  left = task_names(host)
  while left and time.monotonic() < deadline:
    with contextlib.suppress(HostError):
      left = [row['task'] for row in task_rows.rows_of(console, host) if not row['ended']]
    time.sleep(POLL_SECS if left else 0)
  return left


def _say_left(console: Console, outcomes: list[tuple[AnyHost, list[str] | HostError]]) -> None:
  left = [name for _, names in outcomes if not isinstance(names, HostError) for name in names]
  if left:
    console.say(f'{", ".join(left)} did not follow within {FOLLOW_SECS} s; ending the rest')
