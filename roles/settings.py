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
from common import suites
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
  'deterministic_training': False,
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

  @functools.cached_property
  def levels(self) -> tuple[Level, ...]:
    """The levels, made alike, one environment each."""
    levels = super().levels
    if len(levels) == 1:
      return levels
    from envs import alike  # Slow to import, so the flags are checked first.

    channels = alike.image_channels(self.observation)
    return tuple(level._replace(channels=channels) for level in alike.with_all_actions(levels))

  @property
  def value_normalisation(self) -> int:
    """The number of levels for each of which the baseline learns normalised returns, or 0."""
    return len(self.level_names) if super().value_normalisation else 0

  def spec_of(self, level: Level) -> 'environments.EnvironmentSpec':
    """Returns the `EnvironmentSpec` of one of the levels."""
    import environments  # Slow to import, so the flags are checked first.

    return environments.spec_with(level, self)

  def level_of_loop(self, index: int) -> Level:
    """Returns the level of an actor loop, fixed for the run (IMPALA, section 5.3).

    Args:
      index: of the loop, counted over the cluster.
    """
    return self.levels[index % len(self.levels)]


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
    BadInput: the environment cannot be made, the agent cannot handle its observations, or batches
      cannot be made with replay.
  """
  level_name = shared.level_name
  if reason := shared.why_no_replay():
    raise BadInput(reason)
  try:
    spec = _spec(shared.levels, shared.num_action_repeats, shared.width, shared.height)
  except ValueError as e:
    raise BadInput(_with_package(level_name, faults.flagged(level_name, e))) from None
  if shared.observation_scaling == 'centred' and not _has_bytes(spec):
    raise BadInput(
      f'--observation_scaling=centred is for images of bytes, but the observations of {level_name} '
      f'are {spec.observation[0].dtype}: unit takes them as they are, running scales them'
    )
  filled_in: dict[str, Any] = dict(
    num_action_repeats=spec.num_action_repeats,
    policy_lag=_policy_lag(shared),
    queue_capacity=shared.queue_capacity or (2 + max(0, shared.policy_lag)) * shared.new_unrolls,
    agent_name=_fitting_agent(shared.agent_name, spec),
  )
  return Settings(
    **dataclasses.asdict(shared) | filled_in,
    observation=spec.observation,
    action=spec.action,
  )


def _policy_lag(shared: config.RunFlags) -> int:
  if shared.deterministic_training and shared.policy_lag > 0:
    raise BadInput(
      f'--policy_lag={shared.policy_lag} is not for --deterministic_training, whose actors act '
      'with the weights of the last update: leave it out'
    )
  return 0 if shared.deterministic_training else shared.policy_lag


def _has_bytes(spec: Spaces) -> bool:
  return any(array.dtype == 'uint8' for array in spec.observation)


@functools.cache  # Simulators may start slowly.
def _spec(
  levels: tuple[Level, ...], num_action_repeats: int, width: int, height: int
) -> 'environments.EnvironmentSpec':
  import environments  # Slow to import, so the flags are checked first.

  return environments.specs_alike(levels, num_action_repeats, width, height)[0]


def _with_package(level_name: str, sentence: str) -> str:
  """Adds the package that a suite needs to a sentence, if it is not installed."""
  suite = suites.find(level_name)
  if not suite or _is_installed(suite.package):
    return sentence
  return (
    f'--level_name={level_name}: this suite needs the package {suite.package}, which is not '
    f'installed here: pip install {suite.package}'
  )


def _is_installed(package: str) -> bool:
  import importlib.metadata  # Slow to import, and only a refusal needs it.

  try:
    importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


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
  """Returns a hash of the program's sources and suites; it must be equal in all tasks of a run."""
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  packages = [
    os.path.dirname(path)
    for depth in ('*', os.path.join('*', '*'))
    for path in glob.glob(os.path.join(root, depth, '__init__.py'))
  ]
  digest = hashlib.sha256()
  for folder in [root, *sorted(packages), suites.FOLDER]:
    pattern = '*.py' if folder != suites.FOLDER else '*.json'
    for path in sorted(glob.glob(os.path.join(folder, pattern))):
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
    return _num_heads(settings) if name == 'return_normalisation' else value

  return [name for name in names if network(theirs, name) != network(ours, name)]


def _num_heads(settings: Mapping[str, Any]) -> int:
  """Returns the number of levels for each of which the baseline learns normalised returns, or 0."""
  if settings.get('return_normalisation') != 'popart':
    return 0
  return len(suites.level_names(settings.get('level_name', '')))


def _text(settings: Mapping[str, Any], name: str) -> str:
  """Returns the value of a setting, in words for a message."""
  if name in _SPACES and name in settings:
    return described(spaces_of(settings)[name])
  if name == 'return_normalisation' and _num_heads(settings) > 1:
    return f'popart of {_num_heads(settings)} levels'
  value = settings.get(name)
  return str(value) if isinstance(value, bool) else str(value or 'none')


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
