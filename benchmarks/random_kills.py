"""Kills tasks of a running cluster at random, and measures how long the run needs to recover.

  python benchmarks/random_kills.py --kills=20 --seed=1 --frames=1000000 \
      --out=docs/results/random_kills

A cluster of 2 parameter servers, 2 learners and 3 actors trains impala/Catch-v0 on this machine. A
loop starts whatever died again, with the same command, as a supervisor would. Who is killed (kill
-9), and when, follows from the seed. A kill counts as recovered once the killed task works again
and the run has trained on frames beyond those at the kill. After the last kill the run goes on to
`--frames`, where it ends by itself; a run that is there before the last kill is a failure.

Writes kills.csv (kill, time, role, task, recovery_secs, frames_at_kill, frames_lost, and secs_lost,
the time that these frames had taken), summary.json, the run's metrics.csv and its picture.
"""

import argparse
import collections
import json
import os
import random
import shutil
import statistics
import tempfile
import time

from clusters import ROOT, Supervised, exit_on_sigterm, write_rows

SIZE = {'ps': 2, 'learner': 2, 'actor': 3}
TASK_FLAGS = (
    '--flagfile=' + os.path.join(ROOT, 'flagfiles', 'catch.flags'), '--num_actors=1',
    '--envs_per_actor=8', '--batch_size=8', '--save_checkpoint_secs=10',
)  # fmt: skip
END_SECS = 1800.0  # For the frames after the last kill.


def kill_one(cluster, number, name):
  """Kills a task and waits for its recovery; a row of kills.csv."""
  before = cluster.metrics()
  rows_before, frames = len(before), int(before[-1]['environment_frames'])
  cluster.processes[name].kill()
  cluster.processes[name].wait()
  began = time.monotonic()

  def recovered():
    rows = cluster.rows()
    return cluster.works(name) and len(rows) > rows_before and rows[-1][0] > frames

  cluster.wait(recovered, f'recovery from the kill of {name}')
  after = [row[0] for row in cluster.rows()[rows_before:]]
  return dict(
    kill=number,
    time=round(time.time(), 1),
    role=name.split('-')[0],
    task=name.split('-')[1],
    recovery_secs=round(time.monotonic() - began, 1),
    frames_at_kill=frames,
    frames_lost=max(0, frames - min(after)),
    secs_lost=round(secs_of(before, min(after)), 1),
  )


def secs_of(rows, frames):
  """Seconds between two rows of metrics.csv: the last, and the last of at most these frames."""
  kept = [row for row in rows if int(row['environment_frames']) <= frames] or rows[:1]
  return float(rows[-1]['time']) - float(kept[-1]['time'])


def summary(kills, cluster, exit_codes):
  """Median and worst recovery by role, and how the run ended."""
  by_role = collections.defaultdict(list)
  for kill in kills:
    by_role[kill['role']].append(kill['recovery_secs'])
  rows = cluster.rows()
  return dict(
    recovery_secs={
      role: dict(kills=len(secs), median=statistics.median(secs), worst=max(secs))
      for role, secs in sorted(by_role.items())
    },
    starts=dict(cluster.starts),
    exit_codes=exit_codes,
    environment_frames=rows[-1][0],
    mean_return_100=rows[-1][1],
  )


def main():
  """Runs, writes and prints."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--seed', type=int, default=1)
  parser.add_argument('--frames', type=int, required=True, help='environment frames of the run')
  parser.add_argument('--out', required=True, help='folder for the records')
  args = parser.parse_args()
  exit_on_sigterm()
  choice = random.Random(args.seed)
  os.makedirs(args.out, exist_ok=True)
  cluster = Supervised(tempfile.mkdtemp(prefix='random_kills'), SIZE, TASK_FLAGS, args.frames)
  kills = []
  try:
    cluster.wait(lambda: cluster.frames() > 2000, 'the first 2000 frames')
    for number in range(1, args.kills + 1):
      name, pause = choice.choice(sorted(cluster.commands)), choice.uniform(2, 15)
      until = time.monotonic() + pause
      cluster.wait(lambda until=until: time.monotonic() > until, 'a pause')
      if cluster.frames() >= args.frames:
        raise SystemExit(f'the run was at its end before kill {number}: raise --frames')
      kills.append(kill_one(cluster, number, name))
      print(kills[-1], flush=True)
      write_rows(os.path.join(args.out, 'kills.csv'), kills)
    result = summary(kills, cluster, cluster.exit_codes(END_SECS))
  finally:
    cluster.kill_all()
  with open(os.path.join(args.out, 'summary.json'), 'w') as file:
    json.dump(result, file, indent=2)
  for name in ('metrics.csv', 'learning_curve.png'):
    shutil.copy(os.path.join(cluster.logdir, name), args.out)
  print(json.dumps(result, indent=2))
  if any(result['exit_codes'].values()) or result['environment_frames'] < args.frames:
    raise SystemExit(f'the run did not come to its end; logs are in {cluster.folder}')


if __name__ == '__main__':
  main()
