"""Dicts and lists as YAML that people can read and edit: blocks, and scalars as in JSON.

A JSON scalar means the same in YAML, so nothing here has to know what YAML takes for a date, a
number or a truth value; only words that are none of these go without quotes.
"""

import json
import re

_WORD = re.compile(r'[A-Za-z/][A-Za-z0-9_./-]*')
# What some reader of YAML does not take for text.
_NO_TEXT = {'true', 'false', 'yes', 'no', 'on', 'off', 'y', 'n', 'null'}


def documents(values, comment):
  """Several values as one text of YAML.

  Args:
    values: list of non-empty dicts of printable str, int, bool, None, lists and dicts.
    comment: list of lines for the top.
  """
  lines = [f'# {line}' for line in comment]
  for value in values:
    lines += ['---', *_block(value)]
  return '\n'.join(lines) + '\n'


def _block(value):
  """The lines of a dict or a list that holds something."""
  if isinstance(value, dict):
    for key, item in value.items():
      if _is_block(item):
        yield f'{_scalar(key)}:'
        yield from (f'  {line}' for line in _block(item))
      else:
        yield f'{_scalar(key)}: {_scalar(item)}'
    return
  for item in value:
    first, *rest = _block(item) if _is_block(item) else [_scalar(item)]
    yield f'- {first}'
    yield from (f'  {line}' for line in rest)


def _is_block(value):
  return isinstance(value, (dict, list)) and bool(value)


def _scalar(value):
  if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _NO_TEXT:
    return value
  if isinstance(value, str) and '"' in value:
    return "'" + value.replace("'", "''") + "'"  # JSON in it stays readable.
  return json.dumps(value, ensure_ascii=False)
