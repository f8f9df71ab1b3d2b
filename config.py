"""Every setting of experiment.py, declared once.

A row is a field of one of the classes below, with its default, its help, and its bounds. The class
says who needs the setting. All of these follow from the rows: the flags and their checks, `--help`,
docs/flags.md, the typed settings that tasks and learners are given, what a resumed run takes over
from its record, and what a model card and a comparison of runs leave out.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from common import keywords, suites
from common.declarations import Setting, rows_of, setting, text
from structs import AGENTS, Level

# Groups of --help and docs/flags.md, in their order, and what is added to a heading.
RUN_GROUP = 'What is run'
ACTING = 'Acting'
LEARNING = 'Learning'
EVALUATION = 'Evaluation, video and export'
RECORDS = 'Checkpoints and metrics'
PLACE = 'Where it runs'
POPULATION = 'Populations'
GROUPS = {
  RUN_GROUP: '',
  ACTING: '',
  LEARNING: 'defaults: IMPALA, arXiv 1802.01561, Table G.1, Atari',
  EVALUATION: '',
  RECORDS: '',
  PLACE: '',
  POPULATION: 'population-based training, IMPALA, arXiv 1802.01561, Appendix F',
}

# Scopes: what a setting belongs to.
OF_RUN = 'run'
OF_TASK = 'task'
OF_EVALUATION = 'evaluation'
OF_RECORDS = 'records'
OF_PLACE = 'place'


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Hyperparameters:
  """What the update depends on, the same for all tasks of a run."""

  total_environment_frames: int = setting(
    int(1e9), 'Environment frames to train on.', group=RUN_GROUP, minimum=1
  )
  num_action_repeats: int = setting(
    0,
    'Frames per agent step; 0 = what an Atari id promises (mostly 4), else 1.',
    group=ACTING,
    minimum=0,
    fits=True,
  )
  batch_size: int = setting(32, 'Unrolls per update and learner.', minimum=1)
  unroll_length: int = setting(20, 'Agent steps per unroll.', minimum=1)
  learning_rate: float = setting(
    6e-4, 'Step size at the start; falls linearly to 0 at the last frame.', above=0
  )
  optimizer: str = setting('rmsprop', 'Optimizer.', choices=('rmsprop', 'adam'), fixed=True)
  decay: float = setting(
    0.99, 'Decay of the mean square in RMSProp.', minimum=0, maximum=1, expert=True
  )
  momentum: float = setting(0.0, 'Momentum of RMSProp.', minimum=0, expert=True)
  epsilon: float = setting(0.01, 'Epsilon of RMSProp or Adam.', above=0, expert=True)
  gradient_clipping: float = setting(40.0, 'Largest global norm of the gradient.', above=0)
  discounting: float = setting(0.99, 'Discount per agent step.', minimum=0, maximum=1)
  vtrace_lambda: float = setting(1.0, 'Lambda of the V-trace coefficients.', minimum=0, maximum=1)
  off_policy_correction: str = setting(
    'vtrace',
    'Correction of data that an older policy acted for; the others are those that the paper '
    'compares V-trace with (section 5.2.2).',
    choices=('vtrace', 'one_step', 'epsilon', 'none'),
    expert=True,
  )
  clip_rho: float = setting(
    1.0, 'Largest importance weight in the value targets (rho-bar).', above=0, expert=True
  )
  clip_pg_rho: float = setting(
    1.0, 'Largest importance weight in the policy gradient.', above=0, expert=True
  )
  clip_c: float = setting(1.0, 'Largest trace coefficient (c-bar).', above=0, expert=True)
  advantage_bootstrap: str = setting(
    'vs',
    'Value of the next state in the advantages: its target v_{s+1} or the baseline V(x_{s+1}) '
    '(appendix E.3).',
    choices=('vs', 'baseline'),
    expert=True,
  )
  reward_clipping: str = setting(
    'abs_one',
    'Clipping of the rewards that are learned from.',
    choices=('abs_one', 'soft_asymmetric', 'none'),
  )
  baseline_cost: float = setting(0.5, 'Weight of the baseline loss.', minimum=0)
  entropy_cost: float = setting(0.01, 'Weight of the entropy bonus at the start.', minimum=0)
  entropy_cost_final: float = setting(
    0.0, 'Weight of the entropy bonus after its decay.', minimum=0, expert=True
  )
  entropy_decay_frames: int = setting(
    0, "Environment frames of that weight's linear decay; 0 = no decay.", minimum=0, expert=True
  )
  return_normalisation: str = setting(
    'none',
    'Scaling of what is learned from returns: advantages divided by their running root mean '
    'square, or a baseline that learns returns of mean 0 and deviation 1 (PopArt).',
    choices=('none', 'advantage_rms', 'popart'),
    fixed=True,
  )
  observation_scaling: str = setting(
    'unit',
    'Input of the network: x/255, (x-128)/128, or (x-mean)/std of the observations so far.',
    choices=('unit', 'centred', 'running'),
    fixed=True,
  )
  initial_action_std: float = setting(
    1.0,
    'Standard deviation of continuous actions in a new policy; 1 = half the range of an action.',
    above=0,
    fixed=True,
    expert=True,
  )
  sample_reuse: int = setting(1, 'Updates per batch.', minimum=1)
  replay_capacity: int = setting(
    0,
    'Unrolls that the replay buffer of each learner keeps; 0 = no replay.',
    minimum=0,
    expert=True,
  )
  replay_fraction: float = setting(
    0.5, 'Share of each batch that is replayed.', minimum=0, maximum=1, expert=True
  )
  learner_precision: str = setting(
    'float32', 'Precision of the torso in the learner.', choices=('float32', 'bfloat16'),
    expert=True,
  )  # fmt: skip

  @property
  def replayed_unrolls(self) -> int:
    """The unrolls of each batch that are replayed, its last ones."""
    return round(self.batch_size * self.replay_fraction) if self.replay_capacity else 0

  @property
  def new_unrolls(self) -> int:
    """The unrolls that each update takes from the queue, and whose frames count.

    They are the first of the batch, or go to the replay buffer only if all of a batch is replayed.
    """
    return self.batch_size - self.replayed_unrolls or self.batch_size

  def why_no_replay(self) -> str:
    """Returns why batches cannot be made with replay, as a sentence, or ''."""
    if not self.replay_capacity:
      return ''
    rows = self.batch_size * self.replay_fraction
    if abs(rows - round(rows)) > 1e-6:
      return (
        f'--replay_fraction={self.replay_fraction:g} of --batch_size={self.batch_size} are '
        f'{rows:g} unrolls; it must be a whole number'
      )
    if self.replay_capacity < self.batch_size:
      return (
        f'--replay_capacity={self.replay_capacity} is less than a batch, '
        f'--batch_size={self.batch_size}; 10000 is what the paper has'
      )
    return ''

  @property
  def advantage_normalisation(self) -> bool:
    """Whether advantages are divided by their root mean square."""
    return self.return_normalisation == 'advantage_rms'

  @property
  def value_normalisation(self) -> int:
    """Whether the baseline learns normalised returns (PopArt)."""
    return self.return_normalisation == 'popart'


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags(Hyperparameters):
  """What all tasks of a run have to agree on; a task that leaves it open adopts the chief's."""

  level_name: str = setting(
    'BreakoutNoFrameskip-v4',
    'Gym id of the environment; module:Id imports the module first. Several ids with commas, or a '
    'suite (a file in suites/), are levels for one agent.',
    canonical=suites.canonical_levels,
  )
  env_kwargs: str = setting(
    '',
    'Keywords of the environment, a JSON object.',
    fixed=True,
    canonical=keywords.canonical_keywords,
  )
  env_wrappers: str = setting(
    '',
    'Wrappers around the environment, the innermost first: module.Class, or '
    'module.Class:{"name": value}, with commas.',
    fixed=True,
    canonical=keywords.canonical_wrappers,
  )
  imports: str = setting(
    '',
    'Modules to import before the environment is made, with commas; module:function also calls '
    'the function.',
    flag='import',
    canonical=keywords.canonical_imports,
  )
  agent_name: str = setting(
    'auto',
    'Network, or module:Class of your own; auto chooses by the observations.',
    choices=('auto', *AGENTS),
    own=True,
    fits=True,
    fixed=True,
  )
  observation_keys: str = setting(
    '',
    'Arrays of a Dict or Tuple observation to take, with commas; empty = all but texts.',
    group=ACTING,
    expert=True,
  )
  action_masks: str = setting(
    'auto',
    "Masks of allowed actions, from info['action_mask'] or an observation of that key; auto: used "
    'if the environment has them.',
    choices=('auto', 'true', 'false'),
    group=ACTING,
    expert=True,
  )
  seed: int = setting(1, 'Seed of weights, actions and environments.', minimum=0)
  deterministic_training: bool = setting(
    False,
    'A run in one process that repeats: the same command gives the same records and checkpoints.',
    fixed=True,
    expert=True,
  )
  width: int = setting(
    84, 'Width of an Atari observation, in pixels.', group=ACTING, minimum=1, expert=True
  )
  height: int = setting(
    84, 'Height of an Atari observation, in pixels.', group=ACTING, minimum=1, expert=True
  )
  queue_capacity: int = setting(
    0, "Unrolls in a learner's queue; 0 = two batches.", group=ACTING, minimum=0, fits=True
  )
  policy_lag: int = setting(
    -1,
    'Updates by which the weights that act are behind those that learn, exactly, in one process; '
    '-1 = as it comes.',
    group=ACTING,
    minimum=-1,
    expert=True,
  )
  sync_learners: bool = setting(
    True, 'Synchronous learners: one update of all their batches.', group=PLACE
  )

  @property
  def level_names(self) -> tuple[str, ...]:
    """The ids of the levels."""
    return suites.level_names(self.level_name)

  @property
  def level(self) -> Level:
    """The first level."""
    return self.levels[0]

  @property
  def levels(self) -> tuple[Level, ...]:
    """The levels as the command gives them, one environment each."""
    suite = suites.find(self.level_name)
    imports = ','.join(filter(None, [suite.imports if suite else '', self.imports]))
    own = {name: suite.levels[name].get('kwargs', {}) if suite else {} for name in self.level_names}
    return tuple(
      Level(
        name,
        env_kwargs=keywords.joined(own[name], self.env_kwargs),
        env_wrappers=self.env_wrappers,
        imports=imports,
        observation_keys=self.observation_keys,
        action_masks=self.action_masks,
      )
      for name in self.level_names
    )


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ActingFlags:
  """How a task acts."""

  num_actors: int = setting(
    2, 'Actor loops in this process (in the original: of the whole cluster).', minimum=1
  )
  envs_per_actor: int = setting(16, 'Environments per actor loop.', minimum=1)
  envs_per_worker: int = setting(
    0,
    'Environments per worker process, except Atari; 0 = chosen by the time of a step and the '
    'number of processors.',
    minimum=0,
    expert=True,
  )
  dynamic_batching: str = setting(
    'auto',
    "Merging of the inference of a process's actor loops; auto: up to 4 environments per loop.",
    choices=('auto', 'true', 'false'),
    expert=True,
  )


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class EvaluationFlags:
  """How evaluations are played, during training and after it."""

  test_num_episodes: int = setting(30, 'Games per evaluation.', minimum=1)
  eval_every_frames: int = setting(
    0, 'Environment frames between evaluations during training; 0 = none.', minimum=0
  )
  eval_protocol: str = setting(
    'training',
    'Protocol of --mode=test and --eval_every_frames; paper and machado are for Atari.',
    choices=('training', 'paper', 'machado'),
  )
  deterministic: bool = setting(False, 'The likeliest action in place of a sampled one.')
  max_episode_frames: int = setting(
    0,
    'Frames after which test, video and evaluations cut off a game; 0 = 108000 for Atari, else '
    '27000 agent steps.',
    minimum=0,
    expert=True,
  )


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class RecordFlags:
  """What the chief writes, and how often."""

  save_checkpoint_secs: float = setting(600.0, 'Seconds between checkpoints.', above=0)
  keep_checkpoints: int = setting(3, 'Number of newest checkpoints that are kept.', minimum=1)
  keep_checkpoint_every_frames: int = setting(
    0,
    'Environment frames between checkpoints that are kept for ever; 0 = none are.',
    minimum=0,
    expert=True,
  )
  metrics_secs: float = setting(10.0, 'Seconds between rows of metrics.csv.', above=0)
  metrics_updates: int = setting(
    100,
    'Updates between rows of metrics.csv with --deterministic_training, in place of '
    '--metrics_secs.',
    minimum=1,
    expert=True,
  )
  observers: list[str] = setting(
    [],
    'Classes of your own, module:Class, that get what the records get; only where a command names '
    'them.',
    scope=OF_PLACE,
    expert=True,
  )


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class PlaceFlags:
  """Where a task finds its files and devices, and how long it waits."""

  logdir: str = setting(
    '', 'Folder of the run; runs/<level>-<agent>-seed<seed> if empty.', group=RUN_GROUP
  )
  init_from: str = setting(
    '',
    'Run whose weights a new run starts with: RUN, RUN:best, RUN:last or RUN:FRAMES.',
    group=RUN_GROUP,
    scope=OF_RUN,
  )
  learner_devices: list[str] = setting([], 'Devices that share the batch; empty = all GPUs.')
  threads: int = setting(
    0, 'Threads per TensorFlow pool; 0 = one per core.', minimum=0, expert=True
  )
  wait_secs: int = setting(
    0, 'Seconds to wait for other tasks; 0 = for ever.', minimum=0, expert=True
  )
  watchdog_secs: int = setting(
    300, 'Seconds without progress after which a task exits; 0 = never.', minimum=0, expert=True
  )
  state_dir: str = setting('', "Folder of this task's state file; none if empty.", expert=True)


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class PopulationFlags:
  """How a run takes part in a population; a sweep with --population sets the first two."""

  population_dir: str = setting(
    '', 'Folder with the runs of a population, of which --logdir is one.', expert=True
  )
  population_settings: list[str] = setting(
    [], 'Settings that the members copy and change: numbers that are not whole.', expert=True
  )
  population_frames: int = setting(
    0,
    'Environment frames between two comparisons of a member, after which this start ends; 0 = a '
    'twentieth of all.',
    minimum=0,
    expert=True,
  )
  population_burn_in: int = setting(
    0,
    'Environment frames before the first comparison; 0 = as many as between two.',
    minimum=0,
    expert=True,
  )
  population_margin: float = setting(
    0.05,
    'Normalised score by which another member has to be better to be copied.',
    minimum=0,
    expert=True,
  )
  population_returns: list[str] = setting(
    [],
    'Mean returns whose normalised scores are 0 and 1: LOW,HIGH; empty = random play and the '
    "level's reference score, which Atari games and the levels of suites have.",
    expert=True,
  )


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class TaskFlags(ActingFlags, EvaluationFlags, RecordFlags, PlaceFlags, PopulationFlags):
  """What each task has for itself."""


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class CommandFlags:
  """What a command does, and which task of which cluster it is."""

  mode: str = setting(
    'train',
    'What is done; test plays games, sizes prints bytes of weights and unrolls.',
    group=RUN_GROUP,
    choices=('train', 'test', 'plot', 'video', 'export', 'sizes'),
  )
  checkpoint: str = setting(
    'last',
    'Checkpoint of test, video and export: last, best, or its environment frames.',
    group=EVALUATION,
  )
  num_episodes: int = setting(1, 'Games that --mode=video shows.', group=EVALUATION, minimum=1)
  annotate: bool = setting(
    False, 'A video with what the agent sees, expects and intends beside it.', group=EVALUATION
  )
  job_name: str = setting('', 'Job of this task.', choices=('', 'ps', 'learner', 'actor'))
  task: int = setting(-1, "Index of this task in its job's host list; -1 = no cluster.")
  ps_hosts: list[str] = setting([], 'host:port of every parameter server.')
  learner_hosts: list[str] = setting([], 'host:port of every learner; the first is the chief.')
  actor_hosts: list[str] = setting([], 'host:port of every actor.')
  cluster: str = setting(
    'flags',
    'Source of the cluster: these flags, TF_CONFIG, a Slurm step, the run in --logdir, or auto.',
    choices=('flags', 'tf_config', 'slurm', 'run', 'auto'),
  )
  slurm_ps: int = setting(
    1, 'Parameter servers among the tasks of a Slurm step.', minimum=1, expert=True
  )
  slurm_learners: int = setting(
    1, 'Learners among them; all other tasks are actors.', minimum=1, expert=True
  )
  spare_actors: int = setting(
    0, 'Actors that may join beyond those of --actor_hosts.', minimum=0, expert=True
  )
  on_sigterm: str = setting(
    'end_run',
    'Effect of SIGTERM in a cluster: the chief ends the run, or any task just leaves with exit '
    'code 143, to be started again.',
    choices=('end_run', 'leave'),
    expert=True,
  )


