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

This file reads the command line and starts what it asks for; config.py declares the flags.
TensorFlow is imported only after the flags have been checked.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Iterable
from typing import Any

from common import early_signals, missing_packages

if __name__ == '__main__':
  early_signals.end_at_once()

try:
  from absl import flags, logging

  import config
  from reporting import flag_docs
  from runtime import process

  if __name__ == '__main__' and flag_docs.print_help(__doc__ or '', sys.argv[1:]):
    process.leave(process.EXIT_OK)  # Without the slower imports.

  from absl import app  # noqa: F401 (defines --only_check_args)

  from common import open_files, texts
  from common.background import BackgroundCall
  from common.declarations import is_own_code
  from common.own_code import BadOwnCode
  from envs import faults
  from evaluation import protocols
  from reporting import own_observers
  from roles import modes, population, resuming
  from roles import settings as settings_lib
  from roles import sizes as sizes_lib
  from runtime import checkpoints, cluster_sources, paths
  from runtime.cluster import Cluster
  from runtime.process import BadInput
except ModuleNotFoundError as e:
  missing_packages.leave(e, 'experiment.py')
  raise

FLAGS = flags.FLAGS


class _OwnOrEnumParser(flags.EnumParser):
  """Takes `module:Class` as it is, beside the names of an enumeration."""

  def parse(self, argument: str) -> str:
    """Returns the name, in the letter case of the enumeration."""
    return argument if is_own_code(argument) else super().parse(argument)


def _define(row: config.Setting) -> None:
  """Makes a setting a flag; its bounds are checked by `_check_bounds`."""
  if row.choices:
    parser = _OwnOrEnumParser if row.own else flags.EnumParser
    choice = parser(row.choices, case_sensitive=False)
    flags.DEFINE(choice, row.flag, row.default, row.help, serializer=flags.ArgumentSerializer())
    return
  kinds = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    list: flags.DEFINE_list,
    str: flags.DEFINE_string,
  }
  kinds[row.type](row.flag, row.default, row.help)


def _define_all() -> None:
  for row in config.SETTINGS.values():
    _define(row)
  for name, (new, value) in config.FORMER.items():
    flags.DEFINE_bool(name, False, f'Earlier spelling of --{new}={value}.')


_define_all()


# -------------------------------------------------------------------------------------------------
# The command line

# Endings of absl's messages that quote Python, and what they mean.
_PLAIN = (
  (r'invalid literal for int\(\).*', 'is not a whole number'),
  (r'could not convert string to float.*', 'is not a number'),
  (r"\('Non-boolean argument to boolean flag'.*", 'is neither true nor false'),
)


def parse_args(argv: list[str]) -> Cluster:
  """Parses and checks the command line, without TensorFlow.

  Raises:
    BadInput: in one sentence.
    RunFailed: the port that Slurm's job id gives to this task is taken.
  """
  rows = config.SETTINGS.values()
  for name in (*(row.flag for row in rows), *config.FORMER, 'only_check_args'):
    FLAGS[name].unparse()  # What an earlier call has set.
  try:
    rest = FLAGS(argv)[1:]
  except flags.UnrecognizedFlagError as e:
    hint = texts.did_you_mean(e.flagname, FLAGS, '--{}')
    raise BadInput(f'there is no flag --{e.flagname}' + (f'; {hint}' if hint else '')) from None
  except (flags.Error, OSError) as e:
    raise BadInput(_plain(e)) from None
  if rest:
    raise BadInput(f'{rest[0]!r} is not a flag; flags are written --name=value')
  _take_earlier_spellings()
  _check_bounds()
  for name in ('logdir', 'init_from', 'state_dir', 'population_dir'):
    FLAGS[name].value = paths.local(f'--{name}', FLAGS[name].value or '')
  if not checkpoints.is_choice(FLAGS.checkpoint):
    raise BadInput(
      f'--checkpoint={FLAGS.checkpoint} is none of last, best and a number of environment frames'
    )
  given = cluster_sources.Given(**_values(cluster_sources.Given._fields))
  cluster = cluster_sources.read(FLAGS.cluster, given, os.environ)
  if FLAGS.population_dir:
    if not cluster.is_local:
      raise BadInput('--population_dir: a member of a population is a training in one process')
    population.check(options())
  if FLAGS.deterministic_training and not cluster.is_local:
    raise BadInput(
      '--deterministic_training is for one process, not for a cluster, whose tasks wait for nobody'
    )
  if FLAGS.deterministic_training and FLAGS.population_dir:
    raise BadInput(
      '--deterministic_training is not for a member of a population (--population_dir), which '
      'copies others when they get there'
    )
  shared = shared_flags()
  if FLAGS.mode == 'train' and FLAGS.queue_capacity and FLAGS.queue_capacity < shared.new_unrolls:
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


