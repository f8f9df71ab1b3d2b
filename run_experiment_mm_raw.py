"""Starts, watches and stops a whole cluster that a CSV describes, over SSH and tmux."""

import collections
import importlib
import os
import re
import signal
import sys

try:
  from absl import flags

  from common import texts
  from frontend import arguments, cluster
  from frontend.errors import HostError
except ModuleNotFoundError as e:
  from common import missing_packages

  missing_packages.leave(e, 'run_experiment_mm_raw.py')
  raise

# run: module of frontend/ and function in it, of a Console, that returns the exit code; imported
# when it runs, since --help needs none of them. text: what --help says. training_flags: whether it
# starts tasks or looks at how they would start, for only then it takes training flags. task:
# whether it takes --task. hosts: whether the CSV has to say which hosts there are.
Action = collections.namedtuple(
  'Action', 'run text training_flags task hosts', defaults=(False, False, True)
)

# Another action is a module in frontend/ and a row here.
ACTIONS = {
  'launch': Action(
    'launch.launch',
    'check, then start every task in its own tmux window on its host (default)',
    training_flags=True,
  ),
  'check': Action(
    'check.check', 'say for every host whether the cluster can run there', training_flags=True
  ),
  'push': Action(
    'push.push',
    'copy the code to every host, and install requirements.txt where no python is named',
  ),
  'status': Action('status.status', 'one table of all tasks: --watch, --json'),
  'attach': Action(
    'status.attach', "attach this terminal to a task's window: --task=learner:0", task=True
  ),
  'logs': Action(
    'status.logs', 'last lines of all tasks, or of one: --task=actor:2 --follow', task=True
  ),
  'stop': Action(
    'stop.stop',
    'let the chief save a checkpoint and end the run, then end what is left: --now',
  ),
  'firewall': Action(
    'firewall.close_ports',
    'print what closes the ports to all but the cluster: --apply, --remove, --interface',
  ),
  'pull': Action(
    'pull.pull',
    "fetch the run's records from the chief's host, what changed: --to=results/, --checkpoints",
  ),
  'tensorboard': Action(
    'tensorboard.show_tensorboard',
    "show the run in TensorBoard on the chief's host, through a port of this machine, until Ctrl-C",
  ),
  'kubernetes': Action(
    'kubernetes.write_manifests',
    'write the cluster as manifests to kubernetes/NAME.yaml: --image, --name',
    training_flags=True,
    hosts=False,
  ),
  'plan': Action(
    'plan.plan',
    'print what would run where; with --network_gbit, --actor_frames_per_sec, --update_secs or '
    '--speeds_from, also how fast',
    training_flags=True,
  ),
}
# What the frontend runs on the hosts; a person has no use for them.
INNER_ACTIONS = ('on_host', 'supervise')
# Flags of the frontend that mean something to one action only.
FLAGS_OF = {
  'firewall': ('apply', 'remove', 'interface', 'only_this_user'),
  'kubernetes': ('image', 'name'),
  'plan': ('network_gbit', 'actor_frames_per_sec', 'update_secs', 'speeds_from'),
  'pull': ('to', 'checkpoints'),
  'push': ('allow_running',),
  'status': ('run_folder',),
}

PROGRAM = os.path.basename(__file__)
EXAMPLE = (
  '  python run_experiment_mm_raw.py --cluster_csv_path=local_cluster_example.csv',
  '  --agent_name=ResNetLSTMAgent',
)
FLAGS = flags.FlagValues()


def _define(kind, name, default, text, *extra, **bounds):
  getattr(flags, f'DEFINE_{kind}')(name, default, *extra, text, flag_values=FLAGS, **bounds)


