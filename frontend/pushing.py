"""`push`: the code goes to every host, and its packages where the CSV names no interpreter."""

import os
import shlex

from frontend import code_files, hosts, scripts
from frontend.host_error import HostError


def push(console):
  """Copies the code to every host; returns the exit code."""
  names = code_files.tracked_files(hosts.CODE)
  folder = console.options.wheelhouse
  wheels = wheel_files(folder)

  def push_to(host):
    done = [f'{count} files' if (count := host.put(hosts.CODE, names)) else 'the code is here']
    if host.makes_venv:
      if wheels:
        host.put(folder, wheels, scripts.WHEELHOUSE)
      host.make_venv(offline=bool(wheels))
      done.append(f'{hosts.VENV_PYTHON} with requirements.txt')
    return f'{", ".join(done)} in {host.workdir}'

  if any(host.makes_venv for host in console.hosts):
    console.say('installing requirements.txt on the hosts; this takes minutes the first time')
  outcomes = console.on_all(push_to)
  for host, result in outcomes:
    if not isinstance(result, HostError):
      console.say(f'{host.name}: {result}')
  return 1 if console.failures(outcomes) else 0


def wheel_files(folder):
  """The files in a --wheelhouse folder; [] without one."""
  if not folder:
    return []
  if not os.path.isdir(folder):
    raise ValueError(
      f'--wheelhouse={folder} is not a folder; fill one with: pip download -r '
      f'requirements.txt -d {shlex.quote(folder)}'
    )
  names = sorted(name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name)))
  if not names:
    raise ValueError(
      f'--wheelhouse={folder} is empty; fill it with: pip download -r requirements.txt '
      f'-d {shlex.quote(folder)}'
    )
  return names
