"""Which files make up the code: what `push` copies, and what `check` compares."""

import glob
import os
import subprocess


def git_files(code, *arguments):
  """Files below `code` that `git ls-files` names: all tracked ones, if no argument says otherwise.

  None where that cannot be told.
  """
  try:
    result = subprocess.run(
      ['git', '-C', code, 'ls-files', '-z', *arguments],
      capture_output=True,
      text=True,
      check=False,
    )
  except FileNotFoundError:
    return None
  if result.returncode:
    return None
  names = [name for name in result.stdout.split('\0') if name]
  return [name for name in names if os.path.isfile(os.path.join(code, name))]


def tracked_files(code):
  """The files that `push` copies; ValueError when git does not know them."""
  names = git_files(code)
  if not names:
    raise ValueError(
      f'--action=push copies the files that git tracks, and {code} is no git checkout '
      'with committed files'
    )
  return names


def untracked_files(code):
  """Files that `push` leaves behind, because git neither tracks nor ignores them."""
  return git_files(code, '--others', '--exclude-standard') or []


def source_files(code):
  """The files whose contents make up the version of the code, those of all packages among them."""
  names = git_files(code, '--', '*.py')
  if names is None:
    depths = ('*.py', '*/*.py', '*/*/*.py')
    names = [name for depth in depths for name in glob.glob(depth, root_dir=code)]
  packages = {os.path.dirname(name) for name in names if os.path.basename(name) == '__init__.py'}
  return sorted(name for name in names if os.path.dirname(name) in packages | {''})
