"""Derives the tasks of a Slurm step, their hosts and ports from Slurm's environment variables.

srun sets these variables in every task (https://slurm.schedmd.com/srun.html, "Output environment
variables").
"""

import re
import subprocess
from collections.abc import Callable, Mapping
from typing import NamedTuple

from runtime.process import BadInput

_NUMBERS = ('SLURM_JOB_ID', 'SLURM_PROCID', 'SLURM_NODEID')
_VARIABLES = (*_NUMBERS, 'SLURM_STEP_NODELIST', 'SLURM_STEP_TASKS_PER_NODE')
# Ports from 32,768 on are used for outgoing connections, one of which could take the port of a
# restarting task.
_FIRST_PORT, _NUM_PORTS = 12_000, 20_000
# Concurrent jobs mostly have consecutive ids. Multiples of about the golden ratio of the range
# spread their ports evenly.
_PORTS_PER_JOB = 12_361
# If one of these is set, Slurm shows each task only its own GPUs.
_GPUS_BY_TASK = ('SLURM_GPUS_PER_TASK', 'SLURM_NTASKS_PER_GPU')


class Step(NamedTuple):
  """A Slurm step, seen from one of its tasks.

  Attributes:
    job_id: Slurm's job id.
    rank: rank of this task among all tasks of the step.
    hosts: host name of each task, by rank.
  """

  job_id: int
  rank: int
  hosts: list[str]


def is_there(environ: Mapping[str, str]) -> bool:
  """Returns whether srun started this process as a task."""
  return 'SLURM_STEP_NODELIST' in environ and 'SLURM_PROCID' in environ


def read_step(environ: Mapping[str, str], expand: Callable[[str], list[str]] | None = None) -> Step:
  """Returns the step that this process is a task of.

  Args:
    environ: environment variables.
    expand: returns the names in a node list; by default `expand_node_list`.

  Raises:
    BadInput: a variable is missing or malformed.
  """
  missing = [name for name in _VARIABLES if not environ.get(name)]
  if missing:
    raise BadInput(
      f'--cluster=slurm needs {", ".join(missing)}, which srun sets: start every task with srun, '
      'as slurm/impala.sbatch does'
    )
  for name in _NUMBERS:
    if not environ[name].isdigit():
      raise BadInput(f'{name} is {environ[name]!r}, not a number')
  job_id, rank, node = (int(environ[name]) for name in _NUMBERS)
  names = (expand or expand_node_list)(environ['SLURM_STEP_NODELIST'])
  counts = tasks_per_node(environ['SLURM_STEP_TASKS_PER_NODE'])
  if len(names) != len(counts):
    raise BadInput(
      f'SLURM_STEP_NODELIST has {len(names)} nodes, SLURM_STEP_TASKS_PER_NODE {len(counts)}'
    )
  nodes = [i for i, count in enumerate(counts) for _ in range(count)]
  if rank >= len(nodes):
    raise BadInput(f'SLURM_PROCID={rank} is outside this step, which has {len(nodes)} tasks')
  if nodes[rank] != node:
    raise BadInput(
      f'task {rank} runs on node {node} of the step in place of node {nodes[rank]}: tasks have to '
      'fill one node after the other, which srun --distribution=block sees to'
    )
  return Step(job_id, rank, [names[i] for i in nodes])


def tasks_per_node(text: str) -> list[int]:
  """Returns the number of tasks of each node: [2, 2, 2, 1] for '2(x3),1'.

  Raises:
    BadInput: the text has another format.
  """
  counts = []
  for part in text.split(','):
    match = re.fullmatch(r'(\d+)(?:\(x(\d+)\))?', part)
    if not match:
      raise BadInput(f'SLURM_STEP_TASKS_PER_NODE is {text!r}, not a list such as 2(x3),1')
    counts += [int(match[1])] * int(match[2] or 1)
  return counts


def expand_node_list(text: str) -> list[str]:
  """Expands a node list with scontrol: ['n08', 'n09', 'n10'] for 'n[08-10]'.

  Raises:
    BadInput: scontrol is not installed, or refuses the list.
  """
  command = ['scontrol', 'show', 'hostnames', text]
  try:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
  except OSError as e:
    raise BadInput(
      f'--cluster=slurm asks scontrol for the names of the nodes, which cannot be run here: '
      f'{e.strerror}'
    ) from None
  names = done.stdout.split()
  if done.returncode or not names:
    said = ' '.join(done.stderr.split()) or 'nothing'
    raise BadInput(f'scontrol show hostnames {text} exited {done.returncode} and said: {said}')
  return names


def port(job_id: int, rank: int) -> int:
  """Returns the port of a task; ports are consecutive within a job."""
  return _FIRST_PORT + (job_id * _PORTS_PER_JOB + rank) % _NUM_PORTS


def jobs_of(step: Step, num_ps: int, num_learners: int) -> tuple[dict[str, list[str]], str, int]:
  """Assigns the tasks of a step to jobs: parameter servers first, then learners, then actors.

  Args:
    step: this task's step.
    num_ps, num_learners: at least 1.

  Returns:
    ({'ps': list of 'host:port', 'learner': .., 'actor': ..}, own job, own index in it).

  Raises:
    BadInput: too few tasks are left for the actors.
  """
  num_actors = len(step.hosts) - num_ps - num_learners
  if num_actors < num_learners:
    raise BadInput(
      f'--slurm_ps={num_ps} and --slurm_learners={num_learners} leave {max(0, num_actors)} of the '
      f'{len(step.hosts)} tasks of this step to the actors: every learner needs an actor of its '
      f'own, so at least {num_ps + 2 * num_learners} tasks (sbatch --ntasks)'
    )
  addresses = [f'{host}:{port(step.job_id, i)}' for i, host in enumerate(step.hosts)]
  first_actor = num_ps + num_learners
  starts = {'ps': 0, 'learner': num_ps, 'actor': first_actor}
  jobs = {
    'ps': addresses[:num_ps],
    'learner': addresses[num_ps:first_actor],
    'actor': addresses[first_actor:],
  }
  job = [name for name, start in starts.items() if step.rank >= start][-1]
  return jobs, job, step.rank - starts[job]


def visible_gpus(
  environ: Mapping[str, str], step: Step, job: str, num_ps: int, num_learners: int
) -> str | None:
  """Returns this task's value for CUDA_VISIBLE_DEVICES; None leaves the variable unchanged.

  Slurm shows all GPUs of a node to each task. The learners of a node divide them among themselves;
  parameter servers and actors use none.
  """
  if job != 'learner':
    return ''
  gpus = [gpu for gpu in environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if gpu]
  if not gpus or any(environ.get(name) for name in _GPUS_BY_TASK):
    return None
  host = step.hosts[step.rank]
  here = [i for i in range(num_ps, num_ps + num_learners) if step.hosts[i] == host]
  place = here.index(step.rank)
  return ','.join(gpus[place :: len(here)] or [gpus[place % len(gpus)]])
