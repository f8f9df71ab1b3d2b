"""requirements.lock: the one version of every package that a host should have, and their hashes."""

import hashlib
import os
import re

NAME = 'requirements.lock'
SOURCE = 'requirements.txt'
# They build and install packages; no task imports them.
_TOOLS = ('pip', 'setuptools', 'wheel')


def to_install(root):
  """Which of the two files pip is given: the lock, unless requirements.txt has changed since.

  Returns:
    (name, a sentence that says why it is not the lock, or '').
  """
  try:
    with open(os.path.join(root, NAME), encoding='utf-8') as file:
      first = file.readline()
    with open(os.path.join(root, SOURCE), 'rb') as file:
      digest = hashlib.sha256(file.read()).hexdigest()
  except OSError:
    return SOURCE, ''
  if first.split()[-1:] == [digest]:
    return NAME, ''
  return SOURCE, (
    f'{SOURCE} has changed since {NAME} was made of it, so versions are not pinned, and hashes are '
    'not compared; .ci/lock makes it anew'
  )


def pinned(root):
  """The versions of each package that the lock allows, one for each Python that needs its own.

  Returns:
    {normalised name: set of versions}; {} without a lock.
  """
  found = {}
  try:
    with open(os.path.join(root, NAME), encoding='utf-8') as file:
      for line in file:
        match = re.match(r'([A-Za-z0-9._-]+)==([^\s;]+)', line)
        if match and normalised(match[1]) not in _TOOLS:
          found.setdefault(normalised(match[1]), set()).add(match[2])
  except OSError:
    return {}
  return found


def normalised(name):
  """A package's name as package indexes compare it."""
  return re.sub(r'[-_.]+', '-', name).lower()


def differences(versions, allowed):
  """What is installed in another version than the lock has.

  Args:
    versions: {package: version, or None where it is not installed}.
    allowed: of `pinned`.

  Returns:
    List of 'numpy 2.2.6 (2.4.6 or 2.5.5)', sorted.
  """
  return [
    f'{package} {version} ({" or ".join(sorted(allowed[package]))})'
    for package, version in sorted(versions.items())
    if version and package in allowed and version not in allowed[package]
  ]
