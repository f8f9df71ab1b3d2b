"""The actions and flags of the frontend, declared once; `--help` and the command line follow."""

from collections.abc import Sequence
from typing import Any, NamedTuple


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
