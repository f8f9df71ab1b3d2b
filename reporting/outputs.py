"""Checks, before any work, that the files that a command will write can be written."""

import os

from runtime.process import BadInput

_PICTURES = ('jpg', 'pdf', 'png', 'svg')


def check_picture(flag: str, path: str) -> None:
  """Raises BadInput, which names the flag, if no picture can be written to `path`."""
  if path.rpartition('.')[2].lower() not in _PICTURES:
    raise BadInput(
      f'--{flag}={path}: the name of the picture has to end in .{", .".join(_PICTURES)}.'
    )
  _check_place(flag, path)


def check_page(flag: str, path: str) -> None:
  """Raises BadInput, which names the flag, if no page of Markdown can be written to `path`."""
  if not path.lower().endswith('.md'):
    raise BadInput(f'--{flag}={path}: the name of the page has to end in .md.')
  _check_place(flag, path)


def _check_place(flag: str, path: str) -> None:
  folder = os.path.dirname(path) or '.'
  if not os.path.isdir(folder):
    raise BadInput(f'--{flag}={path}: {folder} is no folder; make it first.')
  if os.path.isdir(path) or not os.access(folder, os.W_OK):
    raise BadInput(f'--{flag}={path} cannot be written: choose another name.')
