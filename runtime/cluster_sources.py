"""Reads the `Cluster` of this task from flags, TF_CONFIG, a Slurm step or a run's folder."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from runtime import cluster_file, slurm
from runtime.cluster import JOBS, LOCAL, Cluster
from runtime.peers import check_port, check_resolves
from runtime.process import BadInput, RunFailed

_OTHER_NAMES = {
  'chief': 'the chief here is the first learner: write "learner"',
  'master': 'the master here is the first learner: write "learner"',
  'worker': 'a worker here is a learner or an actor: write "learner" or "actor"',
}
_EXAMPLE = (
  '{"cluster": {"ps": ["host:port"], "learner": [..], "actor": [..]}, '
  '"task": {"type": "learner", "index": 0}}'
)


class Given(NamedTuple):
  """Values of the flags of the same names; unset flags are [], '' or -1."""

  ps_hosts: list[str]
  learner_hosts: list[str]
  actor_hosts: list[str]
  job_name: str
  task: int
  slurm_ps: int = 1
  slurm_learners: int = 1
  spare_actors: int = 0
  logdir: str = ''


_NUM_PLACES = 5  # The first fields of `Given`, which define the hosts and this task.


def read(source: str, given: Given, environ: Mapping[str, str]) -> Cluster:
  """Returns the cluster and this task's index in it, without side effects.

  Args:
    source: value of --cluster. 'auto' reads TF_CONFIG if it is set (flags must agree with it), a
      Slurm step if neither TF_CONFIG nor a flag is set, and otherwise the flags. 'run' is for spare
      actors and reads cluster.json of the run that is training in `given.logdir`.
    given: values of the flags.
    environ: environment variables.

  Raises:
    BadInput: the source is incomplete, malformed or contradictory.
    RunFailed: the port derived from Slurm's job id is taken.
  """
  if source == 'auto':
    has_flags = any(given[:4]) or given.task != -1
    source = 'slurm' if slurm.is_there(environ) and not has_flags else 'flags'
    source = 'tf_config' if environ.get('TF_CONFIG') else source
  if source == 'flags':
    return _from_flags(given)
  if source == 'run':
    return _from_run(given)
  return {'tf_config': _from_tf_config, 'slurm': _from_slurm}[source](given, environ)


def _from_flags(given: Given) -> Cluster:
  if given.task < -1:
    raise BadInput(f'--task={given.task} is neither -1 (local training) nor an index from 0')
  hosts = (given.ps_hosts, given.learner_hosts, given.actor_hosts)
  jobs: dict[str, list[str]] = dict(zip(JOBS, hosts, strict=True))
  if not given.job_name:
    if given.task >= 0:
      raise BadInput(f'--task={given.task} needs --job_name=ps, learner or actor')
    if any(jobs.values()):
      raise BadInput('a cluster needs --job_name and --task; without hosts, training is local')
    return LOCAL
  return _checked(
    jobs,
    given.job_name,
    given.task,
    {job: f'--{job}_hosts' for job in JOBS},
    '--task=',
    spare_actors=given.spare_actors,
  )


def _from_run(given: Given) -> Cluster:
  if not given.logdir:
    raise BadInput('--cluster=run needs --logdir, the folder of the run to join')
  if given.job_name not in ('', 'actor'):
    raise BadInput(f'--job_name={given.job_name}: --cluster=run is for actors that join a run')
  if given.task < 0:
    raise BadInput('--cluster=run needs --task, a number from 0: which of the spare actors this is')
  jobs = cluster_file.read(given.logdir)
  task = len(jobs['actor']) + given.task
  hosts = given._replace(job_name='', task=-1)
  _check_flags_agree(hosts, jobs, 'actor', task, f'the run in {given.logdir}')
  labels: dict[str, str] = dict.fromkeys(JOBS, f'the run in {given.logdir}')
  return _checked(jobs, 'actor', task, labels, '--task=', spare_actors=given.task + 1)


def _from_tf_config(given: Given, environ: Mapping[str, str]) -> Cluster:
  text = environ.get('TF_CONFIG')
  if not text:
    raise BadInput(f'--cluster=tf_config needs the environment variable TF_CONFIG: {_EXAMPLE}')
  try:
    config = json.loads(text)
  except ValueError as e:
    raise BadInput(f'TF_CONFIG is not JSON ({e}); it is written {_EXAMPLE}') from None
  parts: dict[str, Any] = config if isinstance(config, dict) else {}
  jobs: Any = parts.get('cluster')
  place: Any = parts.get('task')
  for name, part in (('cluster', jobs), ('task', place)):
    if not isinstance(part, dict):
      raise BadInput(f'TF_CONFIG has no object {name!r}; it is written {_EXAMPLE}')
  job: Any = place.get('type')
  task: Any = place.get('index')
  for name in [*jobs, job]:
    if name not in JOBS:
      hint = _OTHER_NAMES.get(str(name), 'the jobs are ps, learner and actor')
      raise BadInput(f'TF_CONFIG names the job {name!r}; {hint}')
  for name, hosts in jobs.items():
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
      raise BadInput(f'TF_CONFIG: cluster.{name} is {hosts!r}, not a list of "host:port"')
  if type(task) is not int:
    raise BadInput(f'TF_CONFIG: task.index is {task!r}, not a number from 0')
  jobs = {name: jobs.get(name, []) for name in JOBS}
  _check_flags_agree(given, jobs, job, task, 'TF_CONFIG')
  labels: dict[str, str] = {name: f'TF_CONFIG: cluster.{name}' for name in JOBS}
  # A cluster manager may start a task before the host names of the others resolve.
  return _checked(
    jobs, job, task, labels, 'TF_CONFIG: task.index=', True, spare_actors=given.spare_actors
  )


def _from_slurm(given: Given, environ: Mapping[str, str]) -> Cluster:
  step = slurm.read_step(environ)
  numbers = (given.slurm_ps, given.slurm_learners)
  jobs, job, task = slurm.jobs_of(step, *numbers)
  _check_flags_agree(given, jobs, job, task, 'Slurm')
  labels: dict[str, str] = dict.fromkeys(JOBS, 'SLURM_STEP_NODELIST')
  cluster = _checked(jobs, job, task, labels, 'SLURM_PROCID=')
  try:
    check_port(cluster.address(cluster.name))
  except BadInput as e:  # Not the user's mistake: the port was derived and may become free.
    raise RunFailed(f'{e}, and follows from SLURM_JOB_ID: another job has other ports') from None
  return cluster._replace(visible_gpus=slurm.visible_gpus(environ, step, job, *numbers))


def _check_flags_agree(
  given: Given, jobs: Mapping[str, list[str]], job: str, task: int, source: str
) -> None:
  places = zip(Given._fields, given[:_NUM_PLACES], [*jobs.values(), job, task])
  for name, ours, theirs in places:
    left_open = ours == -1 if name == 'task' else not ours
    if not left_open and ours != theirs:
      ours, theirs = (','.join(x) if isinstance(x, list) else x for x in (ours, theirs))
      raise BadInput(f'--{name}={ours} contradicts {source}, which has {theirs}; leave it out')


def _checked(
  jobs: Mapping[str, list[str]],
  own_job: str,
  task: int,
  labels: Mapping[str, str],
  task_label: str,
  may_come_later: bool = False,
  spare_actors: int = 0,
) -> Cluster:
  """Returns the cluster after checking its addresses and this task's index.

  Args:
    jobs: 'host:port' of every task by job.
    own_job, task: this task.
    labels: for each job, the name of the source of its addresses in error messages.
    task_label: the same for `task`.
    may_come_later: whether host names may resolve later.
    spare_actors: how many actors may join in addition to the listed ones.
  """
  seen: dict[str, str] = {}
  for job, hosts in jobs.items():
    if not hosts:
      raise BadInput(f'{labels[job]} is empty; a cluster needs at least one {job}')
    for host in hosts:
      _check_address(labels[job], host, may_come_later)
      if host in seen:
        raise BadInput(f'{host} appears twice, in {labels[seen[host]]} and {labels[job]}')
      seen[host] = job
  if len(jobs['actor']) < len(jobs['learner']):
    raise BadInput(
      f'{labels["learner"]} names {len(jobs["learner"])} learners, but {labels["actor"]} only '
      f'{len(jobs["actor"])}: every learner needs an actor of its own'
    )
  listed, spare = len(jobs[own_job]), spare_actors if own_job == 'actor' else 0
  if not 0 <= task < listed + spare:
    raise BadInput(
      f'{task_label}{task} is outside {labels[own_job]}, which has the tasks 0 to {listed - 1}'
      + (f', and {spare} more with --spare_actors={spare}' if spare else '')
    )
  ps, learner, actor = (tuple(jobs[job]) for job in JOBS)
  return Cluster(ps, learner, actor, own_job, task)


def _check_address(label: str, address: str, may_come_later: bool) -> None:
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
    raise BadInput(f'{label}: {address!r} is not host:port with a port from 1 to 65535')
  if not may_come_later:
    check_resolves(label, address)
