"""Checks that a host can do alone, before a cluster starts on it.

Each check returns (True, the state) or (False, a sentence with what is wrong and what to do).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

from common import ports as ports_lib
from frontend.host_side import tmux

# A checkpoint of the largest network is below 100 MB, and five are kept.
MIN_FREE_BYTES = 1024**3
# Limit for checking one task's flags and making its environment.
FLAGS_SECS = 120
CONNECT_SECS = 5.0


def file_hashes(root: str, names: Iterable[str]) -> dict[str, str | None]:
  """Returns {name: SHA-256 of the file, or None if it cannot be read}."""
  hashes: dict[str, str | None] = {}
  for name in names:
    try:
      with open(os.path.join(root, name), 'rb') as file:
        hashes[name] = hashlib.sha256(file.read()).hexdigest()
    except OSError:
      hashes[name] = None
  return hashes


def check_code(root: str, expected: Mapping[str, str | None]) -> tuple[bool, str]:
  """Compares the files below `root` with the `file_hashes` of the frontend's machine."""
  found = file_hashes(root, expected)
  different = [name for name in expected if found[name] != expected[name]]
  if not different:
    return True, f'{len(expected)} files as here'
  shown = ', '.join(different[:3]) + (
    f' and {len(different) - 3} more' if len(different) > 3 else ''
  )
  return False, f'not the same code as here ({shown}); --action=push copies it'


def package_versions(names: Iterable[str] = ()) -> dict[str, str | None]:
  """Returns the versions of this interpreter's packages, without importing them.

  Args:
    names: normalised names of packages, besides TensorFlow and Gymnasium.

  Returns:
    {name: version, or None if it is not installed}.
  """
  versions: dict[str, str | None] = {'tensorflow': None, 'gymnasium': None, **dict.fromkeys(names)}
  others = {'tensorflow': ('tensorflow', 'tensorflow-cpu', 'tf-nightly')}
  for package in versions:
    for distribution in others.get(package, (package,)):
      with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions[package] = versions[package] or importlib.metadata.version(distribution)
  return versions


def check_packages(versions: Mapping[str, str | None]) -> tuple[bool, str]:
  """Checks that TensorFlow and Gymnasium are among the `package_versions`."""
  needed = {package: versions[package] for package in ('tensorflow', 'gymnasium')}
  missing = [package for package, version in needed.items() if version is None]
  if missing:
    return False, (
      f'{" and ".join(missing)} not installed for {sys.executable}; '
      f'{sys.executable} -m pip install -r requirements.txt'
    )
  return True, ', '.join(f'{package} {version}' for package, version in needed.items())


def check_ports(ports: Sequence[int]) -> tuple[bool, str]:
  """Checks that all ports are free on this host."""
  taken = []
  for port in ports:
    try:
      ports_lib.bound_socket(port).close()
    except OSError as error:
      owner = ports_lib.listener(port)
      by = f' (pid {owner[0]}: {owner[1]})' if owner else ''
      taken.append(f'{port}: {os.strerror(error.errno or 0)}{by}')
  return (False, 'port ' + '; port '.join(taken)) if taken else (True, f'{len(ports)} free')


def check_gpus(wanted: Iterable[str | None]) -> tuple[bool, str]:
  """Checks that the GPUs named in `cuda_visible_devices` cells exist.

  Args:
    wanted: cells, each None (all GPUs), '' (none) or names separated by commas.
  """
  names = {name for cell in wanted if cell for name in cell.split(',')}
  if not names:
    return True, 'none asked for by name'
  if not shutil.which('nvidia-smi'):
    return False, f'GPU {", ".join(sorted(names))} asked for, but there is no nvidia-smi here'
  listing = subprocess.run(
    ['nvidia-smi', '--query-gpu=index,uuid', '--format=csv,noheader'],
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  there = {word.strip() for line in listing.stdout.splitlines() for word in line.split(',')}
  missing = sorted(
    name
    for name in names
    if not any(
      name == known or (name.startswith('GPU-') and known.startswith(name)) for known in there
    )
    and not name.startswith('MIG-')
  )
  if missing:
    return False, f'no GPU {", ".join(missing)} here; nvidia-smi lists {len(there) // 2}'
  return True, ', '.join(sorted(names))


def check_flags(root: str, argument_lists: Iterable[Sequence[str]]) -> tuple[bool, str]:
  """Checks that experiment.py accepts the flags on this host and can make the environment.

  Args:
    root: the folder with the code.
    argument_lists: one list of arguments for each kind of task.
  """
  for arguments in argument_lists:
    result = subprocess.run(
      [sys.executable, 'experiment.py', '--only_check_args', *arguments],
      cwd=root,
      capture_output=True,
      text=True,
      stdin=subprocess.DEVNULL,
      timeout=FLAGS_SECS,
      check=False,
    )
    if result.returncode:
      lines = result.stderr.strip().splitlines() or [f'experiment.py exited {result.returncode}']
      return False, lines[-1]
  return True, 'flags accepted'


def check_disk(root: str, minimum: int = MIN_FREE_BYTES) -> tuple[bool, str]:
  """Checks that the disk has room for logs and checkpoints (`minimum` bytes)."""
  free = shutil.disk_usage(root).free
  text = f'{free / 1024**3:.1f} GiB free'
  if free >= minimum:
    return True, text
  return False, f'{text} in {root}; a run needs {minimum / 1024**3:.0f} GiB'


def check_tmux() -> tuple[bool, str]:
  """Checks that tmux and libtmux are installed."""
  version = tmux.version()
  if version is None:
    return False, 'tmux is not installed; for example: sudo apt-get install tmux'
  try:
    import libtmux  # noqa: F401
  except ImportError:
    return False, f'libtmux is missing; {sys.executable} -m pip install libtmux'
  return True, version


def check_session(socket_name: str, session: str) -> tuple[bool, str]:
  """Checks that no process runs in a tmux session of this name."""
  if tmux.version() and tmux.is_used(socket_name, session):
    return False, f'tmux session {session!r} is already there'
  return True, 'free'


def check_address(address: str, allow_public: bool) -> tuple[bool | None, str]:
  """Checks that an address or host name has no address that the whole internet can reach.

  Returns:
    (passed, detail); passed is None for a name that does not resolve on this host.
  """
  try:
    found = {str(info[4][0]).partition('%')[0] for info in socket.getaddrinfo(address, None)}
  except (OSError, UnicodeError) as error:
    return None, f'{address} does not resolve: {getattr(error, "strerror", None) or error}'
  public = sorted(ip for ip in found if ipaddress.ip_address(ip).is_global)
  if public and not allow_public:
    return False, (
      f"{', '.join(public)} can be reached from the internet, and TensorFlow's server has no "
      'authentication: who reaches its port can run programs there. Use private addresses, '
      'or --allow_public_addresses behind a firewall'
    )
  return True, ', '.join(sorted(found))


def unreachable(addresses: Iterable[tuple[str, int]], allow_public: bool) -> list[str]:
  """Tries to connect to each (address, port); returns one sentence for each that failed."""
  problems = []
  for address, port in addresses:
    passed, text = check_address(address, allow_public)
    if not passed:
      problems.append(text)
      continue
    try:
      socket.create_connection((address, port), timeout=CONNECT_SECS).close()
    except OSError as error:
      problems.append(f'cannot reach {address}:{port}: {error.strerror or error}')
  return problems
