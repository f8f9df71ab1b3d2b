"""What launches have left on this host: tasks that run, and where the run is recorded."""

import os

from frontend import processes, supervisor


def record(session, task):
  """The supervisor's record of a task as a dict, or None."""
  return supervisor.read_json(
    supervisor.path_of(supervisor.run_folder(session), task, 'supervisor.json')
  )


def supervised(record):
  """Whether the supervisor that wrote a record still runs."""
  return bool(record) and processes.is_running(record['supervisor_pid'], record['supervisor_mark'])


def known_tasks(folder):
  """Names of the tasks that were launched from a cluster's folder."""
  suffix = '.supervisor.json'
  return sorted(name[: -len(suffix)] for name in os.listdir(folder) if name.endswith(suffix))


def left(records):
  """Of the records, those whose supervisor or task still runs."""
  return [record for record in records if supervised(record) or left_of_task(record)]


def left_of_task(record):
  """Whether a record's task, supervised or not, still runs."""
  return processes.is_running(record['pid'], record['mark'])


def running():
  """{'tasks': names of the tasks that run from this folder, each with its session}."""
  clusters = os.path.dirname(supervisor.run_folder(''))
  sessions = sorted(os.listdir(clusters)) if os.path.isdir(clusters) else []
  folders = {name: supervisor.run_folder(name) for name in sessions}
  return {
    'tasks': [
      f'{task} of {session}'
      for session, folder in folders.items()
      for task in (known_tasks(folder) if os.path.isdir(folder) else ())
      if left([record(session, task)])
    ]
  }


def logdir(session):
  """{'logdir': where the chief records the run, an absolute path, or None where that is open}."""
  folder = supervisor.run_folder(session)
  state = supervisor.read_json(supervisor.path_of(folder, 'learner-0', 'json')) or {}
  spec = supervisor.read_json(supervisor.path_of(folder, 'learner-0', 'spec.json')) or {}
  # The chief knows best: what it was told may stand in a flag file, or be left to it.
  path = state.get('logdir') or _value_of('logdir', spec.get('argv', []))
  return {'logdir': path and os.path.join(os.path.dirname(os.path.dirname(folder)), path)}


def _value_of(name, arguments):
  """The last value of a flag on a command line, or None."""
  value, follows = None, False
  for argument in arguments:
    given, _, text = argument.partition('=')
    if follows:
      value, follows = argument, False
    elif given in (f'-{name}', f'--{name}'):
      value, follows = text, '=' not in argument
  return value
