"""Measures ale_py's vector environment alone, and training on as many environments.

  python benchmarks/atari_steps.py --game=pong --num_envs 1 2 8 32 128 --secs=10 --rounds=3

Prints a table in Markdown with a row for each of --num_envs: agent steps per second of
`ale_py.vector_env.AtariVectorEnv` alone with random actions, the same of training on that many
environments (a run of experiment.py, which trains on every step once), and environment frames
trained on per second and processor. An agent step is 4 frames. Medians of --rounds, in which the
rows take turns.
"""

import argparse
import os
import statistics
import sys
import time

import numpy as np
import throughput

FRAMES_PER_STEP = 4


def simulator_rate(game, num_envs, secs):
  """Returns the agent steps per second of ale_py's vector environment, with random actions."""
  from ale_py.vector_env import AtariVectorEnv

  envs = AtariVectorEnv(game, num_envs)
  try:
    envs.reset(seed=1)
    generator, num_actions = np.random.default_rng(1), envs.single_action_space.n
    actions = generator.integers(0, num_actions, (1000, num_envs))
    turn = iter(range(sys.maxsize))
    return throughput.rate(lambda: envs.step(actions[next(turn) % 1000]), num_envs, secs)
  finally:
    envs.close()


def training_flags(level, agent, num_envs):
  """Returns flags of experiment.py that train on so many environments in all."""
  loops = min(2, num_envs)
  return [
    f'--level_name={level}', f'--agent_name={agent}', f'--num_actors={loops}',
    f'--envs_per_actor={num_envs // loops}', f'--batch_size={min(32, num_envs)}',
  ]  # fmt: skip


def main():
  """Measures, and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--game', default='pong', help='name of a ROM of ale_py')
  parser.add_argument('--level_name', default='PongNoFrameskip-v4', help='id of the same game')
  parser.add_argument('--agent_name', default='SimpleConvNetAgent')
  parser.add_argument('--num_envs', type=int, nargs='+', default=[1, 2, 8, 32, 128])
  parser.add_argument('--secs', type=float, default=10, help='of each measurement')
  parser.add_argument('--rounds', type=int, default=3)
  args = parser.parse_args()
  processors = len(os.sched_getaffinity(0))
  rates = {n: ([], []) for n in args.num_envs}
  before, start = throughput.processor_times(), time.monotonic()
  for _ in range(args.rounds):
    for n, (alone, training) in rates.items():
      alone.append(simulator_rate(args.game, n, args.secs))
      flags = training_flags(args.level_name, args.agent_name, n)
      training.append(throughput.whole_rate(flags, FRAMES_PER_STEP, args.secs))
  stolen = throughput.stolen_share(before, throughput.processor_times())
  print(f'# {processors} processors, {time.monotonic() - start:.0f} s, stolen {stolen:.3f}')
  print('| environments | ale_py alone | training | of ale_py | trained frames/s a processor |')
  print('| --- | --- | --- | --- | --- |')
  for n, both in rates.items():
    alone, training = map(statistics.median, both)
    frames = training * FRAMES_PER_STEP / processors
    print(f'| {n} | {alone:,.0f} | {training:,.0f} | {training / alone:.2f} | {frames:,.0f} |')


if __name__ == '__main__':
  main()
