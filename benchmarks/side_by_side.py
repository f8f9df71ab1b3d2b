"""Times trainings side by side, with all processors for each and with a share of its own.

  python benchmarks/side_by_side.py --programs=2 --flagfile=flagfiles/minatar.flags \
      --level_name=MinAtar/Breakout-v0 --import=minatar.gym:register_envs

All other flags are those of experiment.py. A sweep gives each run a share
(common/processor_shares.py). Prints the environment frames per second of all programs together,
after a warm-up, in each round; for comparison, those of one training alone.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import throughput

sys.path.insert(0, throughput.ROOT)

from common import processor_shares

WARM_UP_SECS = 8.0  # From the first frames of all programs on.


def frames(folder):
  """Returns the environment frames of a run so far."""
  rows = throughput.read_frames(os.path.join(folder, 'metrics.csv'))
  return rows[-1][1] if rows else 0


def total_rate(flags, programs, are_shared, secs):
  """Returns the frames per second of all programs together."""
  with tempfile.TemporaryDirectory() as parent:
    folders = [os.path.join(parent, str(i)) for i in range(programs)]
    running = []
    try:
      for folder in folders:
        command = [sys.executable, os.path.join(throughput.ROOT, 'experiment.py'), *flags]
        command += [f'--logdir={folder}', '--metrics_secs=1']
        process = subprocess.Popen(
          command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        if are_shared:
          share = processor_shares.least_used(programs, [other.pid for other in running])
          processor_shares.pin(process.pid, share)
        running.append(process)
      while not all(map(frames, folders)):
        if any(process.poll() is not None for process in running):
          raise SystemExit(f'{command} ended')
        time.sleep(0.5)
      time.sleep(WARM_UP_SECS)
      first, began = sum(map(frames, folders)), time.monotonic()
      time.sleep(secs)
      return (sum(map(frames, folders)) - first) / (time.monotonic() - began)
    finally:
      for process in running:
        process.send_signal(signal.SIGTERM)
      for process in running:
        process.wait()


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--programs', type=int, default=2)
  parser.add_argument('--secs', type=float, default=20, help='of each measurement')
  parser.add_argument('--rounds', type=int, default=3)
  args, flags = parser.parse_known_args()
  sides = {
    'one alone': (1, False),
    'all processors for each': (args.programs, False),
    'a share for each': (args.programs, True),
  }
  rates = {name: [] for name in sides}
  before = throughput.processor_times()
  for _ in range(args.rounds):
    for name, (programs, are_shared) in sides.items():
      rates[name].append(round(total_rate(flags, programs, are_shared, args.secs)))
  for name, values in rates.items():
    print(f'{name}: {", ".join(map(str, values))} frames/s')
  _, free, shared = map(statistics.median, rates.values())
  stolen = throughput.stolen_share(before, throughput.processor_times())
  print(f'shares / all processors {shared / free:.2f}, stolen {stolen:.3f}')


if __name__ == '__main__':
  main()
