"""Compares runs, finished or not: a picture of groups over seeds, and a table in the terminal.

python plot_runs.py runs/a1 runs/a2 runs/b1 --by=learning_rate --out=compare.png --score=18
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

try:
  from reporting import comparison, comparison_report
  from reporting.runs import read_runs
  from runtime.process import BadInput
except ModuleNotFoundError as e:
  from common import missing_packages

  missing_packages.leave(e, 'plot_runs.py')
  raise


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
  parser.add_argument('runs', nargs='+', metavar='RUN', help='folder of a run (its --logdir)')
  parser.add_argument(
    '--by',
    default='level_name,agent_name',
    help='settings or flags of run.json that make groups, with commas; default: %(default)s',
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
  options = parser.parse_args(arguments)
  if options.score is not None and not math.isfinite(options.score):
    raise BadInput(
      f'--score={options.score} is no mean return that a run can reach; give a number.'
    )
  return options


def _tell(sentence: str) -> None:
  print(f'plot_runs.py: {sentence}', file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  try:
    options = parse_arguments(arguments)
    comparison_report.check_out(options.out)
    runs = read_runs(options.runs, _tell)
    compared = comparison.compare(runs, options.by.split(','), options.x, options.score)
    comparison_report.plot(compared, options.out)
  except BadInput as e:
    print(f'plot_runs.py: {e}', file=sys.stderr)
    return 2
  except OSError as e:
    print(f'plot_runs.py: {e}', file=sys.stderr)
    return 1
  print(comparison_report.table(compared))
  for sentence in comparison_report.remarks(compared):
    print(sentence)
  print(options.out)
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
