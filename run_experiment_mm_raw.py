"""Starts, watches and stops a whole cluster that a CSV describes, over SSH and tmux."""

import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from common import early_signals, missing_packages

if __name__ == '__main__':
  early_signals.end_at_once()

try:
  from absl import flags

  from common import texts
  from frontend import arguments, cluster
  from frontend.errors import HostError, UserError
except ModuleNotFoundError as e:
  missing_packages.leave(e, 'run_experiment_mm_raw.py')
  raise


class Flag(NamedTuple):
  """A flag of the frontend.

  Attributes:
    kind: `string`, `bool`, `integer`, `float` or `enum`.
    name: without dashes.
    default: its value if it is not given.
    help: a noun phrase, with the unit.
    values: of an `enum`.
    bounds: further arguments of absl's DEFINE function.
  """

  kind: str
  name: str
  default: Any
  help: str
  values: Sequence[str] = ()
  bounds: dict[str, Any] = {}


class Action(NamedTuple):
  """An action: the function `run(console)` in the module of its name in frontend/actions/.

  Attributes:
    help: what it does, as an imperative.
    flags: flags that all other actions refuse.
    training_flags: whether it takes training flags.
    task: whether it takes --task.
    hosts: whether the CSV has to place tasks on hosts.
    of_sweep: whether it acts on a sweep if --logdir names one.
  """

  help: str
  flags: Sequence[Flag] = ()
  training_flags: bool = False
  task: bool = False
  hosts: bool = True
  of_sweep: bool = False


