"""Times training with this program and with sample-factory, alternately, on the same environments.

  python benchmarks/peers/compare.py --peer=PEER/bin/python --level_name=CartPole-v1 \
      --num_envs 32 64 128 --rounds=3 --secs=30 --out=OUT

PEER is a virtual environment with sample-factory; train_sample_factory.py says how to make it. Both
train on every step once, in unrolls of 20 and batches of 32 unrolls, with V-trace and an MLP of two
layers of 64 on vectors, on all processors of this machine: sample-factory with two workers of two
splits each, this program with --loops actor loops. Figures are agent steps per second that were
trained on, after a warm-up; the median of --rounds. Prints a table in Markdown and writes
OUT/result.json.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

import throughput  # noqa: E402
from clusters import process_group  # noqa: E402

UNROLL, BATCH = 20, 32
WARM_UP_SECS = 15.0  # Of sample-factory, after the first frames.
START_SECS = 180.0
_PROGRESS = re.compile(r'\[(\d[\d-]+ \d+:\d+:\d+,\d+)\].*Total num frames: (\d+)')


def product_flags(level, num_envs, loops):
  """Returns flags of experiment.py."""
  return [
    f'--level_name={level}', f'--num_actors={loops}', f'--envs_per_actor={num_envs // loops}',
    f'--batch_size={BATCH}', f'--unroll_length={UNROLL}',
  ]  # fmt: skip


def peer_arguments(level, num_envs):
  """Returns arguments of sample-factory."""
  return [
    f'--env={level}', '--num_workers=2', f'--num_envs_per_worker={num_envs // 2}',
    '--worker_num_splits=2', f'--rollout={UNROLL}', f'--recurrence={UNROLL}',
    f'--batch_size={UNROLL * BATCH}', '--num_epochs=1', '--num_batches_per_epoch=1',
    '--with_vtrace=True', '--normalize_returns=False', '--normalize_input=False',
    '--use_rnn=False', '--encoder_mlp_layers', '64', '64', '--nonlinearity=tanh',
    '--adaptive_stddev=False', '--device=cpu', '--async_rl=True', '--serial_mode=False',
    '--reward_scale=0.1', '--train_for_env_steps=1000000000', '--save_every_sec=100000',
  ]  # fmt: skip


def progress(path):
  """Returns [(seconds, frames)] of the log of sample-factory."""
  with open(path, encoding='utf-8', errors='replace') as file:
    found = _PROGRESS.findall(file.read())
  parsed = [(seconds(text), int(frames)) for text, frames in found]
  return [row for row in parsed if row[1]]


def seconds(text):
  """Returns the Unix time of a time in the log of sample-factory."""
  whole, _, thousandths = text.partition(',')
  return time.mktime(time.strptime(whole, '%Y-%m-%d %H:%M:%S')) + int(thousandths) / 1000


def peer_rate(python, level, num_envs, secs):
  """Returns the agent steps per second of sample-factory."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'log')
    command = [
      python, os.path.join(FOLDER, 'train_sample_factory.py'), *peer_arguments(level, num_envs),
      f'--train_dir={folder}', '--experiment=run',
    ]  # fmt: skip
    with (
      open(path, 'w') as log,
      process_group(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder) as run,
    ):
      return _rate_of(run, path, secs)


def _rate_of(run, path, secs):
  give_up = time.monotonic() + START_SECS + secs
  while time.monotonic() < give_up:
    if run.poll() is not None:
      break
    rows = progress(path)
    counted = [row for row in rows if row[0] - rows[0][0] >= WARM_UP_SECS]
    if counted and counted[-1][0] - counted[0][0] >= secs:
      (begin, frames), (end, later) = counted[0], counted[-1]
      return (later - frames) / (end - begin)
    time.sleep(0.5)
  with open(path, encoding='utf-8', errors='replace') as file:
    raise SystemExit(f'sample-factory did not train:\n{file.read()[-3000:]}')


def versions(python):
  """Returns the versions of what was measured."""
  code = (
    'import importlib.metadata as m, json; '
    "print(json.dumps({n: m.version(n) for n in ('sample-factory', 'torch', 'gymnasium')}))"
  )
  peer = json.loads(subprocess.run([python, '-c', code], capture_output=True, check=True).stdout)
  git = ['git', '-C', throughput.ROOT, 'rev-parse', '--short', 'HEAD']
  commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
  return {'commit': commit, 'peer': peer}


def main():
  """Measures, prints and writes the results."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--peer', required=True, help='Python of the environment of sample-factory')
  parser.add_argument('--level_name', default='CartPole-v1')
  parser.add_argument('--num_envs', type=int, nargs='+', default=[32, 64, 128])
  parser.add_argument('--loops', type=int, default=1, help='actor loops of this program')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--secs', type=float, default=30, help='of each measurement')
  parser.add_argument('--out', required=True, help='folder of result.json')
  args = parser.parse_args()
  peer_python = os.path.abspath(args.peer)  # It runs in a folder of its own.
  os.makedirs(args.out, exist_ok=True)
  rates = {n: ([], []) for n in args.num_envs}
  before = throughput.processor_times()
  for _ in range(args.rounds):
    for n, (ours, peer) in rates.items():
      ours.append(
        throughput.whole_rate(product_flags(args.level_name, n, args.loops), 1, args.secs)
      )
      peer.append(peer_rate(peer_python, args.level_name, n, args.secs))
  result = {
    **versions(peer_python),
    'level_name': args.level_name,
    'loops': args.loops,
    'rates': rates,
  }
  result['stolen'] = round(throughput.stolen_share(before, throughput.processor_times()), 3)
  with open(os.path.join(args.out, 'result.json'), 'w', encoding='utf-8') as file:
    json.dump(result, file, indent=2)
  print(f'| {args.level_name}, environments | this program | sample-factory | ratio |')
  print('| --- | --- | --- | --- |')
  for n, both in rates.items():
    ours, peer = (statistics.median(values) for values in both)
    print(f'| {n} | {ours:.0f} | {peer:.0f} | {ours / peer:.2f} |')


if __name__ == '__main__':
  main()
