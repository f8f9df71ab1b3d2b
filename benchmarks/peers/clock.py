"""Times how long this program and a peer take to a mean return, alternately, on one machine.

  python benchmarks/peers/clock.py --task=cartpole --peer=PEER/bin/python --out=OUT
  python benchmarks/peers/clock.py --task=pong --peer=PEER/bin/python --seeds 1 --out=OUT

This program trains with its preset, the peer with the settings that its makers publish for the
task: CartPole to the end of both, Pong until the mean return is reached, or for --most_minutes. The
time counts from the start of the command. OUT gets TASK.csv (seconds and mean return of the last
100 games, by program and seed), TASK.md (the time to the mean return of the task) and TASK.png.
TASK.csv keeps its runs of other seeds. PEER is a virtual environment with the peer.
"""

import argparse
import csv
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

import throughput  # noqa: E402
from clusters import exit_on_sigterm, interrupt, process_group, whole_rows, write_rows  # noqa: E402
from compare import seconds  # noqa: E402

OURS = 'this program'
GAMES = 100
ROWS = 400  # Of each run in TASK.csv, at most.
LOOK_SECS = 5.0  # Interval between reads of the mean return.
END_SECS = 60.0  # Limit for a program to end after a signal.
_REWARD = re.compile(r"\[(\d[\d-]+ \d+:\d+:\d+,\d+)\].*Avg episode reward: \[\(0, '([^']+)'\)")


def curve_of_games(games):
  """Returns [(time, mean return of the last 100 games)] of [(time, return)]."""
  returns = [value for _, value in games]
  return [
    (when, statistics.fmean(returns[i - GAMES + 1 : i + 1]))
    for i, (when, _) in enumerate(games)
    if i >= GAMES - 1
  ]


class Ours(NamedTuple):
  """This program with a preset."""

  preset: str
  name: str = OURS

  def command(self, python, seed, folder):
    """Returns the words of the command that trains."""
    del python
    program, preset = (os.path.join(throughput.ROOT, *path) for path in (
      ['experiment.py'], ['flagfiles', self.preset]
    ))  # fmt: skip
    return [sys.executable, program, f'--flagfile={preset}', f'--seed={seed}', f'--logdir={folder}']

  def curve(self, folder):
    """Returns [(Unix time in seconds, mean return of the last 100 games)] so far."""
    rows = whole_rows(os.path.join(folder, 'episodes.csv'))
    return curve_of_games([(float(row['time']), float(row['episode_return'])) for row in rows])


class StableBaselines(NamedTuple):
  """Stable-Baselines3 with the settings of RL Zoo."""

  name: str = 'Stable-Baselines3 (PPO of RL Zoo)'

  def command(self, python, seed, folder):
    """Returns the words of the command that trains."""
    script = os.path.join(FOLDER, 'train_stable_baselines3.py')
    return [python, script, f'--seed={seed}', f'--out={folder}']

  def curve(self, folder):
    """Returns [(Unix time in seconds, mean return of the last 100 games)]."""
    with open(os.path.join(folder, 'monitor.csv'), newline='', encoding='utf-8') as file:
      began = json.loads(file.readline().removeprefix('#'))['t_start']
      rows = csv.DictReader(file)
      return curve_of_games([(began + float(row['t']), float(row['r'])) for row in rows])


class SampleFactory(NamedTuple):
  """sample-factory with its own settings for Atari, sf_examples.atari."""

  env: str
  name: str = 'sample-factory (its settings for Atari)'

  def command(self, python, seed, folder):
    """Returns the words of the command that trains."""
    return [
      python, '-m', 'sf_examples.atari.train_atari', '--algo=APPO', f'--env={self.env}',
      '--device=cpu', f'--seed={seed}', f'--train_dir={folder}', '--experiment=run',
    ]  # fmt: skip

  def curve(self, folder):
    """Returns [(Unix time in seconds, mean return)] of its log so far.

    The mean is sample-factory's own average of the returns of its last games.
    """
    with open(os.path.join(folder, 'output'), encoding='utf-8', errors='replace') as file:
      found = _REWARD.findall(file.read())
    return [(seconds(text), float(value)) for text, value in found if value != 'nan']


class Task(NamedTuple):
  """What is learned.

  Attributes:
    mean_return: of the last 100 games, which is to be reached.
    ours: this program.
    peer: the other program.
    ends_there: whether runs are ended where they reach it, not at their own end.
  """

  mean_return: float
  ours: Ours
  peer: StableBaselines | SampleFactory
  ends_there: bool = False


TASKS = {
  'cartpole': Task(475.0, Ours('cartpole.flags'), StableBaselines()),
  'pong': Task(18.0, Ours('pong.flags'), SampleFactory('atari_pong'), ends_there=True),
}


def run(task, program, python, seed, most_secs=math.inf):
  """Trains, for at most so many seconds.

  Returns:
    [(seconds since the start, mean return of the last 100 games)].
  """
  # A worker that is killed last may still write while the folder is removed.
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    command, path = program.command(python, seed, folder), os.path.join(folder, 'output')
    began = time.time()
    with (
      open(path, 'w', encoding='utf-8') as output,
      process_group(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder
      ) as running,
    ):
      code = wait(task, program, running, folder, most_secs)
    if code:
      with open(path, encoding='utf-8', errors='replace') as output:
        raise SystemExit(f'{command} ended with exit code {code}:\n{output.read()[-3000:]}')
    return [(round(when - began, 2), value) for when, value in program.curve(folder)]


