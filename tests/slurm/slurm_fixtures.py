"""A real Slurm: a controller and three nodes, each in a network namespace with a name of its own.

Configuration, state and the folders of runs are in the network's folder, which all of them see.
"""

import os
import re
import socket
import subprocess
import sys

import pytest

import conftest
from network_fixtures import end_processes, is_alive, network, tool  # noqa: F401 (a fixture)

ROOT = conftest.ROOT
LIMIT_SECS = 200.0
CONFIGURATION = """
ClusterName=impala
SlurmctldHost={controller}({address})
SlurmctldPort=6817
SlurmdPort=6818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its credential has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.txt
SlurmdLogFile={folder}/%n.txt
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=5
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=60
MailProg=/bin/true
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
"""
# Names of hosts are those of this Slurm, in a mount and a UTS namespace of its own.
_AS_HOST = 'hostname "$0" && mount --bind "$1" /etc/hosts && shift && exec "$@"'


class Slurm:
  """A Slurm on the hosts of a `Network`: the controller on host 0, a node on each other.

  Args:
    hosts: `network_fixtures.Network`.
  """

  NODES = ('node1', 'node2', 'node3')

  def __init__(self, hosts):
    self._hosts = hosts
    self.folder = os.path.join(hosts.folder, 'slurm')
    self._names = (socket.gethostname().split('.')[0], *self.NODES)
    self._configuration = os.path.join(self.folder, 'slurm.conf')
    self._daemons = []

  def start(self):
    """Starts munged, the controller and the nodes, and waits until all nodes are idle."""
    os.makedirs(os.path.join(self.folder, 'controller'), mode=0o755)
    os.chmod(self._hosts.folder, 0o755)  # munged refuses a key in what others may not look into.
    self._write('munge.key', os.urandom(128), 0o400)
    addresses = list(zip(self._names, self._hosts.ADDRESSES, strict=True))
    lines = ['127.0.0.1 localhost', *(f'{address} {name}' for name, address in addresses)]
    self._write('hosts', '\n'.join(lines).encode() + b'\n')
    nodes = [f'NodeName={n} NodeAddr={a} CPUs=16 State=UNKNOWN' for n, a in addresses[1:]]
    text = CONFIGURATION.format(
      controller=self._names[0],
      address=self._hosts.ADDRESSES[0],
      folder=self.folder,
      nodes='\n'.join(nodes),
    )
    self._write('slurm.conf', text.encode())
    # Nothing here uses cgroups, but slurmd looks for them unless told which kind there would be.
    self._write('cgroup.conf', b'CgroupPlugin=cgroup/v1\n')
    path = lambda name: os.path.join(self.folder, name)  # noqa: E731
    self._daemon(
      0, tool('munged'), '--foreground', '--force', f'--key-file={path("munge.key")}',
      f'--socket={path("munge.socket")}', f'--pid-file={path("munged.pid")}',
      f'--log-file={path("munged.txt")}', f'--seed-file={path("munged.seed")}',
    )  # fmt: skip
    conftest.eventually(lambda: os.path.exists(path('munge.socket')), 30, self.logs)
    self._daemon(0, tool('slurmctld'), '-D', '-f', self._configuration)
    for number, name in enumerate(self.NODES, 1):
      os.makedirs(path(name))
      self._daemon(number, tool('slurmd'), '-D', '-f', self._configuration, '-N', name)
    conftest.eventually(self._all_idle, 60, self.logs)
    return self

  def _write(self, name, data, mode=0o644):
    path = os.path.join(self.folder, name)
    with open(path, 'wb') as file:
      file.write(data)
    os.chmod(path, mode)

  def _as_host(self, number):
    hosts = os.path.join(self.folder, 'hosts')
    own = ['unshare', '-u', '-m', 'sh', '-c', _AS_HOST, self._names[number], hosts]
    return [*self._hosts.inside(number, ROOT), *own]

  def _daemon(self, number, *words):
    log = os.path.join(self.folder, f'daemon{len(self._daemons)}.log')
    environment = dict(os.environ, SLURM_CONF=self._configuration)
    self._daemons.append(conftest.Process([*self._as_host(number), *words], log, env=environment))

  def _all_idle(self):
    for daemon in self._daemons:
      assert daemon.poll() is None, self.logs()
    states = self.command('sinfo', '-h', '-N', '-o', '%t', check=False).split()
    return states == ['idle'] * len(self.NODES)

  def logs(self):
    """Returns the ends of the daemons' logs."""
    return '\n'.join(f'--- {d.args[-3:]}\n{d.output()[-3000:]}' for d in self._daemons)

  def command(self, *words, check=True, **environment):
    """Runs a program of Slurm where the controller is, in the project's folder; its output."""
    done = subprocess.run(
      [*self._as_host(0), *words],
      check=False, capture_output=True, text=True,
      env=dict(os.environ, SLURM_CONF=self._configuration, **environment),
    )  # fmt: skip
    assert not check or done.returncode == 0, f'{words}: {done.stdout}{done.stderr}'
    return done.stdout

  def submit(self, *flags, options=()):
    """Hands in slurm/impala.sbatch; returns the `Job`.

    Args:
      *flags: of experiment.py.
      options: of sbatch.
    """
    number = len([name for name in os.listdir(self.folder) if name.startswith('run')])
    logdir = os.path.join(self.folder, f'run{number}')
    os.makedirs(logdir)
    job_id = self._hand_in('impala', logdir, flags, (*options, f'--output={logdir}/job.txt'))
    return Job(self, job_id, logdir)

  def submit_actors(self, logdir, numbers, *flags):
    """Hands in slurm/actors.sbatch for the run in a folder; returns a `Job` for each number."""
    array = f'--array={",".join(map(str, numbers))}'
    job_id = self._hand_in('actors', logdir, flags, (array, f'--output={logdir}/actor%a.txt'))
    return [Job(self, f'{job_id}_{n}', logdir, f'actor{n}.txt') for n in numbers]

  def submit_sweep(self, logdir, elements, *flags, **environment):
    """Hands in slurm/sweep.sbatch with that many elements; returns a `Job` for each."""
    os.makedirs(logdir, exist_ok=True)
    options = (f'--array=0-{elements - 1}', f'--output={logdir}/element%a.txt')
    job_id = self._hand_in('sweep', logdir, flags, options, **environment)
    return [Job(self, f'{job_id}_{n}', logdir, f'element{n}.txt') for n in range(elements)]

  def _hand_in(self, script, logdir, flags, options, **environment):
    said = self.command(
      'sbatch', '--parsable', '--cpus-per-task=1', *options, f'slurm/{script}.sbatch', *flags,
      PYTHON=sys.executable, LOGDIR=logdir, PYTHONPATH=os.path.join(ROOT, 'tests'),
      # For tests/throttled_env.py, the throttle of which stays closed.
      **{'THROTTLED_ENV_OPEN': os.path.join(self.folder, 'never'), **environment},
    )  # fmt: skip
    return said.strip()

  def fail(self, node):
    """Kills everything on a node, and waits until the controller notices."""
    number = self._names.index(node)
    # Else a process that is killed before slurmstepd is a job that failed, not a node that did.
    self._hosts.pull_plug(number)
    end_processes(self._hosts.pids(number))
    # By itself it would do so when the node has not answered for SlurmdTimeout.
    self.command('scontrol', 'update', f'NodeName={node}', 'State=DOWN', 'Reason=failed')

  def close(self):
    """Ends all jobs, then the daemons, by process id; the network ends what is left."""
    self.command('scancel', '--full', '--signal=KILL', '--user=root', check=False)
    for daemon in reversed(self._daemons):  # The nodes first: none can end without those before it.
      if daemon.poll() is None:
        daemon.terminate()
      conftest.eventually(lambda daemon=daemon: daemon.poll() is not None, 60, self.logs)


