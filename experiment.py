"""IMPALA: trains and tests agents on Gym environments, on one machine or on a cluster.

  python experiment.py --level_name=PongNoFrameskip-v4       trains in this one process
  python experiment.py --flagfile=flagfiles/pong.flags       the same, with settings known to work
  python experiment.py --mode=test --logdir=runs/...         plays full games with a checkpoint
  python experiment.py --mode=plot --logdir=runs/...         draws the learning curve
  python experiment.py --mode=video --logdir=runs/...        films games of a checkpoint
  python experiment.py --mode=export --logdir=runs/...       writes a SavedModel of the policy
  python experiment.py --mode=sizes                          bytes of weights and unrolls, as JSON
  python experiment.py --ps_hosts=.. --learner_hosts=.. --actor_hosts=.. --job_name=.. --task=..
                                                             is one role of a cluster
  srun python experiment.py --cluster=slurm --slurm_ps=1     the same, for all tasks of a Slurm step

This file holds the flags and the wiring of each role. It imports TensorFlow only once the flags
are good.
"""

import json
import math
import os
import re
import sys

try:
  from absl import (
    app,  # noqa: F401 (defines --only_check_args)
    flags,
    logging,
  )

  from common import open_files, texts
  from common.background import BackgroundCall
  from envs import faults
  from evaluation import protocols
  from roles import modes, resuming
  from roles import settings as settings_lib
  from roles import sizes as sizes_lib
  from roles.settings import SHARED_FLAGS
  from runtime import checkpoints, cluster_sources, failures, paths, process
  from runtime.process import BadInput
except ModuleNotFoundError as e:
  from common import missing_packages

  missing_packages.leave(e, 'experiment.py')
  raise

AGENT_NAMES = (
  'auto',
  'SimpleConvNetAgent',
  'SimpleConvNetLSTMAgent',
  'ResNetAgent',
  'ResNetLSTMAgent',
  'MLPAgent',
  'MLPLSTMAgent',
)

FLAGS = flags.FLAGS

