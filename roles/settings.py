"""The settings that all tasks of a run share, and the options of each task.

Nothing here imports TensorFlow, so that mistakes of the user are reported before its slow import.
"""

import dataclasses
import functools
import glob
import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import config
from envs import faults
from reporting import run_record
from runtime import checkpoints
from runtime.checkpoints import Checkpoints
from runtime.process import BadInput
from structs import (
  ActionPart,
  ArraySpec,
  Level,
  Spaces,
  default_agent_name,
  described,
  why_unfit,
)

if TYPE_CHECKING:
  import environments

_SPACES = ('observation', 'action')
# Settings that determine the network's variables.
_POLICY = ('agent_name', 'observation_scaling', 'return_normalisation')
_NETWORK = (*_POLICY, *_SPACES)
# Settings that earlier runs used but did not record.
_SETTINGS_OF_EARLIEST_RUNS = {
  'observation_scaling': 'unit',
  'return_normalisation': 'none',
  'env_kwargs': '',
  'env_wrappers': '',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(config.RunFlags):
  """The settings that all tasks of a run share, all resolved, and the environment's spaces.

  Attributes:
    observation: the arrays of one observation.
    action: the parts of an action.
  """

  observation: tuple[ArraySpec, ...]
  action: tuple[ActionPart, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(config.TaskFlags):
  """The options of one task, from its command line.

  Attributes:
    shared: the command line's values of the flags that all tasks must share.
    given: names of the flags on the command line.
    all_flags: values of all flags by name, for the run's record.
  """

  shared: config.RunFlags
  given: set[str]
  all_flags: dict[str, Any]


def own_settings(shared: config.RunFlags) -> Settings:
  """Resolves the shared flags of a command line and adds the environment's spaces.

  Raises:
    BadInput: the environment cannot be made, or the agent cannot handle its observations.
  """
  level_name = shared.level_name
  try:
    spec = _spec(shared.level, shared.num_action_repeats, shared.width, shared.height)
  except ValueError as e:
    raise BadInput(faults.flagged(level_name, e)) from None
  if shared.observation_scaling == 'centred' and not _has_bytes(spec):
    raise BadInput(
      f'--observation_scaling=centred is for images of bytes, but the observations of {level_name} '
      f'are {spec.observation[0].dtype}: unit takes them as they are, running scales them'
    )
  filled_in: dict[str, Any] = dict(
    num_action_repeats=spec.num_action_repeats,
    queue_capacity=shared.queue_capacity or 2 * shared.batch_size,
    agent_name=_fitting_agent(shared.agent_name, spec),
  )
  return Settings(
    **dataclasses.asdict(shared) | filled_in,
    observation=spec.observation,
    action=spec.action,
  )


def _has_bytes(spec: Spaces) -> bool:
  return any(array.dtype == 'uint8' for array in spec.observation)


@functools.cache  # Simulators may start slowly.
def _spec(
  level: Level, num_action_repeats: int, width: int, height: int
) -> 'environments.EnvironmentSpec':
  import environments  # Slow to import, so the flags are checked first.

  return environments.environment_spec(level, num_action_repeats, width, height)


def _fitting_agent(agent_name: str, spec: Spaces) -> str:
  if agent_name == 'auto':
    return default_agent_name(spec)
  if reason := why_unfit(agent_name, spec):
    raise BadInput(f'--agent_name: {reason}')
  return agent_name


def announced(settings: Settings, start_frames: int) -> str:
  """Returns the JSON that the chief sends to the other tasks; `adopted` reads it.

  Args:
    settings: the run's settings.
    start_frames: environment frames when the chief's session began.
  """
  return json.dumps(
    {**dataclasses.asdict(settings), 'code_version': code_version(), 'start_frames': start_frames}
  )


def adopted(announcement: Mapping[str, Any], options: Options) -> Settings:
  """Returns the announced settings after checking that this command line does not contradict them.

  Args:
    announcement: parsed JSON from `announced`.
    options: this task's options.

  Raises:
    BadInput: a flag on the command line has another value, or the code version differs.
  """
  if announcement['code_version'] != code_version():
    raise BadInput(
      f'the code here has version {code_version()}, but the run has '
      f'{announcement["code_version"]}: bring the same code to every host'
    )
  for name in config.SHARED_FLAGS:
    ours, theirs = getattr(options.shared, name), announcement[name]
    if name in options.given and ours != theirs and ours != config.OPEN_VALUES.get(name, theirs):
      raise BadInput(
        f'{config.flag_of(name, ours)} contradicts the run, which has '
        f'{config.flag_of(name, theirs)[2:]}'
      )
  fields = {field.name: announcement[field.name] for field in dataclasses.fields(Settings)}
  return Settings(**{**fields, **spaces_of(fields)})


def spaces_of(recorded: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields `observation` and `action` of `Settings` from their JSON values."""
  arrays = [ArraySpec(name, tuple(shape), dtype) for name, shape, dtype in recorded['observation']]
  parts = [ActionPart(k, n, tuple(low), tuple(high)) for k, n, low, high in recorded['action']]
  return dict(observation=tuple(arrays), action=tuple(parts))


def code_version() -> str:
  """Returns a hash of the program's sources; it must be equal in all tasks of a run."""
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  packages = [
    os.path.dirname(path)
    for depth in ('*', os.path.join('*', '*'))
    for path in glob.glob(os.path.join(root, depth, '__init__.py'))
  ]
  digest = hashlib.sha256()
  for folder in [root, *sorted(packages)]:
    for path in sorted(glob.glob(os.path.join(folder, '*.py'))):
      digest.update(os.path.relpath(path, root).encode())
      with open(path, 'rb') as f:
        digest.update(f.read())
  return digest.hexdigest()[:12]


def derived_seed(*entropy: int) -> int:
  """Returns a 31-bit seed derived from the given non-negative integers."""
  import numpy as np

  return int(np.random.SeedSequence(list(entropy)).generate_state(1)[0] >> 1)


def initial_weights(
  init_from: str, settings: Settings, folder: str, check: bool = False
) -> str | None:
  """Returns the path of the checkpoint whose weights a new run starts with, or None.

  Args:
    init_from: RUN, RUN:last, RUN:best or RUN:FRAMES; '' for none.
    settings: the new run's settings.
    folder: the new run's folder. If it has a checkpoint, the run resumes and `init_from` is unused.
    check: whether TensorFlow reads the whole checkpoint, see `runtime.checkpoints.find`.

  Raises:
    BadInput: the checkpoint does not exist, or its network differs.
  """
  if not init_from or Checkpoints.exist(folder):
    return None
  asked = f'--init_from={init_from}'
  run, _, choice = init_from.rpartition(':')
  if not run or not checkpoints.is_choice(choice):
    run, choice = init_from, 'last'
  if not Checkpoints.exist(run):
    raise BadInput(
      f'{asked}: there is no checkpoint in the folder {run}; RUN, RUN:last, RUN:best or RUN:FRAMES '
      'names a run that has one'
    )
  _check_network_fits(asked, run, settings)
  return checkpoints.find(run, choice, asked, check)


def _check_network_fits(asked: str, run: str, settings: Settings) -> None:
  theirs = _recorded_settings(run)
  if not theirs:
    raise BadInput(f'{asked}: {run}/run.json does not say what network it trained')
  ours = _as_json(settings)
  others = _other_network(theirs, ours, _NETWORK)
  if others:
    there = ', '.join(f'{name} {_text(theirs, name)}' for name in others)
    here = ', '.join(f'{name} {_text(ours, name)}' for name in others)
    raise BadInput(f'{asked}: its network does not fit, it has {there}; this run has {here}')


def _as_json(settings: Settings) -> dict[str, Any]:
  return json.loads(json.dumps(dataclasses.asdict(settings)))


def _other_network(
  theirs: Mapping[str, Any], ours: Mapping[str, Any], names: tuple[str, ...]
) -> list[str]:
  """Returns the names of the settings in which two networks differ."""

  def network(settings: Mapping[str, Any], name: str) -> Any:
    value: Any = settings.get(name)
    if name == 'observation' and value:
      return [shape for _, shape, _ in value]
    if name == 'action' and value:
      return [part[:2] for part in value]
    return value == 'popart' if name == 'return_normalisation' else value

  return [name for name in names if network(theirs, name) != network(ours, name)]


def _text(settings: Mapping[str, Any], name: str) -> str:
  """Returns the value of a setting, in words for a message."""
  if name in _SPACES and name in settings:
    return described(spaces_of(settings)[name])
  return str(settings.get(name) or 'none')


def record_of(folder: str) -> dict[str, Any]:
  """Returns a folder's run.json, or {} if the file does not exist.

  Settings in its 'flags' and 'settings' are renamed to their current names.

  Raises:
    BadInput: the file is no run record, or cannot be read.
  """
  path = os.path.join(folder, 'run.json')
  try:
    record = run_record.read_run_json(path)
  except NotADirectoryError:  # Reported when the folder is created.
    record = {}
  except OSError as e:
    raise BadInput(f'{path} cannot be read: {e.strerror}') from None
  parts = [record]
  if isinstance(record, dict):
    parts += [record.get('flags', {}), record.get('settings', {})]
  if not all(isinstance(part, dict) for part in parts):
    raise BadInput(f'{path} is no run.json that experiment.py wrote: move it away')
  current = {
    part: config.up_to_date(record[part]) for part in ('flags', 'settings') if part in record
  }
  return {**record, **current}


def _recorded_settings(folder: str) -> dict[str, Any]:
  """Returns the recorded settings of the run in a folder as JSON values, or {}."""
  recorded = record_of(folder).get('settings', {})
  return {**_SETTINGS_OF_EARLIEST_RUNS, **recorded} if recorded else {}


def check_same_run(folder: str, settings: Settings, *more_names: str) -> None:
  """Checks that a folder's run has the same agent and spaces, and equal settings `more_names`.

  Raises:
    BadInput: a setting differs; the message has its name and both values.
  """
  ours, theirs = _as_json(settings), _recorded_settings(folder)
  names = tuple(name for name in (*_POLICY, *_SPACES) if name in theirs)
  others = _other_network(theirs, ours, names)
  more = [
    name for name in ('observation', *more_names) if name in theirs and theirs[name] != ours[name]
  ]
  if others or more:
    name = (others + more)[0]
    instead = ''
    if not set(others) & set(_NETWORK):
      instead = f'; --init_from={folder} begins a new run with its weights'
    raise BadInput(
      f'--logdir={folder} holds a run with {name} {_text(theirs, name)}, this one has '
      f'{_text(ours, name)}: '
      f'choose another --logdir{instead}'
    )