def _plain(error: Exception) -> str:
  """Returns the message of absl's error, or of a --flagfile's OSError, on one line."""
  text = ' '.join(str(error).removeprefix('ERROR:: ').split())
  for pattern, meant in _PLAIN:
    if found := re.fullmatch(rf'flag (?P<given>--.*?): {pattern}', text):
      return f'{found["given"]} {meant}'
  return text


def _take_earlier_spellings() -> None:
  """Gives flags of earlier versions to the flags of now."""
  given = [name for name in config.FORMER if FLAGS[name].present]
  on = [f'--{name}' for name in given if FLAGS[name].value]
  if len(on) > 1:
    raise BadInput(f'{" and ".join(on)} exclude one another: choose one')
  for name, value in config.up_to_date({name: FLAGS[name].value for name in given}).items():
    now = f'--{name}={value}'
    if FLAGS[name].present and FLAGS[name].value != value:
      raise BadInput(f'--{given[0]} stands for {now} and contradicts --{name}={FLAGS[name].value}')
    logging.warning('%s: this is now written %s', ', '.join(on) or f'--no{given[0]}', now)
    FLAGS[name].parse(value)


def _check_bounds() -> None:
  for row in config.SETTINGS.values():
    value = FLAGS[row.flag].value
    try:
      FLAGS[row.flag].value = row.check(value)
    except ValueError as e:
      shown = f'{value:g}' if isinstance(value, float) else config.text(value)
      raise BadInput(f'--{row.flag}={shown} is {e}') from None


def _values(names: Iterable[str]) -> dict[str, Any]:
  return {name: FLAGS[config.SETTINGS[name].flag].value for name in names}


def shared_flags() -> config.RunFlags:
  """Returns what the tasks of a run have to agree on, as this command line has it."""
  return config.RunFlags(**_values(config.SHARED_FLAGS))


def own_settings() -> settings_lib.Settings:
  """Returns the run's settings as this command line gives them.

  Raises:
    BadInput: the environment cannot be made, or the agent does not take its observations.
  """
  return settings_lib.own_settings(shared_flags())


def options() -> settings_lib.Options:
  """Returns what this task has for itself."""
  return settings_lib.Options(
    **_values(config.TASK_FLAGS),
    shared=shared_flags(),
    given={name for name, row in config.SETTINGS.items() if FLAGS[row.flag].present},
    all_flags=_values(config.SETTINGS),
  )


# -------------------------------------------------------------------------------------------------
# What is run


def train(cluster: Cluster) -> int:
  """Runs this task's role to its end; returns the exit code."""
  interrupts = process.Interrupts(cluster.is_local or FLAGS.on_sigterm == 'end_run')
  if cluster.is_local:
    logging.set_verbosity(logging.WARNING)  # The live line has the rest.
  if cluster.visible_gpus is not None:
    os.environ['CUDA_VISIBLE_DEVICES'] = cluster.visible_gpus
  if cluster.job in ('ps', 'actor'):
    os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')
  run_lock = None
  observers = None
  if cluster.is_chief:
    classes = own_observers.load(FLAGS.observers)
    plan = resuming.plan(population.with_current_settings(options()))
    _check_loops(plan.options, plan.settings, cluster)
    _check_evaluations(plan.options, plan.settings)
    _check_own_agent(plan.settings)
    observers = own_observers.Observers(classes)
    run_lock = resuming.lock_run_folder(plan, cluster, population.compare)
  process.import_tensorflow()
  if cluster.job == 'ps':
    from roles import ps

    BackgroundCall(ps.run, cluster, options(), interrupts).result()
  else:
    from roles import training

    own = run_lock.options if run_lock else options()
    BackgroundCall(training.run, cluster, own, interrupts, run_lock, observers).result()
    if run_lock:
      run_lock.close()  # The process may go on, with another run.
  return process.EXIT_LEFT if interrupts.run_goes_on else process.EXIT_OK


