"""What was launched on this host: which tasks still run, and where the run is recorded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from frontend.host_side import processes, supervisor, task_record

_SUFFIX = '.supervisor.json'


def path(session: str, task: str) -> str:
  """Returns the path of the supervisor's record of a task."""
  return supervisor.path_of(supervisor.run_folder(session), task, 'supervisor.json')


def record(session: str, task: str) -> dict[str, Any] | None:
  """Returns the supervisor's record of a task, or None if there is no valid one."""
  return task_record.read(path(session, task))


def records(session: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
  """Reads the records of a session.

  Returns:
    (records of this host, records of tasks that run on other hosts which share the folder,
    sentences about files that are not records).
  """
  here: list[dict[str, Any]] = []
  elsewhere: list[dict[str, Any]] = []
  unreadable: list[str] = []
  for task in known_tasks(supervisor.run_folder(session)):
    try:
      found = task_record.load(path(session, task))
    except ValueError as error:
      unreadable.append(f'{error}; it is left out')
      continue
    if task_record.is_of_this_host(found):
      here.append(found)
    elif task_record.runs_elsewhere(found, path(session, task)):
      elsewhere.append(found)
  return here, elsewhere, unreadable


def supervisor_runs(record: dict[str, Any] | None) -> bool:
  """Returns whether the supervisor that wrote a record still runs on this host."""
  return (
    record is not None
    and task_record.is_of_this_host(record)
    and processes.is_running(record['supervisor_pid'], record['supervisor_mark'])
  )


def known_tasks(folder: str) -> list[str]:
  """Returns the names of the tasks that have a record in a cluster's folder."""
  try:
    names = os.listdir(folder)
  except OSError:
    return []
  return sorted(name[: -len(_SUFFIX)] for name in names if name.endswith(_SUFFIX))


def still_running(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns the records whose supervisor or task still runs on this host."""
  return [record for record in records if supervisor_runs(record) or task_runs(record)]


def task_runs(record: dict[str, Any] | None) -> bool:
  """Returns whether the task of a record still runs on this host, supervised or not."""
  return (
    record is not None
    and task_record.is_of_this_host(record)
    and processes.is_running(record['pid'], record['mark'])
  )


def running() -> dict[str, Any]:
  """A request: which tasks run from this folder, in all sessions.

  Returns:
    {'tasks': list of 'task of session', 'elsewhere': list of ['task of session', host] for tasks on
    other hosts that share the folder}.
  """
  clusters = os.path.dirname(supervisor.run_folder(''))
  sessions = sorted(os.listdir(clusters)) if os.path.isdir(clusters) else []
  tasks, elsewhere = [], []
  for session in sessions:
    ours, others, _ = records(session)
    tasks += [f'{found["task"]} of {session}' for found in still_running(ours)]
    elsewhere += [[f'{found["task"]} of {session}', found['host'] or '?'] for found in others]
  return {'tasks': tasks, 'elsewhere': elsewhere}


def logdir(session: str) -> dict[str, str | None]:
  """A request: {'logdir': absolute path of the run's folder, None if it is not known yet}."""
  folder = supervisor.run_folder(session)
  state = task_record.read_state(supervisor.path_of(folder, 'learner-0', 'json'))
  spec = supervisor.read_json(supervisor.path_of(folder, 'learner-0', 'spec.json'))
  argv = spec.get('argv') if isinstance(spec, dict) else None
  # The chief's state file comes first: --logdir may be in a flag file, or left to its default.
  path = state.get('logdir') or _value_of('logdir', argv if isinstance(argv, list) else [])
  return {'logdir': path and os.path.join(os.path.dirname(os.path.dirname(folder)), path)}


def _value_of(name: str, arguments: Sequence[object]) -> str | None:
  """Returns the last value of a flag on a command line, or None."""
  value, follows = None, False
  for argument in map(str, arguments):
    given, _, text = argument.partition('=')
    if follows:
      value, follows = argument, False
    elif given in (f'-{name}', f'--{name}'):
      value, follows = text, '=' not in argument
  return value
