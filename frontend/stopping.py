"""`stop`: the chief saves a checkpoint and ends the run, then all that is left is ended."""

from frontend import closing_ports, processes, watching
from frontend.console import POLL_SECS
from frontend.host_error import HostError

# How long the chief may take for its checkpoint, and all others to follow it (30 s are promised).
CHIEF_SECS = 120
FOLLOW_SECS = 35
# A request that ends tasks waits for them, at most twice on_host.END_SECS.
END_REPLY_SECS = 120


def stop(console):
  """Ends the cluster, gently unless --now; reports every task's exit; returns the exit code."""
  outcomes = console.on_all(lambda host: host.ask('hold', **console.session()))
  silent = {host for host, result in outcomes if isinstance(result, HostError)}
  launched = silent or any(result['launched'] for _, result in outcomes)
  if launched and not console.options.now:
    _ask_chief(console, silent)
  failed = end_tasks(console, console.options.now)
  closed = [host for host, result in outcomes if host not in silent and result.get('firewall')]
  if launched:
    for row in watching.task_rows(console):
      console.say(f'{row["task"]:<12} {row["host"]:<20} {row["state"]:<12} {row["last_line"]}')
  else:
    console.say(f'nothing was launched as session {console.options.tmux_sess}')
  if closed and not failed:
    failed = closing_ports.open_ports(console, closed)
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


def _ask_chief(console, silent):
  """Asks the chief to end the run, and waits until all tasks that answer have ended."""
  chief = console.host_of('learner-0')
  try:
    asked = chief not in silent and chief.ask('ask', task='learner-0', **console.session())['asked']
  except HostError:
    asked = False
  if not asked:
    console.say('the chief (learner-0) does not run; ending the rest')
    return
  console.say('asked the chief to save a checkpoint and end the run')

  def running():
    return [row['task'] for row in watching.task_rows(console) if row['state'] == 'running']

  if not processes.wait_until(lambda: 'learner-0' not in running(), CHIEF_SECS, POLL_SECS):
    console.say(f'the chief did not end within {CHIEF_SECS} s')
  elif not processes.wait_until(lambda: not running(), FOLLOW_SECS, POLL_SECS):
    console.say(f'{", ".join(running())} did not follow within {FOLLOW_SECS} s; ending the rest')
