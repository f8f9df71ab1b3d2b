"""`run.json`: how each start of a run came about: flags, versions, commit, machine."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess

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


def write_run_json(logdir, flags, extra):
  """Records how this start of a run came about in `run.json`; earlier starts are kept in it.

  The file holds the latest start (time, flags, versions, git commit, machine, `extra`) and, under
  'starts', all earlier ones, oldest first. Environment variables are not recorded.

  Args:
    logdir: the run's folder, created if needed.
    flags: dict of flag values.
    extra: dict of further entries.
  """
  os.makedirs(logdir, exist_ok=True)
  path = os.path.join(logdir, 'run.json')
  earlier = read_run_json(path)
  starts = earlier.pop('starts', []) + ([earlier] if earlier else [])
  start = dict(
    started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
    flags=flags,
    versions=_versions(),
    git_commit=_git_commit(),
    machine=_machine(),
    **extra,
  )
  with open(path + '.new', 'w', encoding='utf-8') as file:
    json.dump(dict(start, starts=starts), file, indent=2, default=str)
    file.write('\n')
  os.replace(path + '.new', path)


def read_run_json(path):
  """The record so far.

  Args:
    path: a run's run.json.

  Returns:
    Its dict; {} where there is none, or one that cannot be read (that is moved aside).
  """
  try:
    with open(path, encoding='utf-8') as file:
      return json.load(file)
  except FileNotFoundError:
    return {}
  except ValueError:
    os.replace(path, path + '.unreadable')
    return {}


def _versions():
  versions = {'python': platform.python_version()}
  for name in _DISTRIBUTIONS:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  return versions


def _git_commit():
  """The commit of the sources, with '-dirty' when files differ from it; None outside of git."""
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


def _machine():
  return dict(
    system=f'{platform.system()} {platform.release()}',
    architecture=platform.machine(),
    processor=_processor(),
    cores=os.cpu_count(),
    memory_bytes=os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'),
  )


def _processor():
  """The processor's name where the system tells, as in /proc/cpuinfo of Linux."""
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
  except OSError:
    names = []
  return names[0] if names else platform.processor()
