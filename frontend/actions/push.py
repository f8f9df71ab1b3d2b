"""`push`: the code goes to every host, and its packages where the CSV names no interpreter."""

import os
import shlex

from frontend import code_files, lock_file
from frontend.actions import sharing
from frontend.connection import hosts, scripts
from frontend.errors import HostError

# On a host, in its workdir: the names of the files that `push` has put there.
PUSHED = '.pushed.json'
# How many names a sentence gives.
MOST_NAMES = 5


def push(console):
  """Copies the code to every host; returns the exit code.

  Raises:
    ValueError: there is nothing to copy, or tasks run with the code that would be replaced.
  """
  names = code_files.tracked_files(hosts.CODE)
  wheels = wheel_files(console.options.wheelhouse)
  if not console.options.allow_running:
    _refuse_running(console)
  left_out = code_files.untracked_files(hosts.CODE)
  if left_out:
    console.say(f'not copied, because git does not track them (git add): {some_of(left_out)}')
  stand_ins = sharing.find(console)
  makers = _makers(stand_ins)
  requirements, why = lock_file.to_install(hosts.CODE)
  if makers:
    if why:
      console.say(f'warning: {why}')
    console.say(f'installing {requirements} on the hosts; this takes minutes the first time')

  def push_to(host):
    stand_in = stand_ins[host]
    if stand_in not in (host, hosts.CODE) and host not in makers:
      return f'{host.workdir} is the same folder as on {stand_in.name}'
    done = []
    if stand_in is host:
      done += _put_code(host, names)
    elif stand_in == hosts.CODE:
      done.append('the code is here')
    if host in makers:
      if wheels:
        host.put(console.options.wheelhouse, wheels, scripts.WHEELHOUSE)
      host.make_venv(bool(wheels), requirements)
      done.append(f'{hosts.VENV_PYTHON} with {requirements}')
    return f'{", ".join(done)} in {host.workdir}'

  outcomes = console.on_all(push_to)
  for host, result in outcomes:
    if not isinstance(result, HostError):
      console.say(f'{host.name}: {result}')
  return 1 if console.failures(outcomes) else 0


def _makers(stand_ins):
  """One host for each folder that needs a virtual environment: the one that gets the code, if any.

  The code has to be there first, so that host stands for the others from now on.
  """
  makers = {}
  for host, stand_in in list(stand_ins.items()):
    if host.makes_venv:
      makers.setdefault(stand_in, host)
  for stand_in, maker in makers.items():
    if stand_in != hosts.CODE and stand_in is not maker:
      for host, other in list(stand_ins.items()):
        if other is stand_in:
          stand_ins[host] = maker
  return set(makers.values())


def _put_code(host, names):
  """Puts the files on a host, and removes those of before; returns what was done, in words."""
  with host.folder() as folder:
    count = folder.put(hosts.CODE, names)
    if not count:
      return ['the code is here']
    before = set(folder.read_names(PUSHED)) - set(names)
    removed = sorted(name for name in before if folder.remove(name))
    folder.write_names(PUSHED, {*names, *(before - set(removed))})
  done = [f'{count} files']
  if removed:
    done.append(f'removed what git no longer tracks ({some_of(removed)})')
  return done


def some_of(names):
  """The first few names of many, as words."""
  more = f' and {len(names) - MOST_NAMES} more' if len(names) > MOST_NAMES else ''
  return ', '.join(names[:MOST_NAMES]) + more


def _refuse_running(console):
  """A task that is started again would find another code than the others have."""
  replies = [
    (host, result)
    for host, result in console.on_all(lambda host: host.ask('running'))
    if not isinstance(result, HostError)  # Such as one without the code so far.
  ]
  # What was talked to is the old code, in a folder that may be about to change.
  console.on_all(lambda host: host.end_conversation())
  found = [(task, host.name) for host, result in replies for task in result['tasks']]
  known = {task for task, _ in found}
  # On hosts that share the folder, and are perhaps none of this cluster.
  others = {task: name for _, result in replies for task, name in result.get('elsewhere', [])}
  found += [(task, name) for task, name in others.items() if task not in known]
  if found:
    more = f' and {len(found) - 1} more' if len(found) > 1 else ''
    raise ValueError(
      f'{" on ".join(found[0])}{more} would go on with other code after a restart; stop what runs '
      'first (--action=stop), or add --allow_running'
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