# Another action is a module in frontend/actions/ and a row here.
ACTIONS = {
  'launch': Action(
    'check, then start every task in its own tmux window on its host (default)',
    training_flags=True,
  ),
  'check': Action('print whether the cluster can run on each host', training_flags=True),
  'sweep': Action(
    'run a training for each combination of settings: --sweep=seed=1..5 --logdir=runs/sweep1',
    [
      Flag('multi_string', 'sweep', None, 'setting and values: learning_rate=1e-4,3e-4; seed=1..5'),
      Flag(
        'integer',
        'sweep_random',
        0,
        'number of combinations to draw instead of all; settings may '
        'then be entropy_cost=log:5e-5..1e-2 or discounting=uniform:0.9..0.99',
        bounds={'lower_bound': 0},
      ),
      Flag('integer', 'sweep_seed', 1, 'seed of these draws'),
      Flag(
        'integer',
        'population',
        0,
        'number of members that copy one another as in the paper (population-based training); '
        'settings are drawn once and change then',
        bounds={'lower_bound': 0},
      ),
      Flag(
        'integer',
        'slots',
        0,
        'runs at a time on this machine, if no CSV is given; 0 for half the '
        'cores, if the memory allows',
        bounds={'lower_bound': 0, 'upper_bound': 9999},
      ),
      Flag('bool', 'start', True, 'whether to start the runs; --nostart only writes sweep.json'),
      Flag(
        'string',
        'element',
        '',
        'name of this element of an array job: the runs are trained here, shared with the other '
        'elements through the folder (slurm/sweep.sbatch)',
      ),
      Flag('bool', 'retry_failed', False, 'whether to try failed runs again'),
      Flag(
        'float',
        'lost_secs',
        1800.0,
        'seconds without contact to the others after which they get what a host has not begun',
        bounds={'lower_bound': 1.0},
      ),
      Flag(
        'string',
        'lost_hosts',
        '',
        'hosts that are switched off, with commas; others get their runs',
      ),
    ],
    training_flags=True,
  ),
  'push': Action(
    'copy the code to every host, and install requirements.txt where the CSV names no python',
    [Flag('bool', 'allow_running', False, 'whether to replace the code of running tasks')],
  ),
  'status': Action(
    'print a table of all tasks: --watch, --json',
    [Flag('string', 'run_folder', '', 'folder of a run of slurm/impala.sbatch, instead of a CSV')],
    of_sweep=True,
  ),
  'attach': Action("attach this terminal to a task's window: --task=learner:0", task=True),
  'logs': Action(
    'print the last lines of all tasks, or of one: --task=actor:2', task=True, of_sweep=True
  ),
  'stop': Action(
    'have the chief save a checkpoint and end the run, then end all tasks that still run: --now',
    of_sweep=True,
  ),
  'firewall': Action(
    'print what closes the ports to all but the cluster: --apply, --remove, --interface',
    [
      Flag('bool', 'apply', False, 'whether to set it on every host (as root, or with sudo)'),
      Flag('bool', 'remove', False, 'whether to remove it from every host (stop does so too)'),
      Flag(
        'bool',
        'only_this_user',
        False,
        'whether to shut out other users of the hosts too',
      ),
      Flag('string', 'interface', '', 'only network interface of the cluster, for example wg0'),
    ],
  ),
  'pull': Action(
    "fetch the run's records from the chief's host, if they changed: --to=results/, --checkpoints",
    [
      Flag('string', 'to', '', 'folder of this machine to fetch to, one per run'),
      Flag(
        'enum',
        'checkpoints',
        'none',
        'checkpoints to fetch: none, last, best or all',
        ['none', 'last', 'best', 'all'],
      ),
    ],
    of_sweep=True,
  ),
  'tensorboard': Action(
    "show the run in TensorBoard on the chief's host, at a port of this machine, until Ctrl-C"
  ),
  'kubernetes': Action(
    'write the cluster as manifests to kubernetes/NAME.yaml: --image, --name',
    [
      Flag('string', 'image', '', 'image made from the Dockerfile, with its registry'),
      Flag('string', 'name', 'impala', 'name of the run, a prefix of the names of all objects'),
    ],
    training_flags=True,
    hosts=False,
  ),
  'plan': Action(
    'print the command line of each task; given a speed, also predict throughput and bottleneck',
    [
      Flag('float', 'network_gbit', None, "Gbit/s of each host's link, in each direction"),
      Flag('float', 'actor_frames_per_sec', None, 'environment frames/s of one actor task'),
      Flag('float', 'update_secs', None, 'seconds of computing per update of one learner'),
      Flag('string', 'speeds_from', '', 'folder of a run in one process with these two speeds'),
    ],
    training_flags=True,
  ),
}
# The frontend runs these on the hosts; they are not for people.
INNER_ACTIONS = ('on_host', 'supervise')
# Flags of all actions. If the help begins with an action, the others ignore the flag.
GENERAL_FLAGS = (
  Flag('string', 'cluster_csv_path', None, 'CSV of the cluster, a row per task (docs/servers.md)'),
  Flag('enum', 'action', 'launch', 'one of the above', [*ACTIONS, *INNER_ACTIONS]),
  Flag('string', 'tmux_sess', 'impala', 'name of the tmux session on every host'),
  Flag('string', 'tmux_socket', '', "name or path of the tmux socket; '' for tmux's own default"),
  Flag('string', 'task', '', 'attach, logs: a task, for example learner:0; a run of a sweep'),
  Flag('bool', 'skip_check', False, 'launch: whether to skip the checks of the hosts'),
  Flag('bool', 'keep_going', False, 'launch: whether to leave tasks up if another fails to start'),
  Flag(
    'enum',
    'restart',
    'on-failure',
    'launch: when to restart a task: on-failure (any exit code but 0 and 2) or never',
    ['on-failure', 'never'],
  ),
  Flag(
    'integer',
    'max_restarts',
    20,
    'launch: maximum number of restarts of a task per hour',
    bounds={'lower_bound': 0},
  ),
  Flag(
    'bool',
    'allow_public_addresses',
    False,
    "check, launch: whether to accept addresses that the internet reaches; TensorFlow's server has "
    'no authentication',
  ),
  Flag('string', 'wheelhouse', '', 'push: folder with wheels, for hosts without a package index'),
  Flag('bool', 'watch', False, 'status: whether to refresh every 2 s'),
  Flag('bool', 'json', False, 'status: whether to print JSON'),
  Flag('bool', 'follow', False, 'logs: whether to go on printing new lines'),
  Flag(
    'integer',
    'lines',
    0,
    'logs: number of lines; 0 for 50 of one task, 5 of each of all',
    bounds={'lower_bound': 0},
  ),
  Flag('bool', 'now', False, 'stop: whether to end all tasks without a last checkpoint'),
)

PROGRAM = os.path.basename(__file__)
EXAMPLE = (
  '  python run_experiment_mm_raw.py --cluster_csv_path=local_cluster_example.csv',
  '  --agent_name=ResNetLSTMAgent',
)