_define('string', 'cluster_csv_path', None, 'The cluster: a row for each task (see the README).')
flags.DEFINE_enum('action', 'launch', [*ACTIONS, *INNER_ACTIONS], 'What to do.', flag_values=FLAGS)
_define('string', 'tmux_sess', 'impala', 'Name of the tmux session on every host.')
_define(
  'string', 'tmux_socket', '', "Name or path of the tmux socket; empty for tmux's own default."
)
_define('string', 'task', '', 'attach, logs: the task, for example learner:0.')
_define('bool', 'skip_check', False, 'launch: start without checking the hosts first.')
_define(
  'bool', 'keep_going', False, 'launch: when a task fails to start, leave the others running.'
)
flags.DEFINE_enum(
  'restart',
  'on-failure',
  ['on-failure', 'never'],
  'launch: whether a task that dies is started again (exit codes 0 and 2 never are).',
  flag_values=FLAGS,
)
_define(
  'integer',
  'max_restarts',
  20,
  'launch: at most so many restarts of a task in an hour.',
  lower_bound=0,
)
_define(
  'bool',
  'allow_public_addresses',
  False,
  "check, launch: accept addresses that the internet reaches. TensorFlow's server has no "
  'authentication.',
)
_define(
  'string', 'wheelhouse', '', 'push: folder with wheels, for hosts that reach no package index.'
)
_define('bool', 'allow_running', False, 'push: replace the code under tasks that run.')
_define('string', 'run_folder', '', 'status: of a run of slurm/impala.sbatch, in place of a CSV.')
_define('bool', 'watch', False, 'status: refresh every 2 s.')
_define('bool', 'json', False, 'status: print JSON.')
_define('bool', 'follow', False, 'logs: go on printing new lines.')
_define(
  'integer',
  'lines',
  0,
  'logs: how many lines (0: 50 of one task, 5 of each of all).',
  lower_bound=0,
)
_define('bool', 'now', False, 'stop: end all tasks without asking the chief for a checkpoint.')

_define('string', 'to', '', 'pull: folder of this machine to fetch to, one for each run.')
flags.DEFINE_enum(
  'checkpoints',
  'none',
  ['none', 'last', 'best', 'all'],
  'pull: which checkpoints to fetch as well.',
  flag_values=FLAGS,
)

_define('bool', 'apply', False, 'firewall: set it on every host (as root, or with sudo).')
_define('bool', 'remove', False, 'firewall: take it away from every host (so does stop).')
_define('bool', 'only_this_user', False, 'firewall: shut out other users of the hosts as well.')
_define('string', 'interface', '', 'firewall: the one interface of the cluster, for example wg0.')

_define('string', 'image', '', 'kubernetes: the image of the Dockerfile, with its registry.')
_define('string', 'name', 'impala', 'kubernetes: of the run; begins the names of all objects.')

_define('float', 'network_gbit', None, 'plan: Gbit/s of the link of each host, in each direction.')
_define('float', 'actor_frames_per_sec', None, 'plan: environment frames/s of one actor task.')
_define('float', 'update_secs', None, 'plan: seconds of one update of one learner, computing only.')
_define('string', 'speeds_from', '', 'plan: folder of a run in one process, to take the two from.')


def _parse(words):
  """Sets FLAGS; returns the training flags. Raises ValueError with one sentence."""
  own, training = arguments.split_arguments(words, FLAGS, ACTIONS)
  try:
    FLAGS(['run_experiment_mm_raw.py', *own])
  except flags.Error as error:
    raise ValueError(' '.join(str(error).split())) from None
  if not re.fullmatch(r'[A-Za-z0-9_-]{1,64}', FLAGS.tmux_sess):
    raise ValueError(f'--tmux_sess={FLAGS.tmux_sess!r} is not a name of letters, digits, _ and -')
  if not re.fullmatch(r'[A-Za-z0-9_./-]*', FLAGS.tmux_socket) or FLAGS.tmux_socket.startswith('-'):
    raise ValueError(
      f'--tmux_socket={FLAGS.tmux_socket!r} is not a name or path of letters, digits, _ . / and -'
    )
  return training


def _help_text():
  lines = [__doc__, '', *EXAMPLE, '', 'Actions (--action=...):']
  lines += [f'  {name:<11} {action.text}' for name, action in ACTIONS.items()]
  lines += ['', 'All other flags are those of experiment.py and go unchanged to every task.']
  lines += ['', 'Flags of the frontend:']
  for name in sorted(FLAGS, key=lambda name: (name != 'cluster_csv_path', name != 'action', name)):
    flag = FLAGS[name]
    default = f' (default {flag.default})' if flag.default not in (None, '', False) else ''
    lines.append(f'  --{name:<23} {flag.help}{default}')
  return '\n'.join(lines)


