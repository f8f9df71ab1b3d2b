"""Writes and reads `run.json`: flags, versions, commit and machine of each start of a run."""

import datetime
import json
import os
import subprocess
import sys
from typing import Any

from absl import logging

from common import files

_DISTRIBUTIONS = (
  'tensorflow',
  'dm-sonnet',
  'gymnasium',
  'ale-py',
  'gym',
  'numpy',
  'opencv-python-headless',
  'tensorboard',
)


def write_run_json(logdir: str, flags: dict[str, Any], extra: dict[str, Any]) -> None:
  """Adds this start of a run to `run.json`.

  The file holds the latest start (time, flags, versions, git commit, machine, `extra`) and, under
  'starts', all earlier ones, oldest first. Environment variables are not recorded.

  Args:
    logdir: the run's folder, created if needed.
    flags: values of all flags.
    extra: further entries.

  Raises:
    OSError: it cannot be written; an earlier file is unchanged.
  """
  os.makedirs(logdir, exist_ok=True)
  path = os.path.join(logdir, 'run.json')
  earlier = read_run_json(path)
  if not earlier and os.path.lexists(path):
    _move_aside(path)
  starts = earlier.pop('starts', []) + ([earlier] if earlier else [])
  start = dict(
    started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
    flags=flags,
    versions=_versions(),
    git_commit=_git_commit(),
    machine=_machine(),
    **extra,
  )
  text = json.dumps(dict(start, starts=starts), indent=2, default=str)
  files.write_whole(path, text + '\n')


def _move_aside(path: str) -> None:
  """Renames a file that cannot be read as a record."""
  new, number = path + '.unreadable', 2
  while os.path.lexists(new):
    new, number = f'{path}.unreadable-{number}', number + 1
  os.rename(path, new)


def read_run_json(path: str) -> dict[str, Any]:
  """Returns the contents of a run.json; {} if it is missing, or (with a warning) invalid JSON.

  Raises:
    OSError: it cannot be read for another reason.
  """
  try:
    return json.loads(files.read(path))
  except FileNotFoundError:
    return {}
  except (ValueError, RecursionError):
    logging.warning('%s is no JSON, perhaps cut off: what it recorded is not known', path)
    return {}


def _versions() -> dict[str, str | None]:
  import importlib.metadata  # Slow to import, and only a run needs it.

  versions: dict[str, str | None] = {'python': sys.version.split()[0]}
  for name in _DISTRIBUTIONS:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  return versions


def _git_commit() -> str | None:
  """Returns the commit of the sources, '-dirty' if files differ from it; None outside of git."""
  folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  try:
    return subprocess.run(
      ['git', '-C', folder, 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    ).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return None


def _machine() -> dict[str, Any]:
  import platform  # Slow to import, and only a run needs it.

  return dict(
    system=f'{platform.system()} {platform.release()}',
    architecture=platform.machine(),
    processor=_processor() or platform.processor(),
    cores=os.cpu_count(),
    memory_bytes=os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'),
  )


def _processor() -> str:
  """Returns the processor's name from Linux's /proc/cpuinfo; '' on other systems."""
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
  except OSError:
    names = []
  return names[0] if names else ''