# Classes that declare rows, with the scope and the group of their rows.
_CLASSES = (
  (ActingFlags, OF_TASK, ACTING),
  (EvaluationFlags, OF_EVALUATION, EVALUATION),
  (RecordFlags, OF_RECORDS, RECORDS),
  (CommandFlags, OF_PLACE, PLACE),
  (RunFlags, OF_RUN, RUN_GROUP),
  (Hyperparameters, OF_RUN, LEARNING),
  (PlaceFlags, OF_PLACE, PLACE),
  (PopulationFlags, OF_PLACE, POPULATION),
)

# Flags of earlier versions: {name: (the flag that replaces it, its value if the old one is true)}.
FORMER = {
  'advantage_normalisation': ('return_normalisation', 'advantage_rms'),
  'value_normalisation': ('return_normalisation', 'popart'),
}


def _all_rows() -> Iterable[Setting]:
  rows = [row for cls in _CLASSES for row in rows_of(*cls)]
  return sorted(rows, key=lambda row: list(GROUPS).index(row.group))


# All rows by name, in the order of the documentation.
SETTINGS = {row.name: row for row in _all_rows()}
SHARED_FLAGS, TASK_FLAGS = (
  tuple(name for name in SETTINGS if name in cls.__dataclass_fields__)
  for cls in (RunFlags, TaskFlags)
)
# Defaults that stand for "whatever fits the environment or the batch".
OPEN_VALUES = {row.name: row.default for row in SETTINGS.values() if row.fits}
# Settings that a run cannot change once it has a checkpoint.
FIXED = tuple(row.name for row in SETTINGS.values() if row.fixed)
# Settings of the learning algorithm: those that a preset sets.
LEARNING_FLAGS = frozenset(row.name for row in SETTINGS.values() if row.group == LEARNING)
# Settings that a resumed run takes from its record, beside `SHARED_FLAGS`.
RESUMED_FLAGS = tuple(
  name for name in TASK_FLAGS if SETTINGS[name].scope in (OF_TASK, OF_EVALUATION, OF_RECORDS)
)
# Settings that do not shape the policy: model cards and comparisons of runs leave them out.
NOT_OF_THE_POLICY = frozenset(
  row.name for row in SETTINGS.values() if row.scope in (OF_EVALUATION, OF_RECORDS, OF_PLACE)
)


def up_to_date(recorded: Mapping[str, Any]) -> dict[str, Any]:
  """Returns recorded flags or settings under the names of this version."""
  values = {name: value for name, value in recorded.items() if name not in FORMER}
  if 'observation_shape' in values:  # Observations were one array, and actions one choice.
    shape, dtype = values.pop('observation_shape'), values.pop('observation_dtype', 'uint8')
    values['observation'] = [['', list(shape), dtype]]
    values['action'] = [['discrete', values.pop('num_actions'), [], []]]
  for name, (new, meant) in FORMER.items():
    if recorded.get(name):
      values[new] = meant
    elif name in recorded:
      values.setdefault(new, SETTINGS[new].default)
  return values


def flag_of(name: str, value: Any) -> str:
  """Returns a setting as a word of a command line, not quoted."""
  row = SETTINGS.get(name)
  return f'--{row.flag if row else name}={text(value)}'
