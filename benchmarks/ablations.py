"""Runs the IMPALA paper's ablations in small, and writes their scores, a table and a picture.

  python benchmarks/ablations.py --table=2 --out=OUT          # corrections, without and with replay
  python benchmarks/ablations.py --table=clipping --out=OUT   # largest importance weight 1, 10, 100
  python benchmarks/ablations.py --figure=E1 --out=OUT        # policy lag 0, 1, 10, 100, 500
  python benchmarks/ablations.py --figure=replay --out=OUT    # no replay, half, all

Each run is one process in a folder of its own below OUT/runs; --at_a_time of them train together,
each on processors of its own.
The same command goes on where it was ended. A run's score is the mean return of the games that
ended in the last tenth of its frames. OUT gets STUDY.csv (a row per run), STUDY.md (the
interquartile mean over seeds, with its 95% bootstrap interval) and, of a figure, STUDY.png.
"""

import argparse
import concurrent.futures
import csv
import os
import subprocess
import sys
import threading
from typing import NamedTuple

from clusters import ROOT, exit_on_sigterm, write_rows

sys.path.insert(0, ROOT)

import numpy as np

from common import processor_shares
from reporting import comparison

MINATAR_FLAGS = (
  '--import=minatar.gym:register_envs', '--total_environment_frames=1000000', '--num_actors=2',
  '--envs_per_actor=16', '--batch_size=16', '--unroll_length=20', '--optimizer=adam',
  '--learning_rate=5e-4', '--epsilon=1e-5', '--entropy_cost=0.01',
)  # fmt: skip
TASKS = {
  'Breakout': ('--level_name=MinAtar/Breakout-v0', *MINATAR_FLAGS),
  'Asterix': ('--level_name=MinAtar/Asterix-v0', *MINATAR_FLAGS),
  'SpaceInvaders': ('--level_name=MinAtar/SpaceInvaders-v0', *MINATAR_FLAGS),
  'Freeway': ('--level_name=MinAtar/Freeway-v0', *MINATAR_FLAGS),
  'Seaquest': ('--level_name=MinAtar/Seaquest-v0', *MINATAR_FLAGS),
  'Catch': (f'--flagfile={ROOT}/flagfiles/catch.flags',),
  # The batch of the preset, 4, is fewer unrolls than a loop has environments.
  'Memory': (f'--flagfile={ROOT}/flagfiles/memory.flags', '--batch_size=8', '--envs_per_actor=4'),
}
REPLAY = '--replay_capacity=10000'
_STARTING = threading.Lock()
_STOPPING = threading.Event()  # Runs that end now were ended from here.
CORRECTIONS = 'vtrace', 'one_step', 'epsilon', 'none'


class Variant(NamedTuple):
  """A row of a table, or a point of a figure.

  Attributes:
    line: rows of one kind, a line in a figure.
    point: what differs between them.
    flags: of experiment.py.
    paper: figures of the paper's table for its five DeepMind Lab tasks.
  """

  line: str
  point: str
  flags: tuple
  paper: str = ''


# Table 2 of arXiv 1802.01561: returns on five tasks of DeepMind Lab.
PAPER = {
  ('vtrace', 'no replay'): '46.8 / 32.9 / 31.3 / 229.2 / 43.8',
  ('one_step', 'no replay'): '51.8 / 35.9 / 25.4 / 215.8 / 43.7',
  ('epsilon', 'no replay'): '44.2 / 27.3 / 4.3 / 107.7 / 41.5',
  ('none', 'no replay'): '40.3 / 29.1 / 5.0 / 94.9 / 16.1',
  ('vtrace', 'half replay'): '47.1 / 35.8 / 34.5 / 250.8 / 46.9',
  ('one_step', 'half replay'): '54.7 / 34.4 / 26.4 / 204.8 / 41.6',
  ('epsilon', 'half replay'): '30.4 / 30.2 / 3.9 / 101.5 / 37.6',
  ('none', 'half replay'): '35.0 / 21.1 / 2.8 / 85.0 / 11.2',
}


def correction(name):
  """Returns the flag of an off-policy correction."""
  return f'--off_policy_correction={name}'


