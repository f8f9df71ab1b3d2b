"""What launches have left on this host: tasks that run, and where the run is recorded."""

import os

from frontend.host_side import processes, supervisor, task_record

_SUFFIX = '.supervisor.json'


def path(session, task):
  """Path of the supervisor's record of a task."""
  return supervisor.path_of(supervisor.run_folder(session), task, 'supervisor.json')


def record(session, task):
  """The supervisor's record of a task as a dict, or None where there is none that can be read."""
  return task_record.read(path(session, task))


def records(session):
  """What the records of a session tell.

  Returns:
    (list of records of this host, list of those that are still kept on other hosts which share
    the folder, list of sentences about files that are no records).
  """
  here, elsewhere, unreadable = [], [], []
  for task in known_tasks(supervisor.run_folder(session)):
    try:
      found = task_record.load(path(session, task))
    except ValueError as error:
      unreadable.append(f'{error}; it is left out')
      continue
    if task_record.is_ours(found):
      here.append(found)
    elif task_record.beats_elsewhere(found, path(session, task)):
      elsewhere.append(found)
  return here, elsewhere, unreadable


def supervised(record):
  """Whether the supervisor that wrote a record still runs, on this host."""
  return (
    bool(record)
    and task_record.is_ours(record)
    and processes.is_running(record['supervisor_pid'], record['supervisor_mark'])
  )


def known_tasks(folder):
  """Names of the tasks that were launched from a cluster's folder, here or where it is shared."""
  try:
    names = os.listdir(folder)
  except OSError:
    return []
  return sorted(name[: -len(_SUFFIX)] for name in names if name.endswith(_SUFFIX))


def left(records):
  """Of the records, those whose supervisor or task still runs."""
  return [record for record in records if supervised(record) or left_of_task(record)]


def left_of_task(record):
  """Whether a record's task, supervised or not, still runs, on this host."""
  return (
    bool(record)
    and task_record.is_ours(record)
    and processes.is_running(record['pid'], record['mark'])
  )


def running():
  """What runs from this folder.

  Returns:
    {'tasks': names of the tasks of this host, each with its session, 'elsewhere': [name, host] of
    those on other hosts that share the folder}.
  """
  clusters = os.path.dirname(supervisor.run_folder(''))
  sessions = sorted(os.listdir(clusters)) if os.path.isdir(clusters) else []
  tasks, elsewhere = [], []
  for session in sessions:
    ours, others, _ = records(session)
    tasks += [f'{found["task"]} of {session}' for found in left(ours)]
    elsewhere += [[f'{found["task"]} of {session}', found['host'] or '?'] for found in others]
  return {'tasks': tasks, 'elsewhere': elsewhere}


def logdir(session):
  """{'logdir': where the chief records the run, an absolute path, or None where that is open}."""
  folder = supervisor.run_folder(session)
  state = task_record.read_state(supervisor.path_of(folder, 'learner-0', 'json'))
  spec = supervisor.read_json(supervisor.path_of(folder, 'learner-0', 'spec.json'))
  argv = spec.get('argv') if isinstance(spec, dict) else None
  # The chief knows best: what it was told may stand in a flag file, or be left to it.
  path = state.get('logdir') or _value_of('logdir', argv if isinstance(argv, list) else [])
  return {'logdir': path and os.path.join(os.path.dirname(os.path.dirname(folder)), path)}


def _value_of(name, arguments):
  """The last value of a flag on a command line, or None."""
  value, follows = None, False
  for argument in map(str, arguments):
    given, _, text = argument.partition('=')
    if follows:
      value, follows = argument, False
    elif given in (f'-{name}', f'--{name}'):
      value, follows = text, '=' not in argument
  return value
