"""Measures where the time of a cluster on one machine goes, compared with one process.

  python benchmarks/one_machine.py --out=docs/results/one_machine/one_machine.csv

For every batch size, a run in one process and a run of a parameter server, a learner and an actor
train Pong in turn, several times. Measured over --secs after a warm-up:

  frames_per_sec        environment frames trained on
  update_secs           wall time of an update
  ps, learner, actor    processor seconds per update of each task; `local` for the one process
  idle                  idle processor seconds per update
"""

import argparse
import os
import shutil
import tempfile
import time

from clusters import Supervised, exit_on_sigterm, write_rows
from update_cost import processor_secs

KINDS = {'local': {}, 'cluster': {'ps': 1, 'learner': 1, 'actor': 1}}
TASKS = ('local', 'ps', 'learner', 'actor')
TASK_FLAGS = (
    '--level_name=PongNoFrameskip-v4', '--agent_name=SimpleConvNetAgent', '--unroll_length=20',
    '--observation_scaling=centred', '--num_actors=2', '--envs_per_actor=8',
    '--save_checkpoint_secs=100000',
)  # fmt: skip
WARM_UP_UNROLLS = 80


def idle_secs():
  """Returns the idle processor seconds of this machine so far (proc(5))."""
  with open('/proc/stat', encoding='ascii') as file:
    fields = file.readline().split()
  return (int(fields[4]) + int(fields[5])) / os.sysconf('SC_CLK_TCK')


def snapshot(cluster):
  """Waits for a row of metrics.csv; returns (time, frames, updates, idle secs, secs by job)."""
  before = len(cluster.rows())
  cluster.wait(lambda: len(cluster.rows()) > before, 'another row of metrics.csv')
  used = {name.split('-')[0]: processor_secs(p.pid) for name, p in cluster.processes.items()}
  row = cluster.metrics()[-1]
  counts = (float(row['time']), int(row['environment_frames']), int(row['updates']))
  return *counts, idle_secs(), used


def measure(kind, batch_size, secs):
  """Returns a row of the table."""
  folder = tempfile.mkdtemp(prefix='one_machine')
  cluster = Supervised(folder, KINDS[kind], [*TASK_FLAGS, f'--batch_size={batch_size}'])
  try:
    cluster.wait(
      lambda: cluster.rows() and cluster.rows()[-1][2] * batch_size > WARM_UP_UNROLLS, 'updates'
    )
    first, began = snapshot(cluster), time.monotonic()
    cluster.wait(lambda: time.monotonic() > began + secs, 'the time to measure')
    last = snapshot(cluster)
    cluster.finish()
  finally:
    cluster.kill_all()
  shutil.rmtree(folder)
  wall, frames, updates, idle = (last[i] - first[i] for i in range(4))
  used = {job: round((last[4][job] - first[4][job]) / updates, 4) for job in last[4]}
  return dict(
    kind=kind,
    batch_size=batch_size,
    frames_per_sec=round(frames / wall),
    update_secs=round(wall / updates, 4),
    **{job: used.get(job, '') for job in TASKS},
    idle=round(idle / updates, 4),
  )


def main():
  """Measures, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--secs', type=float, default=30, help='seconds per figure')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--batch_sizes', type=int, nargs='+', default=[4, 32])
  parser.add_argument('--out', required=True, help='CSV file')
  args = parser.parse_args()
  exit_on_sigterm()
  os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
  rows = []
  for number in range(args.rounds):
    for batch_size in args.batch_sizes:
      for kind in KINDS if number % 2 == 0 else reversed(KINDS):
        rows.append({'round': number + 1, **measure(kind, batch_size, args.secs)})
        print(rows[-1], flush=True)
        write_rows(args.out, rows)


if __name__ == '__main__':
  main()
