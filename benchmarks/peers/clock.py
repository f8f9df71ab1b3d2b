"""Times how long this program and a peer take to a mean return, alternately, on one machine.

  python benchmarks/peers/clock.py --task=cartpole --peer=PEER/bin/python --out=OUT

Each trains to the end of its own settings: this program with its preset, the peer with the settings
that its makers publish for the task. The time counts from the start of the command. OUT gets
TASK.csv (seconds and mean return of the last 100 games, by program and seed), TASK.md (the time to
the mean return of the task) and TASK.png.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

import throughput  # noqa: E402
from clusters import write_rows  # noqa: E402

OURS = 'this program'
GAMES = 100
ROWS = 400  # Of each run in TASK.csv, at most.


class Task(NamedTuple):
  """What is learned.

  Attributes:
    mean_return: of the last 100 games, which is to be reached.
    flags: of experiment.py.
    peer: name of the other program.
    script: in this folder, which trains with it.
  """

  mean_return: float
  flags: tuple
  peer: str
  script: str


TASKS = {
  'cartpole': Task(
    475.0,
    (f'--flagfile={throughput.ROOT}/flagfiles/cartpole.flags',),
    'Stable-Baselines3 (PPO of RL Zoo)',
    'train_stable_baselines3.py',
  )
}


def games_of_ours(folder):
  """Returns [(time, return)] of the games in episodes.csv."""
  with open(os.path.join(folder, 'episodes.csv'), newline='', encoding='utf-8') as file:
    return [(float(row['time']), float(row['episode_return'])) for row in csv.DictReader(file)]


def games_of_peer(folder):
  """Returns [(time, return)] of the games in monitor.csv; its times count from its first reset."""
  with open(os.path.join(folder, 'monitor.csv'), newline='', encoding='utf-8') as file:
    began = json.loads(file.readline().removeprefix('#'))['t_start']
    return [(began + float(row['t']), float(row['r'])) for row in csv.DictReader(file)]


def run(task, program, python, seed):
  """Trains; returns [(seconds since the start, mean return of the last 100 games)]."""
  with tempfile.TemporaryDirectory() as folder:
    if program == OURS:
      command = [sys.executable, os.path.join(throughput.ROOT, 'experiment.py'), *task.flags]
      command += [f'--seed={seed}', f'--logdir={folder}']
    else:
      command = [python, os.path.join(FOLDER, task.script), f'--seed={seed}', f'--out={folder}']
    began = time.time()
    with open(os.path.join(folder, 'output'), 'w+', encoding='utf-8') as output:
      code = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
      output.seek(0)
      if code:
        raise SystemExit(f'{command} ended with exit code {code}:\n{output.read()[-3000:]}')
    games = games_of_ours(folder) if program == OURS else games_of_peer(folder)
  returns = [value for _, value in games]
  return [
    (when - began, statistics.fmean(returns[i - GAMES + 1 : i + 1]))
    for i, (when, _) in enumerate(games)
    if i >= GAMES - 1
  ]


def secs_to(curve, mean_return):
  """Returns the seconds to a mean return; None if it was never reached."""
  return next((secs for secs, value in curve if value >= mean_return), None)


def table(name, task, curves, stolen):
  """Returns the text of TASK.md."""
  lines = [
    f'| {name}, seconds to {task.mean_return:g} | each seed | at the end |',
    '| --- | --- | --- |',
  ]
  for program in (OURS, task.peer):
    own = [curve for (which, _), curve in curves.items() if which == program]
    times = [secs_to(curve, task.mean_return) for curve in own]
    words = ', '.join('never' if secs is None else f'{secs:.0f}' for secs in times)
    ends = ', '.join(f'{curve[-1][1]:.1f} ({curve[-1][0]:.0f} s)' for curve in own)
    lines.append(f'| {program} | {words} | {ends} |')
  return '\n'.join([*lines, '', f'Stolen: {stolen:.3f}', ''])


def draw(task, curves, path):
  """Draws mean returns against minutes."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, axis = pyplot.subplots(figsize=(7, 4))
  for (program, seed), curve in curves.items():
    minutes, values = [secs / 60 for secs, _ in curve], [value for _, value in curve]
    color = 'tab:blue' if program == OURS else 'tab:orange'
    axis.plot(minutes, values, color=color, alpha=0.8, label=program if seed == 1 else None)
  axis.axhline(task.mean_return, color='grey', linewidth=0.8)
  axis.set_xlabel('minutes since the start of the command')
  axis.set_ylabel(f'mean return of the last {GAMES} games')
  axis.legend()
  figure.tight_layout()
  figure.savefig(path, dpi=120)


def main():
  """Measures, and writes the results."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--task', choices=TASKS, required=True)
  parser.add_argument('--peer', required=True, help='Python of the environment of the peer')
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--out', required=True, help='folder')
  args = parser.parse_args()
  task, curves = TASKS[args.task], {}
  before = throughput.processor_times()
  for seed in range(1, args.seeds + 1):
    for program in (OURS, task.peer):
      curves[program, seed] = run(task, program, args.peer, seed)
  stolen = throughput.stolen_share(before, throughput.processor_times())
  os.makedirs(args.out, exist_ok=True)
  base = os.path.join(args.out, args.task)
  write_rows(
    base + '.csv',
    [
      dict(program=program, seed=seed, secs=round(secs, 2), mean_return_100=round(value, 2))
      for (program, seed), curve in curves.items()
      for secs, value in curve[:: math.ceil(len(curve) / ROWS)]
    ],
  )
  text = table(args.task, task, curves, stolen)
  with open(base + '.md', 'w', encoding='utf-8') as file:
    file.write(text)
  draw(task, curves, base + '.png')
  print(text)


if __name__ == '__main__':
  main()
