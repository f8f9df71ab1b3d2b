"""Times training with and without some flags, alternately.

  python benchmarks/with_and_without.py --flags='--deterministic_training --metrics_updates=3' \
      --level_name=CartPole-v1 --num_actors=2 --envs_per_actor=16 --batch_size=32

All other flags are those of experiment.py, in both. Prints the environment frames per second of
each run, after a warm-up, and the ratio of the medians.
"""

import argparse
import shlex
import statistics

import throughput


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--flags', required=True, help='what is compared with leaving it out')
  parser.add_argument('--secs', type=float, default=12, help='of each run')
  parser.add_argument('--rounds', type=int, default=3)
  args, common = parser.parse_known_args()
  sides = {'without': common, 'with': [*common, *shlex.split(args.flags)]}
  rates = {name: [] for name in sides}
  before = throughput.processor_times()
  for _ in range(args.rounds):
    for name, flags in sides.items():
      rates[name].append(round(throughput.whole_rate(flags, 1, args.secs)))
  for name, values in rates.items():
    print(f'{name}: {", ".join(map(str, values))} frames/s')
  ratio = statistics.median(rates['with']) / statistics.median(rates['without'])
  stolen = throughput.stolen_share(before, throughput.processor_times())
  print(f'ratio of the medians {ratio:.2f}, stolen {stolen:.3f}')


if __name__ == '__main__':
  main()
