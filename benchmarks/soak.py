"""Records the memory of every task of a cluster on this machine while it trains.

  python benchmarks/soak.py --folder=SOAK --frames=10000000 -- --flagfile=... --level_name=...

Words after -- go to every task. The run is SOAK/run, the logs of the tasks are SOAK/*.log, and
SOAK/memory.csv gets a row every --every_secs: time, environment frames, and the resident bytes of
each task with its worker processes. The same command resumes after an interruption.
"""

import argparse
import contextlib
import os
import time

import psutil
from clusters import Supervised, exit_on_sigterm, whole_rows, write_rows

SIZE = {'ps': 1, 'learner': 1, 'actor': 1}
LEAVE_SECS = 120.0


def resident_bytes(pid):
  """Returns the resident bytes of a process and its descendants; shared pages count in each."""
  total = 0
  process = psutil.Process(pid)
  for each in [process, *process.children(recursive=True)]:
    with contextlib.suppress(psutil.NoSuchProcess):  # A worker that has just ended.
      total += each.memory_info().rss
  return total


def sample(cluster):
  """Returns a row of memory.csv, or None if a task has ended."""
  row = {'time': round(time.time(), 1), 'environment_frames': cluster.frames()}
  row.update({name: resident_bytes(process.pid) for name, process in cluster.processes.items()})
  # Polled after measuring: a process that has ended counts as 0 bytes until it is polled.
  ended = any(process.poll() is not None for process in cluster.processes.values())
  return None if ended else row


def main():
  """Trains, and writes memory.csv."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--folder', required=True)
  parser.add_argument('--frames', type=int, default=10_000_000)
  parser.add_argument('--every_secs', type=float, default=30.0)
  parser.add_argument('flags', nargs='*', help='of every task, after --')
  args = parser.parse_args()
  exit_on_sigterm()
  os.makedirs(args.folder, exist_ok=True)
  out = os.path.join(args.folder, 'memory.csv')
  rows = whole_rows(out)
  cluster = Supervised(args.folder, SIZE, ['--metrics_secs=10', *args.flags], args.frames)
  try:
    cluster.tend()
    cluster.wait(cluster.frames, 'frames')
    while row := sample(cluster):
      rows.append(row)
      write_rows(out, rows)
      time.sleep(args.every_secs)
    codes = cluster.exit_codes(LEAVE_SECS)
  finally:
    cluster.kill_all()
  print(f'exit codes {codes}')
  for name in cluster.processes:
    used = [int(row[name]) for row in rows]
    print(f'{name}: {used[0]:,} bytes at first, {max(used):,} at most, {used[-1]:,} at the end')


if __name__ == '__main__':
  main()
