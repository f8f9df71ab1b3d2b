"""What the tasks of a run agree on, and what is each task's own.

Nothing here imports TensorFlow: all that the user may have to put right is found out before.
"""

import collections
import functools
import glob
import hashlib
import json
import os

from reporting import run_record
from runtime import checkpoints
from runtime.checkpoints import Checkpoints
from runtime.process import BadInput

# Flags that every task of a run has to agree on; what a command line leaves open is adopted from
# the chief.
SHARED_FLAGS = (
  'level_name', 'agent_name', 'unroll_length', 'num_action_repeats', 'width', 'height',
  'reward_clipping', 'total_environment_frames', 'seed', 'queue_capacity', 'batch_size',
  'learning_rate', 'optimizer', 'decay', 'momentum', 'epsilon', 'gradient_clipping',
  'entropy_cost', 'entropy_cost_final', 'entropy_decay_frames', 'baseline_cost', 'discounting',
  'vtrace_lambda', 'learner_precision', 'sync_learners', 'observation_scaling',
  'advantage_normalisation', 'value_normalisation', 'sample_reuse',
)  # fmt: skip
SPACES = ('observation_shape', 'observation_dtype', 'num_actions')
# What has to be alike for one run's weights to mean in another what they meant in the first.
_POLICY = ('agent_name', 'observation_scaling', 'value_normalisation')
NETWORK = (*_POLICY, 'observation_shape', 'num_actions')
# Values of flags that stand for "what fits", so that they contradict nothing.
OPEN_VALUES = {'agent_name': 'auto', 'num_action_repeats': 0, 'queue_capacity': 0}

Settings = collections.namedtuple('Settings', SHARED_FLAGS + SPACES)
Settings.__doc__ = """What all tasks of a run agree on: `SHARED_FLAGS`, with what fits in place of
what was left open, and the environment's `SPACES`."""

Options = collections.namedtuple(
  'Options',
  'shared given logdir num_actors envs_per_actor dynamic_batching learner_devices wait_secs '
  'watchdog_secs state_dir threads save_checkpoint_secs metrics_secs keep_checkpoints '
  'keep_checkpoint_every_frames init_from eval_every_frames eval_protocol test_num_episodes '
  'deterministic max_episode_frames all_flags parse',
)
Options.__doc__ = """What is one task's own, from its command line.

Attributes:
  shared: dict of `SHARED_FLAGS` as this command line has them, by default or not.
  given: set of the names of all flags that somebody wrote.
  all_flags: dict of all flags, for the run's record.
  parse: function of a flag's name and a value of it from a record, gives the value as the command
    line does; ValueError, TypeError or AttributeError where it is none.
  logdir, num_actors, envs_per_actor, dynamic_batching, learner_devices, wait_secs, watchdog_secs,
    state_dir, threads, save_checkpoint_secs, metrics_secs, keep_checkpoints,
    keep_checkpoint_every_frames, init_from, eval_every_frames, eval_protocol, test_num_episodes,
    deterministic, max_episode_frames: the flags of these names.
"""


def own_settings(shared):
  """The settings as one command line gives them; the environment says what the spaces are.

  Args:
    shared: dict of `SHARED_FLAGS`.

  Raises:
    BadInput: the environment cannot be made, or the agent cannot see it.
  """
  if shared['advantage_normalisation'] and shared['value_normalisation']:
    raise BadInput(
      '--advantage_normalisation and --value_normalisation both scale the advantages: choose one'
    )
  level_name = shared['level_name']
  try:
    spec = _spec(level_name, shared['num_action_repeats'], shared['width'], shared['height'])
  except ValueError as e:
    raise BadInput(f'--level_name={level_name}: {e}') from None
  if shared['observation_scaling'] == 'centred' and spec.observation_dtype != 'uint8':
    raise BadInput(
      f'--observation_scaling=centred is for images of bytes, but the observations of {level_name} '
      f'are {spec.observation_dtype}: unit takes them as they are, running scales them'
    )
  fitting = dict(
    num_action_repeats=spec.num_action_repeats,
    queue_capacity=shared['queue_capacity'] or 2 * shared['batch_size'],
    agent_name=_fitting_agent(shared['agent_name'], level_name, spec.observation_shape),
  )
  spaces = (tuple(spec.observation_shape), spec.observation_dtype, spec.num_actions)
  return Settings(**{**shared, **fitting}, **dict(zip(SPACES, spaces, strict=True)))


@functools.cache  # A simulator may take long to begin.
def _spec(level_name, num_action_repeats, width, height):
  import environments  # Not before the flags are good: it takes a moment.

  return environments.environment_spec(level_name, num_action_repeats, width, height)


def default_agent(observation_shape):
  """The agent that `auto` stands for."""
  return 'SimpleConvNetAgent' if len(observation_shape) == 3 else 'MLPAgent'


