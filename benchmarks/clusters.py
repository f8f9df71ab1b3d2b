"""Clusters on this machine for benchmarks, and hosts (network namespaces) for their tasks."""

import collections
import contextlib
import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORKING = ('unroll', 'enqueue', 'refresh', 'update', 'wait', 'serving')
GIVE_UP_SECS = 300.0
QUEUE_MS = 50.0  # What a link carries in this time may wait for it.


def exit_on_sigterm():
  """Makes SIGTERM run `finally` blocks, as Ctrl-C does, so that clusters are ended."""

  def leave(*unused):
    # timeout(1) sends two: the second would come in the middle of it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)

  signal.signal(signal.SIGTERM, leave)


@contextlib.contextmanager
def process_group(command, **options):
  """Starts a program in a process group of its own; kills what is left of the group at the end.

  Args:
    command: its words.
    **options: of `subprocess.Popen`, which is given to the `with` block.
  """
  process = subprocess.Popen(command, start_new_session=True, **options)
  try:
    yield process
  finally:
    with contextlib.suppress(ProcessLookupError):  # None of them is left.
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def interrupt(process, end_secs):
  """Sends SIGINT to a program, and waits up to `end_secs` for its end."""
  process.send_signal(signal.SIGINT)
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.wait(end_secs)


class Supervised:
  """The tasks of a cluster. `tend` restarts those that died.

  Args:
    folder: for logs, state files and the run.
    size: {'ps': number, 'learner': number, 'actor': number}; empty for a run in one process.
    flags: of every task.
    total_frames: where the run ends by itself.
    hosts: {task such as 'ps-0': (address, what is put before its command, its folder on that host)}
      where each task has a host of its own; without it all are on this machine, in `folder`.
  """

  def __init__(self, folder, size, flags, total_frames=1_000_000_000, hosts=None):
    names = [f'{job}-{i}' for job, n in size.items() for i in range(n)]
    hosts = hosts or {name: ('localhost', [], folder) for name in names or ['local-0']}
    self.folder, self._hosts = folder, hosts
    self.logdir = os.path.join(hosts['learner-0' if names else 'local-0'][2], 'run')
    ports = iter(free_ports(len(names)))
    addresses = {name: f'{hosts[name][0]}:{next(ports)}' for name in names}
    lists = [
      f'--{job}_hosts={",".join(addresses[f"{job}-{i}"] for i in range(n))}'
      for job, n in size.items()
    ]
    places = {name: [*lists, '--job_name={}'.format(*name.split('-')),
                     '--task={1}'.format(*name.split('-'))] for name in names}  # fmt: skip
    self.commands = {
        name: [
            *hosts[name][1], sys.executable, os.path.join(ROOT, 'experiment.py'), *place,
            f'--logdir={hosts[name][2]}/run', f'--state_dir={hosts[name][2]}/state',
            '--metrics_secs=1', *flags, f'--total_environment_frames={total_frames}',
        ]
        for name, place in (places or {'local-0': []}).items()
    }  # fmt: skip
    self.processes, self.starts = {}, collections.Counter()

  def tend(self):
    """Starts each task that does not run."""
    for name, command in self.commands.items():
      process = self.processes.get(name)
      if process is None or process.poll() is not None:
        self.starts[name] += 1
        with open(os.path.join(self._hosts[name][2], name + '.log'), 'ab') as log:
          self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

  def state(self, name):
    """Returns the contents of the task's state file; {} without one."""
    try:
      with open(os.path.join(self._hosts[name][2], 'state', name + '.json')) as file:
        return json.load(file)
    except (OSError, ValueError):
      return {}

  def works(self, name, since=0.0):
    """Returns whether the task's current process reported work after a Unix time."""
    state, process = self.state(name), self.processes[name]
    if state.get('pid') != process.pid or process.poll() is not None or state['last_seen'] < since:
      return False
    return any(phase in WORKING for phase in state['phase'].split('+'))

  def metrics(self):
    """Returns the rows of metrics.csv so far, dicts of strings."""
    return whole_rows(os.path.join(self.logdir, 'metrics.csv'))

  def rows(self):
    """Returns [(environment frames, mean return or NaN, updates)] of metrics.csv."""
    return [
      (
        int(row['environment_frames']),
        float(row['mean_return_100'] or 'nan'),
        int(row['updates']),
      )
      for row in self.metrics()
    ]

  def frames(self):
    """Returns the environment frames of the last row."""
    rows = self.rows()
    return rows[-1][0] if rows else 0

  def wait(self, condition, what, limit_secs=GIVE_UP_SECS):
    """Restarts tasks that die until the condition holds."""
    deadline = time.monotonic() + limit_secs
    while not condition():
      if time.monotonic() > deadline:
        raise SystemExit(f'not within {limit_secs:.0f} s: {what}; logs are in {self.folder}')
      self.tend()
      time.sleep(0.1)

  def finish(self):
    """Sends the chief SIGTERM; returns the exit codes by task."""
    chief = 'learner-0' if 'learner-0' in self.processes else 'local-0'
    self.processes[chief].send_signal(signal.SIGTERM)
    return self.exit_codes(GIVE_UP_SECS)

  def exit_codes(self, secs):
    """Waits for the end without restarting tasks; returns the exit codes by task."""
    deadline = time.monotonic() + secs
    while any(p.poll() is None for p in self.processes.values()) and time.monotonic() < deadline:
      time.sleep(0.1)
    return {name: process.poll() for name, process in self.processes.items()}

  def kill_all(self):
    """Kills all remaining processes."""
    for process in self.processes.values():
      if process.poll() is None:
        process.kill()
        process.wait()