STUDIES = {
  'table_2': [
    Variant(name, replay, (correction(name), *flags), PAPER[name, replay])
    for replay, flags in (('no replay', ()), ('half replay', (REPLAY, '--replay_fraction=0.5')))
    for name in CORRECTIONS
  ],
  'table_clipping': [
    *(
      Variant('rho-bar', str(clip), (f'--clip_rho={clip}', f'--clip_pg_rho={clip}'))
      for clip in (1, 10, 100)
    ),
    Variant('advantages from V(x_{s+1})', '1', ('--advantage_bootstrap=baseline',)),
  ],
  'figure_E1': [
    Variant(name, str(lag), (correction(name), f'--policy_lag={lag}'))
    for name in ('vtrace', 'none')
    for lag in (0, 1, 10, 100, 500)
  ],
  'figure_replay': [
    Variant(name, share, (correction(name), REPLAY, f'--replay_fraction={share}'))
    for name in ('vtrace', 'none')
    for share in ('0', '0.5', '1')
  ],
}


class Job(NamedTuple):
  """One run."""

  task: str
  variant: Variant
  seed: int
  folder: str
  flags: tuple

  def rows(self, name):
    """Returns the rows of a CSV file of the run; none if there is no file."""
    try:
      with open(os.path.join(self.folder, name), newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))
    except FileNotFoundError:
      return []

  def is_done(self):
    """Returns whether the run has ended by itself, which leaves a mark."""
    return os.path.exists(os.path.join(self.folder, 'ablation_done'))

  def train(self, running, at_a_time):
    """Trains, or goes on; raises RuntimeError if the run fails.

    Args:
      running: set of the processes that are training; this one is added.
      at_a_time: number of runs that train together.
    """
    os.makedirs(self.folder, exist_ok=True)
    command = [sys.executable, os.path.join(ROOT, 'experiment.py'), *self.flags]
    with open(os.path.join(self.folder, 'ablation.log'), 'ab') as log:
      with _STARTING:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        share = processor_shares.least_used(at_a_time, [other.pid for other in running])
        processor_shares.pin(process.pid, share)
        running.add(process)
      code = process.wait()
      running.discard(process)
    if code:
      raise RuntimeError(f'{self.folder}: exit code {code}, see ablation.log')
    if _STOPPING.is_set():
      return
    with open(os.path.join(self.folder, 'ablation_done'), 'w', encoding='ascii'):
      pass

  def result(self):
    """Returns the row of the run in STUDY.csv."""
    games, last = self.rows('episodes.csv'), self.rows('metrics.csv')[-1]
    frames = int(last['environment_frames'])
    returns = [
      float(g['episode_return']) for g in games if int(g['environment_frames']) > 0.9 * frames
    ]
    return dict(
      task=self.task,
      line=self.variant.line,
      point=self.variant.point,
      seed=self.seed,
      score=round(float(np.mean(returns)), 4) if returns else '',
      games=len(returns),
      frames=frames,
      updates=int(last['updates']),
      policy_lag_mean=last['policy_lag_mean'],
      replayed_lag_mean=last['replayed_lag_mean'],
    )


def jobs_of(study, tasks, seeds, out, more):
  """Returns the runs of a study, all variants of the first seed first."""
  jobs = []
  for seed in range(1, seeds + 1):
    for task in tasks:
      for variant in STUDIES[study]:
        words = f'{study}/{task}/{variant.line},{variant.point}/seed={seed}'.replace(' ', '_')
        folder = os.path.join(os.path.abspath(out), 'runs', *words.split('/'))
        own = (f'--seed={seed}', f'--logdir={folder}', '--save_checkpoint_secs=120')
        jobs.append(Job(task, variant, seed, folder, (*TASKS[task], *variant.flags, *more, *own)))
  return jobs


def train_all(jobs, at_a_time, finished):
  """Trains runs, `at_a_time` together; calls `finished()` after each. Returns the failures."""
  running, failures, lock = set(), [], threading.Lock()

  def train(job):
    try:
      if not job.is_done():
        job.train(running, at_a_time)
    except RuntimeError as e:
      failures.append(str(e))
    with lock:
      finished()

  pool = concurrent.futures.ThreadPoolExecutor(at_a_time)
  try:
    list(pool.map(train, jobs))
  finally:  # Also after Ctrl-C: the runs save a checkpoint.
    _STOPPING.set()
    pool.shutdown(wait=False, cancel_futures=True)
    for process in list(running):
      process.terminate()
    for process in list(running):
      process.wait()
  return failures