def _fitting_agent(agent_name, level_name, observation_shape):
  is_image, default = len(observation_shape) == 3, default_agent(observation_shape)
  if agent_name == 'auto':
    return default
  if agent_name.startswith('MLP') == is_image:
    raise BadInput(
      f'--agent_name={agent_name} takes {"vectors" if is_image else "images"}, but those of '
      f'{level_name} are of shape {tuple(observation_shape)}; {default} would fit'
    )
  return agent_name


def announced(settings, start_frames):
  """What the chief tells the other tasks, as text; the counterpart of `adopted`.

  Args:
    settings: `Settings`.
    start_frames: int, environment frames when the chief's session began.
  """
  return json.dumps(
    {**settings._asdict(), 'code_version': code_version(), 'start_frames': start_frames}
  )


def adopted(announcement, options):
  """The run's settings, once this command line is known not to contradict them.

  Args:
    announcement: dict, what `announced` gave.
    options: this task's `Options`.

  Raises:
    BadInput: a flag was given with another value, or the code differs.
  """
  if announcement['code_version'] != code_version():
    raise BadInput(
      f'the code here has version {code_version()}, but the run has '
      f'{announcement["code_version"]}: bring the same code to every host'
    )
  for name in SHARED_FLAGS:
    ours, theirs = options.shared[name], announcement[name]
    if name in options.given and ours != theirs and ours != OPEN_VALUES.get(name, theirs):
      raise BadInput(f'--{name}={ours} contradicts the run, which has {name}={theirs}')
  fields = {name: announcement[name] for name in Settings._fields}
  return Settings(**{**fields, 'observation_shape': tuple(announcement['observation_shape'])})


def code_version():
  """A hash of the program's sources; tasks of one run must agree on it."""
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


def derived_seed(*entropy):
  """A seed (int, 31 bits) that differs wherever one of the given non-negative integers does."""
  import numpy as np

  return int(np.random.SeedSequence(list(entropy)).generate_state(1)[0] >> 1)


def initial_weights(init_from, settings, folder, check=False):
  """The path of the checkpoint whose weights a new run begins with, or None.

  Args:
    init_from: RUN, RUN:last, RUN:best or RUN:FRAMES; or '', nothing is asked for.
    settings: `Settings` of the new run.
    folder: its folder; if it has a checkpoint, that goes before.
    check: whether all of it is read, by TensorFlow; see `runtime.checkpoints.find`.

  Raises:
    BadInput: there is no such checkpoint, or its network is another one.
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


def _check_network_fits(asked, run, settings):
  theirs = _recorded_settings(run)
  if not theirs:
    raise BadInput(f'{asked}: {run}/run.json does not say what network it trained')
  ours = json.loads(json.dumps(settings._asdict()))
  others = [name for name in NETWORK if theirs.get(name) != ours[name]]
  if others:
    there = ', '.join(f'{name} {theirs.get(name)}' for name in others)
    here = ', '.join(f'{name} {ours[name]}' for name in others)
    raise BadInput(f'{asked}: its network does not fit, it has {there}; this run has {here}')


def record_of(folder):
  """The run.json in a folder, a dict whose 'flags' and 'settings' are dicts; {} without one.

  Raises:
    BadInput: it is something else, or cannot be read.
  """
  path = os.path.join(folder, 'run.json')
  try:
    record = run_record.read_run_json(path)
  except NotADirectoryError:  # Whoever makes the folder says so.
    record = {}
  except OSError as e:
    raise BadInput(f'{path} cannot be read: {e.strerror}') from None
  parts = [record]
  if isinstance(record, dict):
    parts += [record.get('flags', {}), record.get('settings', {})]
  if not all(isinstance(part, dict) for part in parts):
    raise BadInput(f'{path} is no run.json that experiment.py wrote: move it away')
  return record


def _recorded_settings(folder):
  """The settings of the run in a folder, a dict as JSON has it; {} where none are recorded."""
  recorded = record_of(folder).get('settings', {})
  # Runs of before there was a choice have no record of it.
  first = {
    'observation_scaling': 'unit',
    'advantage_normalisation': False,
    'value_normalisation': False,
  }
  return {**first, **recorded} if recorded else {}


def flags_of(settings):
  """The flags among a run's settings, a dict."""
  return {name: getattr(settings, name) for name in SHARED_FLAGS}


def check_same_run(folder, settings, *more_fields):
  """Refuses a folder of another agent, other spaces or other values of `more_fields`.

  Raises:
    BadInput: naming the field and both values.
  """
  fields = (*_POLICY, *SPACES, *more_fields)
  ours = json.loads(json.dumps({name: getattr(settings, name) for name in fields}))
  theirs = _recorded_settings(folder)
  others = [name for name in fields if name in theirs and theirs[name] != ours[name]]
  if others:
    name = others[0]
    fits = not set(others) & set(NETWORK)
    instead = f'; --init_from={folder} begins a new run with its weights' if fits else ''
    raise BadInput(
      f'--logdir={folder} holds a run with {name} {theirs[name]}, this one has {ours[name]}: '
      f'choose another --logdir{instead}'
    )