def _run_action(words):
  """One action for a person; returns the exit code, raises ValueError for bad input."""
  training = _parse(words)
  if FLAGS.action in INNER_ACTIONS:
    return _run_inner()
  if FLAGS.action == 'status' and FLAGS.run_folder:
    return _status_of_folder(training)
  if not FLAGS.cluster_csv_path:
    raise ValueError(
      '--cluster_csv_path is missing, for example --cluster_csv_path=local_cluster_example.csv'
    )
  FLAGS.task = FLAGS.task and cluster.parse_task_name(FLAGS.task)
  action = ACTIONS[FLAGS.action]
  _check_training_flags(training, action)
  from frontend import cluster_csv
  from frontend.actions import check
  from frontend.console import Console

  described = cluster_csv.read_cluster(FLAGS.cluster_csv_path, action.hosts)
  console = Console(described, FLAGS, training)
  try:
    if action.training_flags:
      for warning in described.warnings:
        console.say(f'warning: {warning}')
      problem = check.flags_problem(console)
      if problem:
        raise ValueError(_with_own_flag(problem, training))
    module, function = action.run.split('.')
    return getattr(importlib.import_module(f'frontend.actions.{module}'), function)(console)
  except HostError as error:
    print(f'{PROGRAM}: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    console.close(at_once=True)
    raise
  finally:
    console.close()


def _status_of_folder(training):
  from frontend.actions import run_folder

  if FLAGS.cluster_csv_path or training:
    raise ValueError('--run_folder stands alone: status asks a run of Slurm or a cluster of a CSV')
  return run_folder.show(FLAGS, sys.stdout)


def _run_inner():
  from frontend.host_side import agent, supervisor

  if FLAGS.action == 'on_host':
    return agent.serve()
  return supervisor.supervise(FLAGS.tmux_sess, cluster.parse_task_name(FLAGS.task))


def _check_training_flags(training, action):
  if FLAGS.task and not action.task:
    takers = ' and '.join(name for name, other in ACTIONS.items() if other.task)
    raise ValueError(
      f'--task belongs to {takers}, not to {FLAGS.action}; the CSV numbers the tasks'
    )
  for owner, names in FLAGS_OF.items():
    for name in names:
      if FLAGS[name].present and FLAGS.action != owner:
        raise ValueError(f'--{name} belongs to {owner}, not to {FLAGS.action}')
  problem = cluster.placement_problem(training)
  if problem:
    raise ValueError(problem)
  if training and not action.training_flags:
    raise ValueError(
      _with_own_flag(
        f'--action={FLAGS.action} takes no training flags, but {training[0]} came', training
      )
    )


def _with_own_flag(problem, training):
  """Adds the frontend's own flag that may have been meant."""
  for word in training:
    name = arguments.own_flag_meant(word, FLAGS) if word.startswith('-') else None
    if name and word.lstrip('-').split('=')[0] in problem:
      return f'{problem} (or the flag --{name} of the frontend?)'
  return problem


def main(words):
  """Runs the command line after the program's name; returns the exit code."""
  if any(word in ('--help', '-h', '-help', '--helpfull', '--helpshort') for word in words):
    print(_help_text())
    return 0
  try:
    return _run_action(words)
  except ValueError as error:
    print(f'{PROGRAM}: {texts.printable_lines(error)}', file=sys.stderr)
    return 2
  except KeyboardInterrupt as interrupt:
    return 128 + (interrupt.args or [signal.SIGINT])[0]
  except BrokenPipeError:
    return 1


def _interrupt_on_signals():
  """SIGTERM and SIGHUP close connections on their way out, as Ctrl-C does.

  The supervisor has handlers of its own. SIGHUP stays ignored where it was (nohup).
  """

  def interrupt(number, frame):
    raise KeyboardInterrupt(number)

  for number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:
      signal.signal(number, interrupt)


if __name__ == '__main__':
  _interrupt_on_signals()
  for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors='backslashreplace')  # A log may hold what this terminal has not.
  sys.exit(main(sys.argv[1:]))
