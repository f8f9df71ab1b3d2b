"""One row per task, as `status` prints it and `launch` and `stop` read it."""

from typing import Any

from frontend import cluster as cluster_lib
from frontend.console import AnyHost, Console, task_names
from frontend.errors import HostError

# What `status --json` prints of a task; see `host_side/task_status.py` for types and units.
STATUS_KEYS = (
  'task',
  'host',
  'state',
  'uptime_secs',
  'restarts',
  'frames_per_sec',
  'last_seen_secs',
  'last_line',
  'training',
  'no_answer',
)
REPLY_SECS = 20

Row = dict[str, Any]


def rows_of(console: Console, host: AnyHost) -> list[Row]:
  """Returns a row for each task that the CSV places on `host`, whichever tasks the host reports.

  A row has STATUS_KEYS, `seen` and `exit_code` (see `task_status.status_row`), and `ended`: whether
  the host says that neither the task nor its supervisor is left.

  Raises:
    HostError: the host does not answer.
  """
  reply = host.ask('status', REPLY_SECS, tasks=task_names(host), **console.session())
  reported = {row['task']: row for row in reply['tasks']}
  return [
    _row(host, name, reported.get(name), 'its host says nothing about it')
    for name in task_names(host)
  ]


def all_rows(console: Console) -> list[Row]:
  """Returns a row for each task of the cluster, in the order of the CSV."""
  rows = {}
  for host, result in console.on_all(lambda host: rows_of(console, host)):
    if isinstance(result, HostError):
      result = [_row(host, name, None, str(result)) for name in task_names(host)]
    rows |= {row['task']: row for row in result}
  return [rows[cluster_lib.task_name(task)] for task in console.cluster.tasks]


def _row(host: AnyHost, name: str, reported: Row | None, error: str) -> Row:
  """`error` is the `last_line` of a task about which its host reports nothing."""
  row: Row = dict.fromkeys((*STATUS_KEYS, 'seen', 'exit_code'))
  row |= {'state': 'no answer', 'restarts': 0, 'last_line': error}
  row |= {'task': name, 'host': host.name, 'ended': False}
  if reported:
    # Older code on a host does not send `left`.
    running = reported['state'] in ('running', 'restarting')
    row |= reported | {'host': host.name, 'ended': not reported.get('left', running)}
  return row
