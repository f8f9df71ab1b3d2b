"""Makes the table of docs/results/README.md from the file result.json of each of its folders.

  python benchmarks/results_table.py > docs/results/README.md
  python benchmarks/results_table.py --top    # The rows of the README.

A result.json is a list of results; each repeats facts of the README.md beside it:
  what: the game, or the question that was measured.
  settings: preset and tasks.
  runs: list of {seed, frames, mean_return}, the mean raw return of the last 100 training games
    after so many environment frames; [] if no training was measured.
  remark: text; '' for none.
  commit, machine, command: of the runs.
  top: whether the README shows it.
"""

import argparse
import glob
import json
import os
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, 'docs', 'results')
KEYS = ('what', 'settings', 'runs', 'remark', 'commit', 'machine', 'command', 'top')
_INTRODUCTION = """# Measured results

Made by `python benchmarks/results_table.py > docs/results/README.md` of the `result.json` in each
folder. Returns are mean raw returns of the last 100 training games. Folders hold commands,
machines, curves, test games and other settings that were tried; throughput is in
[performance.md](../performance.md).
"""


def read_results() -> list[dict[str, Any]]:
  """Returns the results of all folders; `folder` is the name of each one's folder."""
  results = []
  for path in sorted(glob.glob(os.path.join(FOLDER, '*', 'result.json'))):
    with open(path, encoding='utf-8') as file:
      entries = json.load(file)
    results += [{**entry, 'folder': os.path.basename(os.path.dirname(path))} for entry in entries]
  return results


def _runs(runs: list[dict[str, Any]]) -> str:
  """Returns the mean returns of runs; seeds with the same number of frames share an entry."""
  by_frames: dict[int, list[dict[str, Any]]] = {}
  for run in runs:
    by_frames.setdefault(run['frames'], []).append(run)
  entries = []
  for frames, alike in by_frames.items():
    returns = ' and '.join(f'**{run["mean_return"]:,}**' for run in alike)
    seeds = ' and '.join(str(run['seed']) for run in alike)
    word = 'seeds' if alike[1:] else 'seed'
    entries.append(f'{returns} after {frames / 1e6:.3g} million frames ({word} {seeds})')
  return '; '.join(entries)


def _result(result: dict[str, Any]) -> str:
  return '; '.join(filter(None, [_runs(result['runs']), result['remark']]))


def page(results: list[dict[str, Any]]) -> str:
  """Returns the text of docs/results/README.md."""
  lines = ['| what | settings | result | commit | machine | more |', '| --- ' * 6 + '|']
  for result in results:
    folder = result['folder']
    cells = [result['what'], result['settings'], _result(result), result['commit']]
    cells += [result['machine'], f'[{folder}]({folder}/README.md)']
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join([_INTRODUCTION, *lines, ''])


def top_rows(results: list[dict[str, Any]]) -> str:
  """Returns the table of the README."""
  rows = [
    f'| {result["what"]}, {result["settings"]} | {_result(result)} |'
    for result in results
    if result['top']
  ]
  return '\n'.join(['| training | mean return of 100 games |', '| --- | --- |', *rows, ''])


def main() -> None:
  """Prints the page, or with --top the table of the README."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--top', action='store_true', help='print the table of the README')
  results = read_results()
  print(top_rows(results) if parser.parse_args().top else page(results), end='')


if __name__ == '__main__':
  main()
