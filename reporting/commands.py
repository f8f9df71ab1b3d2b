"""The commands that a run was made by, from its record; others may read them, and paste them."""

import collections
import os
import re
import shlex

# Flags that say where a run took place, or what is done with it: they tell nothing of the policy.
_NOT_OF_THE_POLICY = {
  'mode', 'logdir', 'state_dir', 'checkpoint', 'cluster', 'job_name', 'task', 'ps_hosts',
  'learner_hosts', 'actor_hosts', 'slurm_ps', 'slurm_learners', 'wait_secs', 'watchdog_secs',
  'threads', 'learner_devices', 'test_num_episodes', 'eval_every_frames', 'eval_protocol',
  'num_episodes', 'annotate', 'deterministic', 'save_checkpoint_secs', 'keep_checkpoints',
  'keep_checkpoint_every_frames', 'metrics_secs', 'spare_actors', 'on_sigterm',
}  # fmt: skip
_TASKS = {'ps': 'parameter server', 'learner': 'learner', 'actor': 'actor'}

Command = collections.namedtuple('Command', 'flags started starts tasks git_commit')
Command.__doc__ = """Consecutive starts of a run by the same command.

Attributes:
  flags: dict of all flags that tell of the policy, level and agent first, as they took effect.
  started: str, time of the first of these starts; '' where it is not recorded.
  starts: int, how many there were.
  tasks: str, the tasks of its cluster in words; '' on one machine.
  git_commit: str, of the code of the last of them; '' where it is not recorded.
"""


def commands(record, names):
  """The `Command`s of a run, a list, the oldest first.

  Args:
    record: dict, the run's run.json; {} where there is none.
    names: of the flags that there are.
  """
  starts = record.get('starts', [])
  found = []
  for start in [*(starts if isinstance(starts, list) else []), record]:
    if not isinstance(start, dict) or not isinstance(start.get('flags'), dict):
      continue
    new = _command(start, names)
    if found and (found[-1].flags, found[-1].tasks) == (new.flags, new.tasks):
      last = found.pop()
      new = new._replace(started=last.started, starts=last.starts + 1)
    found.append(new)
  return found


def _command(start, names):
  flags, settings = start['flags'], start.get('settings')
  settings = settings if isinstance(settings, dict) else {}
  fitting = {name: settings[name] for name in ('level_name', 'agent_name') if name in settings}
  values = {**settings, **flags, **fitting}
  first = [name for name in ('level_name', 'agent_name') if name in values]
  known = [name for name in names if name in values and name not in _NOT_OF_THE_POLICY]
  kept = dict.fromkeys([*first, *known])
  return Command(
    {name: _without_folders(name, values[name]) for name in kept},
    _plain(start.get('started'), r'[\w:.+-]+'),
    1,
    _tasks(start.get('tasks')),
    _plain(start.get('git_commit'), r'[0-9a-f]+(-dirty)?'),
  )


def _plain(text, pattern):
  return text if isinstance(text, str) and re.fullmatch(pattern, text) else ''


def _tasks(tasks):
  tasks = tasks if isinstance(tasks, dict) else {}
  counts = [(tasks.get(job), word) for job, word in _TASKS.items()]
  counts = [(n, word) for n, word in counts if isinstance(n, int) and n > 0]
  return ', '.join(f'{n} {word}{"s" * (n > 1)}' for n, word in counts)


def _without_folders(name, value):
  """A value without the folders of the machine that it was given on."""
  if isinstance(value, str) and (name == 'init_from' or value.startswith(('/', '~'))):
    return os.path.basename(value.rstrip('/'))
  return value


def line(flags):
  """The command line of a dict of flags, to be pasted into bash: no value is code."""
  return ' '.join(['python experiment.py', *(_word(*flag) for flag in flags.items())])


def _word(name, value):
  word = f'--{name}={text(value)}'
  if word.isprintable() and '`' not in word:
    return shlex.quote(word)
  # A line break, or the mark that ends a block of code, would end what surrounds it.
  inner = word.replace('\\', '\\\\').replace("'", "\\'").replace('`', '\\x60')
  escaped = (c if c.isprintable() else ''.join(f'\\x{b:02x}' for b in c.encode()) for c in inner)
  return f"$'{''.join(escaped)}'"


def text(value):
  """A flag's value as it is typed."""
  if isinstance(value, bool):
    return str(value).lower()
  return ','.join(map(str, value)) if isinstance(value, list) else str(value)
