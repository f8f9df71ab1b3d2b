"""Resuming: flags that a command omits are taken from the run's record, run.json.

The record may come from somebody else, so a module is imported only if the command names it too.
"""

import dataclasses
import glob
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import config
from common import files
from common.declarations import is_own_code
from reporting import run_record
from roles import presets
from roles import settings as settings_lib
from roles.settings import Options, Settings, record_of
from runtime.checkpoints import Checkpoints
from runtime.cluster import Cluster
from runtime.locks import lock_folder
from runtime.process import BadInput, RunFailed
from structs import default_agent_name

# Settings that name modules, which are imported: always, or only if they are `module:Name`.
_IMPORTING = {'level_name': False, 'agent_name': False, 'imports': True, 'env_wrappers': True}
_LONGEST_NAME = 100  # Of the levels in a folder's name, in characters.
# Files that the chief writes next to the checkpoints.
_RECORDS = (
  'run.json', 'run_id', 'cluster.json', 'metrics.csv', 'episodes.csv', 'evaluations.csv',
  'learning_curve.png', 'population.jsonl',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
  """The run that a command trains, and its folder.

  Attributes:
    options: the command's options, with omitted flags filled in from the run's record.
    settings: settings shared by all tasks of the run.
    logdir: the run's folder.
    notices: sentences for the user.
  """

  options: Options
  settings: Settings
  logdir: str
  notices: list[str]


@dataclasses.dataclass(frozen=True)
class RunLock(Plan):
  """A `Plan` whose folder is locked: no other process can train in it until `close`."""

  lock: TextIO

  def close(self) -> None:
    """Releases the lock on the folder."""
    self.lock.close()


def run_folder(settings: Settings, logdir: str) -> str:
  """Returns a run's folder: `logdir`, or if that is empty a folder named after the run.

  Earlier versions left the seed out of the name; such a folder is used if its run had this seed.
  """
  if logdir:
    return logdir
  earlier = _default_folder(settings)
  folder = f'{earlier}-seed{settings.seed}'
  if os.path.exists(folder) or _settings_in(earlier).get('seed') != settings.seed:
    return folder
  return earlier


def _default_folder(settings: Settings) -> str:
  first, *others = settings.level_name.split(',')
  levels = '+'.join([first, *others])
  if len(levels) > _LONGEST_NAME:
    levels = f'{first}+{len(others)}-others'
  name = f'{levels}-{settings.agent_name}'
  return os.path.join('runs', name.replace('/', '-').replace(':', '-'))


def as_recorded(options: Options) -> tuple[Options, str]:
  """Fills in the shared flags that a command omits, from the record in the run's folder.

  Args:
    options: the command's options; without a `logdir`, the folder is named after the run.

  Returns:
    (options, folder).

  Raises:
    BadInput: the record is damaged, or names a module that the command does not name.
  """
  folder = _folder(options)
  return _with(options, _taken(options, folder, config.SHARED_FLAGS)), folder


def plan(options: Options) -> Plan:
  """Returns the plan of a training command; writes nothing.

  Raises:
    BadInput: the environment cannot be made, the folder holds a run with another level, agent or
      spaces, its record is damaged, or --init_from has no matching weights.
  """
  folder = _folder(options)
  before = _recorded(folder)
  if 'level_name' in options.given:
    _check_level(folder, before, options.shared.level_name)
  taken = _taken(options, folder, (*config.SHARED_FLAGS, *config.RESUMED_FLAGS))
  resolved = _with(options, taken)
  settings = settings_lib.own_settings(resolved.shared)
  _check_capacity(resolved, settings)
  settings_lib.initial_weights(options.init_from, settings, folder)
  settings_lib.check_same_run(folder, settings, *config.FIXED)
  notices = _differences(options, settings, folder, before, taken)
  if options.init_from and Checkpoints.exist(folder):
    notices.append(
      f'--init_from={options.init_from} has no effect: {folder} has a checkpoint of its own'
    )
  if not before:
    notices += [*_other_runs(options, settings, folder), *presets.hint(settings, options.given)]
    notices += presets.hint_about_clipping(settings, options.given)
  return Plan(resolved, settings, folder, notices)


def lock_run_folder(
  planned: Plan, cluster: Cluster, change: Callable[[Plan], Plan] = lambda planned: planned
) -> RunLock:
  """Locks the folder of a planned run for this process and records this start in its run.json.

  Args:
    planned: the run.
    cluster: its tasks.
    change: returns the run as it is started; called when the folder is locked.

  Raises:
    BadInput: another process trains in the folder.
    RunFailed: the record of a new run cannot be written.
  """
  lock = lock_folder(planned.logdir, '--logdir')
  planned = change(planned)
  tasks = {job: len(getattr(cluster, job)) for job in ('ps', 'learner', 'actor')}
  extra = {
    'settings': dataclasses.asdict(planned.settings),
    'tasks': {} if cluster.is_local else tasks,
  }
  files.sweep(planned.logdir, *_RECORDS)
  notices = list(planned.notices)
  try:
    run_record.write_run_json(planned.logdir, planned.options.all_flags, extra)
  except OSError as e:
    path = os.path.join(planned.logdir, 'run.json')
    if not os.path.exists(path):  # A run without any record could not be identified.
      raise RunFailed(f'{path} cannot be written: {e.strerror}') from None
    notices.append(f'{path} cannot be written, this start is not recorded: {e.strerror}')
  return RunLock(planned.options, planned.settings, planned.logdir, notices, lock)


def command(folder: str, run: Mapping[str, Any], *flags: str) -> str:
  """Returns the shell command that resumes a run on this machine.

  Args:
    folder: the run's folder.
    run: its settings by name.
    *flags: further words of the command.
  """
  python = os.path.relpath(sys.executable)
  words = [sys.executable if python.startswith('..') else python]
  words += [sys.argv[0] if sys.argv[0].endswith('experiment.py') else 'experiment.py']
  words += [f'--logdir={folder}', *flags]
  return shlex.join([*words, *_words_that_import(run)])


def _words_that_import(run: Mapping[str, Any]) -> list[str]:
  """Returns the words of a command that name modules, which are imported for no record alone."""
  return [
    config.flag_of(name, run[name])
    for name, always in _IMPORTING.items()
    if run.get(name) and (always or is_own_code(run[name]))
  ]


def _folder(options: Options) -> str:
  return options.logdir or run_folder(settings_lib.own_settings(options.shared), '')


def _settings_in(folder: str) -> dict[str, Any]:
  """Returns another run's settings, or {} if they cannot be read."""
  try:
    return record_of(folder).get('settings', {})
  except BadInput:
    return {}


def _recorded(folder: str) -> dict[str, Any]:
  """Returns the flags of the last start of the run in a folder, or {} without a record."""
  record = record_of(folder)
  flags, settings = record.get('flags', {}), record.get('settings', {})
  if not settings:
    return {}
  recorded = {name: settings[name] for name in config.SHARED_FLAGS if name in settings}
  recorded |= {name: flags[name] for name in config.RESUMED_FLAGS if name in flags}
  if 'queue_capacity' in flags:  # 0 (the default) follows the current batch size.
    recorded['queue_capacity'] = flags['queue_capacity']
  return recorded


def _is_open(options: Options, name: str) -> bool:
  """Returns whether a command omits a flag or sets it to its "unset" value, such as 'auto'."""
  if name not in options.given:
    return True
  # An explicit --queue_capacity=0 means two batches, for runs whose capacity is too small.
  return name != 'queue_capacity' and options.all_flags[name] == config.OPEN_VALUES.get(name, ())


def _taken(options: Options, folder: str, names: tuple[str, ...]) -> dict[str, Any]:
  """Returns the flags among `names` that a command takes from the record in a folder."""
  path = os.path.join(folder, 'run.json')
  taken = {}
  for name, value in _recorded(folder).items():
    if name in names and _is_open(options, name):
      try:
        taken[name] = config.SETTINGS[name].check(value)
      except ValueError as e:
        raise BadInput(f'{path} says {name} is {value!r}: {e}') from None
  if words := _words_that_import(taken):
    said = ' and '.join(word[2:].replace('=', ' ', 1) for word in words)
    raise BadInput(
      f'{path} says {said}, and a module is imported only where the command names it too: if you '
      f'trust it, add {shlex.join(words)}'
    )
  return taken


def _with(options: Options, taken: dict[str, Any]) -> Options:
  """Returns `options` with the flags taken from the record."""
  shared = {name: value for name, value in taken.items() if name in config.SHARED_FLAGS}
  own = {name: value for name, value in taken.items() if name not in config.SHARED_FLAGS}
  return dataclasses.replace(
    options,
    shared=dataclasses.replace(options.shared, **shared),
    all_flags={**options.all_flags, **taken},
    **own,
  )


def _check_level(folder: str, recorded: dict[str, Any], level_name: str) -> None:
  theirs = recorded.get('level_name', level_name)
  if theirs != level_name:
    raise BadInput(
      f'--logdir={folder} holds a run with level_name {theirs}, this one has {level_name}: choose '
      f'another --logdir; there --init_from={folder} begins a new run with its weights'
    )


def _check_capacity(options: Options, settings: Settings) -> None:
  if settings.queue_capacity < settings.new_unrolls:
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


def check_policy_lag(options: Options, settings: Settings, cluster: Cluster) -> None:
  """Raises BadInput if actors cannot act with weights of exactly --policy_lag updates ago."""
  if settings.policy_lag < 0:
    return
  asked, new, lag = f'--policy_lag={settings.policy_lag}', settings.new_unrolls, settings.policy_lag
  if settings.deterministic_training:
    asked = '--deterministic_training'
  if not cluster.is_local:
    raise BadInput(f'{asked} is for one process, not for a cluster')
  if new % options.envs_per_actor:
    raise BadInput(
      f'{asked} plays all new unrolls of an update with the same weights: they are {new}, which '
      f'must be a multiple of --envs_per_actor={options.envs_per_actor}'
    )
  if settings.queue_capacity < (lag + 1) * new:
    raise BadInput(
      f'{asked} keeps {lag + 1} batches in the queue: --queue_capacity={settings.queue_capacity} '
      f'must be at least {(lag + 1) * new}, or 0'
    )
  if settings.sample_reuse > 1:
    raise BadInput(f'{asked} is not for --sample_reuse={settings.sample_reuse}: choose one')
  if options.dynamic_batching == 'true':
    raise BadInput(f'{asked} is not for --dynamic_batching=true, whose loops share their weights')


def _differences(
  options: Options, settings: Settings, folder: str, before: dict[str, Any], taken: dict[str, Any]
) -> list[str]:
  """Returns sentences about a resumed run's non-default flags and about flags that change."""
  own = options.all_flags
  fitting = dict(
    agent_name=default_agent_name(settings),
    num_action_repeats=settings.num_action_repeats,
  )
  kept = {n: v for n, v in taken.items() if v not in (own[n], fitting.get(n, own[n]))}
  changed = {
    name: (value, own[name])
    for name, value in before.items()
    if not _is_open(options, name) and json.loads(json.dumps(own[name])) != value
  }
  notices = []
  if kept:
    words = ', '.join(f'{name} {config.text(value)}' for name, value in kept.items())
    notices.append(f'{folder}: settings kept from its last start: {words}')
  if changed:
    words = ', '.join(
      f'{n} {config.text(old)} -> {config.text(new)}' for n, (old, new) in changed.items()
    )
    notices.append(f'{folder}: settings changed since its last start: {words}')
  return notices


def _other_runs(options: Options, settings: Settings, folder: str) -> list[str]:
  """Returns [sentence] if a new run in a default folder has sibling runs of the same level."""
  if options.logdir:
    return []
  level = settings.level_name
  beside = glob.glob(os.path.join(os.path.dirname(folder), '*', 'run.json'))
  others = [os.path.dirname(path) for path in beside if os.path.dirname(path) != folder]
  others = [other for other in others if _settings_in(other).get('level_name') == level]
  if not others:
    return []
  last = max(others, key=os.path.getmtime)
  return [f'{folder} is a new run; to resume {last}: {command(last, _settings_in(last))}']