def wait(task, program, running, folder, most_secs=math.inf):
  """Waits until a program ends, or ends it where it reaches the mean return or the limit.

  Args:
    task: `Task`.
    program: `Ours`, `StableBaselines` or `SampleFactory`.
    running: its `subprocess.Popen`.
    folder: where it writes.
    most_secs: the limit.

  Returns:
    Its exit code; 0 if it was ended here.
  """
  give_up = time.monotonic() + most_secs
  while time.monotonic() < give_up:
    try:
      return running.wait(min(LOOK_SECS, max(0.0, give_up - time.monotonic())))
    except subprocess.TimeoutExpired:
      if task.ends_there and secs_to(program.curve(folder), task.mean_return) is not None:
        break
  interrupt(running, END_SECS)
  return 0


def secs_to(curve, mean_return):
  """Returns the seconds to a mean return; None if it was never reached."""
  return next((secs for secs, value in curve if value >= mean_return), None)


def table(name, task, curves, stolen):
  """Returns the text of TASK.md."""
  lines = [
    f'| {name}, seconds to {task.mean_return:g} | each seed | at the end |',
    '| --- | --- | --- |',
  ]
  for program in (OURS, task.peer.name):
    own = [curve for (which, _), curve in curves.items() if which == program]
    times = [secs_to(curve, task.mean_return) for curve in own]
    words = ', '.join('never' if secs is None else f'{secs:.0f}' for secs in times)
    ends = ', '.join(f'{c[-1][1]:.1f} ({c[-1][0]:.0f} s)' if c else 'no return' for c in own)
    lines.append(f'| {program} | {words} | {ends} |')
  return '\n'.join([*lines, '', f'Stolen: {stolen:.3f}', ''])


def draw(task, curves, path):
  """Draws mean returns against minutes."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, axis = pyplot.subplots(figsize=(7, 4))
  first = dict(reversed(curves))
  for (program, seed), curve in curves.items():
    minutes, values = [secs / 60 for secs, _ in curve], [value for _, value in curve]
    color = 'tab:blue' if program == OURS else 'tab:orange'
    axis.plot(
      minutes, values, color=color, alpha=0.8, label=program if seed == first[program] else None
    )
  axis.axhline(task.mean_return, color='grey', linewidth=0.8)
  axis.set_xlabel('minutes since the start of the command')
  axis.set_ylabel(f'mean return of the last {GAMES} games')
  axis.legend()
  figure.tight_layout()
  figure.savefig(path, dpi=120)


def read(path):
  """Returns {(program, seed): [(seconds, mean return)]} of TASK.csv, {} without one."""
  curves = {}
  if os.path.exists(path):
    with open(path, newline='', encoding='utf-8') as file:
      for row in csv.DictReader(file):
        curve = curves.setdefault((row['program'], int(row['seed'])), [])
        curve.append((float(row['secs']), float(row['mean_return_100'])))
  return curves


def thinned(curve, mean_return):
  """Returns at most ROWS rows of a curve, evenly spaced.

  They include the first row, the last one, and the first one that reaches the mean return. A curve
  of at most ROWS rows is returned unchanged.
  """
  if len(curve) <= ROWS:
    return curve
  # Two of the rows may lie outside of the even spacing: the last one, and that of the mean return.
  every = math.ceil((len(curve) - 1) / (ROWS - 2))
  kept = {*range(0, len(curve), every), len(curve) - 1}
  kept.update([i for i, (_, value) in enumerate(curve) if value >= mean_return][:1])
  return [curve[i] for i in sorted(kept)]


def write(path, curves, mean_return):
  """Writes TASK.csv, whose rows keep the seconds to the mean return of the task."""
  rows = [
    dict(program=program, seed=seed, secs=secs, mean_return_100=value)
    for (program, seed), curve in curves.items()
    for secs, value in thinned(curve, mean_return)
  ]
  write_rows(path, rows)


def main():
  """Measures, and writes the results."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--task', choices=TASKS, required=True)
  parser.add_argument('--peer', required=True, help='path of the Python of PEER')
  parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3])
  parser.add_argument('--most_minutes', type=float, default=math.inf, help='of each training')
  parser.add_argument('--out', required=True, help='folder')
  args = parser.parse_args()
  exit_on_sigterm()
  peer = os.path.abspath(args.peer)  # Programs run in folders of their own.
  task = TASKS[args.task]
  os.makedirs(args.out, exist_ok=True)
  base = os.path.join(args.out, args.task)
  curves = read(base + '.csv')
  before = throughput.processor_times()
  for seed in args.seeds:
    for program in (task.ours, task.peer):
      curves[program.name, seed] = run(task, program, peer, seed, 60 * args.most_minutes)
      write(base + '.csv', curves, task.mean_return)
  stolen = throughput.stolen_share(before, throughput.processor_times())
  text = table(args.task, task, curves, stolen)
  with open(base + '.md', 'w', encoding='utf-8') as file:
    file.write(text)
  draw(task, curves, base + '.png')
  print(text)


if __name__ == '__main__':
  main()
