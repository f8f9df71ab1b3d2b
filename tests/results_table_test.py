""".ci/results_table: the committed table, and facts that the folders' pages state."""

import importlib.machinery
import importlib.util
import os

import pytest

from conftest import ROOT


def load(path):
  """A script without a suffix as a module."""
  loader = importlib.machinery.SourceFileLoader('results_table', path)
  module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
  loader.exec_module(module)
  return module


results_table = load(os.path.join(ROOT, '.ci', 'results_table'))
RESULTS = results_table.read_results()


def text_of(*parts):
  with open(os.path.join(ROOT, *parts), encoding='utf-8') as file:
    return file.read()


def test_the_page_is_made_of_the_results():
  page = results_table.page(RESULTS)
  assert text_of('docs', 'results', 'README.md') == page, (
    '.ci/results_table > docs/results/README.md'
  )


def test_the_readme_shows_the_top_rows():
  rows = results_table.top_rows(RESULTS)
  assert rows in text_of('README.md'), '.ci/results_table --top'
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
