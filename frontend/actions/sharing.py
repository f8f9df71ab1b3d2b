"""Which hosts see one and the same folder, as with a home on NFS: each leaves a mark there."""

import contextlib
import secrets

from common import background
from frontend.connection import hosts
from frontend.connection.copying import SUFFIX, LocalFolder
from frontend.console import LEAVE_SECS
from frontend.errors import HostError


def find(console):
  """Who stands for whom, where hosts share their workdir.

  Args:
    console: a Console; all its hosts are asked.

  Returns:
    {host: the host that is first in the CSV of those which share its workdir, or
    `hosts.CODE` where that is the folder of the code on this machine}. Hosts that cannot be asked
    stand for themselves: what ails them shows when files are put there.
  """
  marks = {host: _name() for host in console.hosts}
  ours = _name()
  code = LocalFolder(hosts.CODE)
  marked_here = _marked(code, ours)

  def mark(host):
    with host.folder() as folder:
      folder.touch(marks[host])

  def look(host):
    with host.folder() as folder:
      return [other for other in console.hosts if folder.has(marks[other])], folder.has(ours)

  def unmark(host):
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
    if marked_here:
      code.remove(ours)
  found = {}
  for host, result in outcomes:
    others, is_code = ([host], False) if isinstance(result, HostError) else result
    found[host] = hosts.CODE if is_code else (others or [host])[0]
  return found


def _marked(folder, name):
  try:
    folder.touch(name)
    return True
  except HostError:  # A checkout that can only be read is nobody's workdir that is written to.
    return False


def _name():
  """A name that a later push takes for a leftover, should this one be killed."""
  return f'.mark.{secrets.token_hex(4)}{SUFFIX}'
