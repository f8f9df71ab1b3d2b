"""`push`: copies the code to every host; installs packages where the CSV names no python."""

import contextlib
import os
import secrets
import shlex

from common import background
from frontend import checkout
from frontend.connection import hosts, scripts
from frontend.connection.copying import SUFFIX, LocalFolder
from frontend.console import LEAVE_SECS, AnyHost, Console
from frontend.errors import HostError, UserError

# In a host's workdir: the names of the files that `push` has put there.
PUSHED = '.pushed.json'
# How many names a sentence gives.
MOST_NAMES = 5


def run(console: Console) -> int:
  """Copies the code to every host; returns the exit code.

  Raises:
    UserError: there is nothing to copy, or tasks run with the code that would be replaced.
  """
  names = checkout.tracked_files(hosts.CODE)
  wheels = wheel_files(console.options.wheelhouse)
  if not console.options.allow_running:
    _refuse_running(console)
  left_out = checkout.untracked_files(hosts.CODE)
  if left_out:
    console.say(f'not copied, because git does not track them (git add): {_some_of(left_out)}')
  copies_to = _find_shared_folders(console)
  installers = _installers(copies_to)
  requirements, why = checkout.requirements_file(hosts.CODE)
  if installers:
    if why:
      console.say(f'warning: {why}')
    console.say(f'installing {requirements} on the hosts; this takes minutes the first time')

  def push_to(host: AnyHost) -> str:
    target = copies_to[host]
    if not isinstance(target, str) and target is not host and host not in installers:
      return f'{host.workdir} is the same folder as on {target.name}'
    done = []
    if target is host:
      done += _put_code(host, names)
    elif target == hosts.CODE:
      done.append('the code is here')
    if host in installers:
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


def _installers(copies_to: dict[AnyHost, AnyHost | str]) -> set[AnyHost]:
  """Chooses one host for each folder that needs a virtual environment.

  The code must be there before it, so in `copies_to` that host becomes the one that gets the code.
  """
  installers = {}
  for host, target in list(copies_to.items()):
    if host.makes_venv:
      installers.setdefault(target, host)
  for target, installer in installers.items():
    if target != hosts.CODE and target is not installer:
      for host, other in list(copies_to.items()):
        if other is target:
          copies_to[host] = installer
  return set(installers.values())


def _put_code(host: AnyHost, names: list[str]) -> list[str]:
  """Copies the files to a host, and removes those that git no longer tracks.

  Returns:
    What was done, in words.
  """
  with host.folder() as folder:
    count = folder.put(hosts.CODE, names)
    if not count:
      return ['the code is here']
    before = set(folder.read_names(PUSHED)) - set(names)
    removed = sorted(name for name in before if folder.remove(name))
    folder.write_names(PUSHED, {*names, *(before - set(removed))})
  done = [f'{count} files']
  if removed:
    done.append(f'removed what git no longer tracks ({_some_of(removed)})')
  return done


def _some_of(names: list[str]) -> str:
  """The first few of the names, and how many more there are."""
  more = f' and {len(names) - MOST_NAMES} more' if len(names) > MOST_NAMES else ''
  return ', '.join(names[:MOST_NAMES]) + more


def _refuse_running(console: Console) -> None:
  """Raises UserError if tasks run: one that is restarted would run other code than the rest."""
  replies = [
    (host, result)
    for host, result in console.on_all(lambda host: host.ask('running'))
    if not isinstance(result, HostError)  # For example because it has no code yet.
  ]
  # The conversations are with the old code, in a folder that may be replaced.
  console.on_all(lambda host: host.end_conversation())
  found = [(task, host.name) for host, result in replies for task in result['tasks']]
  known = {task for task, _ in found}
  # Tasks on hosts that share the folder, which need not belong to this cluster.
  others = {task: name for _, result in replies for task, name in result.get('elsewhere', [])}
  found += [(task, name) for task, name in others.items() if task not in known]
  if found:
    more = f' and {len(found) - 1} more' if len(found) > 1 else ''
    raise UserError(
      f'{" on ".join(found[0])}{more} would go on with other code after a restart; stop what runs '
      'first (--action=stop), or add --allow_running'
    )


def wheel_files(folder: str) -> list[str]:
  """Returns the names of the files in a --wheelhouse folder; [] if `folder` is ''."""
  if not folder:
    return []
  if not os.path.isdir(folder):
    raise UserError(
      f'--wheelhouse={folder} is not a folder; fill one with: pip download -r '
      f'{checkout.requirements_file(hosts.CODE)[0]} -d {shlex.quote(folder)}'
    )
  names = sorted(name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name)))
  if not names:
    raise UserError(
      f'--wheelhouse={folder} is empty; fill it with: pip download -r '
      f'{checkout.requirements_file(hosts.CODE)[0]} -d {shlex.quote(folder)}'
    )
  return names


# ---- Hosts that share their workdir, for example a home on NFS. ----------------------------------


def _find_shared_folders(console: Console) -> dict[AnyHost, AnyHost | str]:
  """Finds out which hosts share a workdir: each creates a file there and looks for the others'.

  Returns:
    {host: the host to whose workdir the code is copied, the first in the CSV of those that share
    it; or `hosts.CODE` where the workdir is this machine's checkout}. A host that cannot be asked
    gets its own copy: the reason shows when files are copied there.
  """
  marks = {host: _mark_name() for host in console.hosts}
  own_mark = _mark_name()
  code = LocalFolder(hosts.CODE)
  is_marked = _mark_checkout(code, own_mark)

  def mark(host: AnyHost) -> None:
    with host.folder() as folder:
      folder.touch(marks[host])

  def look(host: AnyHost) -> tuple[list[AnyHost], bool]:
    with host.folder() as folder:
      return [other for other in console.hosts if folder.has(marks[other])], folder.has(own_mark)

  def unmark(host: AnyHost) -> None:
    with host.folder() as folder:
      folder.remove(marks[host])

  limit_secs = LEAVE_SECS  # After Ctrl-C, a host that does not answer keeps its mark.
  try:
    console.on_all(mark)
    outcomes = console.on_all(look)
    limit_secs = None
  finally:
    with contextlib.suppress(TimeoutError):
      background.within(limit_secs, console.on_all, unmark)
    if is_marked:
      code.remove(own_mark)
  found = {}
  for host, result in outcomes:
    sharing, is_checkout = ([host], False) if isinstance(result, HostError) else result
    found[host] = hosts.CODE if is_checkout else (sharing or [host])[0]
  return found


def _mark_checkout(folder: LocalFolder, name: str) -> bool:
  """Marks this machine's checkout; returns False if it is read-only, so no host's workdir."""
  try:
    folder.touch(name)
    return True
  except HostError:
    return False


def _mark_name() -> str:
  """A random name with the suffix of temporary files, so that a later push removes leftovers."""
  return f'.mark.{secrets.token_hex(4)}{SUFFIX}'
