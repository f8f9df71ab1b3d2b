"""`push`: the code goes to every host, and its packages where the CSV names no interpreter."""

import os
import shlex

from frontend import code_files, hosts, lock_file, scripts
from frontend.host_error import HostError


def push(console):
  """Copies the code to every host; returns the exit code.

  Raises:
    ValueError: there is nothing to copy, or tasks run with the code that would be replaced.
  """
  names = code_files.tracked_files(hosts.CODE)
  folder = console.options.wheelhouse
  wheels = wheel_files(folder)
  if not console.options.allow_running:
    _refuse_running(console)

  requirements, why = lock_file.to_install(hosts.CODE)

  def push_to(host):
    done = [f'{count} files' if (count := host.put(hosts.CODE, names)) else 'the code is here']
    if host.makes_venv:
      if wheels:
        host.put(folder, wheels, scripts.WHEELHOUSE)
      host.make_venv(bool(wheels), requirements)
      done.append(f'{hosts.VENV_PYTHON} with {requirements}')
    return f'{", ".join(done)} in {host.workdir}'

  if any(host.makes_venv for host in console.hosts):
    if why:
      console.say(f'warning: {why}')
    console.say(f'installing {requirements} on the hosts; this takes minutes the first time')
  outcomes = console.on_all(push_to)
  for host, result in outcomes:
    if not isinstance(result, HostError):
      console.say(f'{host.name}: {result}')
  return 1 if console.failures(outcomes) else 0


def _refuse_running(console):
  """A task that is started again would find another code than the others have."""
  found = [
    f'{task} on {host.name}'
    for host, result in console.on_all(lambda host: host.ask('running'))
    if not isinstance(result, HostError)  # Such as one without the code so far.
    for task in result['tasks']
  ]
  # What was talked to is the old code, in a folder that may be about to change.
  console.on_all(lambda host: host.close_script())
  if found:
    more = f' and {len(found) - 1} more' if len(found) > 1 else ''
    raise ValueError(
      f'{found[0]}{more} would go on with other code after a restart; stop what runs first '
      '(--action=stop), or add --allow_running'
    )


def wheel_files(folder):
  """The files in a --wheelhouse folder; [] without one."""
  if not folder:
    return []
  if not os.path.isdir(folder):
    raise ValueError(
      f'--wheelhouse={folder} is not a folder; fill one with: pip download -r '
      f'{lock_file.to_install(hosts.CODE)[0]} -d {shlex.quote(folder)}'
    )
  names = sorted(name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name)))
  if not names:
    raise ValueError(
      f'--wheelhouse={folder} is empty; fill it with: pip download -r '
      f'{lock_file.to_install(hosts.CODE)[0]} -d {shlex.quote(folder)}'
    )
  return names