def _define_flags() -> flags.FlagValues:
  defined = flags.FlagValues()
  own = [flag for action in ACTIONS.values() for flag in action.flags]
  for flag in (*GENERAL_FLAGS, *own):
    values = [flag.values] if flag.kind == 'enum' else []
    define = getattr(flags, f'DEFINE_{flag.kind}')
    define(flag.name, flag.default, *values, flag.help, flag_values=defined, **flag.bounds)
  return defined


FLAGS = _define_flags()


def _parse(words: Sequence[str]) -> list[str]:
  """Sets FLAGS; returns the training flags."""
  own, training = arguments.split_arguments(words, FLAGS, ACTIONS)
  try:
    FLAGS(['run_experiment_mm_raw.py', *own])
  except flags.Error as error:
    raise UserError(' '.join(str(error).split())) from None
  if not re.fullmatch(r'[A-Za-z0-9_-]{1,64}', FLAGS.tmux_sess):
    raise UserError(f'--tmux_sess={FLAGS.tmux_sess!r} is not a name of letters, digits, _ and -')
  if not re.fullmatch(r'[A-Za-z0-9_./-]*', FLAGS.tmux_socket) or FLAGS.tmux_socket.startswith('-'):
    raise UserError(
      f'--tmux_socket={FLAGS.tmux_socket!r} is not a name or path of letters, digits, _ . / and -'
    )
  return training


def _help_text() -> str:
  lines = [str(__doc__), '', *EXAMPLE, '', 'Actions (--action=...):']
  lines += [f'  {name:<11} {action.help}' for name, action in ACTIONS.items()]
  lines += ['', 'All other flags are those of experiment.py and go unchanged to every task.']
  lines += ['', 'Flags of the frontend:']
  lines += [_flag_line(flag, '') for flag in GENERAL_FLAGS]
  for name, action in ACTIONS.items():
    lines += [_flag_line(flag, f'{name}: ') for flag in action.flags]
  return '\n'.join(lines)


def _flag_line(flag: Flag, prefix: str) -> str:
  default = f' (default {flag.default})' if flag.default not in (None, '', False) else ''
  return f'  --{flag.name:<23} {prefix}{flag.help}{default}'


def _run_action(words: Sequence[str]) -> int:
  """Parses the command line and runs one action; returns the exit code."""
  training = _parse(words)
  if FLAGS.action in INNER_ACTIONS:
    return _run_inner()
  if FLAGS.action == 'status' and FLAGS.run_folder:
    return _status_of_folder(training)
  if _is_of_sweep(training):
    return _run_on_sweep(training)
  if not FLAGS.cluster_csv_path:
    raise UserError(
      '--cluster_csv_path is missing, for example --cluster_csv_path=local_cluster_example.csv'
    )
  FLAGS.task = FLAGS.task and cluster.parse_task_name(FLAGS.task)
  action = ACTIONS[FLAGS.action]
  _check_flags(training, action)
  from frontend import cluster_csv
  from frontend.actions import check
  from frontend.console import Console

  described = cluster_csv.read_cluster(FLAGS.cluster_csv_path, action.hosts)
  if not described.tasks and FLAGS.action not in ('push', 'firewall'):
    raise UserError(
      f'{FLAGS.cluster_csv_path} has the hosts of a sweep: --action=sweep starts one there, and '
      '--logdir names it for ' + ', '.join(n for n, other in ACTIONS.items() if other.of_sweep)
    )
  console = Console(described, FLAGS, training)

  def run() -> int:
    if action.training_flags:
      for warning in described.warnings:
        console.say(f'warning: {warning}')
      problem = check.flags_problem(console)
      if problem:
        raise UserError(_with_own_flag(problem, training))
    return importlib.import_module(f'frontend.actions.{FLAGS.action}').run(console)

  return _run_and_close(run, console)


def _run_and_close(run: Callable[[], int], console: Any) -> int:
  """Runs an action and closes the connections; returns the exit code."""
  try:
    return run()
  except HostError as error:
    early_signals.interrupting = False  # The reason is printed whole.
    print(f'{PROGRAM}: {error}', file=sys.stderr)
    early_signals.interrupting = True
    return 1
  except KeyboardInterrupt:
    console.close(at_once=True)
    raise
  finally:
    console.close()


