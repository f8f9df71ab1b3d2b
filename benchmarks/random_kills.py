"""Measures how long a run needs to recover from faults at random tasks.

  python benchmarks/random_kills.py --kills=20 --seed=1 --frames=1000000 \
      --out=docs/results/random_kills
  sudo python benchmarks/random_kills.py --faults=kill,link,stop,disk --kills=100 --seed=1 \
      --out=docs/results/random_faults

A cluster of 2 parameter servers, 2 learners and 3 actors trains impala/Catch-v0. Without `--faults`
all tasks are on this machine and faults are kill -9. With it, each task has a host of its own (a
network namespace with a disk), and a fault is one of `kill`; `link`, the host's link is down for 5
to 60 s; `stop`, the task is suspended for 30 s; `disk`, the host's disk is full for 30 s. A loop
restarts dead tasks with the same command, as a supervisor would. The seed determines tasks, faults
and times. A fault counts as recovered when it is over, the task works and the run has trained on
more frames than at the fault. After the last fault the run trains to `--frames`; it is a failure if
it gets there earlier. Without `--frames` the chief is asked to end. Failures are also: lost frames
if no parameter server was killed; more lost than since the last checkpoint if one was; a task with
an exit code other than 0; a process that is left.

Writes kills.csv (kill, time, fault, its duration secs, role, task, recovery_secs; named_secs, until
the chief's state file, or that of ps 0 for the chief, named the task; frames_at_kill, frames_lost,
and secs_lost, the training time of these frames), summary.json, metrics.csv and its picture.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time

from clusters import ROOT, Supervised, exit_on_sigterm, write_rows
from faults import FAULT_SECS, KINDS, Hosts

SIZE = {'ps': 2, 'learner': 2, 'actor': 3}
NAMES = [f'{job}-{i}' for job, n in SIZE.items() for i in range(n)]
SAVE_SECS = 10
TASK_FLAGS = (
    '--flagfile=' + os.path.join(ROOT, 'flagfiles', 'catch.flags'), '--num_actors=1',
    '--envs_per_actor=8', '--batch_size=8', f'--save_checkpoint_secs={SAVE_SECS}',
)  # fmt: skip
END_SECS = 1800.0  # For the frames after the last fault.
SLACK_SECS = 15.0  # A checkpoint may be late by that much on a busy machine.


class Here:
  """This machine, where tasks can only be killed; like `faults.Hosts`."""

  places = None

  def begin(self, kind, name, process):
    """Kills the task."""
    process.kill()
    process.wait()

  def end(self, kind, name, process):
    """Does nothing: a kill is over at once."""

  def left(self):
    """Returns nothing: the exit codes of tasks are enough."""
    return []

  def close(self):
    """Does nothing."""


def one_fault(cluster, hosts, number, kind, name, secs):
  """Injects a fault at a task and waits for its recovery; returns a row of kills.csv."""
  before = cluster.metrics()
  rows_before, frames = len(before), int(before[-1]['environment_frames'])
  process = cluster.processes[name]
  hosts.begin(kind, name, process)
  began, named = time.monotonic(), []
  witness = 'ps-0' if name == 'learner-0' else 'learner-0'

  def lasts():
    if not named and name.replace('-', ':') in (cluster.state(witness).get('no_answer') or {}):
      named.append(round(time.monotonic() - began, 1))
    return time.monotonic() - began > secs

  cluster.wait(lasts, 'the end of the fault')
  hosts.end(kind, name, process)
  over, over_at = time.monotonic(), time.time()
  rows_at_end, at_end = len(cluster.rows()), cluster.frames()

  def recovered():
    rows = cluster.rows()
    return cluster.works(name, over_at) and len(rows) > rows_at_end and rows[-1][0] > at_end

  cluster.wait(recovered, f'recovery of {name} from {kind}')
  after = [row[0] for row in cluster.rows()[rows_before:]]
  return dict(
    kill=number,
    time=round(time.time(), 1),
    fault=kind,
    secs=round(secs, 1),
    role=name.split('-')[0],
    task=name.split('-')[1],
    recovery_secs=round(time.monotonic() - over, 1),
    named_secs=named[0] if named else None,
    frames_at_kill=frames,
    frames_lost=max(0, frames - min(after)),
    secs_lost=round(secs_of(before, min(after)), 1),
  )


def secs_of(rows, frames):
  """Returns the seconds from the last row of metrics.csv with at most these frames to the last."""
  kept = [row for row in rows if int(row['environment_frames']) <= frames] or rows[:1]
  return float(rows[-1]['time']) - float(kept[-1]['time'])


def lost_too_much(row):
  """Returns whether a fault lost frames without cause, or more than a checkpoint."""
  if row['fault'] == 'kill' and row['role'] == 'ps':
    return row['secs_lost'] > SAVE_SECS + SLACK_SECS
  return row['frames_lost'] > 0


def summary(kills, cluster, exit_codes, left):
  """Returns median and worst recovery by fault and role, and how the run ended."""
  groups = collections.defaultdict(list)
  for kill in kills:
    groups[f'{kill["fault"]} {kill["role"]}'].append(kill['recovery_secs'])
  rows = cluster.rows()
  return dict(
    recovery_secs={
      group: dict(faults=len(secs), median=statistics.median(secs), worst=max(secs))
      for group, secs in sorted(groups.items())
    },
    starts=dict(cluster.starts),
    exit_codes=exit_codes,
    left=left,
    lost_too_much=[kill['kill'] for kill in kills if lost_too_much(kill)],
    environment_frames=rows[-1][0],
    mean_return_100=rows[-1][1],
  )


def table(groups):
  """Returns the recoveries of a summary as lines of text."""
  lines = ['fault  role     faults  median s  worst s']
  for group, of in groups.items():
    fault, role = group.split()
    lines.append(f'{fault:6} {role:8} {of["faults"]:6}  {of["median"]:8.1f}  {of["worst"]:7.1f}')
  return '\n'.join(lines)


def parse_args():
  """Parses the command line."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--kills', type=int, default=20, help='how many faults')
  parser.add_argument('--faults', default='', help=f'of {",".join(KINDS)}; needs root')
  parser.add_argument('--seed', type=int, default=1)
  parser.add_argument('--frames', type=int, default=0, help='environment frames of the run; 0: any')
  parser.add_argument('--out', required=True, help='folder for the records')
  args = parser.parse_args()
  args.faults = args.faults.split(',') if args.faults else []
  if unknown := set(args.faults) - set(KINDS):
    parser.error(f'--faults={",".join(sorted(unknown))}: there are {", ".join(KINDS)}')
  return args


