"""Rooms stay small: no module, class or function of the product grows past its bound in lines."""

import ast

import pytest

from imports_test import PRODUCT, parsed

MOST_LINES = {ast.Module: 450, ast.ClassDef: 160, ast.FunctionDef: 60, ast.AsyncFunctionDef: 60}


def too_long(tree):
  """'name: lines' for each part of a module, and for the module itself, that is above its bound."""
  found = []
  for node in ast.walk(tree):
    most = MOST_LINES.get(type(node))
    if most and node.body:
      first = 1 if isinstance(node, ast.Module) else node.lineno
      lines = node.body[-1].end_lineno - first + 1
      if lines > most:
        found.append(f'{getattr(node, "name", "the module")}: {lines} lines, at most {most}')
  return found


@pytest.mark.parametrize('path', PRODUCT)
def test_no_module_class_or_function_is_too_long(path):
  assert too_long(parsed(path)) == []


@pytest.mark.parametrize(
  'head, lines, name',
  [('', 450, 'the module'), ('class A:\n', 159, 'A'), ('def f():\n', 59, 'f')],
)
def test_one_line_too_many_is_seen(head, lines, name):
  body = 'x = 1\n' if not head else '  x = 1\n'
  assert too_long(ast.parse(head + body * lines)) == []
  (told,) = too_long(ast.parse(head + body * (lines + 1)))
  assert told.startswith(f'{name}: ')
