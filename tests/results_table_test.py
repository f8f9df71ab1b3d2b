"""benchmarks/results_table.py: the committed table, and facts that the folders' pages state."""

import os
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, os.path.join(ROOT, 'benchmarks'))
import results_table

RESULTS = results_table.read_results()


def text_of(*parts):
  with open(os.path.join(ROOT, *parts), encoding='utf-8') as file:
    return file.read()


def test_the_page_is_made_of_the_results():
  page = results_table.page(RESULTS)
  assert text_of('docs', 'results', 'README.md') == page, (
    'python benchmarks/results_table.py > docs/results/README.md'
  )


def test_the_readme_shows_the_top_rows():
  rows = results_table.top_rows(RESULTS)
  assert rows in text_of('README.md'), 'python benchmarks/results_table.py --top'
  assert sum(result['top'] for result in RESULTS) == 5


def test_every_folder_has_results():
  folders = {entry.name for entry in os.scandir(results_table.FOLDER) if entry.is_dir()}
  assert {result['folder'] for result in RESULTS} == folders


@pytest.mark.parametrize('result', RESULTS, ids=lambda result: result['folder'])
def test_a_result_repeats_its_page(result):
  assert set(result) == {*results_table.KEYS, 'folder'}
  page = text_of('docs', 'results', result['folder'], 'README.md')
  assert result['commit'] in page
  for run in result['runs']:
    assert set(run) == {'seed', 'frames', 'mean_return'}
    assert f'{run["mean_return"]:,}' in page