# What is run.
flags.DEFINE_enum(
    'mode', 'train', ['train', 'test', 'plot', 'video', 'export', 'sizes'],
    'train, test (play), plot, video, export or sizes.',
)  # fmt: skip
flags.DEFINE_string(
  'level_name', 'BreakoutNoFrameskip-v4', 'Gym id of the environment; module:Id imports first.'
)
flags.DEFINE_enum(
    'agent_name', 'auto', AGENT_NAMES, 'Network; auto picks by the observations.',
    case_sensitive=False,
)  # fmt: skip
flags.DEFINE_string('logdir', '', 'Folder of the run; runs/<level>-<agent>-seed<seed> if empty.')
flags.DEFINE_string(
  'init_from', '', 'RUN, RUN:best, RUN:last or RUN:FRAMES: its weights are those of a new run.'
)
flags.DEFINE_integer('seed', 1, 'Of weights, actions and environments.', lower_bound=0)
flags.DEFINE_integer(
  'total_environment_frames', int(1e9), 'Environment frames to train on.', lower_bound=1
)
flags.DEFINE_string(
  'checkpoint', 'last', 'Of test, video, export: last, best or FRAMES, its environment frames.'
)
flags.DEFINE_integer('test_num_episodes', 30, 'Games of an evaluation.', lower_bound=1)
flags.DEFINE_integer(
    'eval_every_frames', 0, 'Frames between evaluations while training goes on; 0 = none.',
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_enum(
    'eval_protocol', 'training', list(protocols.PROTOCOLS),
    'Of --mode=test and --eval_every_frames; paper and machado: Atari only.',
)  # fmt: skip
flags.DEFINE_integer('num_episodes', 1, 'Games that --mode=video shows.', lower_bound=1)
flags.DEFINE_integer(
    'max_episode_frames', 0,
    'Frames after which test, video and evaluations cut off a game; 0 = 108000 of Atari, of others '
    '27000 agent steps.', lower_bound=0,
)  # fmt: skip
flags.DEFINE_bool(
  'annotate', False, 'Show what the agent sees, expects and intends beside a video.'
)
flags.DEFINE_bool('deterministic', False, 'Play with the likeliest action; else it is sampled.')

# Where it is run.
flags.DEFINE_enum('cluster', 'flags', cluster_sources.SOURCES, 'What says who is who.')
flags.DEFINE_integer('task', -1, "Index in the job's host list; -1 trains in this process.")
flags.DEFINE_enum('job_name', '', ['', 'ps', 'learner', 'actor'], 'Role in a cluster.')
flags.DEFINE_list('ps_hosts', [], 'host:port of every parameter server.')
flags.DEFINE_list('learner_hosts', [], 'host:port of every learner; the first is the chief.')
flags.DEFINE_list('actor_hosts', [], 'host:port of every actor.')
flags.DEFINE_integer('slurm_ps', 1, "Parameter servers among a Slurm step's tasks.", lower_bound=1)
flags.DEFINE_integer(
  'slurm_learners', 1, 'Learners among them; all other tasks are actors.', lower_bound=1
)
flags.DEFINE_integer(
  'spare_actors', 0, 'Actors beyond --actor_hosts that may join, by --task.', lower_bound=0
)
flags.DEFINE_bool('sync_learners', True, 'Learners update together (true) or each on its own.')
flags.DEFINE_list('learner_devices', [], 'Devices that share the batch; empty: all GPUs.')
flags.DEFINE_integer('wait_secs', 0, 'Seconds to wait for peers; 0 = for ever.', lower_bound=0)
flags.DEFINE_integer(
    'watchdog_secs', 300, 'Seconds without progress after which a role leaves; 0 = never.',
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_enum(
    'on_sigterm', 'end_run', ['end_run', 'leave'],
    'Of a cluster: SIGTERM to the chief ends the run, or any task just leaves (exit 143) to be '
    'started again.',
)  # fmt: skip
flags.DEFINE_string('state_dir', '', 'Folder of the state file of this task; none if empty.')
flags.DEFINE_integer('threads', 0, 'Threads per TensorFlow pool; 0 = one per core.', lower_bound=0)

# Acting.
flags.DEFINE_integer(
    'num_actors', 2,
    'Actor loops in this process (the original counted those of the whole cluster).', lower_bound=1,
)  # fmt: skip
flags.DEFINE_integer('envs_per_actor', 16, 'Environments per actor loop.', lower_bound=1)
flags.DEFINE_integer('unroll_length', 20, 'Agent steps per unroll.', lower_bound=1)
flags.DEFINE_integer(
  'num_action_repeats', 0, 'Frames per agent step; 0 = 4 for Atari, else 1.', lower_bound=0
)
flags.DEFINE_integer('width', 84, 'Pixels of an Atari observation.', lower_bound=1)
flags.DEFINE_integer('height', 84, 'Pixels of an Atari observation.', lower_bound=1)
flags.DEFINE_integer(
  'queue_capacity', 0, 'Unrolls that a learner keeps waiting; 0 = two batches.', lower_bound=0
)
flags.DEFINE_enum(
    'dynamic_batching', 'auto', ['auto', 'true', 'false'],
    'Merge the inference of the loops of a process; auto: where loops have at most 4 environments.',
)  # fmt: skip

# Learning. Defaults: IMPALA (arXiv 1802.01561), Table G.1, Atari.
flags.DEFINE_integer('batch_size', 32, 'Unrolls per update and learner.', lower_bound=1)
flags.DEFINE_float('learning_rate', 6e-4, 'At the start; falls linearly to 0 at the last frame.')
flags.DEFINE_enum('optimizer', 'rmsprop', ['rmsprop', 'adam'], 'Optimizer.')
flags.DEFINE_float('decay', 0.99, 'Of RMSProp.')
flags.DEFINE_float('momentum', 0.0, 'Of RMSProp.')
flags.DEFINE_float('epsilon', 0.01, 'Of RMSProp or Adam.')
flags.DEFINE_float('gradient_clipping', 40.0, 'Largest global norm of the gradient.')
flags.DEFINE_enum(
    'observation_scaling', 'unit', ['unit', 'centred', 'running'],
    'What the network sees: x/255, (x-128)/128, or (x-mean)/std of what was learned from.',
)  # fmt: skip
flags.DEFINE_float('entropy_cost', 0.01, 'Weight of the entropy, at the start.')
flags.DEFINE_float('entropy_cost_final', 0.0, 'Weight of the entropy after its decay.')
flags.DEFINE_integer(
  'entropy_decay_frames', 0, 'Frames of the linear decay; 0 = the weight stays.', lower_bound=0
)
flags.DEFINE_bool(
  'advantage_normalisation', False, 'Divide advantages by their root mean square of late.'
)
flags.DEFINE_bool(
  'value_normalisation', False, 'PopArt: the baseline learns returns of mean 0 and deviation 1.'
)
flags.DEFINE_integer('sample_reuse', 1, 'Updates that are made of each batch.', lower_bound=1)
flags.DEFINE_float('baseline_cost', 0.5, 'Weight of the baseline loss.')
flags.DEFINE_float('discounting', 0.99, 'Discount per agent step.')
flags.DEFINE_float('vtrace_lambda', 1.0, 'Of the V-trace coefficients.')
flags.DEFINE_enum(
  'reward_clipping', 'abs_one', ['abs_one', 'soft_asymmetric', 'none'], 'Of learned rewards.'
)
flags.DEFINE_enum(
  'learner_precision', 'float32', ['float32', 'bfloat16'], 'Of the torso in the learner.'
)

# Records.
flags.DEFINE_float('save_checkpoint_secs', 600, 'Seconds between checkpoints.')
flags.DEFINE_integer('keep_checkpoints', 3, 'Newest checkpoints to keep.', lower_bound=1)
flags.DEFINE_integer(
    'keep_checkpoint_every_frames', 0, 'Frames between checkpoints that stay; 0 = none do.',
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_float('metrics_secs', 10, 'Seconds between rows of metrics.csv.')

_POSITIVE = (
    'learning_rate', 'epsilon', 'gradient_clipping', 'save_checkpoint_secs', 'metrics_secs'
)  # fmt: skip
_NOT_NEGATIVE = ('entropy_cost', 'entropy_cost_final', 'baseline_cost', 'momentum')
_FRACTIONS = ('decay', 'discounting', 'vtrace_lambda')


# -------------------------------------------------------------------------------------------------
# The command line

# What absl hands on of Python's own words: the pattern that ends its message, and what is meant.
_PLAIN = (
  (r'invalid literal for int\(\).*', 'is not a whole number'),
  (r'could not convert string to float.*', 'is not a number'),
  (r"\('Non-boolean argument to boolean flag'.*", 'is neither true nor false'),
)


def parse_args(argv):
  """Parses and checks the command line, without TensorFlow.

  Returns:
    `runtime.cluster.Cluster`.

  Raises:
    BadInput: in one sentence.
    RunFailed: the port that Slurm's job id gives to this task is taken.
  """
  for name in (*own_flags(), 'only_check_args'):  # Nothing stays of a call before.
    FLAGS[name].unparse()
  try:
    rest = FLAGS(argv)[1:]
  except flags.UnrecognizedFlagError as e:
    hint = texts.did_you_mean(e.flagname, FLAGS, '--{}')
    raise BadInput(f'there is no flag --{e.flagname}' + (f'; {hint}' if hint else '')) from None
  except (flags.Error, OSError) as e:
    raise BadInput(_plain(e)) from None
  if rest:
    raise BadInput(f'{rest[0]!r} is not a flag; flags are written --name=value')
  for name in ('logdir', 'init_from', 'state_dir'):
    FLAGS[name].value = paths.local(f'--{name}', FLAGS[name].value)
  _check_numbers()
  if not checkpoints.is_choice(FLAGS.checkpoint):
    raise BadInput(
      f'--checkpoint={FLAGS.checkpoint} is none of last, best and a number of environment frames'
    )
  given = cluster_sources.Given(**{n: FLAGS[n].value for n in cluster_sources.Given._fields})
  cluster = cluster_sources.read(FLAGS.cluster, given, os.environ)
  if FLAGS.mode == 'train' and FLAGS.queue_capacity and FLAGS.queue_capacity < FLAGS.batch_size:
    raise BadInput(
      f'--batch_size={FLAGS.batch_size} can never be filled from --queue_capacity='
      f'{FLAGS.queue_capacity}; the capacity must be at least the batch size'
    )
  devices = max(1, len(FLAGS.learner_devices))
  if FLAGS.batch_size % devices:
    raise BadInput(
      f'--batch_size={FLAGS.batch_size} cannot be split evenly over {devices} --learner_devices'
    )
  return cluster


def _plain(error):
  """The message of absl's error, or of the OSError of a --flagfile, on one line."""
  text = ' '.join(str(error).removeprefix('ERROR:: ').split())
  for pattern, meant in _PLAIN:
    if found := re.fullmatch(rf'flag (?P<given>--.*?): {pattern}', text):
      return f'{found["given"]} {meant}'
  return text


def _check_numbers():
  for name in (*_POSITIVE, *_NOT_NEGATIVE, *_FRACTIONS):
    try:
      _check_number(name, FLAGS[name].value)
    except ValueError as e:
      raise BadInput(f'--{name}={FLAGS[name].value:g} is not {e}') from None


def _check_number(name, value):
  """ValueError, with what is wanted, where a flag's number is out of its bounds."""
  for names, good, wanted in (
    (_POSITIVE, lambda x: x > 0, 'a positive number'),
    (_NOT_NEGATIVE, lambda x: x >= 0, 'a number of at least 0'),
    (_FRACTIONS, lambda x: 0 <= x <= 1, 'a number from 0 to 1'),
  ):
    if name in names and not (math.isfinite(value) and good(value)):
      raise ValueError(wanted)


def _parse_recorded(name, value):
  """A flag's value out of a run's record, as the command line would take it."""
  parsed = FLAGS[name].parser.parse(value)
  _check_number(name, parsed)
  return parsed


def own_flags():
  """The names of the flags declared in this file."""
  return [flag.name for flag in FLAGS.flags_by_module_dict().get(_FLAGS_MODULE, [])]


def shared_flags():
  """The flags that the tasks of a run agree on, as this command line has them; a dict."""
  return {name: FLAGS[name].value for name in SHARED_FLAGS}


def own_settings():
  """The `roles.settings.Settings` as this command line gives them.

  Raises:
    BadInput: the environment cannot be made, or the agent cannot see it.
  """
  return settings_lib.own_settings(shared_flags())


def options():
  """This task's `roles.settings.Options`."""
  own = {name: FLAGS[name].value for name in settings_lib.Options._fields if name in FLAGS}
  return settings_lib.Options(
    **own,
    shared=shared_flags(),
    given={name for name in own_flags() if FLAGS[name].present},
    all_flags={name: FLAGS[name].value for name in own_flags()},
    parse=_parse_recorded,
  )


# -------------------------------------------------------------------------------------------------
# What is run


def train(cluster):
  """Runs this task's role to its end; returns the exit code."""
  interrupts = process.Interrupts(cluster.is_local or FLAGS.on_sigterm == 'end_run')
  if cluster.is_local:
    logging.set_verbosity(logging.WARNING)  # The live line says it all.
  if cluster.visible_gpus is not None:
    os.environ['CUDA_VISIBLE_DEVICES'] = cluster.visible_gpus
  if cluster.job in ('ps', 'actor'):
    os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')
  run_lock = None
  if cluster.is_chief:
    plan = resuming.plan(options())
    _check_evaluations(plan.options, plan.settings.level_name)
    run_lock = resuming.lock_run_folder(plan, cluster)
  process.import_tensorflow()
  if cluster.job == 'ps':
    from roles import ps

    BackgroundCall(ps.run, cluster, options(), interrupts).result()
  else:
    from roles import training

    own = run_lock.options if run_lock else options()
    BackgroundCall(training.run, cluster, own, interrupts, run_lock).result()
    if run_lock:
      run_lock.close()  # The process may go on, with another run.
  return process.EXIT_LEFT if interrupts.run_goes_on else process.EXIT_OK


def _check_settings(cluster):
  """Whether this task could begin; BadInput if not.

  The frontend asks on every host, and a folder of this name is the run's on one of them alone: it
  is looked at for what the command does not say.
  """
  if FLAGS['level_name'].present:
    _check_evaluations(options(), own_settings().level_name)
  elif FLAGS.mode == 'train' and cluster.is_chief:
    plan = resuming.plan(options())
    _check_evaluations(plan.options, plan.settings.level_name)
  elif cluster.job not in ('ps', 'actor'):
    recorded, _ = resuming.as_recorded(options())
    settings_lib.own_settings(recorded.shared)


def _check_evaluations(options, level_name):
  """Whether those while training can be played; BadInput if not."""
  if options.eval_every_frames:
    protocols.atari_overrides(options.eval_protocol, level_name)


def sizes():
  """Prints a line of JSON: how large weights and unrolls of these flags are."""
  recorded, _ = resuming.as_recorded(options())
  settings = settings_lib.own_settings(recorded.shared)
  print(json.dumps(sizes_lib.sizes(settings, FLAGS.envs_per_actor, FLAGS.num_actors)))


def main(argv):
  """The program; returns its exit code."""
  if any(arg in ('-h', '-help', '--help', '--helpfull') for arg in argv[1:]):
    print(__doc__ + FLAGS.module_help(_FLAGS_MODULE))
    return process.EXIT_OK
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  open_files.raise_limit()
  try:
    cluster = parse_args(argv)
    if FLAGS.only_check_args:
      _check_settings(cluster)
    elif FLAGS.mode == 'train':
      return train(cluster)
    elif FLAGS.mode == 'test':
      how = FLAGS.eval_protocol, FLAGS.deterministic
      modes.test(options(), FLAGS.checkpoint, FLAGS.test_num_episodes, *how)
    elif FLAGS.mode == 'video':
      modes.video(
        options(), FLAGS.checkpoint, FLAGS.num_episodes, FLAGS.annotate, FLAGS.deterministic
      )
    elif FLAGS.mode == 'export':
      modes.export(options(), FLAGS.checkpoint, {name: FLAGS[name].default for name in own_flags()})
    elif FLAGS.mode == 'sizes':
      sizes()
    else:
      modes.plot(FLAGS.logdir or resuming.run_folder(own_settings(), ''))
    return process.EXIT_OK
  except BadInput as e:
    print(f'experiment.py: {e}', file=sys.stderr)
    return process.EXIT_BAD_INPUT
  except faults.UnfitLevel as e:
    print(f'experiment.py: --level_name={e.level_name}: {e}', file=sys.stderr)
    return process.EXIT_BAD_INPUT
  except Exception as e:
    from common import missing_packages

    missing_packages.leave(e, 'experiment.py')
    reason = faults.sentence_in(e) or failures.reason(e)
    if not reason:
      logging.exception('a bug, or something that nobody thought of:')
    print(f'experiment.py: {reason or e}', file=sys.stderr)
    return process.EXIT_FAILURE
  except KeyboardInterrupt as e:  # Before `Interrupts` listens, or in a mode without it.
    print(f'experiment.py: ended by {e or "SIGINT"}', file=sys.stderr)
    return process.EXIT_FAILURE


_FLAGS_MODULE = sys.argv[0] if __name__ == '__main__' else __name__

if __name__ == '__main__':
  process.interrupt_on_signals()
  process.leave(main(sys.argv))
