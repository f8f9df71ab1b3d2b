"""Measures how fast worker processes step environments, and the memory that they need.

  python benchmarks/environment_steps.py --level_name=CartPole-v1 --num_envs 32 64 128 \
      --envs_per_worker 1 8 0 --secs=10

Prints a CSV with a row for each combination of --num_envs and --envs_per_worker (0 = chosen):

  workers         processes
  steps_per_sec   agent steps per second of `envs.process_batch.ProcessBatch` alone, with random
                  actions; median of --rounds, in which the combinations take turns
  rss_mb          resident memory of all workers, pages that several of them share counted in each
  pss_mb          the same, shared pages divided by the number of their processes
  pss_mb_per_env  pss_mb divided by the number of environments

--secs=0 measures memory only, after ten steps. 1 MB is 10^6 bytes. The memory does not depend on
how busy the machine is; the steps per second do.
"""

import argparse
import collections
import csv
import os
import statistics
import sys
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

WARM_UP_STEPS = 10
COLUMNS = 'num_envs', 'envs_per_worker', 'workers', 'steps_per_sec', 'rss_mb', 'pss_mb'


def random_actions(spec, num_envs, generator):
  """Returns an endless iterator of random actions, [N] or [N, K], as an agent would send them."""
  import structs

  shape = (num_envs, *structs.action_shape(spec.action))
  discrete = [part.size for part in spec.action if part.kind == 'discrete']
  while True:
    if structs.action_dtype(spec.action) == 'float32':
      yield generator.uniform(-1, 1, shape).astype(np.float32)
    else:
      yield generator.integers(0, discrete or 2, shape, np.int32)


def memory_mb(pids):
  """Returns (RSS, PSS) of processes, in MB."""
  totals = collections.Counter()
  for pid in pids:
    with open(f'/proc/{pid}/smaps_rollup', encoding='ascii') as file:
      for line in file:
        name, *words = line.split()
        if name in ('Rss:', 'Pss:'):
          totals[name] += int(words[0]) * 1024 / 1e6
  return totals['Rss:'], totals['Pss:']


def measure(spec, num_envs, envs_per_worker, secs):
  """Returns (number of workers, agent steps per second or None, RSS, PSS) of one batch."""
  from envs.process_batch import ProcessBatch

  batch = ProcessBatch(spec, num_envs, seed=1, envs_per_worker=envs_per_worker)
  try:
    worker_ids = [worker.pid for worker in batch.workers]
    batch.reset()
    actions = random_actions(spec, num_envs, np.random.default_rng(1))
    for _ in range(WARM_UP_STEPS):
      batch.step(next(actions))
    steps, start = 0, time.monotonic()
    while secs and time.monotonic() - start < secs:
      batch.step(next(actions))
      steps += 1
    rate = steps * num_envs / (time.monotonic() - start) if steps else None
    return len(worker_ids), rate, *memory_mb(worker_ids)
  finally:
    batch.close()


def main():
  """Measures, and prints the table."""
  import environments
  from envs import probing

  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--level_name', default='CartPole-v1')
  parser.add_argument('--num_envs', type=int, nargs='+', default=[32, 64, 128])
  parser.add_argument('--envs_per_worker', type=int, nargs='+', default=[1, 0])
  parser.add_argument('--secs', type=float, default=10)
  parser.add_argument('--rounds', type=int, default=3)
  args = parser.parse_args()
  spec = environments.environment_spec(args.level_name)
  if spec.is_atari:
    parser.error(f'{args.level_name} runs in ale_py, not in worker processes')
  cost = probing.probe(spec.level).cost
  print(f'# {args.level_name}: {1e6 * cost.secs:.0f} us per step in the check')
  results = collections.defaultdict(list)
  for _ in range(args.rounds if args.secs else 1):
    for num_envs in args.num_envs:
      for envs_per_worker in args.envs_per_worker:
        key = num_envs, envs_per_worker
        results[key].append(measure(spec, *key, args.secs))
  writer = csv.writer(sys.stdout, lineterminator='\n')
  writer.writerow([*COLUMNS, 'pss_mb_per_env'])
  for (num_envs, envs_per_worker), rounds in results.items():
    workers, _, rss, pss = rounds[-1]
    rate = round(statistics.median(r[1] for r in rounds)) if args.secs else ''
    writer.writerow(
      [num_envs, envs_per_worker, workers, rate, round(rss), round(pss), round(pss / num_envs, 2)]
    )


if __name__ == '__main__':
  main()
