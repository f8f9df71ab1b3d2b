"""What a command goes on with: what it leaves open is that of the run in its folder.

A run's record is data, and may be somebody else's: no module is imported because it names one.
"""

import dataclasses
import glob
import json
import os
import shlex
import sys
from typing import TextIO

from common import files
from reporting import run_record
from roles import presets
from roles import settings as settings_lib
from roles.settings import OPEN_VALUES, SHARED_FLAGS, Options, Settings, record_of
from runtime.checkpoints import Checkpoints
from runtime.cluster import Cluster
from runtime.locks import lock_folder
from runtime.process import BadInput, RunFailed

# What the chief alone writes beside the checkpoints.
_RECORDS = (
  'run.json', 'run_id', 'cluster.json', 'metrics.csv', 'episodes.csv', 'evaluations.csv',
  'learning_curve.png',
)  # fmt: skip

# Flags of the chief's own that a run goes on with; the others say where it runs, or what is done.
_OWN_FLAGS = (
  'num_actors', 'envs_per_actor', 'dynamic_batching', 'save_checkpoint_secs', 'keep_checkpoints',
  'keep_checkpoint_every_frames', 'metrics_secs', 'eval_every_frames', 'eval_protocol',
  'test_num_episodes', 'deterministic', 'max_episode_frames',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a command trains, and where.

  Attributes:
    options: the command's options; what it left open is filled in from the run's record.
    settings: what all tasks of the run agree on.
    logdir: the run's folder.
    told: sentences for the user.
  """

  options: Options
  settings: Settings
  logdir: str
  told: list[str]


@dataclasses.dataclass(frozen=True)
class RunLock(Plan):
  """A `Plan` that is carried out: no other process trains in its folder until `close`."""

  lock: TextIO

  def close(self) -> None:
    """Lets other processes train in the folder."""
    self.lock.close()


def run_folder(settings, logdir):
  """Where a run is recorded: `logdir`, or where that is empty a folder named after the run.

  A run of an earlier version, whose folder does not name the seed, is found if it had this seed.
  """
  if logdir:
    return logdir
  earlier = _default_folder(settings)
  folder = f'{earlier}-seed{settings.seed}'
  if os.path.exists(folder) or _settings_in(earlier).get('seed') != settings.seed:
    return folder
  return earlier


def _default_folder(settings):
  level = settings.level_name.replace('/', '-').replace(':', '-')
  return os.path.join('runs', f'{level}-{settings.agent_name}')


def as_recorded(options):
  """(options, folder): what a command leaves open of `SHARED_FLAGS` is that of the run in it.

  Args:
    options: `roles.settings.Options`; without a `logdir`, the folder is named after the run.

  Raises:
    BadInput: the record is none, or names a module that the command does not name.
  """
  folder = _folder(options)
  return _with(options, _taken(options, folder, SHARED_FLAGS)), folder


def plan(options):
  """The `Plan` of a command that trains; nothing is written.

  Raises:
    BadInput: the environment cannot be made, the folder holds a run of another level or agent or
      with other spaces, its record is none, or --init_from has no weights that fit.
  """
  folder = _folder(options)
  before = _recorded(folder)
  if 'level_name' in options.given:
    _check_level(folder, before, options.shared['level_name'])
  taken = _taken(options, folder, (*SHARED_FLAGS, *_OWN_FLAGS))
  resolved = _with(options, taken)
  settings = settings_lib.own_settings(resolved.shared)
  _check_capacity(resolved, settings)
  settings_lib.initial_weights(options.init_from, settings, folder)
  # The slots of the one and the statistics of the other are in the checkpoint.
  settings_lib.check_same_run(folder, settings, 'optimizer', 'advantage_normalisation')
  told = _differences(options, settings, folder, before, taken)
  if options.init_from and Checkpoints.exist(folder):
    told.append(
      f'--init_from={options.init_from} has no effect: {folder} has a checkpoint of its own'
    )
  if not before:
    told += [*_other_runs(options, settings, folder), *presets.hint(settings, options.given)]
  return Plan(resolved, settings, folder, told)


def lock_run_folder(planned: Plan, cluster: Cluster) -> RunLock:
  """Locks the folder of a planned run for this process and records this start in its run.json.

  Raises:
    BadInput: another process trains in the folder.
    RunFailed: the record of a new run cannot be written.
  """
  lock = lock_folder(planned.logdir, '--logdir')
  tasks = {job: len(getattr(cluster, job)) for job in ('ps', 'learner', 'actor')}
  extra = {'settings': planned.settings._asdict(), 'tasks': {} if cluster.is_local else tasks}
  files.sweep(planned.logdir, *_RECORDS)
  try:
    run_record.write_run_json(planned.logdir, planned.options.all_flags, extra)
  except OSError as e:
    path = os.path.join(planned.logdir, 'run.json')
    if not os.path.exists(path):  # Nobody could tell what run it is.
      raise RunFailed(f'{path} cannot be written: {e.strerror}') from None
    planned.told.append(f'{path} cannot be written, this start is not recorded: {e.strerror}')
  return RunLock(planned.options, planned.settings, planned.logdir, planned.told, lock)


def command(folder, level_name, *flags):
  """The command that goes on with a run on this machine, as text to be pasted into a shell."""
  python = os.path.relpath(sys.executable)
  words = [sys.executable if python.startswith('..') else python]
  words += [sys.argv[0] if sys.argv[0].endswith('experiment.py') else 'experiment.py']
  words += [f'--logdir={folder}', *flags]
  if ':' in level_name:  # A module is imported only where a command names it.
    words.append(f'--level_name={level_name}')
  return shlex.join(words)


def _folder(options):
  return options.logdir or run_folder(settings_lib.own_settings(options.shared), '')


def _settings_in(folder):
  """The settings of a run beside the one in question; {} where they cannot be read."""
  try:
    return record_of(folder).get('settings', {})
  except BadInput:
    return {}


def _recorded(folder):
  """{flag: value} of what the run in a folder was last started with; {} without a record."""
  record = record_of(folder)
  flags, settings = record.get('flags', {}), record.get('settings', {})
  if not settings:
    return {}
  recorded = {name: settings[name] for name in SHARED_FLAGS if name in settings}
  recorded |= {name: flags[name] for name in _OWN_FLAGS if name in flags}
  if 'queue_capacity' in flags:  # Where it was left open, it follows the batch size of now.
    recorded['queue_capacity'] = flags['queue_capacity']
  return recorded


def _is_open(options, name):
  """Whether a command leaves a flag open: by silence, or by the value that stands for it."""
  if name not in options.given:
    return True
  # A capacity of two batches is asked for where that of the run is too small.
  return name != 'queue_capacity' and options.shared.get(name) == OPEN_VALUES.get(name, ())


def _taken(options, folder, names):
  """{flag: value} of what a command takes over from the record in a folder."""
  path = os.path.join(folder, 'run.json')
  taken = {}
  for name, value in _recorded(folder).items():
    if name in names and _is_open(options, name):
      try:
        taken[name] = options.parse(name, value)
      except (AttributeError, TypeError, ValueError) as e:
        raise BadInput(f'{path} says {name} is {value!r}: {e}') from None
  level_name = taken.get('level_name', '')
  if ':' in level_name:
    raise BadInput(
      f'{path} says level_name {level_name}, and a module is imported only where the command names '
      f'it too: if you trust it, add {shlex.quote(f"--level_name={level_name}")}'
    )
  return taken


def _with(options, taken):
  """`options`, with what was taken over."""
  shared = {name: value for name, value in taken.items() if name in SHARED_FLAGS}
  own = {name: value for name, value in taken.items() if name not in SHARED_FLAGS}
  return options._replace(
    shared={**options.shared, **shared}, all_flags={**options.all_flags, **taken}, **own
  )


def _check_level(folder, recorded, level_name):
  theirs = recorded.get('level_name', level_name)
  if theirs != level_name:
    raise BadInput(
      f'--logdir={folder} holds a run with level_name {theirs}, this one has {level_name}: choose '
      f'another --logdir; there --init_from={folder} begins a new run with its weights'
    )


def _check_capacity(options, settings):
  if settings.queue_capacity < settings.batch_size:
    raise BadInput(
      f'--batch_size={settings.batch_size} can never be filled from the queue_capacity of the run, '
      f'{settings.queue_capacity}: add --queue_capacity=0, which is two batches'
    )
  devices = max(1, len(options.learner_devices))
  if settings.batch_size % devices:
    raise BadInput(
      f'the batch_size of the run, {settings.batch_size}, cannot be split evenly over {devices} '
      '--learner_devices'
    )


def _differences(options, settings, folder, before, taken):
  """What a command that goes on leaves as it was, against its own defaults; and what it changes."""
  own = options.all_flags
  fitting = dict(
    agent_name=settings_lib.default_agent(settings.observation_shape),
    num_action_repeats=settings.num_action_repeats,
  )
  kept = {n: v for n, v in taken.items() if v not in (own[n], fitting.get(n, own[n]))}
  changed = {
    name: (value, own[name])
    for name, value in before.items()
    if not _is_open(options, name) and json.loads(json.dumps(own[name])) != value
  }
  told = []
  if kept:
    words = ', '.join(f'{name} {_text(value)}' for name, value in kept.items())
    told.append(f'{folder}: as before, since this command leaves it open: {words}')
  if changed:
    words = ', '.join(f'{n} {_text(old)} -> {_text(new)}' for n, (old, new) in changed.items())
    told.append(f'{folder}: otherwise than before: {words}')
  return told


def _text(value):
  return str(value).lower() if isinstance(value, bool) else str(value)


def _other_runs(options, settings, folder):
  """One sentence where a new run stands in a folder of its own beside others of the same level."""
  if options.logdir:
    return []
  level = settings.level_name
  beside = glob.glob(os.path.join(os.path.dirname(folder), '*', 'run.json'))
  others = [os.path.dirname(path) for path in beside if os.path.dirname(path) != folder]
  others = [other for other in others if _settings_in(other).get('level_name') == level]
  if not others:
    return []
  last = max(others, key=os.path.getmtime)
  return [f'{folder} is a new run; this goes on with {last}: {command(last, settings.level_name)}']
