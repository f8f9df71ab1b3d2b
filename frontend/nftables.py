"""On a host: the table of frontend/firewall.py is set and taken away, as root or with sudo.

A note beside the run's files says that it was this cluster that set it; a table without such a note
is somebody else's and is left alone.
"""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess

from frontend import cluster as cluster_lib
from frontend import firewall

NFT_SECS = 30
_SBIN = '/usr/local/sbin:/usr/sbin:/sbin'


class NotAllowed(Exception):
  """The firewall cannot be changed from this login; the text is the reason."""


def resolve(own, others):
  """Addresses of the cluster's hosts as this host knows them.

  Args:
    own: the `ip` cell of this host.
    others: list of the `ip` cells of the other hosts.

  Returns:
    List of str, IPv4 and IPv6 addresses.

  Raises:
    ValueError: a name that is unknown here, or that means this machine though it is another's.
  """
  found = _lookup(own)
  for name in others:
    addresses = _lookup(name)
    if any(map(cluster_lib.is_loopback, addresses)):
      raise ValueError(
        f'{name} is {", ".join(addresses)} on this host, which means this host itself; give its '
        'address in the CSV, or correct /etc/hosts here'
      )
    found += addresses
  return list(dict.fromkeys(found))


def _lookup(name):
  try:
    return sorted({info[4][0].partition('%')[0] for info in socket.getaddrinfo(name, None, type=1)})
  except (OSError, UnicodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise ValueError(f'{name} does not resolve on this host: {reason}') from None


def apply(session, folder, own, text):
  """Sets a table.

  Args:
    session: name of the session.
    folder: path for the files; it exists.
    own: the `ip` cell of this host; hosts may share the folder.
    text: of `firewall.table`.

  Returns:
    (the reason why this login could not, or None; the command that does it).

  Raises:
    ValueError: a table of that name that is not this cluster's, or nft's own words.
  """
  path = _path(folder, own)
  with open(path, 'w', encoding='utf-8') as file:
    file.write(text)
  command = shlex.join(['sudo', 'nft', '-f', path])
  try:
    _refuse_a_strangers_table(session, folder, own)
    _run(['-f', '-'], text)
  except NotAllowed as error:
    return str(error), command
  with open(_note(folder, own), 'w', encoding='utf-8'):
    pass
  return None, command


def remove(session, folder, own):
  """Takes away the table, if this cluster set it.

  Returns:
    (whether it was taken away, the reason why this login could not, or None; the command that does
    it).

  Raises:
    ValueError: nft's own words.
  """
  command = shlex.join(['sudo', 'nft', 'delete', 'table', 'inet', firewall.table_name(session)])
  try:
    if not os.path.exists(_note(folder, own)):
      return False, _left_by_another(session), command
    _run(['-f', '-'], firewall.removal(session))
  except NotAllowed as error:
    return False, str(error), command
  for path in (_note(folder, own), _path(folder, own)):
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)
  return True, None, command


def is_set(folder):
  """Whether this cluster set a table, here or on a host that shares the folder."""
  return os.path.isdir(folder) and any(
    name.startswith('firewall-') and name.endswith('.set') for name in os.listdir(folder)
  )


def _path(folder, own):
  return os.path.join(folder, f'firewall-{own.lower()}.nft')


def _note(folder, own):
  return os.path.join(folder, f'firewall-{own.lower()}.set')


def _is_there(session):
  result = _nft(['list', 'table', 'inet', firewall.table_name(session)])
  return result.returncode == 0


def _refuse_a_strangers_table(session, folder, own):
  _run(['list', 'tables'])  # Fails where this login may not, or nft does not work.
  if not os.path.exists(_note(folder, own)) and _is_there(session):
    name = firewall.table_name(session)
    raise ValueError(
      f'a table inet {name} is there already and was not set by this cluster; choose another '
      f'--tmux_sess, or take it away: sudo nft delete table inet {name}'
    )


def _left_by_another(session):
  """A sentence if a table of that name is there, as far as this login may look; else None."""
  with contextlib.suppress(NotAllowed, ValueError):
    _run(['list', 'tables'])
    if _is_there(session):
      return f'the table inet {firewall.table_name(session)} was not set by this cluster'
  return None


def _nft(words, text=''):
  """Runs nft as root; raises NotAllowed, also where there is none."""
  path = os.environ.get('PATH', '') + ':' + _SBIN
  program = shutil.which('nft', path=path)
  if not program:
    raise NotAllowed('nft is not installed (for example: sudo apt-get install nftables)')
  sudo = []
  if os.geteuid() != 0:
    if not shutil.which('sudo'):
      raise NotAllowed('this login is not root, and there is no sudo')
    sudo = ['sudo', '-n', '--']
    probe = subprocess.run(
      [*sudo, program, '--version'], capture_output=True, text=True, timeout=NFT_SECS, check=False
    )
    if probe.returncode:
      lines = probe.stderr.strip().splitlines() or ['sudo failed']
      raise NotAllowed(f'this login is not root, and may not use sudo for nft: {lines[-1]}')
  return subprocess.run(
    [*sudo, program, *words],
    input=text, capture_output=True, text=True, timeout=NFT_SECS, check=False,
  )  # fmt: skip


def _run(words, text=''):
  result = _nft(words, text)
  if result.returncode:
    lines = result.stderr.strip().splitlines() or [f'exit {result.returncode}']
    if 'not permitted' in result.stderr:
      raise NotAllowed(f'nft may not change the firewall here: {lines[0]}')
    raise ValueError(f'nft failed: {lines[0]}')
