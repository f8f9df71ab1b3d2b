"""Measures what an update costs the network and the parameter servers.

  python benchmarks/update_cost.py --out=docs/results/update_cost/update_cost.csv

For every combination of agent, number of learners and number of parameter servers, a cluster trains
Pong on this machine with one actor per learner and synchronous updates. The following are counted
over --secs after a warm-up, and divided by the updates of that time:

  ps_learner_bytes    between parameter servers and learners, both directions
  ps_actor_bytes      between parameter servers and actors, both directions
  actor_learner_bytes between actors and learners, divided by unrolls instead of updates
  ps_cpu_secs         processor seconds of all parameter servers

The kernel counts the bytes of each connection (`ss`, of iproute2): payload, without headers. A
connection belongs to the two tasks that hold its ends. The cost per update does not depend on how
busy the machine is; the updates per second do, and are not reported here.
"""

import argparse
import collections
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from clusters import Supervised, write_rows

AGENTS = ('SimpleConvNetAgent', 'ResNetLSTMAgent')
NUM_LEARNERS, NUM_PS = (1, 2, 4), (1, 2)
BATCH_SIZE, UNROLL_LENGTH, ENVS = 4, 20, 8
WARM_UP_UPDATES = 5


def connection_bytes(pids):
  """Returns {(task, task): bytes from the first to the second} over open connections so far.

  Args:
    pids: {process id: task name}.
  """
  listing = subprocess.run(
    ['ss', '-tinpHO', 'state', 'established'], check=True, capture_output=True, text=True
  ).stdout
  owners, sent = {}, []
  for line in listing.splitlines():
    words, owner = line.split(), re.search(r'pid=(\d+)', line)
    if not owner or int(owner[1]) not in pids:
      continue
    local, remote = (word.rpartition(':')[2] for word in words[2:4])
    owners[local, remote] = pids[int(owner[1])]
    count = re.search(r'bytes_sent:(\d+)', line)
    sent.append(((local, remote), int(count[1]) if count else 0))
  total = collections.Counter()
  for (local, remote), count in sent:
    other = owners.get((remote, local))
    if other:
      total[owners[local, remote], other] += count
  return total


def processor_secs(pid):
  """Returns the processor seconds of a process so far, in user and kernel mode (proc(5))."""
  with open(f'/proc/{pid}/stat', encoding='ascii') as file:
    fields = file.read().rpartition(')')[2].split()  # From the third field, the state, on.
  return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def snapshot(cluster):
  """Waits for a row; returns (updates, bytes by pair of tasks, processor secs of the ps)."""
  before = len(cluster.rows())
  cluster.wait(lambda: len(cluster.rows()) > before, 'another row of metrics.csv')
  pids = {process.pid: name for name, process in cluster.processes.items()}
  cpu_secs = sum(processor_secs(pid) for pid, name in pids.items() if name.startswith('ps'))
  return cluster.rows()[-1][2], connection_bytes(pids), cpu_secs


def between(counts, job, other):
  """Returns the bytes between all tasks of two jobs, in both directions."""
  jobs = {(job, other), (other, job)}
  return sum(n for (a, b), n in counts.items() if (a.split('-')[0], b.split('-')[0]) in jobs)


def measure(agent, learners, servers, secs):
  """Measures one combination; returns its row."""
  flags = [
      '--level_name=PongNoFrameskip-v4', f'--agent_name={agent}', f'--batch_size={BATCH_SIZE}',
      f'--unroll_length={UNROLL_LENGTH}', f'--envs_per_actor={ENVS}', '--num_actors=1',
      '--save_checkpoint_secs=100000',
  ]  # fmt: skip
  size = {'ps': servers, 'learner': learners, 'actor': learners}
  folder = tempfile.mkdtemp(prefix='update_cost')
  cluster = Supervised(folder, size, flags)
  try:
    cluster.wait(lambda: cluster.frames() and cluster.rows()[-1][2] > WARM_UP_UPDATES, 'updates')
    updates, counts, cpu_secs = snapshot(cluster)
    began = time.monotonic()
    cluster.wait(lambda: time.monotonic() > began + secs, 'the time to measure')
    updates_after, counts_after, cpu_secs_after = snapshot(cluster)
    if any(n > 1 for n in cluster.starts.values()):
      raise SystemExit(f'a task died meanwhile; logs are in {folder}')
    exit_codes = cluster.finish()
  finally:
    cluster.kill_all()
  if any(exit_codes.values()):
    raise SystemExit(f'not all tasks left well: {exit_codes}; logs are in {folder}')
  shutil.rmtree(folder)
  updates = updates_after - updates
  counts = counts_after - counts
  unrolls = updates * BATCH_SIZE * learners
  return dict(
      agent=agent, learners=learners, ps=servers, updates=updates,
      ps_learner_bytes=round(between(counts, 'ps', 'learner') / updates),
      ps_actor_bytes=round(between(counts, 'ps', 'actor') / updates),
      actor_learner_bytes=round(between(counts, 'actor', 'learner') / unrolls),
      ps_cpu_secs=round((cpu_secs_after - cpu_secs) / updates, 4),
  )  # fmt: skip


def main():
  """Measures all combinations, prints and writes them."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--secs', type=float, default=20, help='seconds per combination')
  parser.add_argument('--out', required=True, help='CSV file')
  args = parser.parse_args()
  if not shutil.which('ss'):
    sys.exit('ss is not installed: sudo apt-get install iproute2')
  os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
  rows = []
  for agent, learners, servers in itertools.product(AGENTS, NUM_LEARNERS, NUM_PS):
    rows.append(measure(agent, learners, servers, args.secs))
    print(rows[-1], flush=True)
    write_rows(args.out, rows)


if __name__ == '__main__':
  main()
