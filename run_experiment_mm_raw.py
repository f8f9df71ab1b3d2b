"""Starts, watches and stops a whole cluster that a CSV describes, over SSH and tmux."""

import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from common import early_signals, missing_packages

if __name__ == '__main__':
  early_signals.end_at_once()

try:
  from absl import flags

  from common import texts
  from frontend import arguments, cluster
  from frontend.command_table import ACTIONS, GENERAL_FLAGS, INNER_ACTIONS, Action, Flag
  from frontend.errors import HostError, UserError
except ModuleNotFoundError as e:
  missing_packages.leave(e, 'run_experiment_mm_raw.py')
  raise

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
