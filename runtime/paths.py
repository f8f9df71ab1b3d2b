"""Paths in flags: expands `~` and environment variables, and refuses paths of other machines."""

from __future__ import annotations

import os
import re

from runtime.process import BadInput


def local(flag: str, text: str) -> str:
  """Returns a flag's value as an expanded local path.

  Args:
    flag: the flag's name with dashes, for messages.
    text: the flag's value; '' stays ''.

  Raises:
    BadInput: the path is not on this machine, or TensorFlow cannot read such paths.
  """
  given = f'{flag}={text}'
  if scheme := re.match(r'([A-Za-z][A-Za-z0-9+.-]*)://', text):
    raise BadInput(
      f'{given}: {scheme[1]}:// is no folder of this machine, and a run is written to the disk of '
      'its chief; give a folder, and copy it from there'
    )
  path = re.sub(r'\$(?:(\w+)|\{(\w+)\})', lambda found: _variable(given, found), text)
  if path.startswith('~'):
    expanded = os.path.expanduser(path)
    if expanded.startswith('~'):
      user = path[1:].partition('/')[0]
      raise BadInput(f'{given}: no home of {user or "this user"} is known here; give the folder')
    path = expanded
  if bad := re.search(r'[*?[\x00-\x1f\x7f]', path):
    raise BadInput(
      f'{given}: TensorFlow reads no path with {bad[0]!r} in it (it stands for other characters); '
      'choose another name, or change to that folder and give a path from there'
    )
  return path


def _variable(given: str, found: re.Match[str]) -> str:
  name = found[1] or found[2]
  if name[0].isdigit():
    return found[0]
  if name not in os.environ:
    raise BadInput(f'{given}: there is no environment variable {name}')
  return os.environ[name]