def main():
  """Runs, writes and prints."""
  args = parse_args()
  exit_on_sigterm()
  choice = random.Random(args.seed)
  os.makedirs(args.out, exist_ok=True)
  folder, kills = tempfile.mkdtemp(prefix='random_kills'), []
  hosts = Hosts(folder, NAMES) if args.faults else Here()
  cluster = Supervised(folder, SIZE, TASK_FLAGS, args.frames or 10**9, hosts.places)
  try:
    if args.faults:
      hosts.start()
    cluster.wait(lambda: cluster.frames() > 2000, 'the first 2000 frames')
    for number in range(1, args.kills + 1):
      name, pause = choice.choice(sorted(cluster.commands)), choice.uniform(2, 15)
      kind = choice.choice(args.faults) if args.faults else 'kill'
      secs = choice.uniform(*FAULT_SECS[kind])
      until = time.monotonic() + pause
      cluster.wait(lambda until=until: time.monotonic() > until, 'a pause')
      if 0 < args.frames <= cluster.frames():
        raise SystemExit(f'the run was at its end before fault {number}: raise --frames')
      kills.append(one_fault(cluster, hosts, number, kind, name, secs))
      print(kills[-1], flush=True)
      write_rows(os.path.join(args.out, 'kills.csv'), kills)
    exit_codes = cluster.exit_codes(END_SECS) if args.frames else cluster.finish()
    result = summary(kills, cluster, exit_codes, hosts.left())
    for name in ('metrics.csv', 'learning_curve.png'):
      shutil.copy(os.path.join(cluster.logdir, name), args.out)
    with open(os.path.join(args.out, 'summary.json'), 'w') as file:
      json.dump(result, file, indent=2)
    print(json.dumps(result, indent=2))
    print(table(result['recovery_secs']))
    check(result, args.frames)
  except BaseException:
    logs = args.out if args.faults else folder
    print(f'what the tasks logged is in {logs}', file=sys.stderr)
    without = shutil.ignore_patterns('model.ckpt*')
    for _, _, disk in (hosts.places or {}).values():  # They go with the hosts.
      with contextlib.suppress(OSError):
        there = os.path.join(args.out, 'hosts', os.path.basename(disk))
        shutil.copytree(disk, there, ignore=without, dirs_exist_ok=True)
    raise
  finally:
    cluster.kill_all()
    hosts.close()


def check(result, frames):
  """Exits with an error if the summary shows a failure.

  Raises:
    SystemExit: with what is wrong.
  """
  if any(result['exit_codes'].values()) or result['environment_frames'] < frames:
    raise SystemExit('the run did not come to its end; see summary.json')
  if result['left'] or result['lost_too_much']:
    raise SystemExit('processes were left, or more was lost than may be; see summary.json')


if __name__ == '__main__':
  main()