def whole_rows(path):
  """Returns the complete rows of a CSV file that may be growing; [] without a file."""
  if not os.path.exists(path):
    return []
  with open(path, newline='') as file:
    return [row for row in csv.DictReader(file) if None not in row.values()]


def write_rows(path, rows, columns=None):
  """Writes dicts with the keys `columns` as a new CSV file."""
  with open(path, 'w', newline='') as file:
    writer = csv.DictWriter(file, columns or rows[0].keys(), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def free_ports(n):
  """Returns n free ports below the range of outgoing connections.

  One of those connections could take the port of a task between its end and its next start.
  """
  ports = []
  candidates = iter(random.sample(range(10_000, 32_000), 22_000))
  while len(ports) < n:
    port = next(candidates)
    with socket.socket() as probe, contextlib.suppress(OSError):
      probe.bind(('127.0.0.1', port))
      ports.append(port)
  return ports


class ShapedNetwork:
  """Hosts at a switch, in network namespaces without a way out. Needs root.

  Args:
    num_hosts: int.
    gbit: speed of every link, each way, in Gbit/s; None for what the machine gives.
    slower: factor by which links are slower than that, and what may wait for one waits longer.
  """

  def __init__(self, num_hosts, gbit, slower=1):
    self._gbit, self._slower = gbit and gbit / slower, slower
    name = f'scaling{os.getpid()}'
    self._switch = f'{name}-switch'
    self._hosts = [f'{name}-{i}' for i in range(num_hosts)]

  def start(self):
    """Makes the network."""
    for name in [self._switch, *self._hosts]:
      _run('ip', 'netns', 'add', name)
      _run('ip', '-n', name, 'link', 'set', 'lo', 'up')
    _run('ip', '-n', self._switch, 'link', 'add', 'br0', 'type', 'bridge')
    _run('ip', '-n', self._switch, 'link', 'set', 'br0', 'up')
    for i, name in enumerate(self._hosts):
      port = f'v{i}'
      _run('ip', '-n', self._switch, 'link', 'add', port, 'type', 'veth',
           'peer', 'name', 'eth0', 'netns', name)  # fmt: skip
      _run('ip', '-n', self._switch, 'link', 'set', port, 'master', 'br0', 'up')
      _run('ip', '-n', name, 'addr', 'add', f'{self.address(i)}/16', 'dev', 'eth0')
      _run('ip', '-n', name, 'link', 'set', 'eth0', 'up')
      for namespace, device in ((name, 'eth0'), (self._switch, port)) if self._gbit else ():
        # The bucket holds what a link carries between two ticks of a slow clock (100 Hz).
        _run('tc', '-n', namespace, 'qdisc', 'add', 'dev', device, 'root', 'tbf',
             'rate', f'{self._gbit}gbit', 'burst', f'{round(1300 * self._gbit)}kb',
             'latency', f'{round(QUEUE_MS * self._slower)}ms')  # fmt: skip
    return self

  @staticmethod
  def address(host):
    """Returns the IP address of a host."""
    return f'10.77.{host // 200}.{host % 200 + 1}'

  def inside(self, host):
    """Returns the words before a command line that run it on a host."""
    return ['ip', 'netns', 'exec', self._hosts[host]]

  def set_link(self, host, up):
    """Sets a host's link down or up."""
    _run('ip', '-n', self._hosts[host], 'link', 'set', 'eth0', 'up' if up else 'down')

  def pids(self):
    """Returns the ids of the processes on all hosts."""
    return [int(pid) for name in self._hosts for pid in _run('ip', 'netns', 'pids', name).split()]

  def carried_bytes(self, host):
    """Returns (bytes sent, bytes received) by a host so far, with headers."""
    folder = '/sys/class/net/eth0/statistics'
    text = _run(*self.inside(host), 'cat', f'{folder}/tx_bytes', f'{folder}/rx_bytes')
    sent, received = map(int, text.split())
    return sent, received

  def close(self):
    """Kills the processes on the hosts, by id, and removes the hosts."""
    for name in [*self._hosts, self._switch]:
      with contextlib.suppress(subprocess.CalledProcessError):
        for pid in _run('ip', 'netns', 'pids', name).split():
          with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        _run('ip', 'netns', 'del', name)


def _run(*words):
  return subprocess.run(words, check=True, capture_output=True, text=True).stdout
