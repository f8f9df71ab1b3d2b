"""`logs`: the last lines of one task or of all, and with --follow those that are added."""

import time
from collections.abc import Callable
from typing import Any

from common import background
from frontend import cluster as cluster_lib
from frontend.console import POLL_SECS, AnyHost, Console
from frontend.errors import HostError

REPLY_SECS = 20
# Pause before a lost host is asked again.
RETRY_SECS = 5.0
LINES_OF_ONE, LINES_OF_EACH = 50, 5


def run(console: Console) -> int:
  """Prints the lines; returns the exit code, 1 if a host did not answer."""
  options = console.options
  names = (
    [options.task] if options.task else list(map(cluster_lib.task_name, console.cluster.tasks))
  )
  host_of = {name: console.host_of(name) for name in names}
  lines = options.lines or (LINES_OF_ONE if options.task else LINES_OF_EACH)

  def read(host: AnyHost) -> dict[str, dict[str, Any]]:
    return {
      name: _read(console, host, name, lines, None) for name in names if host_of[name] is host
    }

  outcomes = dict(console.on_all(read, list(dict.fromkeys(host_of.values()))))
  offsets: dict[str, int | None] = dict.fromkeys(names)
  failed = 0
  for name, host in host_of.items():
    outcome = outcomes[host]
    if isinstance(outcome, HostError):
      failed += 1
      console.say(f'{name}: no answer from {host.name}: {outcome}')
    else:
      _say(console, name, outcome[name]['lines'])
      offsets[name] = outcome[name]['offset']
  if options.follow:

    def follow(host: AnyHost, put: Callable[[str], None]) -> None:
      own = {name: offsets[name] for name in names if host_of[name] is host}
      _follow(console, host, own, lines, put)

    for text in background.stream(follow, list(outcomes)):
      console.say(text)
  return 1 if failed else 0


def print_last(console: Console, host: AnyHost, name: str, lines: int) -> None:
  """Prints the last lines of one task's log.

  Raises:
    HostError: its host does not answer.
  """
  _say(console, name, _read(console, host, name, lines, None)['lines'])


def _read(
  console: Console, host: AnyHost, name: str, lines: int, offset: int | None
) -> dict[str, Any]:
  """The reply to the request `logs`, see `host_side/task_status.py`."""
  return host.ask('logs', REPLY_SECS, task=name, lines=lines, offset=offset, **console.session())


def _say(console: Console, name: str, lines: list[str]) -> None:
  for line in lines or ['nothing logged so far']:
    console.say(f'{name}: {line}')


def _follow(
  console: Console,
  host: AnyHost,
  offsets: dict[str, int | None],
  lines: int,
  put: Callable[[str], None],
) -> None:
  """Puts the lines of a host's tasks as they are logged, forever; asks a lost host again.

  Args:
    console: the cluster.
    host: whose tasks to follow.
    offsets: {task: position in its log to go on from, or None for the last `lines`}.
    lines: number of lines where the offset is None.
    put: takes a line of text.
  """
  lost = any(offset is None for offset in offsets.values())
  while True:
    time.sleep(RETRY_SECS if lost else POLL_SECS)
    try:
      for name, offset in offsets.items():
        reply = _read(console, host, name, lines, offset)
        if lost:
          put(f'{host.name} answers again')
          lost = False
        offsets[name] = reply['offset']
        for line in reply['lines']:
          put(f'{name}: {line}')
    except HostError as error:
      if not lost:
        put(f'{host.name}: {error}; trying again every {RETRY_SECS:g} s')
      lost = True