def _check_settings(cluster: Cluster) -> None:
  """Raises BadInput if this task could not start.

  The frontend checks on every host, but only one of them has the run's folder. So the folder is
  read only for a level that the command does not name.
  """
  if FLAGS.mode == 'train' and cluster.is_chief:
    own_observers.load(FLAGS.observers)
  if FLAGS['level_name'].present:
    settings = own_settings()
    if FLAGS.mode == 'train':
      _check_loops(options(), settings, cluster)
    _check_evaluations(options(), settings)
    _check_own_agent(settings)
  elif FLAGS.mode == 'train' and cluster.is_chief:
    plan = resuming.plan(options())
    _check_loops(plan.options, plan.settings, cluster)
    _check_evaluations(plan.options, plan.settings)
    _check_own_agent(plan.settings)
  elif cluster.job not in ('ps', 'actor'):
    recorded, _ = resuming.as_recorded(options())
    _check_own_agent(settings_lib.own_settings(recorded.shared))


def _check_own_agent(settings: settings_lib.Settings) -> None:
  """Raises BadOwnCode if the agent is a class of the user's that is not fit for the run."""
  if is_own_code(settings.agent_name):
    process.import_tensorflow()
    import nets

    asked = settings.learner_precision, settings.observation_scaling, settings.value_normalisation
    BackgroundCall(nets.check_agent, settings.agent_name, settings, *asked).result()


def _check_loops(
  options: settings_lib.Options, settings: settings_lib.Settings, cluster: Cluster
) -> None:
  """Raises BadInput if actor loops do not fit the levels, or --policy_lag."""
  levels = len(settings.levels)
  if cluster.is_local and options.num_actors < levels:
    raise BadInput(
      f'--num_actors={options.num_actors} is too few for the {levels} levels of --level_name='
      f'{settings.level_name}: an actor loop plays one level, so it takes --num_actors={levels} or '
      'more'
    )
  resuming.check_policy_lag(options, settings, cluster)


def _check_evaluations(options: settings_lib.Options, settings: settings_lib.Settings) -> None:
  """Raises BadInput if evaluations during training cannot be played."""
  if options.eval_every_frames:
    for level in settings.levels:
      protocols.atari_overrides(options.eval_protocol, level)


def sizes() -> None:
  """Prints the bytes of weights and unrolls as a line of JSON."""
  recorded, _ = resuming.as_recorded(options())
  settings = settings_lib.own_settings(recorded.shared)
  print(json.dumps(sizes_lib.sizes(settings, FLAGS.envs_per_actor, FLAGS.num_actors)))


def main(argv: list[str]) -> int:
  """Runs the program; returns its exit code."""
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
      modes.test(options(), FLAGS.checkpoint)
    elif FLAGS.mode == 'video':
      modes.video(options(), FLAGS.checkpoint, FLAGS.num_episodes, FLAGS.annotate)
    elif FLAGS.mode == 'export':
      modes.export(options(), FLAGS.checkpoint)
    elif FLAGS.mode == 'sizes':
      sizes()
    else:
      modes.plot(FLAGS.logdir or resuming.run_folder(own_settings(), ''))
    return process.EXIT_OK
  except (Exception, KeyboardInterrupt) as e:
    early_signals.interrupting = False  # The reason is printed whole.
    return _tell_failure(e)


def _tell_failure(error: BaseException) -> int:
  """Prints why the program ends; returns its exit code."""
  if isinstance(error, (BadInput, BadOwnCode)):
    print(f'experiment.py: {error}', file=sys.stderr)
    return process.EXIT_BAD_INPUT
  if isinstance(error, faults.UnfitLevel):
    print(f'experiment.py: {faults.flagged(error.level_name, error)}', file=sys.stderr)
    return process.EXIT_BAD_INPUT
  if isinstance(error, KeyboardInterrupt):  # Before `Interrupts` listens, or in a mode without it.
    name = signal.Signals(error.args[0] if error.args else signal.SIGINT).name
    print(f'experiment.py: ended by {name}', file=sys.stderr)
    return process.EXIT_FAILURE
  missing_packages.leave(error, 'experiment.py')
  reason = faults.sentence_in(error) or process.failure_reason(error)
  if not reason:
    logging.error('a bug, or something that nobody thought of:', exc_info=error)
  print(f'experiment.py: {reason or error}', file=sys.stderr)
  return process.EXIT_FAILURE


if __name__ == '__main__':
  early_signals.install()
  process.leave(main(sys.argv))