def scores_of(results, task, variant):
  """Returns the scores of a variant's seeds, an array."""
  key = (task, variant.line, variant.point)
  return np.array([
    float(row['score'])
    for row in results
    if (row['task'], row['line'], row['point']) == key and row['score'] != ''
  ])  # fmt: skip


def table(study, results, tasks):
  """Returns the table of a study, Markdown: the interquartile mean, its interval, the seeds."""
  variants = STUDIES[study]
  paper = any(variant.paper for variant in variants)
  heads = ['', '', *tasks, *(['paper, Table 2 (DeepMind Lab)'] if paper else [])]
  lines = [f'| {" | ".join(heads)} |', '| --- ' * len(heads) + '|']
  for variant in variants:
    cells = [variant.line, variant.point]
    for task in tasks:
      scores = scores_of(results, task, variant)
      if not len(scores):
        cells.append('')
        continue
      iqm, low, high = comparison.interquartile_mean([scores])
      cells.append(f'{iqm:.4g} [{low:.4g}, {high:.4g}], {len(scores)} seeds')
    lines.append(f'| {" | ".join(cells + ([variant.paper] if paper else []))} |')
  return '\n'.join(lines) + '\n'


def draw(study, results, tasks, path):
  """Draws scores against the points of a figure: a panel per task, a line per kind."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(4 * len(tasks), 3.2), layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.subplots(1, len(tasks), squeeze=False)[0]
  for axis, task in zip(axes, tasks, strict=True):
    for line in dict.fromkeys(variant.line for variant in STUDIES[study]):
      known = [
        (variant.point, *comparison.interquartile_mean([scores]))
        for variant in STUDIES[study]
        if variant.line == line and len(scores := scores_of(results, task, variant))
      ]
      if known:
        points, iqm, low, high = zip(*known, strict=True)
        axis.plot(points, iqm, marker='o', label=line)
        axis.fill_between(points, low, high, alpha=0.2)
    axis.set(title=task, ylabel='return at the end')
    axis.set_xlabel('policy lag, updates' if study == 'figure_E1' else 'share of replay')
    if axis.lines:
      axis.legend()
  figure.savefig(path, dpi=120)


def write(study, jobs, tasks, out):
  """Writes what is known so far."""
  results = [job.result() for job in jobs if job.is_done()]
  if not results:
    return
  base = os.path.join(out, study)
  write_rows(base + '.csv', results)
  with open(base + '.md', 'w', encoding='utf-8') as file:
    file.write(table(study, results, tasks))
  if study.startswith('figure'):
    draw(study, results, tasks, base + '.png')
  print(f'{len(results)} of {len(jobs)} runs: {base}.csv', flush=True)


def main():
  """Trains, and writes after each run; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  which = parser.add_mutually_exclusive_group(required=True)
  which.add_argument('--table', choices=['2', 'clipping'])
  which.add_argument('--figure', choices=['E1', 'replay'])
  parser.add_argument('--out', required=True, help='folder')
  parser.add_argument(
    '--tasks', default='Breakout,Asterix,SpaceInvaders', help=f'of {", ".join(TASKS)}'
  )
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--at_a_time', type=int, default=os.cpu_count() or 1)
  args, more = parser.parse_known_args()
  tasks = args.tasks.split(',')
  if unknown := set(tasks) - set(TASKS):
    parser.error(f'--tasks: {", ".join(sorted(unknown))} is none of {", ".join(TASKS)}')
  exit_on_sigterm()
  study = f'table_{args.table}' if args.table else f'figure_{args.figure}'
  jobs = jobs_of(study, tasks, args.seeds, args.out, tuple(more))
  os.makedirs(args.out, exist_ok=True)
  failures = train_all(jobs, args.at_a_time, lambda: write(study, jobs, tasks, args.out))
  for failure in failures:
    print(failure, file=sys.stderr)
  return 1 if failures else 0


if __name__ == '__main__':
  sys.exit(main())