class Job:
  """A job of Slurm that runs slurm/impala.sbatch, or an element of one of the arrays.

  Args:
    slurm: `Slurm`.
    job_id: str.
    logdir: the run's folder.
    output: name of the file with what it prints, in that folder.
  """

  def __init__(self, slurm, job_id, logdir, output='job.txt'):
    self._slurm, self.id, self.logdir, self._output = slurm, job_id, logdir, output

  def about(self, name):
    """A value of `scontrol show job`, for example JobState."""
    text = self._slurm.command('scontrol', 'show', 'job', self.id)
    return re.search(rf'\b{name}=(\S+)', text)[1]

  def limit_to(self, minutes):
    """Sets the job's time limit."""
    self._slurm.command('scontrol', 'update', f'JobId={self.id}', f'TimeLimit={minutes}')

  def output(self):
    """What the job printed so far, its tasks included."""
    path = os.path.join(self.logdir, self._output)
    if not os.path.exists(path):
      return ''
    with open(path, encoding='utf-8', errors='replace') as file:
      return file.read()

  def until(self, predicate, limit_secs=LIMIT_SECS):
    """Waits until `predicate()` is true."""
    return conftest.eventually(predicate, limit_secs, self.story)

  def until_state(self, *states):
    """Waits until the job is in one of these states."""
    self.until(lambda: self.about('JobState') in states)

  def story(self):
    """Returns what is known of the job, to find out why it failed."""
    text = self._slurm.command('scontrol', 'show', 'job', self.id, check=False)
    return f'{text}\n{self.output()[-6000:]}\n{self._slurm.logs()}'

  def pid_of(self, rank):
    """Process id of a task's experiment.py, None while it has none."""
    from frontend.host_side import supervisor

    path = os.path.join(self.logdir, 'tasks', f'task-{rank}.supervisor.json')
    record = supervisor.read_json(path) or {}
    pid = record.get('pid')
    return pid if record.get('state') == 'running' and is_alive(pid) else None


@pytest.fixture(scope='module')
def slurm(network):  # noqa: F811
  """A running `Slurm`, one for all tests of a module."""
  for program in ('munged', 'slurmctld', 'slurmd', 'sbatch'):
    tool(program)
  made = Slurm(network)
  try:
    yield made.start()
  finally:
    made.close()