def _is_of_sweep(training: Sequence[str]) -> bool:
  """Whether the action starts a sweep or acts on one."""
  if FLAGS.action == 'sweep':
    return True
  names = {word.lstrip('-').split('=')[0] for word in training if word.startswith('-')}
  return ACTIONS[FLAGS.action].of_sweep and 'logdir' in names


def _run_on_sweep(training: Sequence[str]) -> int:
  """Runs an action on a sweep, on the hosts of the CSV or on this machine."""
  from frontend import cluster_csv
  from frontend.actions import sweep, sweep_views
  from frontend.console import Console

  run_name, FLAGS.task = FLAGS.task, ''  # Not a task, so it has another form.
  logdir, rest = arguments.take_logdir(training)
  _check_flags(training if FLAGS.action == 'sweep' else rest, ACTIONS[FLAGS.action])
  FLAGS.task = run_name
  if FLAGS.action == 'sweep' and run_name:
    raise UserError('--task belongs to attach and logs, not to sweep')
  if FLAGS.element and FLAGS.cluster_csv_path:
    raise UserError('--element is for an array job, which has no CSV')
  if not FLAGS.cluster_csv_path:
    described = cluster.this_machine(FLAGS.slots)
  elif FLAGS.slots:
    raise UserError('--slots is for this machine; with a CSV, each host has its column slots')
  else:
    described = cluster_csv.read_cluster(FLAGS.cluster_csv_path)
  if described.tasks:
    raise UserError(
      f'{FLAGS.cluster_csv_path} describes a cluster; a sweep needs a row with job run for each '
      'host, or no CSV for this machine'
    )
  console = Console(described, FLAGS, training)
  if FLAGS.action == 'sweep':
    return _run_and_close(lambda: sweep.run(console), console)
  return _run_and_close(lambda: sweep_views.run(console, FLAGS.action, logdir), console)


def _status_of_folder(training: Sequence[str]) -> int:
  from frontend.actions import status

  if FLAGS.cluster_csv_path or training:
    raise UserError('--run_folder stands alone: status asks a run of Slurm or a cluster of a CSV')
  return status.run_on_folder(FLAGS, sys.stdout)


def _run_inner() -> int:
  from frontend.host_side import agent, supervisor

  if FLAGS.action == 'on_host':
    return agent.serve()
  return supervisor.supervise(FLAGS.tmux_sess, cluster.parse_task_name(FLAGS.task))


def _check_flags(training: Sequence[str], action: Action) -> None:
  if FLAGS.task and not action.task:
    takers = ' and '.join(name for name, other in ACTIONS.items() if other.task)
    raise UserError(f'--task belongs to {takers}, not to {FLAGS.action}; the CSV numbers the tasks')
  for owner, other in ACTIONS.items():
    for flag in other.flags:
      if FLAGS[flag.name].present and FLAGS.action != owner:
        raise UserError(f'--{flag.name} belongs to {owner}, not to {FLAGS.action}')
  problem = cluster.placement_problem(training)
  if problem:
    raise UserError(problem)
  if training and not action.training_flags:
    raise UserError(
      _with_own_flag(
        f'--action={FLAGS.action} takes no training flags, but {training[0]} came', training
      )
    )


def _with_own_flag(problem: str, training: Sequence[str]) -> str:
  """Adds the flag of the frontend that was perhaps meant."""
  for word in training:
    name = arguments.own_flag_meant(word, FLAGS) if word.startswith('-') else None
    if name and word.lstrip('-').split('=')[0] in problem:
      return f'{problem} (or the flag --{name} of the frontend?)'
  return problem


def main(words: Sequence[str]) -> int:
  """Runs the command line after the program's name; returns the exit code."""
  if any(word in ('--help', '-h', '-help', '--helpfull', '--helpshort') for word in words):
    print(_help_text())
    return 0
  try:
    return _run_action(words)
  except UserError as error:
    early_signals.interrupting = False  # The reason is printed whole.
    print(f'{PROGRAM}: {texts.printable_lines(error)}', file=sys.stderr)
    return 2
  except KeyboardInterrupt as interrupt:
    return 128 + (interrupt.args or [signal.SIGINT])[0]
  except BrokenPipeError:
    return 1


if __name__ == '__main__':
  early_signals.install()  # The supervisor installs its own handlers later.
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')  # The terminal's encoding may lack a character.
  sys.exit(main(sys.argv[1:]))
