"""docs/paper_to_code.md: every file exists, and defines the names that stand beside it."""

import ast
import os
import re

from conftest import ROOT


def read(path):
  with open(os.path.join(ROOT, path), encoding='utf-8') as file:
    return file.read()


def defined_in(source):
  """The names of classes, functions and arguments, of keywords in calls, and of variables."""
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
      names.add(node.name)
    elif isinstance(node, ast.arg | ast.keyword):
      names.add(node.arg)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      names.add(node.id)
  return names


def test_every_name_of_the_page_is_defined_in_its_file():
  rows = [line.split(' | ') for line in read('docs/paper_to_code.md').splitlines()]
  rows = [row for row in rows if row[0].startswith('| ') and row[1] not in ('file', '---')]
  assert len(rows) > 20
  for row in rows:
    paths = re.findall(r'`([^`]+\.py)`', row[1])
    names = re.findall(r'`([^`]+)`', row[2])
    assert paths and names, row
    defined = set.union(*(defined_in(read(path)) for path in paths))
    assert set(names) <= defined, (row[1], set(names) - defined)
