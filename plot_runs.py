"""Compares runs, finished or not: a picture of groups over seeds, and a table in the terminal.

python plot_runs.py runs/sweep1
python plot_runs.py runs/population1 --lineage
python plot_runs.py runs/a1 runs/a2 runs/b1 --by=learning_rate --out=compare.png --score=18
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

try:
  from reporting import (
    comparison,
    comparison_pictures,
    comparison_report,
    lineage_picture,
    outputs,
    sweeps,
  )
  from reporting.runs import Run, read_runs
  from runtime.process import BadInput, RunFailed
except ModuleNotFoundError as e:
  from common import missing_packages

  missing_packages.leave(e, 'plot_runs.py')
  raise


_BY = 'level_name,agent_name'  # What makes groups of runs that are listed one by one.


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    raise BadInput(f'{message} (--help lists what there is).')


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
  """Returns the parsed command line.

  Raises:
    BadInput: there is no such argument, or its value is wrong.
  """
  parser = _Parser(
    prog='plot_runs.py', description=(__doc__ or '').splitlines()[0], allow_abbrev=False
  )
  parser.add_argument(
    'runs',
    nargs='+',
    metavar='RUN',
    help='folder of a run (its --logdir), or a folder with the folders of runs, as a sweep makes',
  )
  parser.add_argument(
    '--by',
    help='settings or flags of run.json that make groups, with commas; default: those in which the '
    f'runs of a sweep differ, else {_BY}',
  )
  parser.add_argument(
    '--statistic',
    choices=('mean', 'iqm'),
    help='mean and standard deviation over the runs of a group, or interquartile mean and its 95%% '
    'interval, the best group first; default: iqm for a sweep, else mean',
  )
  parser.add_argument(
    '--x',
    choices=('frames', 'hours'),
    default='frames',
    help='horizontal axis; default: %(default)s',
  )
  parser.add_argument('--out', default='compare.png', help='the picture; default: %(default)s')
  parser.add_argument(
    '--score', type=float, help='mean return; the table then has the frames until it is reached'
  )
  parser.add_argument(
    '--sorted_scores',
    action='store_true',
    help='draw the final returns of the groups, sorted, a line for each folder given; default: '
    'curves',
  )
  parser.add_argument(
    '--lineage',
    action='store_true',
    help='show the members of a population: returns, settings and who copied whom',
  )
  parser.add_argument(
    '--page', help='also write picture, table and the best settings as a page of Markdown (.md)'
  )
  options = parser.parse_args(arguments)
  if options.score is not None and not math.isfinite(options.score):
    raise BadInput(
      f'--score={options.score} is no mean return that a run can reach; give a number.'
    )
  return options


def _tell(sentence: str) -> None:
  print(f'plot_runs.py: {sentence}', file=sys.stderr)


def _read(options: argparse.Namespace) -> tuple[list[Run], dict[str, list[str]]]:
  """Returns the runs, and the folders of the runs in each folder that was given."""
  below = {path: sweeps.runs_below(path) for path in options.runs}
  runs = read_runs([folder for path in options.runs for folder in below[path] or [path]], _tell)
  return runs, below


def _show_lineage(options: argparse.Namespace) -> str:
  """Draws a population; returns the table of its members."""
  outputs.check_picture('out', options.out)
  runs, _ = _read(options)
  members = lineage_picture.histories(runs)
  if not members:
    raise BadInput(f'--lineage: no run in {" ".join(options.runs)} is a member of a population.')
  lineage_picture.plot(runs, members, options.out)
  return lineage_picture.table(runs, members)


def _compare(options: argparse.Namespace) -> comparison.Comparison:
  """Writes the picture and the page; returns the comparison."""
  outputs.check_picture('out', options.out)
  if options.page:
    outputs.check_page('page', options.page)
  runs, below = _read(options)
  by, statistic = _BY.split(','), 'mean'
  if any(below.values()):
    by, statistic = sweeps.differing(runs) or by, 'iqm'
  by = options.by.split(',') if options.by else by
  statistic = options.statistic or statistic

  def compare(some: Sequence[Run]) -> comparison.Comparison:
    return comparison.compare(some, by, options.x, options.score, statistic)

  compared = compare(runs)
  if options.sorted_scores:
    lines = sweeps.by_folder(runs, below)
    series = {label: compare(some).groups for label, some in lines.items()}
    comparison_pictures.plot_sorted_scores(compared, series, options.out)
  else:
    comparison_pictures.plot(compared, options.out)
  if options.page:
    comparison_report.write_page(compared, ' '.join(options.runs), options.out, options.page)
  return compared


def main(arguments: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  try:
    options = parse_arguments(arguments)
    lines = [_show_lineage(options)] if options.lineage else _lines(_compare(options))
  except BadInput as e:
    print(f'plot_runs.py: {e}', file=sys.stderr)
    return 2
  except (OSError, RunFailed) as e:
    print(f'plot_runs.py: {e}', file=sys.stderr)
    return 1
  files = [options.out, options.page if not options.lineage else None]
  print('\n'.join([*lines, *filter(None, files)]))
  return 0


def _lines(compared: comparison.Comparison) -> list[str]:
  return [comparison_report.table(compared), *comparison_report.remarks(compared)]


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
