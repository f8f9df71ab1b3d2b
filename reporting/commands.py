"""Reconstructs the commands that started a run from its run.json, safe to paste into a shell."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import config

_TASKS = {'ps': 'parameter server', 'learner': 'learner', 'actor': 'actor'}


class Command(NamedTuple):
  """Consecutive starts of a run by the same command.

  Attributes:
    flags: dict, the flags that shape the policy as they took effect; level and agent first.
    started: str, ISO time of the first of these starts; '' if it is not recorded.
    starts: int, number of these starts.
    tasks: str, the tasks of its cluster in words; '' if it ran in one process.
    git_commit: str, commit of the code at the last start; '' if it is not recorded.
  """

  flags: dict[str, Any]
  started: str
  starts: int
  tasks: str
  git_commit: str


def commands(record: Mapping[str, Any], names: Iterable[str]) -> list[Command]:
  """Returns the commands that started a run, the oldest first.

  Args:
    record: contents of the run's run.json, or {}.
    names: names of all flags of experiment.py.
  """
  starts = record.get('starts', [])
  found: list[Command] = []
  for start in [*(starts if isinstance(starts, list) else []), record]:
    if not isinstance(start, dict) or not isinstance(start.get('flags'), dict):
      continue
    new = _command(start, names)
    if found and (found[-1].flags, found[-1].tasks) == (new.flags, new.tasks):
      last = found.pop()
      new = new._replace(started=last.started, starts=last.starts + 1)
    found.append(new)
  return found


def _command(start: Mapping[str, Any], names: Iterable[str]) -> Command:
  flags, settings = start['flags'], start.get('settings')
  settings = settings if isinstance(settings, dict) else {}
  fitting = {name: settings[name] for name in ('level_name', 'agent_name') if name in settings}
  values = config.up_to_date({**settings, **flags, **fitting})
  first = [name for name in ('level_name', 'agent_name') if name in values]
  known = [name for name in names if name in values and name not in config.NOT_OF_THE_POLICY]
  kept = dict.fromkeys([*first, *known])
  return Command(
    {name: _without_folders(name, values[name]) for name in kept},
    _plain(start.get('started'), r'[\w:.+-]+'),
    1,
    _tasks(start.get('tasks')),
    _plain(start.get('git_commit'), r'[0-9a-f]+(-dirty)?'),
  )


def _plain(text: Any, pattern: str) -> str:
  """Returns `text` if it is a string of this pattern, else ''."""
  return text if isinstance(text, str) and re.fullmatch(pattern, text) else ''


def _tasks(tasks: Any) -> str:
  tasks = tasks if isinstance(tasks, dict) else {}
  counts = [(tasks.get(job), word) for job, word in _TASKS.items()]
  counts = [(n, word) for n, word in counts if isinstance(n, int) and n > 0]
  return ', '.join(f'{n} {word}{"s" * (n > 1)}' for n, word in counts)


def _without_folders(name: str, value: Any) -> Any:
  """Returns a flag's value; of a path only the last part, since folders differ by machine."""
  if isinstance(value, str) and (name == 'init_from' or value.startswith(('/', '~'))):
    return os.path.basename(value.rstrip('/'))
  return value


def line(flags: Mapping[str, Any]) -> str:
  """Returns the command line of flags, quoted for bash: no value can run as code."""
  return ' '.join(['python experiment.py', *(_word(*flag) for flag in flags.items())])


def _word(name: str, value: Any) -> str:
  word = config.flag_of(name, value)
  if word.isprintable() and '`' not in word:
    return shlex.quote(word)
  # A line break or a backtick would end the Markdown block around the command.
  inner = word.replace('\\', '\\\\').replace("'", "\\'").replace('`', '\\x60')
  escaped = (c if c.isprintable() else ''.join(f'\\x{b:02x}' for b in c.encode()) for c in inner)
  return f"$'{''.join(escaped)}'"
