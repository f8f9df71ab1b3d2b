"""Kills tasks of a running cluster at random, and measures how long the run needs to recover.

  python benchmarks/random_kills.py --kills=20 --seed=1 --out=docs/results/random_kills

A cluster of 2 parameter servers, 2 learners and 3 actors trains impala/Catch-v0 on this machine. A
loop starts whatever died again, with the same command, as a supervisor would. Who is killed (kill
-9), and when, follows from the seed. A kill counts as recovered once the killed task works again
and the run has trained on frames beyond those at the kill. When all kills are done the chief is
asked to finish.

Writes kills.csv (kill, time, role, task, recovery_secs, frames_at_kill, frames_lost), summary.json,
the run's metrics.csv and its picture.
"""

import argparse
import collections
import csv
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIZE = {'ps': 2, 'learner': 2, 'actor': 3}
FLAGS = (
    '--flagfile=' + os.path.join(ROOT, 'flagfiles', 'catch.flags'), '--num_actors=1',
    '--envs_per_actor=8', '--batch_size=8', '--metrics_secs=1', '--save_checkpoint_secs=10',
    '--total_environment_frames=1000000000',
)  # fmt: skip
WORKING = ('unroll', 'enqueue', 'refresh', 'update', 'wait', 'serving')
GIVE_UP_SECS = 300.0


class Supervised:
  """The tasks of a cluster; those that die are started again when `tend` is called."""

  def __init__(self, folder):
    self.folder, self.logdir = folder, os.path.join(folder, 'run')
    ports = iter(free_ports(sum(SIZE.values())))
    hosts = {job: [f'localhost:{next(ports)}' for _ in range(n)] for job, n in SIZE.items()}
    lists = [f'--{job}_hosts={",".join(addresses)}' for job, addresses in hosts.items()]
    self.commands = {
        f'{job}-{i}': [
            sys.executable, os.path.join(ROOT, 'experiment.py'), *lists, f'--job_name={job}',
            f'--task={i}', f'--logdir={self.logdir}', f'--state_dir={folder}/state', *FLAGS,
        ]
        for job, n in SIZE.items() for i in range(n)
    }  # fmt: skip
    self.processes, self.starts = {}, collections.Counter()

  def tend(self):
    """Starts what does not run."""
    for name, command in self.commands.items():
      process = self.processes.get(name)
      if process is None or process.poll() is not None:
        self.starts[name] += 1
        with open(os.path.join(self.folder, name + '.log'), 'ab') as log:
          self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

  def works(self, name):
    """Whether the task's present process says that it is at work."""
    try:
      with open(os.path.join(self.folder, 'state', name + '.json')) as file:
        state = json.load(file)
    except (OSError, ValueError):
      return False
    phases = state['phase'].split('+')
    return state['pid'] == self.processes[name].pid and any(p in WORKING for p in phases)

  def rows(self):
    """[(environment frames, mean return or None)] of metrics.csv."""
    try:
      with open(os.path.join(self.logdir, 'metrics.csv'), newline='') as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    except OSError:
      return []
    return [
        (int(row['environment_frames']), float(row['mean_return_100'] or 'nan')) for row in rows
    ]

  def frames(self):
    """Environment frames of the last row."""
    rows = self.rows()
    return rows[-1][0] if rows else 0

  def wait(self, condition, what):
    """Tends the tasks until the condition holds."""
    deadline = time.monotonic() + GIVE_UP_SECS
    while not condition():
      if time.monotonic() > deadline:
        raise SystemExit(f'not within {GIVE_UP_SECS:.0f} s: {what}; logs are in {self.folder}')
      self.tend()
      time.sleep(0.1)

  def finish(self):
    """Asks the chief for the end; the exit codes by task."""
    self.processes['learner-0'].send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GIVE_UP_SECS
    while any(p.poll() is None for p in self.processes.values()) and time.monotonic() < deadline:
      time.sleep(0.1)
    return {name: process.poll() for name, process in self.processes.items()}

  def kill_all(self):
    """Ends every process that is left."""
    for process in self.processes.values():
      if process.poll() is None:
        process.kill()
        process.wait()


def free_ports(n):
  """n ports that nobody listens on."""
  sockets = [socket.socket() for _ in range(n)]
  for s in sockets:
    s.bind(('127.0.0.1', 0))
  ports = [s.getsockname()[1] for s in sockets]
  for s in sockets:
    s.close()
  return ports


def kill_one(cluster, number, name):
  """Kills a task and waits for its recovery; a row of kills.csv."""
  rows_before, frames = len(cluster.rows()), cluster.frames()
  cluster.processes[name].kill()
  cluster.processes[name].wait()
  began = time.monotonic()

  def recovered():
    rows = cluster.rows()
    return cluster.works(name) and len(rows) > rows_before and rows[-1][0] > frames

  cluster.wait(recovered, f'recovery from the kill of {name}')
  after = [f for f, _ in cluster.rows()[rows_before:]]
  return dict(
      kill=number,
      time=round(time.time(), 1),
      role=name.split('-')[0],
      task=name.split('-')[1],
      recovery_secs=round(time.monotonic() - began, 1),
      frames_at_kill=frames,
      frames_lost=max(0, frames - min(after)),
  )


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
  parser.add_argument('--out', required=True, help='folder for the records')
  args = parser.parse_args()
  choice = random.Random(args.seed)
  os.makedirs(args.out, exist_ok=True)
  cluster = Supervised(tempfile.mkdtemp(prefix='random_kills'))
  kills = []
  try:
    cluster.wait(lambda: cluster.frames() > 2000, 'the first 2000 frames')
    for number in range(1, args.kills + 1):
      name, pause = choice.choice(sorted(cluster.commands)), choice.uniform(2, 15)
      until = time.monotonic() + pause
      cluster.wait(lambda until=until: time.monotonic() > until, 'a pause')
      kills.append(kill_one(cluster, number, name))
      print(kills[-1], flush=True)
      with open(os.path.join(args.out, 'kills.csv'), 'w', newline='') as file:
        writer = csv.DictWriter(file, kills[0].keys(), lineterminator='\n')
        writer.writeheader()
        writer.writerows(kills)
    result = summary(kills, cluster, cluster.finish())
  finally:
    cluster.kill_all()
  with open(os.path.join(args.out, 'summary.json'), 'w') as file:
    json.dump(result, file, indent=2)
  for name in ('metrics.csv', 'learning_curve.png'):
    shutil.copy(os.path.join(cluster.logdir, name), args.out)
  print(json.dumps(result, indent=2))


if __name__ == '__main__':
  main()
