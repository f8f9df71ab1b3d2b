"""What the tasks of a run agree on, what is each task's own, and whose folder a logdir is.

Nothing here imports TensorFlow: all that the user may have to put right is found out before.
"""

import collections
import glob
import hashlib
import json
import os

from reporting import run_record
from runtime import checkpoints
from runtime.checkpoints import Checkpoints
from runtime.process import BadInput, lock_folder

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
_OPEN_VALUES = {'agent_name': 'auto', 'num_action_repeats': 0, 'queue_capacity': 0}

Settings = collections.namedtuple('Settings', SHARED_FLAGS + SPACES)
Settings.__doc__ = """What all tasks of a run agree on: `SHARED_FLAGS`, with what fits in place of
what was left open, and the environment's `SPACES`."""

Options = collections.namedtuple(
  'Options',
  'shared given logdir num_actors envs_per_actor dynamic_batching learner_devices wait_secs '
  'watchdog_secs state_dir threads save_checkpoint_secs metrics_secs keep_checkpoints '
  'keep_checkpoint_every_frames init_from eval_every_frames eval_protocol test_num_episodes '
  'deterministic all_flags',
)
Options.__doc__ = """What is one task's own, from its command line.

Attributes:
  shared: dict of `SHARED_FLAGS` as this command line has them, by default or not.
  given: set of the names among them that somebody wrote.
  all_flags: dict of all flags, for the run's record.
  logdir, num_actors, envs_per_actor, dynamic_batching, learner_devices, wait_secs, watchdog_secs,
    state_dir, threads, save_checkpoint_secs, metrics_secs, keep_checkpoints,
    keep_checkpoint_every_frames, init_from, eval_every_frames, eval_protocol, test_num_episodes,
    deterministic: the flags of these names.
"""

Claim = collections.namedtuple('Claim', 'settings logdir lock')
Claim.__doc__ = """The chief's hold on its run's folder; `lock` holds as long as the process."""


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
  import environments  # Not before the flags are good: it takes a moment.

  level_name = shared['level_name']
  try:
    spec = environments.environment_spec(
      level_name, shared['num_action_repeats'], shared['width'], shared['height']
    )
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


def as_recorded(options):
  """The shared flags of this command line; what it leaves open is that of the run in its logdir.

  Args:
    options: `Options`.

  Returns:
    dict of `SHARED_FLAGS`; without a record in the logdir those of the command line.
  """
  if not options.logdir:
    return options.shared
  recorded = run_record.read_run_json(os.path.join(options.logdir, 'run.json')).get('settings', {})
  adopted_names = [name for name in recorded if name in SHARED_FLAGS and name not in options.given]
  return {**options.shared, **{name: recorded[name] for name in adopted_names}}


def _fitting_agent(agent_name, level_name, observation_shape):
  is_image = len(observation_shape) == 3
  default = 'SimpleConvNetAgent' if is_image else 'MLPAgent'
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
    if name in options.given and ours != theirs and ours != _OPEN_VALUES.get(name, theirs):
      raise BadInput(f'--{name}={ours} contradicts the run, which has {name}={theirs}')
  fields = {name: announcement[name] for name in Settings._fields}
  return Settings(**{**fields, 'observation_shape': tuple(announcement['observation_shape'])})


def code_version():
  """A hash of the program's sources; tasks of one run must agree on it."""
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  packages = [os.path.dirname(p) for p in glob.glob(os.path.join(root, '*', '__init__.py'))]
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


def run_folder(settings, logdir):
  """Where a run is recorded: `logdir`, or where that is empty a folder named after the run."""
  level = settings.level_name.replace('/', '-').replace(':', '-')
  return logdir or os.path.join('runs', f'{level}-{settings.agent_name}')


def claim_run_folder(options):
  """Makes the folder of the run, as this command line describes it, this process's alone.

  Returns:
    `Claim`.

  Raises:
    BadInput: the environment cannot be made, another process trains in the folder, it holds a run
      with another agent or other spaces, or --init_from has no weights that fit.
  """
  settings = own_settings(options.shared)
  folder = run_folder(settings, options.logdir)
  initial_weights(options.init_from, settings, folder)  # Before anything is made.
  lock = lock_folder(folder, '--logdir')
  # The slots of the one and the statistics of the other are in the checkpoint.
  check_same_run(folder, settings, 'optimizer', 'advantage_normalisation')
  run_record.write_run_json(folder, options.all_flags, {'settings': settings._asdict()})
  return Claim(settings, folder, lock)


def initial_weights(init_from, settings, folder):
  """The path of the checkpoint whose weights a new run begins with, or None.

  Args:
    init_from: RUN, RUN:last, RUN:best or RUN:FRAMES; or '', nothing is asked for.
    settings: `Settings` of the new run.
    folder: its folder; if it has a checkpoint, that goes before.

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
  return checkpoints.find(run, choice, asked)


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


def _recorded_settings(folder):
  """The settings of the run in a folder, a dict as JSON has it; {} where none are recorded."""
  recorded = run_record.read_run_json(os.path.join(folder, 'run.json')).get('settings', {})
  # Runs of before there was a choice have no record of it.
  first = {
    'observation_scaling': 'unit',
    'advantage_normalisation': False,
    'value_normalisation': False,
  }
  return {**first, **recorded} if recorded else {}


def described(settings):
  """How a policy came about, for those who are handed it: a dict of command and licence."""
  values = ' '.join(f'--{name}={getattr(settings, name)}' for name in SHARED_FLAGS)
  return dict(command=f'python experiment.py {values}', licence='Apache-2.0')


def check_same_run(folder, settings, *more_fields):
  """Refuses a folder of another agent, other spaces or other values of `more_fields`.

  Raises:
    BadInput: naming the field and both values.
  """
  fields = (*_POLICY, *SPACES, *more_fields)
  ours = json.loads(json.dumps({name: getattr(settings, name) for name in fields}))
  theirs = _recorded_settings(folder)
  for name in fields:
    if name in theirs and theirs[name] != ours[name]:
      raise BadInput(
        f'--logdir={folder} holds a run with {name} {theirs[name]}, this one has {ours[name]}: '
        'choose another --logdir'
      )
